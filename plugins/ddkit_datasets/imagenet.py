"""ImageNet-1k, and the six subsets of ten classes that distillation papers use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ddkit import hookimpl
from ddkit.data import Dataset, DatasetFactory
from ddkit.errors import DataError, RecipeError
from ddkit.options import Count, Positive
from ddkit_datasets.imagenet_classes import subset, unique
from ddkit_datasets.imagenet_folders import located, read


def imagenet(
    root: Path,
    path: Path | None = None,
    resolution: Count = 224,
    resize: Count | None = None,
    memory_limit_gb: Positive = 8.0,
) -> Dataset:
    """ImageNet-1k: 1,281,167 training and 50,000 validation images, 3 channels, 1000 classes.

    Read from ``train/WNID/`` and ``val/WNID/`` in `path`, by default ``imagenet`` in `root`;
    labels follow sorted WNIDs, and fewer than 1000 class folders work too. The validation images
    are the test split. Mean and standard deviation are (0.485, 0.456, 0.406) and (0.229, 0.224,
    0.225).

    Args:
        root: the data folder.
        path: another folder with ``train`` and ``val``, relative to the working directory.
        resolution: the centre square of this side is kept.
        resize: the shorter side is resized to it first (bilinearly); by default `resolution`.
        memory_limit_gb: images that would take more when decoded stay on disk and are decoded
            batch by batch; else they are decoded once and cached.

    Source: O. Russakovsky et al., ImageNet large scale visual recognition challenge (2015).

    Raises:
        DataError: folders are missing or empty, or an image is damaged.
        RecipeError: `resize` is less than `resolution`.
    """
    if resize is not None and resize < resolution:
        raise RecipeError(f"dataset.resize: must be at least the resolution, {resolution}")
    tree = located("imagenet", root, path)
    wnids, val = (tree.subfolders(tree.base / split) for split in ("train", "val"))
    extra = sorted(set(val) - set(wnids))
    if extra:
        raise DataError(f"{tree.base}: the class {extra[0]} is in val/ only ({len(extra)} such)")
    return read("imagenet", tree, wnids, _names(wnids), resolution, resize, memory_limit_gb)


def _names(wnids: list[str]) -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    known = ImageNetInfo("imagenet-1k")
    inside = set(known.label_names())
    names = [
        str(known.label_name_to_description(w)).split(",")[0] if w in inside else w for w in wnids
    ]
    return unique(names, wnids)


def imagenette(root: Path, path: Path | None = None, resolution: Count = 128) -> Dataset:
    """ImageNette: ten easy classes of ImageNet-1k, from tench to parachute.

    Read from ``train/WNID/`` and ``val/WNID/`` in `path`, by default ``imagenet`` in `root`;
    shorter side resized to `resolution`, centre square kept, 3 channels, normalised as ImageNet;
    the validation images are the test split. Labels as in MTT and NCFM. Raises DataError if
    class folders are missing or empty, or an image is damaged.
    """
    return _subset("imagenette", root, path, resolution)


def imagewoof(root: Path, path: Path | None = None, resolution: Count = 128) -> Dataset:
    """ImageWoof: ten breeds of dogs of ImageNet-1k; folders, form and errors as `imagenette`."""
    return _subset("imagewoof", root, path, resolution)


def imagefruit(
    root: Path,
    path: Path | None = None,
    resolution: Count = 128,
    variant: Literal["mtt", "ncfm"] = "mtt",
) -> Dataset:
    """ImageFruit: ten fruits of ImageNet-1k; folders, form and errors as `imagenette`.

    The last class is Granny Smith in `variant` ``mtt``, custard apple in ``ncfm``.
    """
    return _subset("imagefruit", root, path, resolution, variant)


def imageyellow(
    root: Path,
    path: Path | None = None,
    resolution: Count = 128,
    variant: Literal["mtt", "ncfm"] = "mtt",
) -> Dataset:
    """ImageYellow: ten yellow things of ImageNet-1k; folders, form and errors as `imagenette`.

    The spider is the black and gold garden spider in `variant` ``mtt``, the garden spider
    (class 74 of ImageNet-1k) in ``ncfm``.
    """
    return _subset("imageyellow", root, path, resolution, variant)


def imagemeow(root: Path, path: Path | None = None, resolution: Count = 128) -> Dataset:
    """ImageMeow: ten cats of ImageNet-1k; folders, form and errors as `imagenette`."""
    return _subset("imagemeow", root, path, resolution)


def imagesquawk(root: Path, path: Path | None = None, resolution: Count = 128) -> Dataset:
    """ImageSquawk: ten birds of ImageNet-1k; folders, form and errors as `imagenette`."""
    return _subset("imagesquawk", root, path, resolution)


def _subset(
    name: str, root: Path, path: Path | None, resolution: int, variant: str = "mtt"
) -> Dataset:
    tree = located(name, root, path)
    wnids, classes = subset(name, variant)
    return read(name, tree, wnids, classes, resolution)


@hookimpl
def register_datasets() -> dict[str, DatasetFactory]:
    factories = (imagenet, imagenette, imagewoof, imagefruit, imageyellow, imagemeow, imagesquawk)
    return {factory.__name__: factory for factory in factories}
