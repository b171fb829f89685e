"""SVHN: 32x32 colour images of house numbers, through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddkit import hookimpl
from ddkit.data import DataInfo, Dataset, DatasetFactory, MemoryImages
from ddkit.options import Count
from ddkit_datasets.pixels import resized
from ddkit_datasets.torchvision_set import Stored, read


def svhn(root: Path, resolution: Count = 32) -> Dataset:
    """SVHN: 73,257 training and 26,032 test images of digits on houses, 32x32, 3 channels.

    Classes are unbalanced; the additional training images (``extra``) are not used. Read from
    ``train_32x32.mat`` and ``test_32x32.mat`` in `root`, downloaded to it if absent; resized
    bilinearly to `resolution`. Mean and standard deviation are those of published distillation
    code, (0.4377, 0.4438, 0.4728) and (0.1980, 0.2010, 0.1970).

    Source: Y. Netzer et al., Reading digits in natural images (2011).

    Raises:
        DataError: the files are absent and cannot be downloaded, or are not the published ones.
    """
    train, test = read("SVHN", root, ({"split": "train"}, {"split": "test"}), _stored)
    info = DataInfo(
        name="svhn",
        channels=3,
        height=resolution,
        width=resolution,
        classes=tuple(str(digit) for digit in range(10)),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
    )
    return Dataset(info, _images(train, resolution), _images(test, resolution))


def _stored(cls: Any) -> Stored:
    files = {cls.split_list[split][1]: cls.split_list[split][2] for split in ("train", "test")}
    return Stored(files, files)


def _images(split: Any, resolution: int) -> MemoryImages:
    images = torch.from_numpy(split.data).contiguous()
    return MemoryImages(resized(images, resolution), torch.from_numpy(split.labels))


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    return {"svhn": svhn}
