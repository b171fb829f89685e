"""CIFAR-10 and CIFAR-100: 32x32 colour images, through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from ddkit import hookimpl
from ddkit.data import DataInfo, Dataset, DatasetFactory, MemoryImages
from ddkit.options import Count
from ddkit_datasets.pixels import resized
from ddkit_datasets.torchvision_set import Stored, read

# As in published distillation code; the deviations are means of per-image deviations for CIFAR-10.
_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_CIFAR100 = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)


def cifar10(root: Path, resolution: Count = 32) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32, 3 channels, of ten classes.

    Read from ``cifar-10-batches-py`` in `root`, unpacked or downloaded to it if absent; resized
    bilinearly to `resolution`. Mean and standard deviation are those of published distillation
    code (0.4914, 0.4822, 0.4465) and (0.2023, 0.1994, 0.2010).

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images (2009).

    Raises:
        DataError: the files are absent and cannot be downloaded, or are not the published ones.
    """
    return _cifar("cifar10", "CIFAR10", root, resolution, _CIFAR10)


def cifar100(
    root: Path, resolution: Count = 32, statistics: Literal["own", "cifar10"] = "own"
) -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test images, 32x32, 3 channels, of a hundred classes.

    Read from ``cifar-100-python`` in `root`, unpacked or downloaded to it if absent; resized
    bilinearly to `resolution`. `statistics` says which mean and standard deviation normalise:
    ``own`` is (0.5071, 0.4866, 0.4409) and (0.2673, 0.2564, 0.2762); ``cifar10`` is that of
    CIFAR-10, which NCFM uses here too.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images (2009).

    Raises:
        DataError: the files are absent and cannot be downloaded, or are not the published ones.
    """
    values = _CIFAR100 if statistics == "own" else _CIFAR10
    return _cifar("cifar100", "CIFAR100", root, resolution, values)


def _cifar(
    name: str,
    kind: str,
    root: Path,
    resolution: int,
    values: tuple[tuple[float, ...], tuple[float, ...]],
) -> Dataset:
    train, test = read(kind, root, ({"train": True}, {"train": False}), _stored)
    info = DataInfo(name, 3, resolution, resolution, tuple(train.classes), *values)
    return Dataset(info, _images(train, resolution), _images(test, resolution))


def _stored(cls: Any) -> Stored:
    contents = {f"{cls.base_folder}/{n}": md5 for n, md5 in cls.train_list + cls.test_list}
    contents[f"{cls.base_folder}/{cls.meta['filename']}"] = cls.meta["md5"]
    return Stored({cls.filename: cls.tgz_md5}, contents)


def _images(split: Any, resolution: int) -> MemoryImages:
    images = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()
    return MemoryImages(resized(images, resolution), torch.tensor(split.targets))


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    return {"cifar10": cifar10, "cifar100": cifar100}
