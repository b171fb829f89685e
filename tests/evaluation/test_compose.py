"""The data that a set is judged on: its own, or what ``--data`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import recipe_table

from ddkit.errors import DDKitError
from ddkit.evaluation.compose import stored_spec
from ddkit.evaluation.compose import test_data as data_for
from ddkit.evaluation.verdict import Verdict
from ddkit.images.real import make_dataset
from ddkit.images.synthetic import SyntheticSet
from ddkit.recipes.place import Place, Source
from ddkit.recipes.sections import Part

HERE = Place(Source("recipe"), "dataset")
DIGITS = {"resolution": 8, "classes": ["3", "1"]}


@pytest.fixture
def made(set_file: Path) -> SyntheticSet:
    """A set whose recipe chooses classes and holds images out."""
    syn = SyntheticSet.load(set_file)
    dataset = {"name": "digits", **DIGITS, "hold_out": 0.2, "zca": True}
    syn.recipe = recipe_table(dataset=dataset)
    return syn


def test_a_set_is_judged_on_the_part_that_its_recipe_held_out(made: SyntheticSet, loaded: Any):
    data = data_for(made, loaded)
    own = make_dataset(Part("digits", {**DIGITS, "hold_out": 0.2}), loaded, HERE)
    assert data.test.fingerprint() == own.test.fingerprint()
    assert data.info.whitening is None, "judges see the whitening that is stored in the set"


def test_its_dataset_by_name_is_the_whole_of_it_with_the_options_of_the_recipe(
    made: SyntheticSet, loaded: Any
):
    own = make_dataset(Part("digits", DIGITS), loaded, HERE)
    assert data_for(made, loaded, "digits").test.fingerprint() == own.test.fingerprint()
    other = data_for(made, loaded, "digits:resolution=4")
    assert other.info.shape == (1, 4, 4)
    assert other.info.classes == ("3", "1")


def test_a_set_without_a_recipe_is_judged_on_a_dataset_by_name(made: SyntheticSet, loaded: Any):
    made.recipe = {}
    assert data_for(made, loaded, "digits:resolution=8").info.num_classes == 10
    with pytest.raises(DDKitError, match="give --data, a folder"):
        data_for(made, loaded)


@pytest.mark.parametrize(
    "given, said",
    [
        ("digts", "--data: no such folder, and no dataset is called 'digts' (did you mean"),
        ("digits:resolution", "--data: 'digits:resolution' must look like name:option=value"),
        (":a=1", "--data: ':a=1' must look like name:option=value"),
        ("digits:sesolution=3", "unknown option (did you mean 'resolution'"),
        ("", "--data: the path is empty"),
    ],
)
def test_what_is_no_data_costs_one_line(made: SyntheticSet, loaded: Any, given: str, said: str):
    with pytest.raises(DDKitError) as refused:
        data_for(made, loaded, given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_architecture_of_the_recipes_own_name_has_the_recipes_options(set_file: Path):
    syn = SyntheticSet.load(set_file)
    asked = ["convnet", "resnet18", "convnet:depth=1", "mlp:width=5"]
    archs = stored_spec(syn, asked).archs
    own = syn.recipe["backbone"]
    assert archs[0].options == {k: v for k, v in own.items() if k != "name"}
    assert archs[0].options["width"] == 8
    assert archs[1] == Part("resnet18")
    assert archs[2].options == {**archs[0].options, "depth": 1}
    assert archs[3] == Part("mlp", {"width": 5})


def test_a_protocol_may_be_a_file(set_file: Path, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 7\nlr = 0.5\n", encoding="utf-8")
    spec = stored_spec(SyntheticSet.load(set_file), settings=[f'protocol="{path}"'])
    assert (spec.training.epochs, spec.training.lr, spec.protocol) == (7, 0.5, str(path))
    assert str(path) in Verdict(spec).protocol


@pytest.mark.parametrize(
    "text, said",
    [
        (None, "no such file"),
        ("epoch = 3\n", "mine.toml:1: epoch: unknown option (did you mean 'epochs'"),
        ("epochs = \n", "mine.toml"),
        ('epochs = "x"\n', "epochs: must be an integer"),
    ],
)
def test_a_file_that_is_no_protocol_is_refused_in_words(
    set_file: Path, tmp_path: Path, text: str | None, said: str
):
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DDKitError) as refused:
        stored_spec(SyntheticSet.load(set_file), settings=[f'protocol="{path}"'])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
