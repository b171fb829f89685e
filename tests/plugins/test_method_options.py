"""Every option of every method reaches the images that it learns."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor

from ddkit.recipes.sections import SyntheticSpec
from ddkit.testing import Bench, tiny_dataset
from ddkit_methods.dm import DM
from ddkit_methods.gradient import DC, DSA
from ddkit_methods.idc import IDC
from ddkit_methods.idm import IDM
from ddkit_methods.ncfm import NCFM

SMALL = tiny_dataset(size=8)
PLAIN = Bench(SMALL, synthetic=SyntheticSpec(ipc=2))
PIXELS = Bench(SMALL, synthetic=SyntheticSpec(ipc=2, space="pixel"))
GRADIENT = {"outer_steps": 2, "inner_steps": 2, "batch_real": 5, "batch_train": 5}
SWEEP = {"outer_steps": 2, "batch_real": 5, "train_images": 12, "batch_train": 6}
QUEUE = {"batch_real": 5, "pool_size": 4, "train_steps": 3, "train_batch": 18, "pool_interval": 9}
FREE = {"pool_size": 2, "pool_epochs": 1, "num_freqs": 32, "batch_real": 5}
SGD = {**FREE, "optimizer": "sgd"}
NET = {**FREE, "frequency": "net"}
CASES: list[tuple[Any, Bench, dict[str, Any], dict[str, Any]]] = [
    (
        DM,
        PLAIN,
        {"batch_real": 5},
        {"lr_images": 0.5, "momentum": 0.9, "batch_real": 4, "augmentation": "none"},
    ),
    (
        DC,
        PLAIN,
        GRADIENT,
        {
            "outer_steps": 3,
            "inner_steps": 1,
            "lr_images": 0.2,
            "momentum": 0.9,
            "batch_real": 4,
            "distance": "mse",
            "augmentation": "color",
            "lr_net": 0.1,
            "batch_train": 4,
        },
    ),
    (DC, PLAIN, GRADIENT, {"distance": "cos"}),
    (DSA, PLAIN, GRADIENT, {"augmentation": "none"}),
    (
        IDC,
        PIXELS,
        SWEEP,
        {
            "outer_steps": 3,
            "lr_images": 0.02,
            "momentum": 0.9,
            "batch_real": 4,
            "batch_syn": 1,
            "distance": "l1",
            "augmentation": "none",
            "pretrain_epochs": 1,
            "train_images": 6,
            "batch_train": 4,
            "lr_net": 0.1,
            "momentum_net": 0.5,
            "weight_decay_net": 0.1,
            "augmentation_train": "none",
            "cutmix": 1.0,
        },
    ),
    (IDC, PIXELS, SWEEP, {"distance": "cos"}),
    (IDC, PIXELS, {**SWEEP, "pretrain_epochs": 1}, {"pretrain_pool": 1}),
    (
        IDM,
        PLAIN,
        QUEUE,
        {
            "lr_images": 0.4,
            "momentum": 0.9,
            "batch_real": 4,
            "ce_weight": 0.1,
            "accuracy_window": 2,
            "pool_size": 3,
            "pool_interval": 1,
            "train_networks": 1,
            "train_steps": 2,
            "train_batch": 7,
            "lr_networks": 0.1,
            "momentum_networks": 0.1,
            "weight_decay": 0.1,
            "augmentation": "none",
        },
    ),
    (
        NCFM,
        PIXELS,
        FREE,
        {
            "optimizer": "sgd",
            "lr_images": 2e-3,
            "weight_decay": 0.5,
            "batch_real": 4,
            "real_batch": "first",
            "frequency": "scale_mixture",
            "num_freqs": 16,
            "amplitude": 0.1,
            "phase": 0.1,
            "scale": 30.0,
            "calibration": 0.1,
            "calibrations": 2,
            "augmentation": "none",
            "pool_size": 3,
            "pool_epochs": 2,
            "pool_batch": 9,
            "pool_lr": 0.1,
            "pool_weight_decay": 0.1,
            "pool_augmentation": "none",
            "pool_cutmix": 0.0,
            "pool_images": 12,
        },
    ),
    (NCFM, PIXELS, SGD, {"lr_images": 0.02, "momentum": 0.9}),
    (NCFM, PIXELS, {**SGD, "patience": 0, "lr_images": 9.0}, {"patience": 9, "fall": 0.1}),
    (NCFM, PIXELS, NET, {"frequency": "gaussian", "lr_sampler": 0.1, "momentum_sampler": 0.0}),
    (NCFM, PIXELS, {**FREE, "frequency": "scale_mixture"}, {"base_variance": 4.0}),
]
SINGLE = [
    pytest.param(factory, bench, base, name, value, id=f"{factory.__name__}-{name}-{value}")
    for factory, bench, base, changes in CASES
    for name, value in changes.items()
]


@cache
def learned(factory: Any, bench: Bench, options: tuple[tuple[str, Any], ...]) -> Tensor:
    """Return the images after a few steps of a method."""
    with TemporaryDirectory() as name:
        method = factory(**dict(options))
        run = bench.run(method, Path(name))
        run.chunk = 3
        for i in range(4):
            method.step(run, i)
        return run.synthetic.images.detach().clone()


@pytest.mark.parametrize(("factory", "bench", "base", "option", "value"), SINGLE)
def test_every_option_of_a_method_reaches_the_images(
    factory: Any, bench: Bench, base: dict[str, Any], option: str, value: Any
):
    before = learned(factory, bench, tuple(base.items()))
    after = learned(factory, bench, tuple({**base, option: value}.items()))
    assert bool(torch.isfinite(after).all())
    assert not torch.equal(before, after)


@pytest.mark.parametrize("factory", [DM, DC, IDC, IDM, NCFM])
def test_no_option_of_a_method_is_without_its_test(factory: Any):
    tested = {name for kind, _, _, changes in CASES if kind is factory for name in changes}
    others = {"iterations", "pad"}  # how many steps; what is refused
    assert {f.name for f in fields(factory)} - others <= tested
