"""Anybody's images: folders of class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from ddkit import hookimpl
from ddkit.data import DataInfo, Dataset, DatasetFactory
from ddkit.errors import DataError, RecipeError
from ddkit.options import Count, Fraction, Positive, Range
from ddkit_datasets.image_cache import load
from ddkit_datasets.image_decode import Form
from ddkit_datasets.image_files import Files, list_classes, scan, subfolders

_TESTS = ("test", "val")


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

    Either ``train/CLASS/FILE`` with ``test/`` or ``val/`` beside it (``test`` goes first), or
    ``CLASS/FILE``, of which file 2, 2 + `test_every`, ... of each class, by name, are the test
    split. Labels follow the alphabetical order of the class folders. Hidden files are ignored.
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
            file is not an image, of another size, or of more than three channels.
        RecipeError: `mean` or `std` do not have one value per channel.
    """
    path = path.expanduser()
    classes, train, test = _list(path, test_every)
    images = load(path, train, test, Form(resolution, channels))
    center = _chosen("mean", mean, images.mean)
    scale = _chosen("std", std, images.std)
    info = DataInfo(path.resolve().name, *images.shape, tuple(classes), center, scale)
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


def _list(path: Path, test_every: int) -> tuple[list[str], Files, Files]:
    """Return class names, training files and test files."""
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "there is no such folder"
        raise DataError(
            f"{path}: {what}; dataset.path must hold train/ and test/, or class folders"
        )
    names = subfolders(path)
    if "train" in names and subfolders(path / "train"):  # else "train" is a class, of vehicles
        test = next((name for name in _TESTS if name in names), None)
        if test is None:
            raise DataError(f"{path}: has train/ but neither test/ nor val/")
        classes = subfolders(path / "train")
        _same(classes, subfolders(path / test), path, test)
        _several(classes, path / "train")
        train_files = list_classes([path / "train" / name for name in classes])
        return classes, train_files, list_classes([path / test / name for name in classes])
    if not names:
        raise DataError(
            f"{path}: holds neither train/ nor class folders; images must lie in "
            "train/CLASS/ and test/CLASS/, or in CLASS/"
        )
    _several(names, path)
    return names, *_split(path, names, test_every)


def _split(path: Path, names: Sequence[str], every: int) -> tuple[Files, Files]:
    files = list_classes([path / name for name in names])
    counts = Counter(files.labels)
    lonely = [name for label, name in enumerate(names) if counts[label] < 2]
    if lonely:
        raise DataError(f"{path / lonely[0]}: holds one image only; a split needs two at least")
    ranks = [rank for label in range(len(names)) for rank in range(counts[label])]
    # The second of every few, not the last: so a class of two gives an image to each split.
    test = [rank % every == 1 for rank in ranks]
    return files.where([not t for t in test]), files.where(test)


def _same(train: Sequence[str], test: Sequence[str], path: Path, test_name: str) -> None:
    for inside, missing, names in (
        ("train", test_name, sorted(set(train) - set(test))),
        (test_name, "train", sorted(set(test) - set(train))),
    ):
        if names:
            listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise DataError(f"{path}: classes in {inside}/ but not in {missing}/: {listed}")


def _several(classes: Sequence[str], where: Path) -> None:
    if len(classes) < 2:
        inside = ", ".join(entry.name for entry in scan(where / classes[0])[:3])
        raise DataError(
            f"{where}: has one class only, {classes[0]!r} (holding {inside or 'nothing'}); "
            "two are needed"
        )


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    return {"folder": folder}
