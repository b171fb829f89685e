"""CMI gives what the published code gave."""

import pytest
import torch
from vectors import case, class_major, data_info, gradient_of, load_by_order

from ddkit.backbone import embed
from ddkit_backbones.convnet import convnet
from ddkit_regularizers.cmi import conditional_information, log_centroids

LOSS, GRADIENT = 1e-4, 1e-5


def off(got, want):
    return float((got - want).norm() / want.norm().clamp_min(1e-12))


def test_all_classes_form():
    """The published mean over all images is the sum over classes, divided by their number."""
    t = case("cmi", 0).t
    classes, ipc, weight = int(t["num_classes"]), int(t["ipc"]), float(t["weight"])
    z = t["features"].clone().requires_grad_()
    loss = weight / classes * conditional_information(z, class_major(classes, ipc))
    assert loss.item() == pytest.approx(t["loss"].item(), rel=LOSS)
    assert loss.item() / weight == pytest.approx(t["cmi"].item(), rel=LOSS)
    assert off(gradient_of(loss, z), t["grad_features"]) <= GRADIENT


def test_single_class_form():
    t = case("cmi", 1).t
    z = t["features"].clone().requires_grad_()
    loss = float(t["weight"]) * conditional_information(z, class_major(1, len(z)))
    assert loss.item() == pytest.approx(t["loss"].item(), rel=LOSS)
    assert off(gradient_of(loss, z), t["grad_features"]) <= GRADIENT


def test_through_a_frozen_network():
    t = case("cmi", 2).t
    classes, ipc = int(t["num_classes"]), int(t["ipc"])
    kernels = [v for k, v in t.items() if k.startswith("proxy.") and v.ndim == 4]
    info = data_info(t["images"], len(t["proxy.classifier.bias"]))
    net = load_by_order(convnet(info, len(kernels), len(kernels[0])), t, "proxy.").eval()
    x = t["images"].clone().requires_grad_()
    z = embed(net, x)
    assert off(z.detach(), t["features"]) <= GRADIENT
    loss = conditional_information(z, class_major(classes, ipc)) / classes
    assert loss.item() == pytest.approx(t["cmi"].item(), rel=LOSS)
    assert off(gradient_of(loss, x), t["grad_images"]) <= GRADIENT


def test_external_centroid():
    t = case("cmi", 3).t
    classes, ipc = int(t["num_classes"]), int(t["ipc"])
    real = t["real_features"]
    centroids = log_centroids(real.flatten(0, 1), class_major(classes, real.shape[1]))
    z = t["features"].clone().requires_grad_()
    loss = conditional_information(z, class_major(classes, ipc), centroids) / classes
    assert loss.item() == pytest.approx(t["cmi"].item(), rel=LOSS)
    assert off(gradient_of(loss, z), t["grad_features"]) <= GRADIENT


def test_log_space_survives_underflow():
    """Where all images of a class underflow on a coordinate, the term and its slope are finite."""
    z = torch.tensor([[0.0, 500.0, -500.0], [0.0, 480.0, -520.0]], requires_grad=True)
    loss = conditional_information(z, class_major(1, 2))
    assert torch.isfinite(loss) and torch.isfinite(gradient_of(loss, z)).all()
