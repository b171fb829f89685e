"""IDM's expansion, canvases and class sweeps give what the published code gave."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from vectors import (
    assert_close_to_largest,
    case,
    class_major,
    data_info,
    load_by_order,
    read,
)

from ddkit.backbone import embed, look
from ddkit.images.formation import Formation
from ddkit.images.groups import Groups
from ddkit.images.optimizers import ClassSweep
from ddkit_backbones.convnet import convnet
from ddkit_methods.class_losses import classification
from ddkit_methods.idm import mean_matching
from ddkit_regularizers.iid import centralization, covariance_matching

FORMATION = Formation(factor=2, order="column", init_resize="bilinear")
LOSS, GRADIENT, SWEEP = 1e-5, 1e-4, 1e-4


def test_expansion_and_its_labels():
    t, _ = read("idm")
    got = FORMATION.decode(t["partition.x"])
    torch.testing.assert_close(got, t["partition.y"], rtol=0, atol=1e-6)
    assert torch.equal(FORMATION.tile_labels(t["partition.label"]), t["partition.y_label"])


def test_canvas():
    t, _ = read("idm")
    got = FORMATION.compose(t["canvas.src"])
    torch.testing.assert_close(got, t["canvas.out"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_one_sweep(number):
    c, shared = case("idm", number), read("idm")[0]
    facts, real = c.facts, shared["shared.x_real"]
    images = nn.Parameter(shared["shared.x_syn"].clone())
    labels = class_major(facts["num_classes"], facts["ipc"]).labels
    sweep = ClassSweep(
        images, labels, facts["num_classes"], lr=facts["lr"], momentum=facts["momentum"]
    )
    sweep.drift()
    total, terms = class_losses(c, images, labels, real)
    total.backward()
    first = torch.where((labels == 0)[:, None, None, None], images.grad, 0)
    assert_close_to_largest(first, c.t["grad_first_class_step"], GRADIENT)
    assert total.item() == pytest.approx(c.t["loss_sum"].item(), rel=LOSS)
    for name, value in terms.items():
        assert value.item() == pytest.approx(c.t[name].item(), rel=LOSS)
    sweep.step()
    start = shared["shared.x_syn"]
    assert_close_to_largest(images.detach() - start, c.t["x_syn_after"] - start, SWEEP)


def class_losses(c, images, labels, real):
    """The loss summed over the classes, and IID's weighted terms on their own."""
    facts = c.facts
    net = network(c, "net.", real)
    expanded = FORMATION.decode(images)
    groups = Groups.of(FORMATION.tile_labels(labels))
    real_groups = class_major(*real.shape[:2])
    with torch.no_grad():
        real_maps, real_features = look(net, real.flatten(0, 1))
    maps, features = look(net, expanded)
    logits = net.get_classifier()(features)
    weight = facts["ce_weight"] * facts["net_accuracy_percent"]
    total = mean_matching(real_features, real_groups, features, groups)
    total = total + weight * classification(logits, groups)
    if "cov_weight" not in facts:
        return total, {}
    covariance = covariance_matching(real_maps, real_groups, maps, groups)
    proxy = network(c, "ccnet.", real)
    terms = {
        "cov_sum": facts["cov_weight"] * covariance,
        "cc_sum": facts["cc_weight"] * centralization(embed(proxy, expanded), groups),
    }
    return total + sum(terms.values()), terms


def network(c, prefix, real):
    convolutions = [v for k, v in c.t.items() if k.startswith(f"{prefix}features.") and v.ndim == 4]
    info = data_info(real, c.facts["num_classes"])
    net = convnet(info, depth=len(convolutions), width=c.facts["width"])
    return load_by_order(net, c.t, prefix).eval()


def test_classification_is_the_sum_of_class_means():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    want = sum(cross_entropy(logits[labels == c], labels[labels == c]) for c in range(3))
    torch.testing.assert_close(classification(logits, Groups.of(labels)), want)
