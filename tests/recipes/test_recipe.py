"""Recipes: what they read, what they refuse and where they say it stands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from conftest import ROOT, recipe_table

from ddkit.distillation.compose import make_method, make_terms
from ddkit.distillation.requirements import check_requirements
from ddkit.errors import RecipeError
from ddkit.recipes import catalog
from ddkit.recipes.place import Place, Source
from ddkit.recipes.protocol import deviations, eval_spec, load_protocol
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import check_names
from ddkit.recipes.sections import Part, ProxySpec, as_part

FULL = """\
seed = 3
dataset = { name = "digits", resolution = 16 }
backbone = "convnet"
synthetic = { ipc = 5, init = "noise", factor = 2, order = "column", space = "pixel" }
proxies = { backbone = { name = "resnet18", width = 16 }, count = 3, epochs = 5, images = 100 }
regularizers = [
  { name = "centralize", weight = 0.05 },
  { name = "covariance", weight = 1 },
]

[method]
name = "dm"
iterations = 10
lr_images = 1

[eval]
archs = ["convnet", { name = "resnet18", width = 8 }]
seeds = 3
protocol = "idc"
epochs = 7
milestones = [0.5, 1]

[runtime]
chunk = 4
"""


def written(tmp_path: Path, text: str, name: str = "mine.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_section_is_read(tmp_path: Path):
    recipe = Recipe.load(written(tmp_path, FULL))
    assert recipe.seed == 3
    assert recipe.dataset == Part("digits", {"resolution": 16})
    assert recipe.backbone == Part("convnet")
    assert (recipe.synthetic.ipc, recipe.synthetic.factor) == (5, 2)
    assert recipe.method == Part("dm", {"iterations": 10, "lr_images": 1})
    assert recipe.regularizers == ((0.05, Part("centralize")), (1.0, Part("covariance")))
    assert recipe.proxies is not None
    assert recipe.proxies.backbone == Part("resnet18", {"width": 16})
    assert recipe.eval.archs == (Part("convnet"), Part("resnet18", {"width": 8}))
    assert recipe.eval.training.milestones == (0.5, 1.0)
    assert recipe.eval.training.cutmix == 0.5  # of the protocol
    assert recipe.runtime.chunk == 4


def test_sections_left_out_have_defaults():
    recipe = Recipe.parse({"dataset": "digits", "backbone": "convnet", "method": "dm"})
    assert recipe.seed == 0
    assert recipe.proxies is None
    assert recipe.regularizers == ()
    assert recipe.eval.archs == (Part("convnet"),)
    assert recipe.eval.protocol == "dm"


def test_the_backbone_judges_where_no_other_is_named():
    net = {"name": "convnet", "width": 8}
    recipe = Recipe.parse({"dataset": "digits", "backbone": net, "method": "dm"})
    assert recipe.eval.archs == (Part("convnet", {"width": 8}),)


def test_the_resolved_table_reads_back_to_the_same_recipe(tmp_path: Path):
    recipe = Recipe.load(written(tmp_path, FULL))
    table = recipe.table()
    assert Recipe.parse(table) == recipe
    assert Recipe.parse(tomllib.loads(tomli_w.dumps(table))) == recipe
    assert Recipe.parse(table).table() == table


def test_parsing_leaves_the_table_as_it_was():
    table = recipe_table()
    Recipe.parse(table, ["method.iterations=9", "seed=4"])
    assert table == recipe_table()


@pytest.mark.parametrize("name", catalog.recipes())
def test_every_shipped_recipe_composes_by_name_and_survives_its_table(name: str, loaded: Any):
    recipe = Recipe.load(name)
    assert Recipe.parse(recipe.table()) == recipe
    check_names(recipe, loaded)
    check_requirements(recipe, make_method(recipe, loaded), make_terms(recipe, loaded))


@pytest.mark.parametrize("name", catalog.recipes())
def test_every_shipped_recipe_opens_with_its_source_its_figures_and_its_command(name: str):
    text = catalog.recipes()[name].read_text(encoding="utf-8")
    head = text.partition("\nseed")[0]
    assert all(line.startswith("#") for line in head.splitlines() if line)
    for word in ("Setting", "eported", f"ddkit distill {name}"):
        assert word in head


@pytest.mark.parametrize("name", catalog.protocols())
def test_every_protocol_resolves_and_departs_from_nothing(name: str):
    place = Place(Source("test"))
    spec = eval_spec({"protocol": name}, place)
    published = load_protocol(name, place)
    assert (spec.training, spec.presets) == (published.training, published.presets)
    assert deviations(spec) == {}


def test_what_departs_from_a_protocol_is_named():
    spec = eval_spec({"protocol": "dm", "epochs": 300, "lr": 0.01}, Place(Source("test")))
    assert deviations(spec) == {"epochs": 300}


FILES = sorted((ROOT / "recipes").rglob("*.toml"))


def test_what_ships_is_every_file_of_the_checkout_each_under_a_name_of_its_own():
    names = [*catalog.recipes(), *catalog.protocols()]
    assert sorted(names) == sorted(p.stem for p in FILES)


@pytest.mark.parametrize("path", catalog.recipes().values(), ids=lambda p: p.stem)
def test_a_recipe_lies_in_the_folder_of_its_method_whose_name_opens_its_own(path: Path):
    assert path.parent.name == Recipe.load(path).method.name
    assert path.stem.startswith(f"{path.parent.name}-")


# Overrides


@pytest.mark.parametrize(
    ("item", "path", "value"),
    [
        ("seed=5", ("seed",), 5),
        ("method.iterations=20", ("method", "iterations"), 20),
        ("method.lr_images = 2.5", ("method", "lr_images"), 2.5),
        ("method.augmentation=none", ("method", "augmentation"), "none"),
        ('method.augmentation="none"', ("method", "augmentation"), "none"),
        ("eval.archs.1=lenet", ("eval", "archs", 1, "name"), "lenet"),
        ("eval.archs.1.width=9", ("eval", "archs", 1, "width"), 9),
        ("eval.archs.0.depth=2", ("eval", "archs", 0, "depth"), 2),
        ("eval.archs=['lenet']", ("eval", "archs"), [{"name": "lenet"}]),
        ("regularizers.1.weight=0.5", ("regularizers", 1, "weight"), 0.5),
        ("backbone.depth=2", ("backbone", "depth"), 2),
        ("dataset=mnist", ("dataset", "name"), "mnist"),
        ("runtime.precision=bfloat16", ("runtime", "precision"), "bfloat16"),
    ],
)
def test_an_override_replaces_one_value_typed(
    item: str, path: tuple[Any, ...], value: Any, tmp_path: Path
):
    node: Any = Recipe.load(written(tmp_path, FULL), [item]).table()
    for key in path:
        node = node[key]
    assert node == value
    assert type(node) is type(value)


def test_later_overrides_win(tmp_path: Path):
    recipe = Recipe.load(written(tmp_path, FULL), ["seed=5", "seed=6"])
    assert recipe.seed == 6


def test_an_override_makes_a_section_that_is_not_there():
    base = {"dataset": "digits", "backbone": "convnet", "method": "dm"}
    recipe = Recipe.parse(base, ["proxies.count=2", "proxies.backbone=convnet"])
    assert recipe.proxies == ProxySpec(backbone=Part("convnet"), count=2)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("seed", "must look like"),
        ("=5", "must look like"),
        ("seed=x", "--set seed: must be an integer"),
        ("seed=true", "--set seed: must be an integer"),
        ("sed=1", "did you mean 'seed'"),
        ("regularizers.2.weight=1", "position"),
        ("regularizers.x.weight=1", "position"),
        ("eval.archs.2=lenet", "position"),
        ("seed.x=1", "not a table"),
        ("eval.epoch=3", "did you mean 'epochs'"),
        ("synthetic.ipc=0", "--set synthetic.ipc: must be at least 1, not 0"),
    ],
)
def test_a_bad_override_is_refused(item: str, words: str, tmp_path: Path):
    with pytest.raises(RecipeError) as refusal:
        Recipe.load(written(tmp_path, FULL), [item])
    assert words in str(refusal.value)


# Refusals, by file and line


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("seed = 3", "sead = 3", 1, "sead: unknown section (did you mean 'seed'?)"),
        ("seed = 3", "seed = 3.0", 1, "seed: must be an integer, not 3.0"),
        ("seed = 3", "seed = -3", 1, "seed: must be at least 0, not -3"),
        ("ipc = 5", "icp = 5", 4, "synthetic.icp: unknown option (did you mean 'ipc'?)"),
        ("ipc = 5", "ipc = true", 4, "synthetic.ipc: must be an integer"),
        ('init = "noise"', 'init = "random"', 4, "synthetic.init: must be 'real' or "),
        ("count = 3", "count = 0", 5, "proxies.count: must be at least 1"),
        ("epochs = 7", "epohs = 7", 20, "eval.epohs: unknown option (did you mean 'epochs'?)"),
        ("seeds = 3", 'seeds = "3"', 18, "eval.seeds: must be an integer"),
        ("[0.5, 1]", "[0.5, 2]", 21, "eval.milestones.1: must be at least 0 and at most 1"),
        ('protocol = "idc"', 'protocol = "ibc"', 19, "no protocol is called 'ibc'"),
        ("chunk = 4", "chunk = 0", 24, "runtime.chunk: must be 'auto' or an integer"),
        ("weight = 0.05", "weight = -1", 7, "regularizers.0.weight: must be at least 0"),
        ("weight = 1 ", "weight = nan ", 8, "regularizers.1.weight: must be a finite number"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(
    old: str, new: str, line: int, words: str, tmp_path: Path
):
    assert FULL.count(old) == 1
    path = written(tmp_path, FULL.replace(old, new))
    with pytest.raises(RecipeError) as refusal:
        Recipe.load(path)
    assert str(refusal.value).startswith(f"{path}:{line}: ")
    assert words in str(refusal.value)


def test_all_unknown_options_of_a_section_are_named_at_once():
    with pytest.raises(RecipeError) as refusal:
        Recipe.parse(recipe_table(synthetic={"icp": 1, "spase": "pixel"}))
    assert "ipc" in str(refusal.value)
    assert "space" in str(refusal.value)


@pytest.mark.parametrize("section", ["dataset", "backbone", "method"])
def test_a_missing_section_is_named(section: str):
    with pytest.raises(RecipeError, match=f"'{section}' is missing"):
        Recipe.parse(recipe_table(**{section: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"iterations": 3}},
        {"method": ["dm"]},
        {"synthetic": 10},
        {"regularizers": "covariance"},
        {"regularizers": [5]},
        {"eval": {"archs": []}},
        {"eval": {"archs": "convnet"}},
        {"eval": {"archs": [3]}},
        {"proxies": "resnet18"},
        {"runtime": []},
    ],
)
def test_a_section_of_another_shape_is_refused(changes: dict[str, Any]):
    with pytest.raises(RecipeError, match=next(iter(changes))):
        Recipe.parse(recipe_table(**changes))


def test_text_that_is_not_toml_is_refused_with_its_place(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"mine\.toml: not a TOML recipe: .*line 2"):
        Recipe.load(written(tmp_path, "seed = 1\nmethod = = 2\n"))


def test_a_file_without_permission_or_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="is a folder"):
        Recipe.load(tmp_path)
    with pytest.raises(RecipeError, match="no such file"):
        Recipe.load(tmp_path / "absent.toml")


def test_a_part_is_a_name_or_a_table_with_one():
    here = Place(Source("test"), "backbone")
    assert as_part("convnet", here) == Part("convnet")
    assert as_part({"name": "convnet", "depth": 2}, here) == Part("convnet", {"depth": 2})
    assert str(Part("convnet", {"depth": 2})) == "convnet(depth=2)"
    with pytest.raises(RecipeError, match="test: backbone"):
        as_part({"depth": 2}, here)


def test_the_default_evaluation_is_the_protocol_it_names():
    recipe = Recipe.parse({"dataset": "digits", "backbone": "convnet", "method": "dm"})
    assert deviations(recipe.eval) == {}
