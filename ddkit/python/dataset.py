"""Data given as an object: arrays with labels, a torch dataset, or Hugging Face's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddkit.data import DataInfo, Dataset, MemoryImages, statistics
from ddkit.errors import DataError
from ddkit.python.pixels import tensor_of, uint8_images
from ddkit.recipes.place import told
from ddkit.runtime import randomness

HELD_OUT = 10  # one image in so many is tested on, where no test images are given
IMAGES, LABELS = ("image", "img"), ("label", "labels")


class Split(NamedTuple):
    """Images uint8 [N,C,H,W], a label each (numbers, or names), and names of classes if known."""

    images: Tensor
    labels: Sequence[Any]
    classes: Sequence[str] | None = None


def as_dataset(given: Any, note: Callable[[str], None] = lambda text: None) -> Dataset:
    """Return `given` as a dataset; `note` is told when a part is held out as its test images.

    It is a `Dataset`; or images with labels, alone, as ``(train, test)`` or as a table of
    ``train`` and ``test``: a pair of arrays or tensors (see `uint8_images`), a torch map-style
    dataset of (image, label), or a dataset of Hugging Face's. All is read into memory.

    Raises:
        DataError: it has no labels, images of unequal shapes or pixels that are none.
    """
    if isinstance(given, Dataset):
        return given
    train, test = _splits(given)
    name = _name(train)
    parts = [_split(part, name) for part in ([train] if test is None else [train, test])]
    classes, numbers = _classes(parts, name)
    info = _info(name, parts[0].images, classes)
    images = [part.images for part in parts]
    if test is None:
        held = _held_out(numbers[0])
        note(
            f"no test images were given: {int(held.sum())} of {len(held)} images, one in "
            f"{HELD_OUT} of each class, drawn with seed 0, are held out to test on"
        )
        images = [images[0][~held], images[0][held]]
        numbers = [numbers[0][~held], numbers[0][held]]
        info = _info(name, images[0], classes)
    if images[1].shape[1:] != images[0].shape[1:]:
        shapes = " and ".join("x".join(map(str, i.shape[1:])) for i in images)
        raise DataError(f"{name}: training and test images are of unequal shapes: {shapes}")
    train_images, test_images = (MemoryImages(i, n) for i, n in zip(images, numbers, strict=True))
    return Dataset(info, train_images, test_images)


def _splits(given: Any) -> tuple[Any, Any]:
    """Return what trains and what tests; None for the latter where nothing was given."""
    if isinstance(given, Mapping):
        if "train" not in given:
            raise DataError(f"the dataset's table has no 'train'; it has {', '.join(given)}")
        return given["train"], given.get("test", given.get("validation"))
    if isinstance(given, tuple | list) and len(given) == 2 and not _is_array(given[0]):
        return given[0], given[1]
    return given, None


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _name(given: Any) -> str:
    """Return what the data is called: after the class of the object."""
    if isinstance(given, tuple | list):
        return "arrays"
    while hasattr(given, "dataset") and not hasattr(given, "features"):  # torch's Subset
        given = given.dataset
    return type(given).__name__


def _split(given: Any, name: str) -> Split:
    """Read one split."""
    if isinstance(given, tuple | list):
        if len(given) != 2 or not _is_array(given[0]):
            raise DataError(
                f"a dataset is a pair (images, labels) of arrays or tensors, not {len(given)} "
                f"values, the first of type {type(given[0]).__name__ if given else 'none'}"
            )
        images = uint8_images(tensor_of(given[0]), name)
        labels = _listed(given[1])
        if len(labels) != len(images):
            raise DataError(f"{name}: {len(images)} images have {len(labels)} labels")
        return Split(images, labels)
    if not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise DataError(
            f"a dataset of type {type(given).__name__} cannot be read: give arrays with labels, a "
            f"torch dataset with a length, or one of Hugging Face's that is no stream"
        )
    if hasattr(given, "features") and hasattr(given, "column_names"):
        return _columns(given, name)
    return _items(given, name)


def _items(given: Any, name: str) -> Split:
    """Read a torch dataset of (image, label); without labels in its items, its `targets`."""
    images, labels = [], []
    for i in range(len(given)):
        item = given[i]
        if isinstance(item, Mapping):
            keys = [next((k for k in names if k in item), None) for names in (IMAGES, LABELS)]
            item = [item[k] for k in keys if k is not None]
        pair = item if isinstance(item, tuple | list) else (item,)
        images.append(tensor_of(pair[0]) if pair else None)
        labels += list(pair[1:2])
    if not labels:
        own = getattr(given, "targets", getattr(given, "labels", None))
        labels = [] if own is None else _listed(own)
    if not images or len(labels) != len(images):
        raise DataError(
            f"{name} gives {len(images)} images and {len(labels)} labels: its items must be "
            f"(image, label), or it must have targets"
        )
    return Split(_stacked(images, name), labels, _own_classes(given))


def _own_classes(given: Any) -> Sequence[str] | None:
    """Return the names of classes that a torch dataset, or the one it is a part of, has."""
    while not hasattr(given, "classes") and hasattr(given, "dataset"):
        given = given.dataset
    names = getattr(given, "classes", None)
    fits = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
    return names if fits else None


def _columns(given: Any, name: str) -> Split:
    """Read a dataset of Hugging Face's, by the types of its columns, then by their names."""
    features: Mapping[str, Any] = given.features
    image = _column(features, "Image", IMAGES)
    label = _column(features, "ClassLabel", LABELS)
    if image is None or label is None:
        raise DataError(
            f"{name} has no column of {'images' if image is None else 'labels'}; it has "
            f"{', '.join(features)}: rename one to {'image' if image is None else 'label'}"
        )
    rows = [given[i] for i in range(len(given))]
    names = getattr(features[label], "names", None)
    images = _stacked([tensor_of(row[image]) for row in rows], name)
    return Split(images, [row[label] for row in rows], names)


