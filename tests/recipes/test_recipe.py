"""Recipes: what they read, what they refuse and where they say it stands."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from conftest import ROOT, TINY_POOL, recipe_table

from ddkit.distillation.compose import make_method, make_terms
from ddkit.distillation.requirements import check_requirements
from ddkit.errors import RecipeError
from ddkit.recipes import catalog
from ddkit.recipes.binding import checked
from ddkit.recipes.place import Place, Source
from ddkit.recipes.protocol import deviations, eval_spec, load_protocol
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import check_names, resolve
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
        ("dataset.path=2024-01-01", ("dataset", "path"), "2024-01-01"),
        ("dataset.path=12:30:00", ("dataset", "path"), "12:30:00"),
        ("dataset.path=2024-01-01T12:30:00Z", ("dataset", "path"), "2024-01-01T12:30:00Z"),
        ("seed=5  # as in the paper", ("seed",), 5),
        ("dataset.path=1\nseed=7", ("dataset", "path"), "1\nseed=7"),
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
        ("", "must look like"),
        ("a..b=1", "empty between the dots of 'a..b'"),
        (".seed=1", "empty between the dots"),
        ("seed.=1", "empty between the dots"),
        (". .=1", "empty between the dots"),
        (".".join("a" * 40) + "=1", "tables deep"),
        ("seed=" + "[" * 5000, "nested too deeply"),
        ("seed=" + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("eval.archs.²=lenet", "'²' is no position in the list"),
        ("eval.archs.-1=lenet", "position"),
        ("eval.archs." + "9" * 5000 + "=lenet", "position"),
        ("seed=" + "9" * 5000, "must be an integer"),
        ("seed=0x" + "f" * 5000, "seed: must be an integer that 64 bits hold"),
        ("seed=" + "9" * 30, "must be an integer that 64 bits hold"),
        ("seed=nan", "must be a finite number"),
        ("seed=[2024-01-01]", "must be an integer"),
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
    assert len(str(refusal.value)) < 600


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


KINDS = {  # of mistakes: where, what is written there, what is said of it
    "unknown": ("synthetic.icp", 5, "unknown option (did you mean 'ipc'?)"),
    "unknown in a table of a table": ("proxies.seeed", 1, "unknown option (did you mean 'seed'?)"),
    "type": ("synthetic.ipc", "five", "must be an integer, not 'five'"),
    "type of a table": ("synthetic", 5, "must be a table, not 5"),
    "type of a part": ("method", 5, 'must be a name or a table { name = "…" }, not 5'),
    "type of a list": ("regularizers", 5, "must be a list of tables, not 5"),
    "boolean": ("synthetic.factor", True, "must be an integer, not True"),
    "choice": ("synthetic.space", "pixels", "must be 'normalized' or 'pixel', not 'pixels'"),
    "range": ("synthetic.ipc", 0, "must be at least 1, not 0"),
    "range of a number": ("eval.lr", -0.5, "must be above 0, not -0.5"),
    "not a number": ("eval.lr", float("nan"), "must be a finite number, at most 3.4e+38, not nan"),
    "infinite": ("eval.lr", float("inf"), "must be a finite number, at most 3.4e+38, not inf"),
    "huge": (
        "seed",
        2**63,
        f"must be an integer that 64 bits hold, at most 9.22337e+18, not {2**63}",
    ),
}


@pytest.mark.parametrize(("path", "value", "words"), KINDS.values(), ids=list(KINDS))
def test_one_mistake_has_the_same_words_in_a_file_an_override_and_python(
    path: str, value: Any, words: str, tmp_path: Path
):
    table: dict[str, Any] = recipe_table(proxies=TINY_POOL | {"count": 1})
    node, (*parents, last) = table, path.split(".")
    for key in parents:
        node[key] = dict(node[key])
        node = node[key]
    node[last] = value
    with pytest.raises(RecipeError) as python:
        Recipe.parse(table)
    assert str(python.value) == f"recipe: {path}: {words}"
    with pytest.raises(RecipeError) as file:
        Recipe.load(written(tmp_path, tomli_w.dumps(table)))
    name, _, said = str(file.value).partition(f": {path}: ")
    assert said == words
    assert name.startswith(f"{tmp_path / 'mine.toml'}:")
    with pytest.raises(RecipeError) as override:
        item = f"{path}={tomli_w.dumps({'v': value}).partition('=')[2]}"
        Recipe.parse(recipe_table(proxies=TINY_POOL | {"count": 1}), [item])
    assert str(override.value) == f"--set {path}: {words}"


@pytest.mark.parametrize("text", ["100", "1e5", "nan", "inf", "true", "[1]", "0x10", "2024-01-01"])
def test_a_folder_may_be_called_like_any_other_toml_value(text: str, loaded: Any, tmp_path: Path):
    recipe = Recipe.parse(recipe_table(dataset={"name": "folder"}), [f"dataset.path={text}"])
    component, options = resolve(loaded.datasets, recipe.dataset, recipe.place("dataset"))
    found = checked(component.factory, options, recipe.place("dataset"), {"root": tmp_path})
    assert found["path"] == Path(text)


def test_what_an_override_typed_is_forgotten_where_a_later_one_replaces_the_table():
    items = ["dataset.path=100", 'dataset={name = "folder", path = 7}']
    recipe = Recipe.parse(recipe_table(), items)
    assert recipe.place("dataset.path").typed is None


def test_a_date_in_a_file_is_told_as_it_is_written(tmp_path: Path):
    text = tomli_w.dumps(recipe_table()).replace("seed = 0", "seed = 2024-01-01")
    with pytest.raises(RecipeError, match="not the date 2024-01-01, which is a string in quotes"):
        Recipe.load(written(tmp_path, text))


# Files as editors leave them


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        (lambda text: text, b"\xef\xbb\xbf"),
        (lambda text: text.replace("\n", "\r\n"), b""),
        (lambda text: text.replace("\n", "\r\n"), b"\xef\xbb\xbf"),
        (lambda text: text.replace("\n", "\r"), b""),
    ],
    ids=["byte-order mark", "CRLF", "both", "CR"],
)
def test_a_byte_order_mark_and_any_line_ends_are_read(change: Any, mark: bytes, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_bytes(mark + change(FULL).encode())
    assert Recipe.load(path) == Recipe.load(written(tmp_path, FULL, "plain.toml"))
    path.write_bytes(mark + change(FULL.replace("epochs = 7", "epohs = 7")).encode())
    with pytest.raises(RecipeError, match=r"mine\.toml:20: eval\.epohs"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (FULL.encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (FULL.encode("utf-16-be"), "not UTF-8; save it as UTF-8"),
        (FULL.encode("utf-32"), "it is UTF-16; save it as UTF-8"),
        (b"seed = 1\n# K\xe4se\n", "line 2 is not UTF-8"),
        (b"\0" * 10, "not UTF-8"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"[" * 50 + b"]" * 50, "nested more than 32 deep"),
        (b".".join([b"a"] * 500) + b" = 1", "nested more than 32 deep"),
        (b"seed = " + b"9" * 5000, "too many digits"),
        (b"seed = 1\nseed = 2\n", "line 2"),
        (b"#" * (2**20 + 1), "more than 1,048,576 bytes"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(raw: bytes, words: str, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_bytes(raw)
    with pytest.raises(RecipeError) as refusal:
        Recipe.load(path)
    assert str(refusal.value).startswith(str(path))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif(os.name == "nt", reason="pipes and devices of POSIX")
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero")):
        with pytest.raises(RecipeError, match="is a pipe or a device"):
            Recipe.load(path)


def test_control_characters_of_keys_and_names_are_shown(tmp_path: Path):
    path = written(tmp_path, FULL + '"\\u001b[31m" = 1\n[synthetic2]\n', "a\x1bb.toml")
    for make in (
        lambda: Recipe.load(path),
        lambda: Recipe.parse(recipe_table(**{"a\x1b\nb": 1})),
        lambda: Recipe.parse(recipe_table(), ["synthetic.\x1b=1"]),
        lambda: Recipe.parse(recipe_table(), ["\x1b"]),
    ):
        with pytest.raises(RecipeError) as refusal:
            make()
        assert "\x1b" not in str(refusal.value)
        assert "\\x1b" in str(refusal.value)


def test_a_table_of_python_that_no_file_could_hold_is_refused():
    circle: dict[str, Any] = recipe_table()
    circle["method"] = {"name": "dm", "again": circle}
    with pytest.raises(RecipeError, match="nested more than 32 deep"):
        Recipe.parse(circle)
    for table, items in (
        (recipe_table(dataset={"name": "folder", "path": "a\udcff"}), []),
        (recipe_table(), ["dataset.path=a\udcff"]),
    ):
        with pytest.raises(RecipeError, match=r"a\\udcff.* is not UTF-8"):
            Recipe.parse(table, items)
    with pytest.raises(RecipeError, match="the key 3 must be a string"):
        Recipe.parse(recipe_table(synthetic={3: 1}))


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
