"""What each method shows its images when: proxies, networks, draws, and the precision of it all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ddkit.backbone import embed
from ddkit.distillation.bench import tiny_dataset
from ddkit.recipes.sections import SyntheticSpec
from ddkit.regularizer import Match, Regularizer, Term
from ddkit.runtime.device import Runtime
from ddkit.testing import Bench
from ddkit_backbones.convnet import convnet
from ddkit_methods.dm import DM
from ddkit_methods.gradient import DC, DSA
from ddkit_methods.idc import IDC
from ddkit_methods.idm import IDM
from ddkit_methods.ncfm import NCFM

INFO = tiny_dataset().info
GRADIENT: dict[str, Any] = {"iterations": 9, "outer_steps": 3, "inner_steps": 1, "batch_real": 5}
PIXELS = SyntheticSpec(ipc=2, space="pixel")
SWEEP = {"outer_steps": 3, "batch_real": 5, "train_images": 6, "batch_train": 6}
QUEUE = {"batch_real": 5, "pool_size": 4, "train_steps": 1, "train_batch": 6}
POOL = {"pool_size": 1, "pool_epochs": 1, "num_freqs": 16, "batch_real": 5}
METHODS: dict[str, tuple[Any, SyntheticSpec]] = {
    "dm": (partial(DM, batch_real=5), SyntheticSpec(ipc=2)),
    "dc": (partial(DC, **GRADIENT), SyntheticSpec(ipc=2)),
    "dsa": (partial(DSA, **GRADIENT), SyntheticSpec(ipc=2)),
    "idc": (partial(IDC, **SWEEP), PIXELS),
    "idm": (partial(IDM, **QUEUE), SyntheticSpec(ipc=2)),
    "ncfm": (partial(NCFM, **POOL), PIXELS),
}


class Sees(Regularizer):
    """Keeps which proxy it is shown."""

    requires: ClassVar[frozenset[str]] = frozenset({"syn", "proxy"})

    def __init__(self) -> None:
        self.proxies: list[Any] = []

    def loss(self, m: Match) -> Tensor:
        assert m.proxy is not None
        self.proxies.append(m.proxy.numbers)
        return embed(m.proxy, m.syn).square().sum()


def shown(name: str, folder: Path, steps: int = 6) -> list[tuple[int, ...]]:
    """Return the numbers of the draw whose proxy the images see in each step of a method."""
    factory, spec = METHODS[name]
    witness = Sees()
    bench = Bench(synthetic=spec, terms=(Term("sees", 1.0, witness),))
    method = factory()
    run = bench.run(method, folder)
    run.chunk = 3
    assert run.proxies is not None
    pool = run.proxies

    def draw(*counters: int) -> nn.Module:
        net = pool.module
        net.numbers = counters  # type: ignore[assignment]
        return net

    pool.draw = draw  # type: ignore[method-assign]
    seen = []
    for i in range(steps):
        witness.proxies.clear()
        method.step(run, i)
        assert len(set(witness.proxies)) == 1  # all classes of a step see the same
        seen.append(witness.proxies[0])
    return seen


@pytest.mark.parametrize("name", ["dm", "idm", "ncfm"])
def test_methods_of_one_network_per_iteration_draw_a_proxy_with_it(name: str, tmp_path: Path):
    assert len(set(shown(name, tmp_path))) == 6


@pytest.mark.parametrize("name", ["dc", "dsa"])
def test_gradient_matching_keeps_its_proxy_as_long_as_its_network(name: str, tmp_path: Path):
    seen = shown(name, tmp_path)
    assert len(set(seen[:3])) == len(set(seen[3:])) == 1
    assert seen[0] != seen[3]


def test_idc_draws_a_proxy_at_every_inner_step(tmp_path: Path):
    assert len(set(shown("idc", tmp_path))) == 6


# Networks, real batches, augmentation


def traced(name: str, folder: Path, steps: int = 6) -> dict[str, list[Any]]:
    """Return what each step of a method takes: a new network or none, real rows, draws."""
    factory, spec = METHODS[name]
    method = factory()
    run = Bench(synthetic=spec).run(method, folder)
    run.chunk = 3
    made: list[tuple[int, ...]] = []
    rows: list[list[int]] = []
    streams: list[tuple[Any, ...]] = []
    fresh, fetch, stream = run.nets.fresh, run.real.fetch, run.stream
    run.nets.fresh = lambda *c: (made.append(c), fresh(*c))[1]  # type: ignore
    run.real.fetch = lambda index: (rows.append(index.tolist()), fetch(index))[1]  # type: ignore
    run.stream = lambda *a, **k: (streams.append(a), stream(*a, **k))[1]  # type: ignore
    seen: dict[str, list[Any]] = {"networks": [], "real": [], "augment": []}
    for i in range(steps):
        made.clear(), rows.clear(), streams.clear()
        method.step(run, i)
        seen["networks"].append(made[0] if made else None)
        seen["real"].append(tuple(rows[0]))
        seen["augment"].append(next(a for a in streams if a[0] == "augment"))
    return seen


@pytest.mark.parametrize("name", METHODS)
def test_every_step_sees_other_real_images_under_another_draw(name: str, tmp_path: Path):
    seen = traced(name, tmp_path)
    assert len(set(seen["real"])) == 6
    assert len(set(seen["augment"])) == 6


def test_dm_takes_a_new_network_each_step_and_gradient_matching_one_for_its_outer_steps(
    tmp_path: Path,
):
    assert len(set(traced("dm", tmp_path)["networks"])) == 6
    for name in ("dc", "dsa", "idc"):
        made = traced(name, tmp_path)["networks"]
        assert [m is not None for m in made] == [True, False, False] * 2
        assert made[0] != made[3]


def test_networks_of_idm_train_on_another_batch_in_every_step(tmp_path: Path):
    factory, spec = METHODS["idm"]
    method = factory(train_steps=3, train_networks=2)
    run = Bench(synthetic=spec).run(method, tmp_path)
    run.chunk = 3
    rows: list[tuple[int, ...]] = []
    fetch = run.real.fetch
    run.real.fetch = lambda index: (rows.append(tuple(index.tolist())), fetch(index))[1]  # type: ignore
    for i in range(2):
        rows.clear()
        method.step(run, i)
        batches = rows[1:]  # after the real images that are matched
        assert len(batches) == len(set(batches)) == 6
        assert all(len(set(b)) == 6 for b in batches)


def test_idm_takes_features_in_evaluation_mode_and_trains_in_the_other(tmp_path: Path):
    seen: list[bool] = []

    def net(info: Any) -> nn.Module:
        made = convnet(info, width=4, depth=2)
        made.get_classifier().register_forward_hook(lambda m, x, y: seen.append(m.training))
        return made

    factory, spec = METHODS["idm"]
    method = factory(train_steps=2, train_networks=1)
    run = Bench(synthetic=spec, backbone=net).run(method, tmp_path)
    run.chunk = 3
    seen.clear()
    method.step(run, 0)
    assert seen == [False, True, True]


def test_ncfm_compares_at_other_frequencies_in_every_iteration(tmp_path: Path):
    factory, spec = METHODS["ncfm"]
    method = factory()
    run = Bench(synthetic=spec).run(method, tmp_path)
    drawn = [method._frequencies.draw(run, i) for i in (0, 1, 0)]
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


# Precision


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_is_what_every_network_of_a_method_computes_in(
    name: str, norm: str, tmp_path: Path
):
    factory, spec = METHODS[name]
    seen: list[torch.dtype] = []

    def net(info: Any) -> nn.Module:
        made = convnet(info, width=4, depth=2, norm=norm)
        for module in made.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda m, x, y: seen.append(y.dtype))
        return made

    method = factory()
    run = Bench(synthetic=spec, backbone=net).run(method, tmp_path)
    run.chunk = 3
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        run.runtime = Runtime(torch.device("cpu"), precision)
        seen.clear()
        for i in range(2):
            method.step(run, i)
        assert set(seen) == {dtype}
    assert run.synthetic.images.dtype == torch.float32
    assert bool(torch.isfinite(run.synthetic.images).all())
