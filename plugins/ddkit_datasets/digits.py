"""Handwritten digits that need no network: the test set of scikit-learn's optical recognition."""

from __future__ import annotations

from pathlib import Path

import torch

from ddkit import hookimpl
from ddkit.data import DataInfo, Dataset, DatasetFactory, MemoryImages, statistics
from ddkit.options import Count
from ddkit_datasets.pixels import resized

_EVERY = 5


def digits(root: Path, resolution: Count = 16) -> Dataset:
    """Real 8x8 handwritten digits, 1797 of ten classes, shipped with scikit-learn.

    One channel; the grey levels 0..16 become 0..255 and the images are enlarged bilinearly to
    `resolution`. Every fifth image of each class is a test image (1442 to train, 355 to test);
    mean and standard deviation are those of the training images. `root` is not used.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).float().mul_(255 / 16)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    images = resized(grey, resolution)
    rank = torch.nn.functional.one_hot(labels, 10).cumsum(0).gather(1, labels[:, None])[:, 0] - 1
    test = rank % _EVERY == _EVERY - 1
    mean, std = statistics(images[~test])
    classes = tuple(str(digit) for digit in range(10))
    info = DataInfo("digits", 1, resolution, resolution, classes, mean, std)
    return Dataset(
        info,
        MemoryImages(images[~test], labels[~test]),
        MemoryImages(images[test], labels[test]),
    )


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    return {"digits": digits}
