"""DM and the IID terms give what the published code gave."""

import pytest
import torch
from vectors import (
    assert_close_to_largest,
    case,
    class_major,
    data_info,
    gradient_of,
    load_by_order,
)

from ddkit.backbone import look
from ddkit_backbones.convnet import convnet
from ddkit_methods.dm import mean_matching
from ddkit_regularizers.iid import centralization, covariance_matching

LOSS, GRADIENT = 1e-5, 1e-4


def test_dm_loss_and_gradient_of_given_features():
    t = case("dm", 0).t
    syn = t["feat_syn"].flatten(0, 1).requires_grad_()
    loss = mean_matching(
        t["feat_real"].flatten(0, 1), groups(t["feat_real"]), syn, groups(t["feat_syn"])
    )
    assert loss.item() == pytest.approx(t["loss"].item(), rel=LOSS)
    assert_close_to_largest(gradient_of(loss, syn), t["grad_feat_syn"].flatten(0, 1), GRADIENT)


@pytest.mark.parametrize("number, norm", [(1, "instance"), (2, "batch")])
def test_dm_loss_and_gradient_through_a_network(number, norm):
    c = case("dm", number)
    net = network(c, norm, "net.").train()
    real = c.t["x_real"]
    x = c.t["x_syn"].clone().requires_grad_()
    syn_groups = class_major(len(real), len(x) // len(real))
    with torch.no_grad():
        _, real_features = look(net, real.flatten(0, 1))
    _, features = look(net, x)
    loss = mean_matching(real_features, groups(real), features, syn_groups)
    assert loss.item() == pytest.approx(c.t["loss"].item(), rel=LOSS)
    assert_close_to_largest(gradient_of(loss, x), c.t["grad_x_syn"], GRADIENT)


def test_centralization_of_given_features():
    c = case("iid_class_centralization", 0)
    z = c.t["feat_syn"].flatten(0, 1).requires_grad_()
    loss = c.facts["weight"] * centralization(z, groups(c.t["feat_syn"]))
    assert loss.item() == pytest.approx(c.t["loss"].item(), rel=LOSS)
    assert_close_to_largest(gradient_of(loss, z), c.t["grad_feat_syn"].flatten(0, 1), GRADIENT)


def test_centralization_through_a_network():
    c = case("iid_class_centralization", 1)
    net = network(c, "instance", "net.")
    x = c.t["x_syn"].clone().requires_grad_()
    classes = c.facts["num_classes"]
    _, z = look(net, x)
    loss = c.facts["weight"] * centralization(z, class_major(classes, len(x) // classes))
    assert loss.item() == pytest.approx(c.t["loss"].item(), rel=LOSS)
    assert_close_to_largest(gradient_of(loss, x), c.t["grad_x_syn"], GRADIENT)


def test_covariance_of_given_maps():
    c = case("iid_covariance", 0)
    real, syn = c.t["fmap_real"], c.t["fmap_syn"]
    maps = syn.flatten(0, 1).flatten(2).requires_grad_()
    flat = real.flatten(0, 1).flatten(2)
    loss = c.facts["weight"] * covariance_matching(flat, groups(real), maps, groups(syn))
    assert loss.item() == pytest.approx(c.t["loss"].item(), rel=LOSS)
    want = c.t["grad_fmap_syn"].flatten(0, 1).flatten(2)
    assert_close_to_largest(gradient_of(loss, maps), want, GRADIENT)


def test_covariance_and_dm_through_a_network():
    c = case("iid_covariance", 1)
    net = network(c, "instance", "net.")
    real = c.t["x_real"]
    x = c.t["x_syn"].clone().requires_grad_()
    syn_groups = class_major(len(real), len(x) // len(real))
    with torch.no_grad():
        real_maps, real_features = look(net, real.flatten(0, 1))
    maps, features = look(net, x)
    loss = c.facts["weight"] * covariance_matching(real_maps, groups(real), maps, syn_groups)
    mean = mean_matching(real_features, groups(real), features, syn_groups)
    assert loss.item() == pytest.approx(c.t["loss"].item(), rel=LOSS)
    assert mean.item() == pytest.approx(c.t["loss_mean"].item(), rel=LOSS)
    gradient = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert_close_to_largest(gradient, c.t["grad_x_syn"], GRADIENT)
    assert_close_to_largest(gradient_of(mean, x), c.t["grad_x_syn_mean"], GRADIENT)


def test_one_image_per_class_gets_no_gradient_from_either_term():
    torch.manual_seed(0)
    maps = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    real = torch.randn(6, 4, 5, dtype=torch.float64)
    ones = class_major(3, 1)
    assert centralization(maps.flatten(1), ones).item() == 0
    loss = covariance_matching(real, class_major(3, 2), maps, ones)
    loss = loss + centralization(maps.flatten(1), ones)
    assert gradient_of(loss, maps).abs().max() == 0


def groups(x):
    return class_major(*x.shape[:2])


def network(c, norm, prefix):
    x = c.t["x_syn"]
    width = c.t[f"{prefix}features.0.weight"].shape[0]
    depth = sum(k.startswith(f"{prefix}features.") and v.ndim == 4 for k, v in c.t.items())
    net = convnet(data_info(x, 10), depth=depth, width=width, norm=norm)
    return load_by_order(net, c.t, prefix)
