"""What a dataset says of itself: statistics, fingerprints, and images of the right kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import RAGGED, numbered
from torch import Tensor

from ddkit.data import DataInfo, Dataset, MemoryImages, statistics
from ddkit.errors import DataError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3)),
    ],
)
def test_images_of_another_kind_are_refused(images: Tensor, labels: Tensor):
    with pytest.raises(DataError, match="uint8"):
        MemoryImages(images, labels)


def test_statistics_are_those_of_all_pixels_whatever_the_chunks():
    images = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)
    mean, std = statistics(images)
    x = images.double() / 255
    assert mean == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    assert statistics(images, chunk=7) == (mean, std)


def changed(what: str) -> Dataset:
    data = numbered(RAGGED)
    images = data.train.fetch(torch.arange(len(RAGGED)))
    labels = data.train.labels.clone()
    info = data.info
    if what == "pixel":
        images[3] += 1
    elif what == "label":
        labels[3] = 1
    elif what == "mean":
        info = DataInfo.from_dict({**info.to_dict(), "mean": [0.1]})
    elif what == "classes":
        info = DataInfo.from_dict({**info.to_dict(), "classes": ["x", "y", "z"]})
    return Dataset(info, MemoryImages(images, labels), data.test)


def test_the_fingerprint_changes_with_whatever_training_sees():
    assert changed("nothing").fingerprint() == numbered(RAGGED).fingerprint()
    prints: list[Any] = [
        changed(what).fingerprint() for what in ("nothing", "pixel", "label", "mean", "classes")
    ]
    assert len(set(prints)) == 5


def test_info_survives_json():
    info = numbered(RAGGED).info
    assert DataInfo.from_dict(info.to_dict()) == info
    assert info.shape == (1, 1, 1)
    assert info.num_classes == 3


def test_a_constant_channel_can_be_normalised():
    from ddkit.data import statistics

    images = torch.full((4, 2, 3, 3), 7, dtype=torch.uint8)
    images[:2, 1] = 200
    _, std = statistics(images)
    assert std[0] == 1.0
    assert 0 < std[1] < 1
