"""What the reference says of a recipe's sections is what reading them does."""

from __future__ import annotations

import json

import pytest
from conftest import ddkit, recipe_table

from ddkit.errors import RecipeError
from ddkit.recipes.keys import keys, sections, shown, summary
from ddkit.recipes.recipe import Recipe


@pytest.mark.parametrize("section", sections())
def test_every_key_has_type_default_and_meaning(section: str):
    assert summary(section).endswith(".")
    for key in keys(section):
        assert key.type and key.meaning, key.name
        assert key.default or not section, key.name


@pytest.mark.parametrize("section", ["synthetic", "proxies", "runtime"])
def test_the_keys_of_a_section_are_those_that_a_resolved_recipe_states(section: str):
    recipe = Recipe.parse(recipe_table(proxies={"count": 1, "images": 9}))
    recipe = Recipe.parse(
        recipe.table(), ["synthetic.kind=bound", "synthetic.bound=9", "synthetic.path=x"]
    )
    assert {k.name for k in keys(section)} == recipe.table()[section].keys()


def test_the_keys_of_eval_are_those_that_a_resolved_recipe_states():
    recipe = Recipe.parse(recipe_table(eval={"teacher": {"epochs": 1, "images": 9}}))
    table = recipe.table()["eval"]
    assert {k.name for k in keys("eval")} == table.keys()
    assert {k.name for k in keys("eval.teacher")} == table["teacher"].keys()


@pytest.mark.parametrize("section", ["synthetic", "proxies", "runtime"])
def test_a_default_is_what_leaving_the_key_out_gives(section: str):
    table = Recipe.parse(recipe_table(proxies={}, synthetic={}, runtime={})).table()[section]
    told = {k.name: k.default for k in keys(section) if k.default != "none"}
    given = {name: shown(v["name"] if name == "backbone" else v) for name, v in table.items()}
    assert told == given


@pytest.mark.parametrize("section", ["synthetic", "proxies", "eval", "runtime"])
def test_an_unknown_key_is_refused_where_the_reference_lists_none(section: str):
    with pytest.raises(RecipeError, match=f"{section}.surely_not: unknown option"):
        Recipe.parse(recipe_table(proxies={}), [f"{section}.surely_not=1"])


def test_sections_are_listed_and_shown_and_a_typo_is_told():
    listed = ddkit("list", "sections").out.splitlines()
    assert [line.split()[0] for line in listed] == [s for s in sections() if s]
    assert "  zca: true or false; default false" in ddkit("list", "sections", "dataset").out
    (told,) = json.loads(ddkit("list", "sections", "runtime", "--json").out)
    assert told["keys"][0]["name"] == "device"
    refused = ddkit("list", "sections", "runtim")
    assert (refused.code, refused.out) == (2, "")
    assert "did you mean 'runtime'" in refused.err
