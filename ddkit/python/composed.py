"""A recipe of whatever form, with objects in the places of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ddkit.data import Dataset
from ddkit.errors import RecipeError
from ddkit.images.real import make_dataset
from ddkit.plugins import OBJECT, Plugins
from ddkit.python.dataset import as_dataset
from ddkit.python.network import Given
from ddkit.recipes import catalog
from ddkit.recipes.place import Source, told
from ddkit.recipes.recipe import Overrides, Recipe, copied
from ddkit.recipes.resolution import check_names
from ddkit.recipes.sections import DatasetKeys, own_keys


class Composed(NamedTuple):
    """A recipe that names objects, and the registries that know them."""

    recipe: Recipe
    plugins: Plugins
    dataset: Dataset | None = None
    """The recipe's data, where it had to be read."""


def compose_objects(
    recipe: Recipe | Path | str | Mapping[str, Any],
    overrides: Overrides,
    loaded: Plugins,
    note: Callable[[str], None],
    dataset: Any = None,
    backbone: Any = None,
    proxies: Any = None,
) -> Composed:
    """Return `recipe` with the objects that were given named in it, by what they compute.

    What ddkit itself reads of ``[dataset]`` (such as ``zca``) holds for a dataset given, too.

    Raises:
        DDKitError: the recipe, an object or an override cannot be used.
    """
    given = Given()
    table, source = _read(recipe)
    if dataset is not None:
        given.dataset = as_dataset(dataset, note)
        old = table.get("dataset")
        own, _ = own_keys(DatasetKeys, old if isinstance(old, Mapping) else {})
        table["dataset"] = {"name": OBJECT + given.dataset.info.name, **own}
    if backbone is not None:
        table["backbone"] = {"name": given.network(backbone, "backbone")}
    if proxies is not None:
        pool = table.get("proxies")
        named = {"backbone": {"name": given.network(proxies, "proxies")}}
        table["proxies"] = {**pool, **named} if isinstance(pool, Mapping) else named
    parsed = Recipe.parse(table, overrides, source)
    if not given.networks:
        return Composed(parsed, given.plugins(loaded))
    checking = given.plugins(loaded)
    check_names(parsed, checking)
    data = make_dataset(parsed.dataset, checking, parsed.place("dataset"))
    return Composed(parsed, given.plugins(loaded, data.info), data)


def _read(recipe: Recipe | Path | str | Mapping[str, Any]) -> tuple[dict[str, Any], Source]:
    if isinstance(recipe, Recipe):
        return recipe.table(), recipe.source
    if isinstance(recipe, Mapping):
        return copied(recipe, "recipe"), Source("recipe")
    if not isinstance(recipe, str | Path):
        raise RecipeError(
            f"a recipe is a name, a path, a table or a ddkit.Recipe, not {told(recipe)}"
        )
    text, table = catalog.read(catalog.find_recipe(recipe), str(recipe))
    return dict(table), Source(str(recipe), text)
