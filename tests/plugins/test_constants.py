"""Published constants: how datasets are normalised, how far augmentation goes, how judges train."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ddkit.images.augment import OPERATIONS
from ddkit.recipes.place import Place, Source
from ddkit.recipes.protocol import load_protocol
from ddkit.recipes.sections import TrainSpec
from ddkit_datasets import cifar, mnist, svhn
from ddkit_datasets.imagenet_classes import MEAN, STD
from ddkit_datasets.tiny_imagenet import _STATISTICS

CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100 = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("module", "factory", "options", "want"),
    [
        (cifar, cifar.cifar10, {}, CIFAR10),
        (cifar, cifar.cifar100, {}, CIFAR100),
        (cifar, cifar.cifar100, {"statistics": "cifar10"}, CIFAR10),
        (mnist, mnist.mnist, {}, ((0.1307,), (0.3081,))),
        (mnist, mnist.fashion_mnist, {}, ((0.2861,), (0.3530,))),
        (svhn, svhn.svhn, {}, ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))),
    ],
    ids=["cifar10", "cifar100", "cifar100 as cifar10", "mnist", "fashion_mnist", "svhn"],
)
def test_datasets_are_normalised_as_published(
    module: Any, factory: Any, options: Any, want: Any, monkeypatch: pytest.MonkeyPatch
):
    shape = {cifar: (10, 32, 32, 3), mnist: (10, 28, 28), svhn: (10, 3, 32, 32)}[module]
    pixels, labels = np.zeros(shape, np.uint8), np.arange(10)
    if module is mnist:
        pixels, labels = torch.from_numpy(pixels), torch.from_numpy(labels)  # type: ignore
    split = SimpleNamespace(
        data=pixels, targets=labels, labels=labels, classes=[str(i) for i in range(10)]
    )
    monkeypatch.setattr(module, "read", lambda *_: [split, split])
    info = factory(Path("unused"), **options).info
    assert (info.mean, info.std) == want


def test_imagenet_and_tiny_imagenet_are_normalised_as_published():
    assert (MEAN, STD) == IMAGENET
    mean = (0.4802, 0.4481, 0.3975)
    assert {
        "imagenet": IMAGENET,
        "own": (mean, (0.2770, 0.2691, 0.2821)),
        "sre2l": (mean, (0.2302, 0.2265, 0.2262)),
    } == _STATISTICS


DSA = "color_crop_cutout_flip_scale_rotate"
DM: dict[str, Any] = {
    "epochs": 1000,
    "batch_size": 256,
    "lr": 0.01,
    "schedule": "dc",
    "gamma": 0.1,
    "augmentation": DSA,
}
NCFM = {
    "epochs": 2000,
    "batch_size": 128,
    "optimizer": "adamw",
    "lr": 1e-3,
    "weight_decay": 0.01,
    "schedule": "steps",
    "gamma": 0.5,
    "milestones": (0.2, 0.4, 0.6, 0.8),
    "augmentation": "chain:color_crop_flip_scale_rotate",
    "cutmix": 0.5,
}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "dm": DM,
    "dm-digits": {**DM, "augmentation": "color_crop_cutout_scale_rotate"},
    "dc": {**DM, "epochs": 300, "augmentation": "none"},
    "idc": {
        **NCFM,
        "epochs": 1000,
        "batch_size": 64,
        "optimizer": "sgd",
        "lr": 0.01,
        "weight_decay": 5e-4,
        "gamma": 0.2,
        "milestones": (0.6667, 0.8334),
    },
    "ncfm": NCFM,
    "ncfm-soft": NCFM,
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_train_as_published(name: str):
    want = TrainSpec(**{"momentum": 0.9, "weight_decay": 5e-4, **PROTOCOLS[name]})
    assert load_protocol(name, Place(Source("test"))).training == want


def operated(name: str, x: torch.Tensor, u: float) -> torch.Tensor:
    return OPERATIONS[name](x, torch.full((len(x), 3), u))


def test_colour_changes_as_far_as_published():
    """Brightness by half at most, saturation 0 to 2, contrast 0.5 to 1.5: in this order."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for u in (0.0, 0.25, 1.0):
        y = x + (u - 0.5)
        grey = y.mean(1, keepdim=True)
        y = (y - grey) * 2 * u + grey
        mean = y.mean((1, 2, 3), keepdim=True)
        want = (y - mean) * (0.5 + u) + mean
        torch.testing.assert_close(operated("color", x, u), want, rtol=1e-5, atol=1e-5)


def test_crop_cutout_and_scale_go_as_far_as_published():
    ones = torch.ones(1, 1, 32, 32)
    assert int(operated("crop", ones, 0.0).sum()) == 28 * 28  # an eighth
    assert int((operated("cutout", ones, 0.5) == 0).sum()) == 16 * 16  # half
    inside = operated("scale", ones, 1 - 1e-7).sum() / 32**2  # shrunk to 1 / 1.2 of each side
    assert float(inside) == pytest.approx(1 / 1.2**2, abs=0.01)
    line = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    steps = operated("scale", line, 0.0)[0, 0, 16].diff()[8:24].mean() / line[0, 0, 0].diff()[0]
    assert float(steps) == pytest.approx(1 / 1.2, abs=0.01)


@pytest.mark.parametrize(("u", "degrees"), [(0.0, -15.0), (1.0, 15.0), (0.75, 7.5)])
def test_rotation_goes_as_far_as_published(u: float, degrees: float):
    line = torch.linspace(-1, 1, 33).expand(1, 1, 33, 33)  # brighter to the right
    turned = operated("rotate", line, u)[0, 0]
    right, down = turned[16, 17] - turned[16, 15], turned[17, 16] - turned[15, 16]
    angle = torch.rad2deg(torch.atan2(down, right))
    assert abs(float(angle)) == pytest.approx(abs(degrees), abs=0.1)
    assert float(angle) * degrees < 0
