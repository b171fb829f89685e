"""Every option of a training reaches the weights; shares, decay and precision are what they say."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddkit.data import Dataset
from ddkit.networks.pool import ProxyPool
from ddkit.networks.teacher import Teacher
from ddkit.networks.training import accuracy, fit, make_optimizer, mixed_loss
from ddkit.recipes.sections import Part, PoolSpec, ProxySpec, TeacherSpec, TrainSpec
from ddkit.reporter import Silent
from ddkit.runtime.device import Runtime
from ddkit.testing import stand_in

CPU = torch.device("cpu")
POOL = ProxySpec(
    Part("stand-in"),
    count=1,
    epochs=4,
    batch_size=10,
    lr=0.05,
    schedule="steps",
    gamma=0.5,
    milestones=(0.5,),
    augmentation="color_crop_cutout_flip_scale_rotate",
    cutmix=0.5,
)
CHANGES: dict[str, Any] = {
    "backbone": Part("stand-in", {"width": 4}),
    "epochs": 5,
    "batch_size": 9,
    "lr": 0.04,
    "momentum": 0.5,
    "weight_decay": 0.0,
    "schedule": "constant",
    "gamma": 0.2,
    "milestones": (0.25,),
    "augmentation": "none",
    "cutmix": 0.0,
    "images": 12,
    "input": "raw",
    "seed": 1,
}


def member(spec: ProxySpec, data: Dataset, runtime: Runtime = Runtime(CPU)) -> Tensor:  # noqa: B008
    """Return the weights of a pool's first network."""
    width = spec.backbone.options.get("width", 8)
    pool = ProxyPool(spec, lambda: type(stand_in(data.info))(data.info, width), data, runtime, 0)
    pool.prepare(Silent())
    return torch.cat([v.flatten() for v in pool.trained(0).values()])


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path))


@pytest.mark.parametrize("option", CHANGES)
def test_every_option_of_a_pool_reaches_the_weights_of_its_networks(option: str, tiny: Dataset):
    changed = replace(POOL, **{option: CHANGES[option]})
    assert not torch.equal(member(POOL, tiny), member(changed, tiny))


def test_no_option_of_a_pool_is_without_its_test():
    untrained = {"count", "mode"}  # how many, and how they are shown: no network is another
    assert CHANGES.keys() == {f.name for f in fields(PoolSpec)} - untrained


def test_the_networks_of_a_pool_start_and_are_trained_apart(tiny: Dataset):
    with torch.random.fork_rng():
        same = stand_in(tiny.info)
    ends = []
    for make in (lambda: stand_in(tiny.info), lambda: deepcopy(same)):
        pool = ProxyPool(replace(POOL, count=2), make, tiny, Runtime(CPU), 0)
        pool.prepare(Silent())
        ends.append([pool.initial(0), pool.initial(1), pool.trained(0), pool.trained(1)])
        rmtree(pool.folder)
    name = "classifier.weight"
    drawn, fixed = ([state[name] for state in states] for states in ends)
    assert len({tuple(w.flatten().tolist()) for w in drawn}) == 4
    assert torch.equal(fixed[0], fixed[1])
    assert not torch.equal(fixed[2], fixed[3])  # the same start, other draws


def test_the_accuracy_that_a_pool_tells_is_that_of_its_networks(tiny: Dataset):
    pool = ProxyPool(replace(POOL, epochs=8), lambda: stand_in(tiny.info), tiny, Runtime(CPU), 0)
    pool.prepare(Silent())
    images = tiny.info.normalize(tiny.test.fetch(torch.arange(18)).float() / 255)
    right = (pool.member(0).eval()(images).argmax(1) == tiny.test.labels).float().mean()
    assert pool.accuracies[0] == pytest.approx(float(right), abs=1e-4)


def test_bfloat16_computes_in_bfloat16_and_float32_does_not(tiny: Dataset):
    """In training and in testing; the weights are others, and float32 all the same."""
    seen: list[tuple[bool, torch.dtype]] = []

    def trained(precision: str) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = stand_in(tiny.info)
        net.classifier.register_forward_hook(lambda m, x, y: seen.append((m.training, y.dtype)))
        images = tiny.info.normalize(tiny.train.fetch(torch.arange(36)).float() / 255)
        runtime, spec = Runtime(CPU, precision), TrainSpec(epochs=2, batch_size=18)
        fit(
            net,
            lambda rows: (images[rows], tiny.train.labels[rows]),
            36,
            spec,
            0,
            runtime,
            Silent(),
        )
        accuracy(net, tiny.test, tiny.info, runtime)
        return net

    nets = []
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        seen.clear()
        nets.append(trained(precision))
        assert set(seen) == {(True, dtype), (False, dtype)}
    pairs = list(zip(*(n.parameters() for n in nets), strict=True))
    assert all(a.dtype == b.dtype == torch.float32 for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_networks_of_a_pool_are_trained_in_the_precision_asked_for(tiny: Dataset):
    half = member(POOL, tiny, Runtime(CPU, "bfloat16"))
    assert not torch.equal(member(POOL, tiny), half)


def test_a_teacher_answers_in_the_precision_asked_for(tiny: Dataset):
    images = tiny.info.normalize(tiny.train.fetch(torch.arange(6)).float() / 255)
    seen: list[torch.dtype] = []
    for precision in ("float32", "bfloat16"):
        runtime = Runtime(CPU, precision)
        pool = ProxyPool(POOL, lambda: stand_in(tiny.info), tiny, runtime, 0)
        pool.prepare(Silent())
        hook = lambda m, x, y: seen.append(y.dtype)  # noqa: E731
        pool.module.get_classifier().register_forward_hook(hook)  # type: ignore[operator]
        labels = Teacher(pool, TeacherSpec(), runtime).label(images, tiny.train.labels[:6])
        assert labels.dtype == torch.float32
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
    assert seen == [torch.float32, torch.bfloat16]


def test_the_shares_of_a_mixed_batch_are_those_of_its_pixels():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    own, other = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 0])
    mixed = own[other]
    want = 0.9 * cross_entropy(logits, own) + 0.1 * cross_entropy(logits, mixed)
    torch.testing.assert_close(mixed_loss(logits, own, other, 0.9), want)
    assert cross_entropy(logits, own) != cross_entropy(logits, mixed)
    torch.testing.assert_close(mixed_loss(logits, own, other, 1.0), cross_entropy(logits, own))


@pytest.mark.parametrize(("optimizer", "shrunk"), [("sgd", 0.95), ("adamw", 0.95)])
def test_a_step_without_a_gradient_shrinks_the_weights_by_rate_times_decay(
    optimizer: Any, shrunk: float
):
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    spec = TrainSpec(optimizer=optimizer, weight_decay=0.5, momentum=0.0)
    made = make_optimizer(layer, spec, 0.1)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    made.step()
    torch.testing.assert_close(layer.weight.detach(), before * shrunk)


def test_momentum_is_that_of_the_spec():
    layer = nn.Linear(1, 1, bias=False)
    start = layer.weight.detach().clone()
    made = make_optimizer(layer, TrainSpec(momentum=0.75, weight_decay=0.0), 0.1)
    for _ in range(2):
        layer.weight.grad = torch.ones_like(layer.weight)
        made.step()
    torch.testing.assert_close(layer.weight.detach(), start - 0.1 * (1 + 1.75))
