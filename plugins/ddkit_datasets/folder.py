"""Anybody's images: folders of class folders."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from ddkit import hookimpl, paths
from ddkit.data import DataInfo, Dataset, DatasetFactory
from ddkit.errors import DataError, RecipeError
from ddkit.options import Count, Fraction, Positive, Range
from ddkit_datasets.image_cache import load
from ddkit_datasets.image_decode import Form
from ddkit_datasets.image_files import Files, Tree

_TRAIN = frozenset({"train", "training"})
_TEST = frozenset({"test", "testing"})
_VAL = frozenset({"val", "valid", "validation"})


def folder(
    root: Path,
    path: Path,
    resolution: Count | None = None,
    channels: Literal[1, 3] | None = None,
    test_every: Annotated[int, Range(min=2)] = 5,
    mean: list[Fraction] | None = None,
    std: list[Positive] | None = None,
) -> Dataset:
    """Image files in class folders, from `path`, relative to the working directory.

    Either ``train/CLASS/FILE`` with ``test/`` or ``val/`` beside it (``test`` goes first; in any
    case, and ``training``, ``testing``, ``valid``, ``validation`` do as well), or ``CLASS/FILE``,
    of which file 2, 2 + `test_every`, ... of each class, by name, are the test split. Labels
    follow the alphabetical order of the class folders, whose names are in Unicode's composed form.
    Hidden files and what systems leave (``@eaDir``, ``Thumbs.db``) are ignored, which is said.
    Decoded images and their statistics are cached until a file changes.

    Args:
        root: not used.
        path: the folder.
        resolution: the shorter side is resized to it and the centre square kept; by default the
            images stay as they are and must be of one size, square or not.
        channels: 1 or 3; by default 1 if every image is grey, else 3.
        test_every: how many files of a class there are for each test image.
        mean, std: per channel, for pixels in [0, 1]; by default those of the training images.

    Raises:
        DataError: a folder is missing or empty, a class is in one split only or the only one; a
            file is not an image, of another size, of more than three channels or 8 bits, has
            transparent pixels, or holds several pictures.
        RecipeError: `mean` or `std` do not have one value per channel.
    """
    path = paths.expanded(path)
    tree = Tree(path)
    classes, train, test = _list(tree, test_every)
    tree.tell()
    images = load(path, train, test, Form(resolution, channels))
    center = _chosen("mean", mean, images.mean)
    scale = _chosen("std", std, images.std)
    name = path.resolve().name.encode(errors="replace").decode()
    info = DataInfo(name, *images.shape, tuple(classes), center, scale)
    return Dataset(info, images.train, images.test)


def _chosen(
    option: str, given: list[float] | None, computed: tuple[float, ...]
) -> tuple[float, ...]:
    if given is None:
        return computed
    if len(given) != len(computed):
        raise RecipeError(
            f"dataset.{option}: must be {len(computed)} numbers, one per channel, not {given}"
        )
    return tuple(given)


def _list(tree: Tree, test_every: int) -> tuple[list[str], Files, Files]:
    """Return class names, training files and test files."""
    path = tree.base
    found = paths.look(path)
    if found is None or not stat.S_ISDIR(found.st_mode):
        what = "there is no such folder" if found is None else "is not a folder"
        raise DataError(
            f"{path}: {what}; dataset.path must hold train/ and test/, or class folders"
        )
    train = _only(tree, _TRAIN)
    if train is not None:
        return _two(tree, train)
    classes = tree.class_folders(path)
    if not classes:
        raise DataError(
            f"{path}: holds neither train/ nor class folders; images must lie in "
            "train/CLASS/ and test/CLASS/, or in CLASS/"
        )
    _several(tree, classes, path)
    return list(classes), *_split(tree, classes, test_every)


def _two(tree: Tree, train: str) -> tuple[list[str], Files, Files]:
    """As `_list`, from a folder for each split."""
    path = tree.base
    test = _only(tree, _TEST) or _only(tree, _VAL)
    if test is None:
        raise DataError(f"{path}: has {train}/ but neither test/ nor val/, with class folders")
    first, second = tree.class_folders(path / train), tree.class_folders(path / test)
    _same(first, second, path, train, test)
    _several(tree, first, path / train)
    others = (entry.name for entry in tree.scan(path) if entry.name not in (train, test))
    tree.leave(others)
    files, tests = (tree.list_classes([split[name] for name in first]) for split in (first, second))
    return list(first), files, tests


def _only(tree: Tree, wanted: frozenset[str]) -> str | None:
    """Return the folder of one of the names `wanted`, in any case, that holds folders, or None.

    One without folders is a class: of vehicles, of trials.
    """
    names = [n for n in tree.subfolders(tree.base) if n.casefold() in wanted]
    names = [name for name in names if tree.subfolders(tree.base / name)]
    if len(names) > 1:
        raise DataError(
            f"{tree.base}: has {' and '.join(f'{n}/' for n in names)}, which mean the same split; "
            "keep one of them there"
        )
    return names[0] if names else None


def _split(tree: Tree, classes: Mapping[str, Path], every: int) -> tuple[Files, Files]:
    files = tree.list_classes(list(classes.values()))
    counts = Counter(files.labels)
    lonely = [path for label, path in enumerate(classes.values()) if counts[label] < 2]
    if lonely:
        raise DataError(f"{lonely[0]}: holds one image only; a split needs two at least")
    ranks = [rank for label in range(len(classes)) for rank in range(counts[label])]
    # The second of every few, not the last: so a class of two gives an image to each split.
    test = [rank % every == 1 for rank in ranks]
    return files.where([not t for t in test]), files.where(test)


def _same(
    first: Mapping[str, Path], second: Mapping[str, Path], path: Path, train: str, test: str
) -> None:
    for inside, missing, names in (
        (train, test, sorted(set(first) - set(second))),
        (test, train, sorted(set(second) - set(first))),
    ):
        if names:
            listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise DataError(f"{path}: classes in {inside}/ but not in {missing}/: {listed}")


def _several(tree: Tree, classes: Mapping[str, Path], where: Path) -> None:
    if len(classes) < 2:
        ((name, path),) = classes.items()
        inside = ", ".join(entry.name for entry in tree.scan(path)[:3])
        raise DataError(
            f"{where}: has one class only, {name!r} (holding {inside or 'nothing'}); two are needed"
        )


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    return {"folder": folder}
