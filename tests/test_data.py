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


IMAGES = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    "labels",
    [
        torch.arange(8)[::2] // 2,
        torch.arange(4).repeat(3, 1).t()[:, 0],
        *(torch.arange(4).to(kind) for kind in (torch.uint8, torch.int8, torch.int16, torch.int32)),
    ],
)
def test_labels_of_any_integer_type_and_stride_are_the_same_labels(labels: Tensor):
    source = MemoryImages(IMAGES, labels)
    assert source.labels.dtype == torch.int64
    assert source.labels.tolist() == [0, 1, 2, 3]
    assert source.fingerprint() == MemoryImages(IMAGES, torch.arange(4)).fingerprint()


def test_images_in_strides_have_the_fingerprint_of_a_copy():
    images = torch.randint(0, 256, (8, 2, 2, 3), dtype=torch.uint8)[::2].permute(0, 3, 1, 2)
    labels = torch.arange(4)
    copy = MemoryImages(images.contiguous(), labels)
    assert MemoryImages(images, labels).fingerprint() == copy.fingerprint()


@pytest.mark.parametrize(
    "labels, said",
    [
        (torch.eye(4, dtype=torch.int64), r"\[4, 4\]; of one-hot rows they are labels.argmax\(1\)"),
        (torch.zeros(4, 1, dtype=torch.int64), r"integers \[N\], not torch.int64 \[4, 1\]"),
        (torch.zeros(4), "integers .N., not torch.float32"),
        (torch.zeros(4, dtype=torch.complex64), "not torch.complex64"),
        (torch.zeros(4, dtype=torch.bool), "not torch.bool"),
        (torch.tensor([0, 1, -1, 2]), "class numbers from 0, not -1"),
        ([0, 1, 2, 3], "must be tensors, not Tensor and list"),
    ],
)
def test_labels_that_are_not_class_numbers_are_refused_in_words(labels: Any, said: str):
    with pytest.raises(DataError, match=said):
        MemoryImages(IMAGES, labels)


def test_a_label_of_no_class_and_an_empty_split_are_refused():
    data = numbered(RAGGED)
    wide = MemoryImages(IMAGES[:2, :, :1, :1], torch.tensor([0, 3]))
    empty = MemoryImages(IMAGES[:0], torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="the training split has the label 3, but there are 3 cla"):
        Dataset(data.info, wide, data.test)
    with pytest.raises(DataError, match="the test split has the label 3"):
        Dataset(data.info, data.train, wide)
    with pytest.raises(DataError, match="the test split holds no images"):
        Dataset(data.info, data.train, empty)


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
