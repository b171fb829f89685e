"""Tiny ImageNet: 64x64 colour images of 200 classes, from its unpacked archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ddkit import hookimpl, paths
from ddkit.data import DataInfo, Dataset, DatasetFactory
from ddkit.errors import DataError
from ddkit.options import Count
from ddkit_datasets.image_cache import load
from ddkit_datasets.image_decode import Form
from ddkit_datasets.image_files import Files, Tree
from ddkit_datasets.imagenet_classes import MEAN, STD, unique

_MEAN = (0.4802, 0.4481, 0.3975)
_STATISTICS = {
    "imagenet": (MEAN, STD),
    "own": (_MEAN, (0.2770, 0.2691, 0.2821)),
    "sre2l": (_MEAN, (0.2302, 0.2265, 0.2262)),
}


def tiny_imagenet(
    root: Path,
    path: Path | None = None,
    resolution: Count = 64,
    order: Literal["sorted", "wnids"] = "sorted",
    statistics: Literal["imagenet", "own", "sre2l"] = "imagenet",
) -> Dataset:
    """Tiny ImageNet: 100,000 training and 10,000 validation images, 64x64, 3 channels, 200 classes.

    Read from `path`, by default ``tiny-imagenet-200`` in `root`, as the archive unpacks
    (``train/WNID/images/``, ``val/images/`` with ``val/val_annotations.txt``) or with ``val``
    sorted into class folders. The validation images are the test split. Class names are those of
    ``words.txt``, else WNIDs. Decoded images are cached.

    Args:
        root: the data folder.
        path: the unpacked archive, relative to the working directory.
        resolution: images are resized to it bilinearly.
        order: labels follow sorted WNIDs, as published code has it, or ``wnids.txt``.
        statistics: mean and standard deviation: ``imagenet`` as DM, IDM, IID and NCFM use;
            ``own`` as the CMI code has them for DC, DSA and DM; ``sre2l`` as SRe2L has them.

    Source: the CS231n course's subset of ImageNet (2015).

    Raises:
        DataError: it is not there, lacks annotations or class folders, or has damaged images.
    """
    base = _located(root, path)
    tree = Tree(base)
    wnids = _wnids(tree, order)
    train = tree.list_classes([_class_folder(base / "train" / wnid) for wnid in wnids])
    test = _validation(tree, wnids)
    tree.tell()
    images = load(base, train, test, Form(resolution, 3, True))
    classes = unique(_names(base, wnids), wnids)
    info = DataInfo("tiny_imagenet", 3, resolution, resolution, classes, *_STATISTICS[statistics])
    return Dataset(info, images.train, images.test)


def _located(root: Path, path: Path | None) -> Path:
    base = root / "tiny-imagenet-200" if path is None else paths.expanded(path)
    if not all(paths.is_folder(base / split) for split in ("train", "val")):
        raise DataError(
            f"tiny_imagenet is not at {base}: unpack the archive tiny-imagenet-200.zip so that "
            "train/ and val/ lie there, or give dataset.path"
        )
    return base


def _wnids(tree: Tree, order: str) -> list[str]:
    base = tree.base
    present = tree.subfolders(base / "train")
    if not present:
        raise DataError(f"{base / 'train'}: holds no class folders")
    if order == "sorted":
        return present
    listed = _text(base / "wnids.txt").split()
    if sorted(listed) != present:
        odd = sorted(set(listed) ^ set(present)) or ["a repeated one"]
        raise DataError(f"{base / 'wnids.txt'}: differs from the folders of train/: {odd[0]}")
    return listed


def _validation(tree: Tree, wnids: list[str]) -> Files:
    """List the validation images of either layout."""
    val = tree.base / "val"
    sorted_folders = [name for name in tree.subfolders(val) if name != "images"]
    if sorted_folders:
        odd = sorted(set(sorted_folders) ^ set(wnids))
        if odd:
            where = "train" if odd[0] in wnids else "val"
            raise DataError(f"{val.parent}: the class {odd[0]} is in {where}/ only")
        return tree.list_classes([_class_folder(val / wnid) for wnid in wnids])
    annotations = val / "val_annotations.txt"
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    known: dict[str, int] = {}
    for number, line in enumerate(_text(annotations).splitlines(), 1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if wnid not in labels:
            raise DataError(f"{annotations}:{number}: {wnid!r} is not a class of train/")
        known[file] = labels[wnid]
    return tree.list_labelled(val / "images", known)


def _class_folder(folder: Path) -> Path:
    """Return where the images of a class are: the archive puts them one folder deeper."""
    inner = folder / "images"
    return inner if paths.is_folder(inner) else folder


def _names(base: Path, wnids: list[str]) -> list[str]:
    words = base / "words.txt"
    if not paths.is_file(words):
        return wnids
    pairs = (line.partition("\t") for line in _text(words).splitlines())
    names = {wnid: name.split(",")[0].strip() for wnid, _, name in pairs}
    return [names.get(wnid) or wnid for wnid in wnids]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; unpack the whole archive") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {paths.reason(error)}") from None


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    return {"tiny_imagenet": tiny_imagenet}
