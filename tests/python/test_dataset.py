"""Data given as an object: what is read from it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset

from ddkit.errors import DataError
from ddkit.python.dataset import as_dataset
from ddkit.testing import tiny_dataset

COUNT = 60


def numbers() -> tuple[Tensor, Tensor]:
    """Images uint8 [N,3,8,6], each of another colour, and labels of three classes."""
    images = torch.arange(COUNT, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 8, 6)
    return images, torch.arange(COUNT) % 3


class Pictures(TorchDataset[Any]):
    """As torchvision's datasets: pictures of Pillow's, labels, names of classes."""

    classes = ("ant", "bee", "cat")

    def __init__(self, form: Callable[[Tensor, int], Any]):
        self.form = form

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        images, labels = numbers()
        return self.form(images[i], int(labels[i]))


class ClassLabel:
    names = ("ant", "bee", "cat")


class Columns:
    """What is read of a dataset of Hugging Face's."""

    column_names = ("photo", "kind")
    features: dict[str, Any] = {"photo": type("Image", (), {})(), "kind": ClassLabel()}  # noqa: RUF012

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> dict[str, Any]:
        images, labels = numbers()
        return {"photo": picture(images[i]), "kind": int(labels[i])}


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


IMAGES, LABELS = numbers()
FORMS: dict[str, Any] = {
    "NCHW": (IMAGES, LABELS),
    "NHWC": (IMAGES.permute(0, 2, 3, 1).numpy(), LABELS.numpy()),
    "floating-point": (IMAGES.float() / 255, LABELS),
    "pictures": Pictures(lambda x, y: (picture(x), y)),
    "tensors": Pictures(lambda x, y: (x.float() / 255, torch.tensor(y))),
    "a part of it": Subset(Pictures(lambda x, y: (x, y)), list(range(COUNT))),
    "a table of columns": Columns(),
    "names": (IMAGES, ["abc"[int(y)] for y in LABELS]),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_and_labels_are_the_same_in_whatever_form_they_come(form: str):
    data = as_dataset((FORMS[form], FORMS[form]))
    assert torch.equal(data.train.fetch(torch.arange(COUNT)), IMAGES)
    assert torch.equal(data.test.labels, LABELS)
    assert data.info.shape == (3, 8, 6)
    names = {"pictures", "tensors", "a part of it", "a table of columns"}
    own = ("ant", "bee", "cat") if form in names else tuple("abc" if form == "names" else "012")
    assert data.info.classes == own
    assert as_dataset({"train": FORMS[form], "test": FORMS[form]}).fingerprint() == (
        data.fingerprint()
    )


def test_grey_images_need_no_axis_of_channels():
    data = as_dataset((np.zeros((20, 5, 4)), np.arange(20) % 2))
    assert data.info.shape == (1, 5, 4)


def test_without_test_images_the_same_tenth_of_each_class_is_held_out_and_that_is_said():
    said: list[str] = []
    one, two = (as_dataset(numbers(), said.append) for _ in range(2))
    assert "6 of 60 images" in said[0]
    assert one.test.labels.bincount().tolist() == [2, 2, 2]
    assert torch.equal(one.test.labels, two.test.labels)
    assert one.fingerprint() == two.fingerprint()
    shades = [s.fetch(torch.arange(len(s.labels)))[:, 0, 0, 0] for s in (one.train, one.test)]
    assert sorted(torch.cat(shades).tolist()) == list(range(COUNT))


def test_a_dataset_of_ours_is_taken_as_it_is():
    data = tiny_dataset()
    assert as_dataset(data) is data


def unequal(x: Tensor, y: int) -> Any:
    return x[:, : 8 - y], y


WRONG: dict[str, tuple[Any, str]] = {
    "no labels": (Pictures(lambda x, y: x), "60 images and 0 labels.*targets"),
    "unequal": (Pictures(unequal), "unequal shapes: image 0 is 3x8x6 .*, image 1 is 3x7x6"),
    "normalised": ((IMAGES.float() / 99 - 1, LABELS), r"pixels in \[0, 1\], these reach from -1"),
    "whole numbers": ((IMAGES.long(), LABELS), "uint8, or floating-point.*torch.int64"),
    "too few labels": ((IMAGES, LABELS[:9]), "60 images have 9 labels"),
    "any axis": ((torch.zeros(9, 3, 4, 3), LABELS[:9]), r"which axis of \[9, 3, 4, 3\]"),
    "no axis": ((torch.zeros(9, 5, 4, 4), LABELS[:9]), r"which axis of \[9, 5, 4, 4\]"),
    "one-hot": ((IMAGES, torch.eye(3)[LABELS]), "one an image"),
    "no train": ({"tset": (IMAGES, LABELS)}, "no 'train'; it has tset"),
    "a stream": (iter([1]), "cannot be read.*no stream"),
    "two shapes": (((IMAGES, LABELS), (IMAGES[:, :, :4], LABELS)), "unequal shapes: 3x8x6 and"),
    "no image": (Pictures(lambda x, y: ("x", y)), "item 0 is no image"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_data_is_refused_in_one_line(case: str):
    given, words = WRONG[case]
    with pytest.raises(DataError, match=words) as refused:
        as_dataset(given)
    assert "\n" not in str(refused.value)


def test_columns_that_are_not_there_are_named():
    class Texts(Columns):
        features = {"text": object(), "label": object()}  # noqa: RUF012

    with pytest.raises(DataError, match="no column of images; it has text, label"):
        as_dataset(Texts())
