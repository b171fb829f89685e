"""IDC: the batched sweep equals the published steps class by class; mosaics; states; refusals."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from wide import naive_step_gradients, ragged, wide_run

from ddkit.distillation.bench import CPU, stand_in, tiny_dataset
from ddkit.errors import IncompatibleError
from ddkit.images.augment import draw_per_class
from ddkit.images.formation import Formation
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.training import fit, make_optimizer
from ddkit.recipes.sections import SyntheticSpec
from ddkit.regularizer import Term
from ddkit.reporter import Silent
from ddkit.run import Run
from ddkit.runtime.device import Runtime
from ddkit.runtime.randomness import derive
from ddkit.testing import Bench, check_method
from ddkit_backbones.convnet import convnet
from ddkit_methods.idc import DISTANCES, IDC
from ddkit_regularizers.cmi import CMI
from ddkit_regularizers.iid import Centralize, Covariance

INFO = tiny_dataset().info
MOSAICS = SyntheticSpec(ipc=2, factor=2, space="pixel", init="first", init_resize="nearest")
SMALL: dict[str, Any] = {
    "iterations": 2,
    "outer_steps": 3,
    "lr_images": 0.05,
    "batch_real": 5,
    "train_images": 12,
    "batch_train": 6,
}


def train(method: IDC, run: Run, net: nn.Module, optimizer: Any, i: int) -> None:
    """The network's training after step `i`, on the draws of ddkit."""
    total = len(run.real.source.labels)
    order = torch.randperm(total, generator=run.stream("network-training", i))
    count = -(-method.train_images // method.batch_train) * method.batch_train

    def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
        return run.real.fetch(order[rows]), run.real.source.labels[order[rows]]

    seed = derive(run.seed, "network-training", i)
    runtime, spec = Runtime(CPU), method._spec(1)
    fit(net, fetch, min(total, count), spec, seed, runtime, Silent(), optimizer)


def published(method: IDC, run: Run, steps: int) -> Tensor:
    """The published loop: one step of one optimizer for every class, in turn."""
    images = run.synthetic.images.detach().clone().requires_grad_()
    shadow = SyntheticSet(images, run.synthetic.labels, INFO, run.synthetic.formation, "pixel")
    image_optimizer = SGD([images], lr=method.lr_images, momentum=method.momentum)
    net, optimizer = nn.Module(), None
    for i in range(steps):
        if i % method.outer_steps == 0:
            net = run.nets.fresh(i // method.outer_steps).double().requires_grad_(True)
            optimizer = make_optimizer(net, method._spec(1), method.lr_net)
            images.data.clamp_(0, 1)
        draw = draw_per_class(method.augmentation, run.num_classes, run.stream("augment", i))
        for c in range(run.num_classes):
            one = torch.tensor([c])
            real, real_groups = run.real.cycle(one, method.batch_real, i)
            theirs = naive_step_gradients(net, draw.siamese(real, real_groups), c, graph=False)
            syn, groups = shadow.decode(one)
            if len(syn) > method.batch_syn:
                keys = torch.rand(run.num_classes, len(syn), generator=run.stream("decoded", i))
                rows = keys[c].argsort()[: method.batch_syn]
                syn, groups = syn[rows], Groups.of(groups.labels[rows])
            ours = naive_step_gradients(net, draw.siamese(syn, groups), c, graph=True)
            pair = [tuple(g[None] for g in part) for part in (theirs, ours)]
            image_optimizer.zero_grad(set_to_none=False)
            DISTANCES[method.distance](*pair).backward()
            image_optimizer.step()
            net.zero_grad()
        if (i + 1) % method.outer_steps:
            train(method, run, net, optimizer, i)
    return images.detach()


@pytest.mark.parametrize(("distance", "chunk"), [("mse", 3), ("l1", 1), ("l1_mean", 2), ("cos", 2)])
def test_a_batched_sweep_equals_a_step_per_class(distance, chunk, tmp_path):
    rate = {"l1": 1e-2}.get(distance, 0.1)
    method = IDC(**{**SMALL, "lr_images": rate}, distance=distance, batch_syn=5)
    run = wide_run(method, tmp_path, Bench(ragged(), synthetic=replace(MOSAICS, ipc=1)))
    start = run.synthetic.images.detach().clone()
    run.chunk = chunk
    want = published(method, run, 6)
    for i in range(6):
        method.step(run, i)
    torch.testing.assert_close(run.synthetic.images.detach(), want, rtol=1e-9, atol=1e-9)
    assert (want - start).abs().mean() > 1e-3  # far enough to tell momentum from none


def test_a_subset_of_decoded_images_equals_too(tmp_path):
    method = IDC(**{**SMALL, "lr_images": 0.1}, batch_syn=5)
    run = wide_run(method, tmp_path, Bench(synthetic=MOSAICS))  # 8 decoded images a class
    run.chunk = 2
    want = published(method, run, 3)
    for i in range(3):
        method.step(run, i)
    torch.testing.assert_close(run.synthetic.images.detach(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["single", "multi", "bound"])
def test_resumes_in_the_middle_of_a_network(kind):
    spec = replace(MOSAICS, kind=kind, bound=6)
    check_method(IDC, Bench(synthetic=spec), **SMALL)


def test_resumes_with_a_pool_of_pretrained_networks():
    options = {"pretrain_pool": 2, "pretrain_epochs": 1, "outer_steps": 1}
    check_method(IDC, Bench(backbone=partial(convnet, width=4, depth=2)), **{**SMALL, **options})


def test_pretraining_changes_the_first_match(tmp_path):
    runs = []
    for epochs in (0, 2):
        method = IDC(**SMALL, pretrain_epochs=epochs)
        runs.append(Bench(synthetic=MOSAICS).run(method, tmp_path))
        method.step(runs[-1], 0)
    assert not torch.equal(runs[0].synthetic.images, runs[1].synthetic.images)


@pytest.mark.parametrize("term", [CMI(), Centralize(), Covariance()])
def test_regularizers_act(term, tmp_path):
    spec = replace(MOSAICS, ipc=1)  # CMI is not zero: a mosaic is four images
    bench = Bench(synthetic=spec, terms=(Term("term", 10.0, term),))
    with_term, without = IDC(**SMALL), IDC(**SMALL)
    run, plain = bench.run(with_term, tmp_path), Bench(synthetic=spec).run(without, tmp_path)
    assert with_term.step(run, 0)["term"] > 0
    without.step(plain, 0)
    assert not torch.equal(run.synthetic.images, plain.synthetic.images)


def test_proxies_are_drawn_at_every_step(tmp_path):
    bench = Bench(synthetic=MOSAICS, terms=(Term("cmi", 1.0, CMI()),))
    method = IDC(**SMALL)
    run = bench.run(method, tmp_path)
    drawn: list[tuple[int, ...]] = []
    assert run.proxies is not None
    draw = run.proxies.draw
    run.proxies.draw = lambda *c: drawn.append(c) or draw(*c)  # type: ignore[func-returns-value]
    run.chunk = 3
    for i in range(4):
        method.step(run, i)
    assert drawn == [(0,), (1,), (2,), (3,)]


def test_pixels_are_clamped_with_each_new_network_only(tmp_path):
    method = IDC(**{**SMALL, "lr_images": 1e-9})
    run = Bench(synthetic=MOSAICS).run(method, tmp_path)
    run.synthetic.images.data[:, 0, 0, 0] = 1.5
    method.step(run, 1)
    assert run.synthetic.images[:, 0, 0, 0].min() > 1.4
    method.step(run, 3)
    assert run.synthetic.images.max() <= 1 + 1e-6


def test_real_batches_do_not_repeat_before_a_class_is_through():
    real = RealImages(ragged(), 0, CPU)  # classes of 4, 12 and 10 images
    chosen: list[Tensor] = []
    real.fetch = lambda index: chosen.append(index) or index  # type: ignore
    for step in range(4):
        _, groups = real.cycle(torch.arange(3), 5, step)
        assert groups.counts == (4, 5, 5)
    whole = torch.stack([c[4:9] for c in chosen[:2]]).flatten()
    assert len(whole.unique()) == 10
    assert not torch.equal(chosen[0][4:9].sort().values, chosen[2][4:9].sort().values)
    assert torch.equal(chosen[3][:4].sort().values, chosen[0][:4].sort().values)


def test_bound_reads_fewer_tiles_where_a_class_is_large():
    """Classes of one and of three images, at most five pictures each."""
    x, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 1])
    formation = Formation(2, kind="bound", bound=5)
    made = formation.tile_labels(labels, labels)
    assert torch.bincount(made).tolist() == [4, 3]  # one free tile is not four
    decoded = formation.decode(x, labels=labels)
    assert len(decoded) == 7
    torch.testing.assert_close(decoded[-3:], x[1:])


def test_a_factor_that_does_not_divide_is_refused_unless_padded():
    spec = SyntheticSpec(ipc=1, factor=3)
    with pytest.raises(IncompatibleError, match=r"factor = 3 does not divide the 16x16.*pad"):
        IDC().check(spec, INFO, stand_in(INFO))
    IDC(pad=True).check(spec, INFO, stand_in(INFO))


def test_a_network_without_convolutions_is_refused():
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    with pytest.raises(IncompatibleError, match="convolution kernels"):
        IDC().check(SyntheticSpec(ipc=1), INFO, Flat())
