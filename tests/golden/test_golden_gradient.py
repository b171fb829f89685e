"""DC and IDC give what the published code gave: distances, one class step, multi-formation."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from vectors import case, data_info, gradient_of, load_by_order

from ddkit.images.formation import Formation
from ddkit.images.groups import Groups
from ddkit.networks.gradients import matched
from ddkit.runtime.device import Runtime
from ddkit_backbones.convnet import convnet
from ddkit_methods import gradient, idc

LOSS, GRADIENT = 1e-4, 1e-5
DISTANCES = [
    *[("dc_match_loss", name, function) for name, function in gradient.DISTANCES.items()],
    *[("idc_match_loss", name, function) for name, function in idc.DISTANCES.items()],
]


def off(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm().clamp_min(1e-12))


def tensors(t: dict[str, Tensor], prefix: str) -> list[Tensor]:
    return [t[f"{prefix}.{i}"] for i in range(int(t["num_tensors"]))]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("file", "name", "function"), DISTANCES)
def test_distance_and_its_gradient(file, name, function, number):
    t = case(f"{file}_{name}", number).t
    real, syn = tensors(t, "real"), [s.requires_grad_() for s in tensors(t, "syn")]
    loss = function(tuple(r[None] for r in real), tuple(s[None] for s in syn))
    assert loss.item() == pytest.approx(t["loss"].item(), rel=LOSS)
    got = torch.autograd.grad(loss, syn, materialize_grads=True)
    for mine, theirs in zip(got, tensors(t, "grad_syn"), strict=True):
        assert off(mine, theirs) <= GRADIENT
    if "used" in t:
        used = {i for i, g in enumerate(got) if g.any()}
        assert used == set(t["used"].tolist())


@pytest.mark.parametrize("name", ["ours", "mse", "cos"])
def test_classes_together_are_the_sum_of_classes(name):
    """The same vectors as two classes of one network: distances add up over the first axis."""
    t = case(f"dc_match_loss_{name}", 0).t
    real, syn = tensors(t, "real"), tensors(t, "syn")
    both = [tuple(torch.stack([g, 2 * g.flip(0)]) for g in part) for part in (real, syn)]
    function = gradient.DISTANCES[name]
    alone = sum(function(*[tuple(g[c, None] for g in part) for part in both]) for c in range(2))
    assert function(*both).item() == pytest.approx(alone.item(), rel=1e-12)


def network(t: dict[str, Tensor]) -> nn.Module:
    weights = {k: v for k, v in t.items() if k.startswith("net.")}
    kernels = [v for v in weights.values() if v.ndim == 4]
    info = data_info(t["real_images"], len(t["net.classifier.bias"]))
    return load_by_order(convnet(info, len(kernels), len(kernels[0])), weights, "net.").train()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ["dc", "idc"])
def test_one_class_step(name, number):
    t = case(f"{name}_step", number).t
    distance = gradient.row_distance
    if name == "idc":
        distance = idc.absolute_distance if t["metric_is_l1"].item() else idc.squared_distance
    net, label = network(t), int(t["label"])
    syn = t["syn_images"].clone().requires_grad_()

    def groups(x: Sequence) -> Groups:
        return Groups.of(torch.full((len(x),), label))

    real = t["real_images"]
    runtime = Runtime(torch.device("cpu"), micro_batch=2)  # the real images in parts
    loss = matched(net, real, groups(real), syn, groups(syn), distance, runtime)
    assert loss.item() == pytest.approx(t["loss"].item(), rel=LOSS)
    assert off(gradient_of(loss, syn), t["grad_syn_images"]) <= GRADIENT


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", ["single", "multi", "bound"])
def test_multiformation(kind, number):
    t = case("idc_multiformation", number).t
    bound = int(t["bound.bound"])
    formation = Formation(int(t["factor"]), "row", "nearest", kind, bound)
    y = formation.decode(t["x"], fill=0.5)
    assert off(y, t[f"{kind}.y"]) <= 1e-6
    targets = t["targets"]
    if kind == "bound":  # which tile belongs to which image, as one class of them
        made = formation.tile_labels(targets, torch.zeros_like(targets))
    else:
        made = formation.tile_labels(targets)
    assert torch.equal(made, t[f"{kind}.targets"])


@pytest.mark.parametrize("number", [0, 1])
def test_multiformation_is_differentiable(number):
    t = case("idc_multiformation", number).t
    x = t["x"].clone().requires_grad_()
    y = Formation(int(t["factor"])).decode(x, fill=0.5)
    assert off(gradient_of((y * t["single.cotangent"]).sum(), x), t["single.grad_x"]) <= GRADIENT


@pytest.mark.parametrize("number", [0, 1])
def test_initial_mosaic(number):
    t = case("idc_multiformation", number).t
    formation = Formation(int(t["factor"]), "row", "nearest")
    assert off(formation.compose(t["mix_init.source"]), t["mix_init.data"]) <= 1e-6
