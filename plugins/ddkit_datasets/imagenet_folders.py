"""Reads chosen classes from ImageNet-style folders, into memory or from disk as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddkit import paths
from ddkit.data import DataInfo, Dataset
from ddkit.errors import DataError
from ddkit_datasets.image_cache import load
from ddkit_datasets.image_decode import Form
from ddkit_datasets.image_disk import DiskImages
from ddkit_datasets.image_files import Tree
from ddkit_datasets.imagenet_classes import MEAN, STD


def located(name: str, root: Path, path: Path | None) -> Tree:
    """Return the tree that holds ``train`` and ``val``: `path`, by default ``root/imagenet``.

    Raises:
        DataError: a split is missing or not sorted into class folders; it says what to put where.
    """
    base = root / "imagenet" if path is None else paths.expanded(path)
    tree = Tree(base)
    for split in ("train", "val"):
        if not paths.is_folder(base / split):
            raise DataError(
                f"{name} is not at {base}: put the ImageNet-1k (ILSVRC2012) images there as "
                "train/WNID/*.JPEG and val/WNID/*.JPEG, or give dataset.path"
            )
        if not tree.subfolders(base / split):
            raise DataError(
                f"{base / split}: holds no class folders; sort the images into {split}/WNID/"
            )
    return tree


def read(
    name: str,
    tree: Tree,
    wnids: Sequence[str],
    classes: Sequence[str],
    resolution: int,
    resize: int | None = None,
    memory_limit_gb: float = 8.0,
) -> Dataset:
    """Return the classes `wnids` below `tree` under the names `classes`, labelled in that order.

    Images are decoded into memory and cached, or decoded from disk batch by batch if they would
    take more than `memory_limit_gb`. The shorter side is resized to `resize`, by default to
    `resolution`, and the centre square of side `resolution` kept.

    Raises:
        DataError: a class folder is missing or empty, or an image is damaged.
    """
    base = tree.base
    for split in ("train", "val"):
        present = set(tree.subfolders(base / split))
        absent = [w for w in wnids if w not in present]
        if absent:
            label = classes[list(wnids).index(absent[0])]
            raise DataError(
                f"{base / split / absent[0]}: there is no such folder; {name} needs it for the "
                f"class {label!r} ({len(absent)} of {len(wnids)} missing)"
            )
    train, test = (tree.list_classes([base / s / w for w in wnids]) for s in ("train", "val"))
    tree.tell()
    form = Form(resolution, 3, True, resize)
    info = DataInfo(name, 3, resolution, resolution, tuple(classes), MEAN, STD)
    if (len(train) + len(test)) * 3 * resolution**2 > memory_limit_gb * 1e9:
        return Dataset(info, DiskImages(base, train, form), DiskImages(base, test, form))
    images = load(base, train, test, form)
    return Dataset(info, images.train, images.test)