def _column(features: Mapping[str, Any], kind: str, names: Sequence[str]) -> str | None:
    typed = [k for k, v in features.items() if type(v).__name__ == kind]
    named = [k for k in names if k in features]
    return next(iter(typed + named), None)


def _stacked(images: Sequence[Tensor | None], name: str) -> Tensor:
    """Return images as uint8 [N,C,H,W]."""
    for i, image in enumerate(images):
        first = images[0]
        if image is None or first is None or image.ndim not in (2, 3):
            raise DataError(f"{name}: item {i} is no image, nor a tensor or an array of one")
        if image.shape != first.shape or image.dtype != first.dtype:
            shapes = [f"{'x'.join(map(str, x.shape))} {x.dtype}" for x in (first, image)]
            raise DataError(
                f"{name}: images of unequal shapes: image 0 is {shapes[0]}, image {i} is "
                f"{shapes[1]}; give the dataset a transform that makes them equal"
            )
    if not images:
        raise DataError(f"{name}: holds no images")
    return uint8_images(torch.stack([x for x in images if x is not None]), name)


def _listed(labels: Any) -> list[Any]:
    """Return labels as a list, of numbers or names."""
    values = labels.tolist() if hasattr(labels, "tolist") else labels
    if not isinstance(values, list | tuple):
        raise DataError(f"labels must be a list, an array or a tensor, not {told(labels)}")
    return list(values)


def _classes(parts: list[Split], name: str) -> tuple[tuple[str, ...], list[Tensor]]:
    """Return the classes' names in label order, and the labels of each split as int64 [N].

    Labels that are texts are the names themselves, in the order of the alphabet; numbers without
    names are named as they are.
    """
    labels = [[x.item() if hasattr(x, "item") else x for x in part.labels] for part in parts]
    odd = next((x for ls in labels for x in ls if type(x) not in (int, str)), None)
    kinds = {type(x) for ls in labels for x in ls}
    if odd is not None or len(kinds) > 1:
        raise DataError(
            f"{name}: labels must be class numbers or class names, one an image, not "
            f"{told(odd if odd is not None else 'both')}"
        )
    if kinds == {str}:
        names = tuple(sorted({x for ls in labels for x in ls}))
        index = {n: i for i, n in enumerate(names)}
        return names, [torch.tensor([index[x] for x in ls]) for ls in labels]
    numbers = [torch.tensor(ls, dtype=torch.int64) for ls in labels]
    own = next((part.classes for part in parts if part.classes), None)
    most = max((int(n.max()) for n in numbers if len(n)), default=-1)
    return tuple(own or map(str, range(most + 1))), numbers


def _info(name: str, images: Tensor, classes: tuple[str, ...]) -> DataInfo:
    mean, std = statistics(images)
    channels, height, width = images.shape[1:]
    return DataInfo(name, channels, height, width, classes, mean, std)


def _held_out(labels: Tensor) -> Tensor:
    """Return which images test, bool [N]: of a class one in `HELD_OUT`, one at least of two."""
    rng = randomness.generator(0, "held-out")
    order = torch.randperm(len(labels), generator=rng)
    order = order[labels[order].argsort(stable=True)]  # class-major, shuffled within
    counts = torch.bincount(labels)
    within = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    share = torch.where(counts > 1, (counts // HELD_OUT).clamp_min(1), 0)
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[order[within < share[labels[order]]]] = True
    return held
