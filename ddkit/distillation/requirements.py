"""What the parts of a recipe ask of each other, refused in words before anything is trained."""

from __future__ import annotations

import torch
from torch import nn

from ddkit.data import DataInfo, Dataset
from ddkit.errors import DataError, IncompatibleError, RecipeError
from ddkit.method import Method
from ddkit.recipes.recipe import Recipe
from ddkit.regularizer import Term

ALWAYS = frozenset({"syn", "groups", "labels"})
"""What every `Match` has, whatever its method says of it."""


def supplied(method: Method) -> frozenset[str]:
    """Return the `Match` fields that `method` fills, with those that come along with them.

    A method that provides nothing makes no `Match`: it selects images.
    """
    real = {"real_groups", "real_labels"}
    along = ALWAYS | real if method.provides & real else ALWAYS
    return method.provides | along if method.provides else method.provides


def check_requirements(recipe: Recipe, method: Method, terms: tuple[Term, ...]) -> None:
    """Refuse a regularizer that the method, or the lack of ``[proxies]``, cannot supply.

    Raises:
        IncompatibleError: saying what is needed and what there is.
    """
    given = supplied(method)
    for term in terms:
        needs = term.regularizer.requires
        lacking = needs - given - {"proxy"}
        if lacking:
            raise IncompatibleError(
                f"{recipe.place('regularizers')}: {term.name!r} needs {listed(needs)}; method "
                f"{recipe.method.name!r} provides {listed(given) or 'nothing'}. "
                f"Remove it or choose another method."
            )
        if "proxy" in needs and recipe.proxies is None:
            raise IncompatibleError(
                f"{recipe.place('regularizers')}: {term.name!r} needs a pool of trained networks; "
                f'add proxies = {{ backbone = "resnet18", count = 3, epochs = 5 }}'
            )
    if method.reads_proxies and recipe.proxies is None:
        raise IncompatibleError(
            f"{recipe.place('method')}: this setting of {recipe.method.name!r} needs a pool of "
            f'trained networks; add proxies = {{ backbone = "convnet", count = 1, epochs = 20 }}'
        )


def check_synthetic(recipe: Recipe) -> None:
    """Refuse what does not go together: whitened pixels in [0, 1], a bound that binds nothing.

    Raises:
        IncompatibleError: both are asked for.
    """
    spec = recipe.synthetic
    if spec.bound is not None and spec.kind != "bound":
        raise IncompatibleError(
            f'{recipe.place("synthetic.bound")}: belongs to kind = "bound", not to '
            f"{spec.kind!r}; drop it"
        )
    if recipe.dataset.options.get("zca") and recipe.synthetic.space == "pixel":
        raise IncompatibleError(
            f'{recipe.place("synthetic.space")}: "pixel" does not go with dataset.zca; '
            f'choose space = "normalized"'
        )


def check_labels(data: Dataset) -> None:
    """Refuse labels that name no class, and splits without images.

    Raises:
        DataError: naming the split and the label.
    """
    classes = data.info.num_classes
    for split, source in (("training", data.train), ("test", data.test)):
        labels = source.labels
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise DataError(
                f"{data.info.name}: {split} labels must be int64 [N], not "
                f"{labels.dtype} {list(labels.shape)}"
            )
        if len(labels) == 0:
            raise DataError(f"{data.info.name}: there are no {split} images")
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label < classes:
                raise DataError(
                    f"{data.info.name}: a {split} image has the label {label}; "
                    f"labels must be 0 to {classes - 1}"
                )


def check_method(recipe: Recipe, method: Method, info: DataInfo, net: nn.Module) -> None:
    """Let the method refuse what it cannot do, and say where the recipe asks for it."""
    try:
        method.check(recipe.synthetic, info, net)
    except (RecipeError, IncompatibleError) as error:
        raise type(error)(f"{recipe.place('method')}: {error}") from error


def listed(names: frozenset[str]) -> str:
    """Return names of `Match` fields for a message."""
    return ", ".join(sorted(names))
