"""MNIST and FashionMNIST: 28x28 grey images, through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddkit import hookimpl
from ddkit.data import DataInfo, Dataset, DatasetFactory, MemoryImages
from ddkit.options import Count
from ddkit_datasets.pixels import resized
from ddkit_datasets.torchvision_set import Stored, read

_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = (  # as published, less the slash of "T-shirt/top": class names become folder names
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def mnist(root: Path, resolution: Count = 28) -> Dataset:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28, 1 channel.

    Read from ``MNIST/raw`` in `root`, unpacked or downloaded to it if absent; resized bilinearly
    to `resolution`. Mean and standard deviation are 0.1307 and 0.3081.

    Source: Y. LeCun et al., Gradient-based learning applied to document recognition (1998).

    Raises:
        DataError: the files are absent and cannot be downloaded, or are not the published ones.
    """
    return _mnist("mnist", "MNIST", root, resolution, _DIGITS, 0.1307, 0.3081)


def fashion_mnist(root: Path, resolution: Count = 28) -> Dataset:
    """FashionMNIST: 60,000 training and 10,000 test images of clothes, 28x28, 1 channel.

    Read from ``FashionMNIST/raw`` in `root`, unpacked or downloaded to it if absent; resized
    bilinearly to `resolution`. Mean and standard deviation are 0.2861 and 0.3530.

    Source: H. Xiao et al., Fashion-MNIST (arXiv 1708.07747).

    Raises:
        DataError: the files are absent and cannot be downloaded, or are not the published ones.
    """
    return _mnist("fashion_mnist", "FashionMNIST", root, resolution, _CLOTHES, 0.2861, 0.3530)


def _mnist(
    name: str,
    kind: str,
    root: Path,
    resolution: int,
    classes: tuple[str, ...],
    mean: float,
    std: float,
) -> Dataset:
    train, test = read(kind, root, ({"train": True}, {"train": False}), _stored)
    info = DataInfo(name, 1, resolution, resolution, classes, (mean,), (std,))
    return Dataset(info, _images(train, resolution), _images(test, resolution))


def _stored(cls: Any) -> Stored:
    folder = f"{cls.__name__}/raw"
    archives = {f"{folder}/{name}": md5 for name, md5 in cls.resources}
    return Stored(archives, dict.fromkeys(name.removesuffix(".gz") for name in archives))


def _images(split: Any, resolution: int) -> MemoryImages:
    return MemoryImages(resized(split.data[:, None], resolution), split.targets)


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    return {"mnist": mnist, "fashion_mnist": fashion_mnist}
