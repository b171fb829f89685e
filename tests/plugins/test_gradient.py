"""DC and DSA: batched equals per class, states resume, what is undefined is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from wide import naive_step_gradients, ragged, wide_run

from ddkit.distillation.bench import stand_in, tiny_dataset
from ddkit.distillation.compose import compose
from ddkit.errors import DivergedError, IncompatibleError, RecipeError
from ddkit.images.augment import draw_per_class
from ddkit.images.groups import Groups
from ddkit.networks.gradients import class_gradients, matched, stacked_gradients
from ddkit.networks.training import fit
from ddkit.recipes.sections import SyntheticSpec, TrainSpec
from ddkit.regularizer import Term
from ddkit.reporter import Silent
from ddkit.run import Run
from ddkit.runtime.device import Runtime
from ddkit.runtime.randomness import derive
from ddkit.testing import Bench, check_method
from ddkit_backbones.convnet import convnet
from ddkit_methods.gradient import DC, DISTANCES, DSA, PUBLISHED
from ddkit_regularizers.cmi import CMI
from ddkit_regularizers.iid import Centralize, Covariance

SMALL: dict[str, Any] = {"iterations": 2, "outer_steps": 3, "inner_steps": 2, "batch_real": 6}
INFO = tiny_dataset().info
CPU = Runtime(torch.device("cpu"))


def published(method: DC, run: Run, steps: int) -> Tensor:
    """The published loop, class by class with plain autograd, on the draws of ddkit."""
    images = run.synthetic.images.detach().clone().requires_grad_()
    optimizer = SGD([images], lr=method.lr_images, momentum=method.momentum)
    labels, net = run.synthetic.labels, nn.Module()
    outer_steps, inner_steps = method.counts(run.synthetic.ipc)
    for i in range(steps):
        if i % outer_steps == 0:
            net = run.nets.fresh(i // outer_steps).double().requires_grad_(True)
        draw = draw_per_class(method.augmentation, run.num_classes, run.stream("augment", i))
        loss = torch.zeros((), dtype=torch.float64)
        for c in range(run.num_classes):
            real, real_groups = run.real.sample(torch.tensor([c]), method.batch_real, i)
            theirs = naive_step_gradients(net, draw.siamese(real, real_groups), c, graph=False)
            syn, groups = images[labels == c], Groups.of(labels[labels == c])
            ours = naive_step_gradients(net, draw.siamese(syn, groups), c, graph=True)
            pair = [tuple(g[None] for g in part) for part in (theirs, ours)]
            loss = loss + DISTANCES[method.distance](*pair)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        net.zero_grad()
        if (i + 1) % outer_steps:
            spec = TrainSpec(inner_steps, 256, "sgd", method.lr_net, 0.0, 0.0)
            spec = replace(spec, augmentation=method.augmentation)
            now = images.detach().clone()

            def fetch(rows: Tensor, now: Tensor = now) -> tuple[Tensor, Tensor]:
                return now[rows], labels[rows]

            seed = derive(run.seed, "network-training", i)
            fit(net, fetch, len(now), spec, seed, CPU, Silent())
    return images.detach()


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("distance", ["ours", "mse", "cos"])
def test_batched_equals_the_published_loop(distance, chunk, tmp_path):
    method = DSA(**SMALL, distance=distance)
    run = wide_run(method, tmp_path, Bench(ragged(), synthetic=SyntheticSpec(ipc=2)))
    run.chunk = chunk
    want = published(method, run, 6)
    for i in range(6):
        method.step(run, i)
    torch.testing.assert_close(run.synthetic.images.detach(), want, rtol=1e-9, atol=1e-9)
    assert not torch.equal(want, wide_run(method, tmp_path, Bench(ragged())).synthetic.images)


@pytest.mark.parametrize("backbone", [partial(convnet, width=4, depth=2), stand_in])
def test_together_equals_one_by_one(backbone):
    """`torch.func.vmap` over classes, as on a GPU, gives the loss and slope of the class loop."""
    net = backbone(INFO).double()
    rng = torch.Generator().manual_seed(0)
    shapes = [(3 * n, *INFO.shape) for n in (5, 2)]
    real, syn = (torch.randn(s, generator=rng, dtype=torch.float64) for s in shapes)
    groups = [Groups.of(torch.arange(3).repeat_interleave(n)) for n in (5, 2)]
    results = []
    for kind in ("cpu", "cuda"):  # the device's name decides; the tensors stay where they are
        x = syn.clone().requires_grad_()
        runtime = Runtime(torch.device(kind), micro_batch=2)
        loss = matched(net, real, groups[0], x, groups[1], DISTANCES["ours"], runtime)
        results.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    for one_by_one, together in zip(*results, strict=True):
        torch.testing.assert_close(together, one_by_one, rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_the_mean_loss():
    net = stand_in(INFO).double()
    x = torch.randn(7, *INFO.shape, dtype=torch.float64)
    want = torch.autograd.grad(cross_entropy(net(x), torch.full((7,), 1)), list(net.parameters()))
    parts = class_gradients(net, x, 1, Runtime(torch.device("cpu"), micro_batch=3))
    stacked = stacked_gradients(net, x[None], [1], CPU)
    for one, other, plain in zip(parts, stacked, want, strict=True):
        torch.testing.assert_close(one, plain, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(other[0], plain, rtol=1e-9, atol=1e-12)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("method", [DC, DSA])
def test_resumes_in_the_middle_of_a_network(method):
    check_method(method, **SMALL)


def test_resumes_with_batch_norm():
    net = partial(convnet, width=4, depth=2, norm="batch")
    check_method(DSA, Bench(backbone=net), **SMALL)


def test_batch_norm_matches_on_statistics_of_real_images(tmp_path):
    method = DC(**SMALL)
    bench = Bench(backbone=partial(convnet, width=4, depth=2, norm="batch"))
    run = bench.run(method, tmp_path)
    method.step(run, 0)
    norms = [m for m in method._net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked) == 1 + 2 for m in norms)  # 16 a class; 2 epochs
    method._settle(run, 1)
    assert not any(m.training for m in norms) and method._net.training


def test_the_network_changes_after_its_outer_steps(tmp_path):
    method = DC(**SMALL)
    run = Bench().run(method, tmp_path)
    seen = []
    for i in range(4):
        method.step(run, i)
        seen.append([p.clone() for p in method._net.parameters()])
    same = [torch.equal(a[0], b[0]) for a, b in pairwise(seen)]
    assert same == [False, True, False]  # trained; not after the last match; a new one
    assert method.steps(run) == 6


@pytest.mark.parametrize("term", [CMI(), Centralize(), Covariance()])
def test_regularizers_act(term, tmp_path):
    bench = Bench(terms=(Term("term", 10.0, term),))
    with_term, without = DSA(**SMALL), DSA(**SMALL)
    run, plain = bench.run(with_term, tmp_path), Bench().run(without, tmp_path)
    assert with_term.step(run, 0)["term"] > 0
    without.step(plain, 0)
    assert not torch.equal(run.synthetic.images, plain.synthetic.images)


@pytest.mark.parametrize("ipc", PUBLISHED)
def test_published_counts(ipc):
    assert DC().counts(ipc) == PUBLISHED[ipc]
    assert DC(outer_steps=3).counts(ipc) == (3, PUBLISHED[ipc][1])


def test_undefined_counts_are_refused():
    with pytest.raises(RecipeError, match=r"ipc 7 .*give both"):
        DSA(outer_steps=3).check(SyntheticSpec(ipc=7), INFO, stand_in(INFO))
    DSA(outer_steps=3, inner_steps=2).check(SyntheticSpec(ipc=7), INFO, stand_in(INFO))


def test_refusals_come_before_anything_is_trained(tiny_recipe, loaded):
    changes = {
        "ipc 7": {"method": {"name": "dc"}, "synthetic": {"ipc": 7}},
        "does not divide": {"method": {"name": "idc"}, "synthetic": {"ipc": 1, "factor": 3}},
        "kernels": {"method": {"name": "idc"}, "backbone": {"name": "mlp"}},
    }
    for words, change in changes.items():
        with pytest.raises((RecipeError, IncompatibleError), match=f"method: .*{words}"):
            compose(tiny_recipe(**change), loaded, CPU)


def test_a_factor_that_does_not_divide_is_refused():
    with pytest.raises(IncompatibleError, match="factor = 3 does not divide the 16x16"):
        DC().check(SyntheticSpec(ipc=10, factor=3), INFO, stand_in(INFO))


class _Once(torch.autograd.Function):
    """Twice its input; whose derivative has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * outer[0]


class OnlyOnce(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = stand_in(INFO)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(_Once.apply(x * self.scale))


def test_a_backbone_without_second_derivative_is_refused():
    with pytest.raises(IncompatibleError, match=r"needs second derivatives.*choose another"):
        DC().check(SyntheticSpec(ipc=10), INFO, OnlyOnce())


def test_real_images_cost_no_graph(tmp_path: Path):
    net, x = stand_in(INFO), torch.randn(4, *INFO.shape)
    assert not any(g.requires_grad for g in class_gradients(net, x, 0, CPU))


def test_a_network_that_diverged_in_between_is_not_blamed_on_the_images(tmp_path: Path):
    method = DC(iterations=1, outer_steps=3, inner_steps=2, lr_net=1e30)
    run = Bench().run(method, tmp_path)
    with pytest.raises(DivergedError, match=r"diverged at lr 1e\+30: .*lower method.lr_net"):
        for i in range(3):
            method.step(run, i)
