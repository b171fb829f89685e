"""Every option by which a method trains its own networks reaches the weights of these networks.

The images stand still (a rate near 0), so that a network differs by its training alone.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddkit.networks.pool import ProxyPool
from ddkit.recipes.sections import ProxySpec, SyntheticSpec
from ddkit.testing import Bench
from ddkit_methods.gradient import DC, DSA
from ddkit_methods.idc import IDC
from ddkit_methods.idm import IDM
from ddkit_methods.ncfm import NCFM

FLIP = "color_crop_cutout_flip_scale_rotate"
STILL = {"lr_images": 1e-30, "batch_real": 4}
PLAIN = Bench(synthetic=SyntheticSpec(ipc=4))
PIXELS = Bench(synthetic=SyntheticSpec(ipc=2, space="pixel"))
GRADIENT: dict[str, Any] = {**STILL, "outer_steps": 2, "inner_steps": 2, "batch_train": 5}
SWEEP: dict[str, Any] = {**STILL, "outer_steps": 2, "train_images": 24, "batch_train": 8}
QUEUE: dict[str, Any] = {
    **STILL,
    "pool_size": 4,
    "train_networks": 2,
    "train_steps": 2,
    "train_batch": 8,
}
POOLED: dict[str, Any] = {**SWEEP, "pretrain_pool": 1, "pretrain_epochs": 2}
NCFM_POOL: dict[str, Any] = {
    "pool_size": 1,
    "pool_epochs": 6,
    "pool_batch": 10,
    "num_freqs": 16,
    "batch_real": 4,
}


def trained(method: Any, bench: Bench, folder: Path, steps: int = 1) -> Tensor:
    """Return the weights of all networks that `method` makes or keeps in a pool, after `steps`."""
    run = bench.run(method, folder)
    start = run.synthetic.images.detach().clone()
    run.chunk = 3
    nets: list[nn.Module] = []
    fresh, pools = run.nets.fresh, run.nets.pool
    pooled: list[ProxyPool] = []

    def made(*counters: int) -> nn.Module:
        nets.append(fresh(*counters))
        return nets[-1]

    def pool(spec: ProxySpec) -> ProxyPool:
        pooled.append(pools(spec))
        return pooled[-1]

    run.nets.fresh, run.nets.pool = made, pool  # type: ignore[method-assign]
    method.setup(run)
    for i in range(steps):
        method.step(run, i)
    if "lr_images" in vars(method) and method.lr_images == 1e-30:
        torch.testing.assert_close(run.synthetic.images.detach(), start, atol=1e-6, rtol=0)
    states = [dict(n.named_parameters()) for n in nets]
    states += [p.trained(i) for p in pooled for i in range(p.spec.count)]
    assert states
    return torch.cat([v.detach().flatten() for s in states for v in s.values()])


@cache
def _once(factory: Any, options: tuple[tuple[str, Any], ...], bench: Bench) -> Tensor:
    """Return what `trained` does, of options that several tests start from."""
    with TemporaryDirectory() as name:
        return trained(factory(**dict(options)), bench, Path(name))


CASES: list[tuple[str, Any, dict[str, Any], Bench, str, Any]] = [
    ("dc", DC, GRADIENT, PLAIN, "lr_net", 0.02),
    ("dc", DC, GRADIENT, PLAIN, "batch_train", 4),
    ("dc", DC, GRADIENT, PLAIN, "inner_steps", 1),
    ("dc", DC, GRADIENT, PLAIN, "augmentation", "color"),
    ("dsa", DSA, GRADIENT, PLAIN, "lr_net", 0.02),
    ("dsa", DSA, GRADIENT, PLAIN, "augmentation", "none"),
    ("idc", IDC, SWEEP, PIXELS, "lr_net", 0.02),
    ("idc", IDC, SWEEP, PIXELS, "batch_train", 6),
    ("idc", IDC, SWEEP, PIXELS, "train_images", 8),
    ("idc", IDC, SWEEP, PIXELS, "momentum_net", 0.5),
    ("idc", IDC, SWEEP, PIXELS, "weight_decay_net", 0.0),
    ("idc", IDC, {**SWEEP, "cutmix": 0.0}, PIXELS, "augmentation_train", "none"),
    ("idc", IDC, {**SWEEP, "augmentation_train": "none"}, PIXELS, "cutmix", 1.0),
    ("idc", IDC, SWEEP, PIXELS, "pretrain_epochs", 1),
    ("idc pool", IDC, POOLED, PIXELS, "lr_net", 0.02),
    ("idc pool", IDC, POOLED, PIXELS, "batch_train", 6),
    ("idc pool", IDC, POOLED, PIXELS, "momentum_net", 0.5),
    ("idc pool", IDC, POOLED, PIXELS, "weight_decay_net", 0.0),
    ("idc pool", IDC, POOLED, PIXELS, "augmentation_train", "none"),
    ("idc pool", IDC, POOLED, PIXELS, "cutmix", 0.0),
    ("idc pool", IDC, POOLED, PIXELS, "pretrain_epochs", 1),
    ("idm", IDM, QUEUE, PLAIN, "train_networks", 1),
    ("idm", IDM, QUEUE, PLAIN, "train_steps", 1),
    ("idm", IDM, QUEUE, PLAIN, "train_batch", 7),
    ("idm", IDM, QUEUE, PLAIN, "lr_networks", 0.02),
    ("idm", IDM, QUEUE, PLAIN, "momentum_networks", 0.5),
    ("idm", IDM, QUEUE, PLAIN, "weight_decay", 0.0),
    ("ncfm", NCFM, NCFM_POOL, PIXELS, "pool_epochs", 5),
    ("ncfm", NCFM, NCFM_POOL, PIXELS, "pool_batch", 8),
    ("ncfm", NCFM, NCFM_POOL, PIXELS, "pool_lr", 0.02),
    ("ncfm", NCFM, NCFM_POOL, PIXELS, "pool_weight_decay", 0.0),
    ("ncfm", NCFM, NCFM_POOL, PIXELS, "pool_augmentation", "none"),
    ("ncfm", NCFM, NCFM_POOL, PIXELS, "pool_cutmix", 0.0),
    ("ncfm", NCFM, NCFM_POOL, PIXELS, "pool_images", 12),
]


@pytest.mark.parametrize(
    ("factory", "options", "bench", "option", "value"),
    [case[1:] for case in CASES],
    ids=[f"{name}-{option}" for name, *_, option, _ in CASES],
)
def test_every_option_of_a_methods_inner_training_reaches_the_weights(
    factory: Any, options: dict[str, Any], bench: Bench, option: str, value: Any, tmp_path: Path
):
    before = _once(factory, tuple(options.items()), bench)
    after = trained(factory(**{**options, option: value}), bench, tmp_path / "b")
    assert before.shape == after.shape
    assert not torch.equal(before, after)


def test_no_option_of_inner_training_is_without_its_test():
    """By their names: whatever is of the network, of its training or of a pool."""
    tested = {factory: {c[4] for c in CASES if c[1] is factory} for factory in (DC, IDC, IDM, NCFM)}
    for factory, own in tested.items():
        for f in fields(factory):
            if any(word in f.name for word in ("_net", "train", "pool_", "cutmix", "inner")):
                assert f.name in own | SIZES, f"{factory.__name__}.{f.name}"


SIZES = {"pool_size", "pool_interval", "pretrain_pool"}  # how many networks, and how often new ones


def test_networks_of_idm_see_their_images_unchanged(tmp_path: Path):
    """Trained on real images without augmentation, whatever the matching does to its own."""
    a, b = (trained(IDM(**QUEUE, augmentation=a), PLAIN, tmp_path / a[:4]) for a in ("none", FLIP))
    assert torch.equal(a, b)


def test_networks_of_dc_have_neither_momentum_nor_decay(tmp_path: Path):
    """One epoch of plain steps on the images as they are, to the published loop's letter."""
    method = DC(**{**GRADIENT, "inner_steps": 3, "batch_train": 256})
    run = PLAIN.run(method, tmp_path)
    run.chunk = 3
    fresh = run.nets.fresh(0).requires_grad_(True)
    method.step(run, 0)
    images, labels = (t.detach() for t in run.synthetic.training())
    for _ in range(3):
        loss = nn.functional.cross_entropy(fresh(images), labels)
        slopes = torch.autograd.grad(loss, list(fresh.parameters()))
        with torch.no_grad():
            for p, slope in zip(fresh.parameters(), slopes, strict=True):
                p.sub_(0.01 * slope)
    pairs = zip(fresh.parameters(), method._net.parameters(), strict=True)
    for want, got in pairs:
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


def test_pretraining_from_a_pool_starts_every_network_there(tmp_path: Path):
    method = IDC(**POOLED)
    run = PIXELS.run(method, tmp_path)
    pool = run.nets.pool(method._pretraining())
    pool.prepare(run.reporter)
    for i in (0, 2):
        method._take(method._new(run, i))
        for name, value in method._net.named_parameters():
            assert torch.equal(value, pool.trained(0)[name])


@pytest.mark.parametrize(
    ("frequency", "option", "value"),
    [
        ("net", "lr_sampler", 0.1),
        ("net", "momentum_sampler", 0.9),
        ("scale_mixture", "lr_sampler", 0.1),
        ("scale_mixture", "momentum_sampler", 0.9),
        ("scale_mixture", "base_variance", 3.0),
    ],
)
def test_options_of_the_sampling_network_reach_the_images(
    frequency: Any, option: str, value: float, tmp_path: Path
):
    make = partial(NCFM, **{**NCFM_POOL, "num_freqs": 32}, frequency=frequency)
    ends = []
    for method in (make(), make(**{option: value})):
        run = PIXELS.run(method, tmp_path)
        run.chunk = 3
        for i in range(4):
            method.step(run, i)
        ends.append(run.synthetic.images.detach().clone())
    assert not torch.equal(*ends)


def test_pools_of_methods_are_trained_as_published(tmp_path: Path):
    """NCFM by its schedule of falls; IDC at a constant rate."""
    asked: list[ProxySpec] = []
    for method in (NCFM(**NCFM_POOL), IDC(**POOLED)):
        run = PIXELS.run(method, tmp_path)
        pools = run.nets.pool
        run.nets.pool = lambda spec, make=pools: (asked.append(spec), make(spec))[1]  # type: ignore
        method.setup(run)
    ncfm, idc = (spec.training() for spec in asked)
    assert (ncfm.schedule, ncfm.gamma, ncfm.milestones) == ("steps", 0.2, (0.6667, 0.8334))
    assert (ncfm.optimizer, ncfm.momentum, ncfm.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (ncfm.augmentation, ncfm.cutmix, ncfm.lr) == ("chain:color_crop", 0.5, 0.01)
    assert (idc.schedule, idc.momentum, idc.weight_decay) == ("constant", 0.9, 5e-4)
    assert (idc.augmentation, idc.cutmix, idc.lr) == ("chain:color_crop", 0.5, 0.01)
