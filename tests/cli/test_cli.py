"""The command line: exit codes, streams, and what every kind of bad input costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from conftest import PAUSING, Said, ddkit, recipe_table, tree
from PIL import Image
from safetensors.torch import save_file

from ddkit.cli import cli
from ddkit.cli.recipes import FILES
from ddkit.plugins import KINDS
from ddkit.recipes import catalog
from ddkit.recipes.recipe import Recipe
from ddkit.runtime.stopping import SIGNALS

NAMES = {"grid.png", "metrics.jsonl", "recipe.toml", "run.json", "synthetic.safetensors"}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(said: Said, code: int, *words: str) -> None:
    """Check that a command ended with `code` and one or two lines that hold `words`."""
    assert said.code == code, said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert 1 <= len(said.lines) <= 2, said.err
    for word in words:
        assert word in said.err


# What works


def test_distill_leaves_set_recipe_metrics_and_picture(recipe_file: Callable[..., Path]):
    said = ddkit("distill", recipe_file(), "--out", "mine")
    assert said.code == 0, said.err
    assert said.out == f"{Path('mine/synthetic.safetensors')}\n"
    assert set(tree(Path("mine"))) == NAMES
    lines = [json.loads(line) for line in Path("mine/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert all(line["loss"] > 0 for line in lines)
    assert Image.open("mine/grid.png").size[0] > 64
    status = json.loads(Path("mine/run.json").read_text())
    assert status["finished"]
    assert status["seed"] == 0
    again = ddkit("distill", "mine/recipe.toml", "--out", "mine")  # resolved, and the same run
    assert (again.code, "already finished" in again.err) == (0, True)


def test_a_new_run_never_overwrites_another(recipe_file: Callable[..., Path]):
    first, second = (ddkit("distill", recipe_file(), "-q").out.strip() for _ in range(2))
    assert first == "runs/tiny/synthetic.safetensors"
    assert second == "runs/tiny-2/synthetic.safetensors"


def test_progress_and_notes_go_to_standard_error_and_quiet_leaves_them_out(
    recipe_file: Callable[..., Path],
):
    loud = ddkit("distill", recipe_file(), "--out", "loud")
    assert "distill 4/4" in loud.err
    assert "\x1b" not in loud.err + loud.out  # no control codes where there is no terminal
    quiet = ddkit("distill", recipe_file(), "--out", "quiet", "--quiet")
    assert quiet.err == ""
    assert quiet.out == f"{Path('quiet/synthetic.safetensors')}\n"


def test_dry_run_writes_nothing_and_prints_a_recipe_that_distill_accepts(
    recipe_file: Callable[..., Path],
):
    path = recipe_file()
    said = ddkit("distill", path, "--set", "method.iterations=2", "--dry-run", "--out", "out")
    assert said.code == 0, said.err
    assert not Path("out").exists()
    assert not Path("runs").exists()
    assert tomllib.loads(said.out)["method"]["iterations"] == 2
    for fact in ("cpu", "digits", "parameters", "20 images", "free"):
        assert fact in said.err
    Path("resolved.toml").write_text(said.out)
    assert ddkit("distill", "resolved.toml", "--out", "a", "-q").code == 0
    assert ddkit("distill", path, "--set", "method.iterations=2", "--out", "b", "-q").code == 0
    assert tree(Path("a"))["synthetic.safetensors"] == tree(Path("b"))["synthetic.safetensors"]


def test_set_overrides_the_recipe_and_is_kept_in_the_run(recipe_file: Callable[..., Path]):
    words = ["--set", "method.iterations=3", "--set", "synthetic.ipc=1", "--set", "seed=7"]
    assert ddkit("distill", recipe_file(), *words, "--out", "out", "-q").code == 0
    kept = tomllib.loads(Path("out/recipe.toml").read_text())
    assert kept["method"]["iterations"] == 3
    assert kept["synthetic"]["ipc"] == 1
    assert kept["seed"] == 7
    assert len(Path("out/metrics.jsonl").read_text().splitlines()) == 3


def test_a_finished_run_is_said_to_be_so_and_left_alone(recipe_file: Callable[..., Path]):
    path = recipe_file()
    assert ddkit("distill", path, "--out", "out").code == 0
    before = tree(Path("out"))
    again = ddkit("distill", path, "--out", "out")
    assert again.code == 0
    assert "already finished" in again.err
    assert tree(Path("out")) == before
    assert ddkit("distill", "--resume", "out").code == 0
    assert tree(Path("out")) == before


def test_distill_with_eval_judges_the_set_beside_random_images(recipe_file: Callable[..., Path]):
    said = ddkit("distill", recipe_file(), "--out", "out", "--eval")
    assert said.code == 0, said.err
    assert "random" in said.out
    assert "convnet(depth=2, width=8)" in said.out
    verdict = json.loads(Path("out/eval.json").read_text())
    assert [r["subject"] for r in verdict["results"]] == ["set", "random"]
    assert all(r["n"] == 2 for r in verdict["results"])
    assert "epochs = 2" in verdict["protocol"]


def test_eval_prints_json_that_parses_and_writes_it_beside_the_set(set_file: Path):
    words = ["--archs", "mlp", "--seeds", "2", "--set", "epochs=1", "--no-baseline"]
    said = ddkit("eval", set_file, *words, "--json", "--out", "verdict.json")
    assert said.code == 0, said.err
    shown, kept = json.loads(said.out), json.loads(Path("verdict.json").read_text())
    assert shown["results"] == kept["results"]
    (result,) = shown["results"]
    assert (result["arch"], result["subject"], result["n"]) == ("mlp", "set", 2)
    assert 0 <= result["mean"] <= 1
    assert not (set_file.parent / "eval.json").exists()


def test_eval_takes_the_newest_set_under_runs_and_a_run_folder(recipe_file: Callable[..., Path]):
    words = ["--seeds", "1", "--no-baseline", "--json", "--set", "epochs=1"]
    ddkit("distill", recipe_file("older.toml"), "-q")
    ddkit("distill", recipe_file("newer.toml"), "-q")
    os.utime("runs/older/synthetic.safetensors", (1, 1))
    newest = json.loads(ddkit("eval", *words).out)
    assert newest["set"] == "runs/newer/synthetic.safetensors"
    named = json.loads(ddkit("eval", "runs/older", *words).out)
    assert named["set"] == "runs/older/synthetic.safetensors"
    assert Path("runs/older/eval.json").is_file()


def test_show_tells_what_a_set_holds_and_draws_it(set_file: Path):
    said = ddkit("show", set_file, "--png", "grid.png")
    assert said.code == 0, said.err
    for fact in ("digits", "20 of 1x8x8, 2 per class", "hard", "normalized", "bits per class"):
        assert fact in said.out
    assert Image.open("grid.png").size[0] > 64
    facts = json.loads(ddkit("show", set_file, "--png", "grid.png", "--json").out)
    assert Recipe.parse(facts["recipe"]).method.name == "dm"


def test_show_and_export_take_a_run_folder_as_eval_does(run_folder: Path):
    assert ddkit("show", run_folder, "--png", "grid.png").code == 0
    assert ddkit("export", run_folder, "pictures").code == 0


def test_export_writes_a_picture_folder_that_the_folder_dataset_reads(set_file: Path, loaded: Any):
    said = ddkit("export", set_file, "pictures")
    assert said.code == 0, said.err
    assert len(list(Path("pictures").glob("*/*.png"))) == 20
    data = loaded.datasets["folder"].factory(Path(), path=Path("pictures"))
    assert data.info.classes == tuple(map(str, range(10)))
    assert data.info.shape == (1, 8, 8)


def test_export_refuses_a_folder_that_is_not_empty(set_file: Path):
    Path("pictures").mkdir()
    Path("pictures/mine.txt").write_text("mine")
    refused(ddkit("export", set_file, "pictures"), 1, "pictures", "not empty")
    assert tree(Path("pictures")) == {"mine.txt": b"mine"}


def test_recipes_are_listed_shown_and_copied():
    listed = ddkit("recipes", "list")
    assert listed.code == 0
    assert "dm-digits-ipc1" in listed.out
    names = [row["name"] for row in json.loads(ddkit("recipes", "list", "--json").out)]
    assert names == [line.split()[0] for line in listed.out.splitlines()]
    shown = ddkit("recipes", "show", "dm-digits-ipc1").out
    assert tomllib.loads(shown)["method"]["name"] == "dm"
    copied = ddkit("recipes", "copy", "dm-digits-ipc1", "mine.toml")
    assert copied.out == "mine.toml\n"
    assert Path("mine.toml").read_text() == shown


def recipe_rows(*words: str) -> list[dict[str, Any]]:
    """Return the rows that `words` leave of the recipes, which are those of the plain listing."""
    rows = json.loads(ddkit("recipes", "list", *words, "--json").out)
    plain = ddkit("recipes", "list", *words)
    assert (plain.code, [row["name"] for row in rows]) == (
        0,
        [line.split()[0] for line in plain.out.splitlines()],
    )
    return rows


@pytest.mark.parametrize("name", catalog.recipes())
def test_a_row_says_of_a_recipe_what_it_loads_as(name: str):
    recipe, facts = Recipe.load(name), catalog.facts(catalog.recipes()[name])
    assert facts.method == recipe.method.name
    assert facts.dataset == recipe.dataset.name
    assert facts.ipc == recipe.synthetic.ipc
    assert facts.regularizers == tuple(part.name for _, part in recipe.regularizers)


def test_rows_tell_method_dataset_ipc_and_regularizers_beside_name_and_title():
    (row,) = recipe_rows("idm-iid-cmi-cifar10-ipc10")
    assert row.pop("title").startswith("IDM + IID + CMI on CIFAR-10")
    assert row == {
        "name": "idm-iid-cmi-cifar10-ipc10",
        "method": "idm",
        "dataset": "cifar10",
        "ipc": 10,
        "regularizers": ["centralize", "covariance", "cmi"],
    }


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (("--method", "dm"), lambda row: row["method"] == "dm"),
        (("--dataset", "folder"), lambda row: row["dataset"] == "folder"),
        (("--ipc", "1"), lambda row: row["ipc"] == 1),
        (("--regularizer", "cmi"), lambda row: "cmi" in row["regularizers"]),
        (("--regularizer", "none"), lambda row: not row["regularizers"]),
        (
            ("--method", "idm", "--ipc", "10", "--regularizer", "covariance"),
            lambda row: (
                (row["method"], row["ipc"]) == ("idm", 10) and "covariance" in row["regularizers"]
            ),
        ),
        (
            ("CIFAR10", "iid", "--ipc", "50"),
            lambda row: "cifar10" in row["name"] and "-iid-" in row["name"] and row["ipc"] == 50,
        ),
        (("as a folder of JPEG",), lambda row: "as a folder of JPEG" in row["title"]),
    ],
)
def test_a_filter_leaves_those_recipes_that_meet_it_and_no_others(
    words: tuple[str, ...], holds: Callable[[dict[str, Any]], bool]
):
    every = recipe_rows()
    assert 0 < len(recipe_rows(*words)) < len(every) == len(catalog.recipes())
    assert recipe_rows(*words) == [row for row in every if holds(row)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "dmm"), ("--method", "'dmm'", "did you mean 'dm'", "herding")),
        (("--method", "DM"), ("did you mean 'dm'",)),
        (("--dataset", "tiny-imagenet"), ("did you mean 'tiny_imagenet'", "svhn")),
        (("--ipc", "7"), ("--ipc", "7", "there are: 1, 10, 20, 50, 100")),
        (("--regularizer", "covarianse"), ("did you mean 'covariance'", "none")),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_value_that_no_recipe_has_is_refused_with_near_names_and_those_there_are(
    words: tuple[str, ...], said: tuple[str, ...], form: list[str]
):
    refused(ddkit("recipes", "list", *words, *form), 2, *said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--method", "herding", "--regularizer", "cmi"),
            ("--method herding, --regularizer cmi", "without --method herding: "),
        ),
        (("herding", "cmi", "svhn", "--ipc", "1000"), ("leave out more than one",)),
        (("cifra10",), ("'cifra10'", "did you mean 'cifar10'")),
        (("xyzzy",), ("'xyzzy'", "leave it out")),
    ],
)
def test_filters_that_leave_no_recipe_say_how_to_loosen_them(
    words: tuple[str, ...], said: tuple[str, ...]
):
    plain, rows = (ddkit("recipes", "list", *words, *form) for form in ([], ["--json"]))
    refused(plain, 0, *said)
    assert (rows.code, rows.out, rows.err) == (0, "[]\n", plain.err)


def test_recipes_copy_overwrites_only_by_force():
    Path("mine.toml").write_text("mine")
    refused(ddkit("recipes", "copy", "dm-digits-ipc1", "mine.toml"), 2, "mine.toml", "--force")
    assert Path("mine.toml").read_text() == "mine"
    assert ddkit("recipes", "copy", "dm-digits-ipc1", "mine.toml", "--force").code == 0
    assert Path("mine.toml").read_text() != "mine"


def pages(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that has a help page, and the words that call it."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from pages(command, *words, name)


PAGES = [pytest.param(words, command, id=" ".join(words)) for words, command in pages(cli)]


@pytest.mark.parametrize(("words", "command"), PAGES)
def test_every_help_page_has_an_example_and_describes_every_option(
    words: tuple[str, ...], command: click.Command
):
    said = ddkit(*words, "-h")
    assert said.code == 0
    assert "ddkit " + " ".join(words) in said.out.partition("Example:")[2]
    assert all(p.help for p in command.params if isinstance(p, click.Option))


@pytest.mark.parametrize("kind", [*KINDS, *FILES])
def test_what_there_is_to_compose_is_listed(kind: str, loaded: Any):
    said = ddkit("list", kind)
    assert said.code == 0
    names = [row["name"] for row in json.loads(ddkit("list", kind, "--json").out)]
    assert names == [line.split()[0] for line in said.out.splitlines()]
    assert names == list(FILES[kind]() if kind in FILES else getattr(loaded, kind))


def test_a_component_is_listed_with_its_options():
    assert "iterations: an integer, at least 1; default 20000" in ddkit("list", "methods", "dm").out
    (row,) = json.loads(ddkit("list", "methods", "dm", "--json").out)
    assert {o["name"]: o["default"] for o in row["options"]}["batch_real"] == 256
    refused(ddkit("list", "methods", "dmm"), 2, "dmm", "'dm'")
    refused(ddkit("list", "regularizers", "covarianse"), 2, "covariance")


@pytest.mark.parametrize(
    ("kind", "name"), [("recipes", "dm-iid-digits-ipc10"), ("protocols", "ncfm-soft")]
)
def test_a_recipe_or_protocol_is_listed_with_its_heading_and_settings(kind: str, name: str):
    text = FILES[kind]()[name].read_text(encoding="utf-8")
    assert ddkit("list", kind, name).out == text
    (row,) = json.loads(ddkit("list", kind, name, "--json").out)
    assert row.pop("settings") == tomllib.loads(text)
    (same,) = (r for r in json.loads(ddkit("list", kind, "--json").out) if r["name"] == name)
    assert row == same


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("recipes", "dm-digits", ("no shipped recipe", "'dm-digits'", "'dm-digits-ipc1'")),
        ("recipes", "xyzzy", ("`ddkit recipes list`",)),
        ("recipes", "ncfm-soft", ("no shipped recipe",)),  # a protocol
        ("protocols", "dmm", ("no shipped protocol", "'dmm'", "'dm'")),
        ("protocols", "xyzzy", ("there are: cross, dc, dm",)),
    ],
)
def test_a_recipe_or_protocol_that_does_not_ship_is_refused_with_near_names(
    kind: str, name: str, words: tuple[str, ...]
):
    refused(ddkit("list", kind, name), 2, *words)
    refused(ddkit("list", kind, name, "--json"), 2, *words)


@pytest.mark.parametrize("kind", FILES)
def test_the_line_that_a_list_shows_of_a_file_is_a_sentence_of_its_own(kind: str):
    cut = [n for n, path in FILES[kind]().items() if not catalog.title(path).endswith(".")]
    assert not cut


def test_plugins_are_listed_with_what_they_provide():
    rows = {row["plugin"]: row for row in json.loads(ddkit("plugins", "--json").out)}
    assert rows["ddkit:dm"]["provides"] == {"methods": ["dm"]}
    assert rows["ddkit:dm"]["status"] == "loaded"
    assert "ddkit:dm" in ddkit("plugins").out


def test_the_cache_is_listed_and_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "home"))
    entry = tmp_path / "home" / "cache" / "networks" / "tiny-1"
    entry.mkdir(parents=True)
    (entry / "0000.safetensors").write_bytes(b"x" * 100)
    (listed,) = json.loads(ddkit("cache", "list", "--json").out)["entries"]
    assert (listed["name"], listed["bytes"]) == ("networks/tiny-1", 100)
    assert ddkit("cache", "prune", "--older-than", "1", "--yes").code == 0
    assert entry.is_dir()
    assert ddkit("cache", "prune", "networks/tiny-2", "--yes").code == 2
    assert ddkit("cache", "prune", "--yes").code == 0
    assert not entry.exists()


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["distill", "--help"]),
        *(["recipes", "list"], ["recipes", "list", "digits", "--method", "dm"]),
        *(["list", "recipes"], ["list", "protocols"], ["list", "protocols", "dm", "--json"]),
    ],
)
def test_what_needs_no_torch_imports_neither_torch_nor_plugins(words: list[str]):
    script = (
        "import sys, atexit\n"
        "heavy = ('torch', 'torchvision', 'timm', 'numpy', 'sklearn', 'rich', 'PIL')\n"
        "def look():\n"
        "    found = [m for m in sys.modules if m in heavy or m.startswith('ddkit_')]\n"
        "    print('IMPORTED', found, file=sys.stderr)\n"
        "atexit.register(look)\n"
        "from ddkit.cli import main\n"
        f"sys.argv = ['ddkit', *{words!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "IMPORTED []" in done.stderr


# Bad input: words, exit code, and nothing written

BAD_RECIPES = [
    ({"metod": {"name": "dm"}}, ["metod", "did you mean 'method'"]),
    ({"method": {"name": "dmm"}}, ["tiny.toml:", "dmm", "'dm'"]),
    ({"method": {"name": "dm", "iteration": 4}}, ["tiny.toml:", "method.iteration", "iterations"]),
    ({"method": {"name": "dm", "iterations": "many"}}, ["method.iterations", "'many'"]),
    ({"method": {"name": "dm", "iterations": 1.5}}, ["method.iterations", "integer"]),
    ({"method": {"name": "dm", "iterations": 0}}, ["method.iterations", "at least 1"]),
    ({"method": {"name": "dm", "augmentation": "blur"}}, ["method.augmentation", "'blur'"]),
    ({"method": 5}, ["method", "name"]),
    ({"method": None}, ["method", "missing"]),
    ({"dataset": {"name": "digit"}}, ["dataset", "'digits'"]),
    ({"dataset": {"name": "digits", "resolutoin": 8}}, ["resolutoin", "resolution"]),
    ({"backbone": {"name": "convnet", "depth": 9}}, ["backbone", "depth"]),
    ({"backbone": {"name": "timm/resnet_eighteen"}}, ["timm", "resnet_eighteen"]),
    ({"synthetic": {"ipc": 0}}, ["synthetic.ipc", "at least 1"]),
    ({"synthetic": {"ipc": 1000}}, ["synthetic.ipc", "1000", "lower ipc"]),
    ({"synthetic": {"ipc": 100, "factor": 2}}, ["synthetic.ipc", "400"]),
    ({"synthetic": {"init": "nose"}}, ["synthetic.init", "noise"]),
    ({"seed": -1}, ["seed", "at least 0"]),
    ({"eval": {"protocol": "dmm"}}, ["eval.protocol", "'dm'"]),
    ({"eval": {"archs": [{"name": "convnett"}]}}, ["eval.archs.0", "convnet"]),
    ({"eval": {"archs": [{"name": "convnet", "depth": 7}]}}, ["eval.archs.0", "depth"]),
    ({"runtime": {"device": "abacus"}}, ["runtime.device", "abacus"]),
    ({"regularizers": [{"name": "centralize", "weight": 1.0}]}, ["centralize", "proxies"]),
    ({"regularizers": [{"name": "covariance"}]}, ["covariance", "weight"]),
    ({"regularizers": [{"name": "covarianse", "weight": 1.0}]}, ["covariance"]),
    ({"regularizers": {"name": "covariance"}}, ["regularizers", "list"]),
    (
        {"method": {"name": "random"}, "regularizers": [{"name": "covariance", "weight": 1.0}]},
        ["covariance", "random", "provides nothing"],
    ),
    ({"method": {"name": "herding", "features": "trained"}}, ["herding", "proxies"]),
]


@pytest.mark.parametrize(("changes", "words"), BAD_RECIPES)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["real", "dry"])
def test_a_bad_recipe_is_refused_in_words_before_anything_is_written(
    changes: dict[str, Any], words: list[str], dry: list[str], recipe_file: Callable[..., Path]
):
    said = ddkit("distill", recipe_file(**changes), "--out", "out", *dry)
    refused(said, 2, *words)
    assert not Path("out").exists()
    assert not Path("runs").exists()


def test_an_unknown_key_is_named_with_its_line(recipe_file: Callable[..., Path]):
    path = recipe_file(method={"name": "dm", "iterations": 4, "lr_image": 1.0})
    line = next(i for i, t in enumerate(path.read_text().splitlines(), 1) if "lr_image" in t)
    refused(ddkit("distill", path), 2, f"{path}:{line}: method.lr_image", "lr_images")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("method.iteration=5", ["--set method.iteration", "iterations"]),
        ("method.iterations=five", ["--set method.iterations", "'five'"]),
        ("iterations", ["--set iterations", "must look like"]),
        ("eval.archs.3=convnet", ["eval.archs.3", "position"]),
        ("seed.x=1", ["--set seed.x"]),
    ],
)
def test_a_bad_override_is_named_as_such(
    item: str, words: list[str], recipe_file: Callable[..., Path]
):
    refused(ddkit("distill", recipe_file(), "--set", item, "--out", "out"), 2, *words)
    assert not Path("out").exists()


@pytest.mark.parametrize("text", [b"seed = = 1", b"\xff\xfe\x00", b"[method\n", b"a = 1\na = 2"])
def test_a_recipe_that_is_not_toml_is_refused(text: bytes):
    Path("bad.toml").write_bytes(text)
    refused(ddkit("distill", "bad.toml"), 2, "bad.toml", "not a TOML recipe")


def test_a_recipe_that_does_not_exist_brings_near_names():
    refused(ddkit("distill", "dm-digits-ipc2"), 2, "dm-digits-ipc1")
    refused(ddkit("distill", "."), 2, "folder")
    refused(ddkit("recipes", "show", "dm-digits"), 2, "dm-digits-ipc1")


def test_usage_mistakes_are_exit_code_2():
    for words in (["distil"], ["distill", "--no-such"], ["distill"], ["eval", "--seeds", "0"]):
        said = ddkit(*words)
        assert said.code == 2
        assert said.out == ""
        assert "Traceback" not in said.err


def test_resume_takes_nothing_else_and_needs_a_run(recipe_file: Callable[..., Path]):
    assert ddkit("distill", recipe_file(), "--resume", "out").code == 2
    refused(ddkit("distill", "--resume", "nowhere"), 1, "nowhere", "recipe.toml")


def pictures(base: Path, per_class: int = 4) -> Path:
    for label, name in enumerate(("cat", "dog")):
        (base / name).mkdir(parents=True)
        for i in range(per_class):
            Image.new("RGB", (16, 16), (50 * i, 100 * label, 7)).save(base / name / f"{i}.png")
    return base


@pytest.mark.parametrize("fault", ["missing", "empty", "corrupt", "truncated"])
def test_a_folder_of_images_that_cannot_be_read_is_refused(
    fault: str, recipe_file: Callable[..., Path], own_home: Path
):
    base = Path("images")
    if fault != "missing":
        base.mkdir()
    if fault in ("corrupt", "truncated"):
        pictures(base)
        victim = base / "dog" / "2.png"
        victim.write_bytes(victim.read_bytes()[:40] if fault == "truncated" else b"no picture")
    table = {"dataset": {"name": "folder", "path": "images"}}
    before = sorted(own_home.rglob("*.tmp"))
    said = ddkit("distill", recipe_file(**table), "--out", "out")
    refused(said, 1, "images")
    if fault in ("corrupt", "truncated"):
        assert "2.png" in said.err
    assert not Path("out").exists()
    assert sorted(own_home.rglob("*.tmp")) == before


def test_more_images_per_class_than_a_folder_has_are_refused(recipe_file: Callable[..., Path]):
    pictures(Path("images"))
    recipe = recipe_file(dataset={"name": "folder", "path": "images"}, synthetic={"ipc": 4})
    refused(ddkit("distill", recipe, "--out", "out"), 2, "synthetic.ipc", "'cat'", "has 3")


@pytest.mark.parametrize("command", [["eval"], ["show"], ["export"]])
@pytest.mark.parametrize("fault", ["missing", "truncated", "foreign", "text", "folder"])
def test_a_file_that_is_no_set_is_refused(command: list[str], fault: str, set_file: Path):
    path = Path("bad.safetensors")
    if fault == "truncated":
        path.write_bytes(set_file.read_bytes()[:-100])
    elif fault == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif fault == "text":
        path.write_text("not a tensor")
    elif fault == "folder":
        path.mkdir()
    before = tree(Path())
    refused(ddkit(*command, path, *(["out"] if command == ["export"] else [])), 1, "bad")
    assert tree(Path()) == before
    assert not Path("out").exists()


def test_eval_without_any_set_says_what_to_do():
    refused(ddkit("eval"), 1, "ddkit distill")


@pytest.mark.parametrize(
    "words",
    [
        ["--archs", "convnett"],
        ["--archs", "mlp,convnett"],
        ["--protocol", "dmm"],
        ["--set", "epoch=3"],
        ["--set", "epochs=many"],
        ["--device", "abacus"],
    ],
)
def test_eval_refuses_what_it_cannot_do_before_training(words: list[str], set_file: Path):
    before = tree(set_file.parent)
    said = ddkit("eval", set_file, *words)
    refused(Said(said.code, said.out, said.err.replace(f"judging {set_file}\n", "")), 2)
    assert tree(set_file.parent) == before


def test_an_output_folder_with_something_else_is_refused(recipe_file: Callable[..., Path]):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years")
    refused(ddkit("distill", recipe_file(), "--out", "out"), 1, "out", "something else")
    assert tree(Path("out")) == {"thesis.tex": b"years"}


def test_a_dry_run_refuses_the_same_output_folder(recipe_file: Callable[..., Path]):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years")
    said = ddkit("distill", recipe_file(), "--out", "out", "--dry-run")
    assert said.code == 1
    assert "something else" in said.err


def test_a_run_of_another_recipe_is_not_overwritten(recipe_file: Callable[..., Path]):
    assert ddkit("distill", recipe_file(), "--out", "out", "-q").code == 0
    before = tree(Path("out"))
    refused(ddkit("distill", recipe_file(seed=1), "--out", "out"), 1, "another recipe")
    assert tree(Path("out")) == before


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_an_output_folder_that_cannot_be_made_is_refused(
    out: str, recipe_file: Callable[..., Path]
):
    Path("file").write_text("in the way")
    refused(ddkit("distill", recipe_file(), "--out", out), 1, "file")
    assert Path("file").read_text() == "in the way"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_without_permission_is_refused(recipe_file: Callable[..., Path]):
    Path("locked").mkdir(mode=0o500)
    refused(ddkit("distill", recipe_file(), "--out", "locked/run"), 1, "locked")
    assert tree(Path("locked")) == {}


def test_a_run_that_diverges_is_exit_code_1_and_names_the_term(recipe_file: Callable[..., Path]):
    method = {"name": "dm", "iterations": 6, "batch_real": 8, "lr_images": 1e30}
    said = ddkit("distill", recipe_file(method=method), "--out", "out", "-q")
    refused(said, 1, "finite", "lr_images")
    assert not Path("out/synthetic.safetensors").exists()


def test_a_broken_plugin_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe_file: Callable[..., Path]
):
    info = tmp_path / "site" / "ddkit_sad-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ddkit-sad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ddkit]\nsad = ddkit_sad_module\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delenv("DDKIT_LOAD_PLUGINS")
    said = ddkit("distill", recipe_file(), "--out", "out", "-q")
    assert said.code == 0
    assert len(said.lines) == 1
    assert "ddkit-sad:sad" in said.err
    assert "ddkit_sad_module" in said.err


def test_a_disk_too_full_is_refused_dry_or_not(
    recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from ddkit.distillation import preflight

    monkeypatch.setattr(preflight, "disk_free", lambda path: 1000)
    for dry in ([], ["--dry-run"]):
        refused(ddkit("distill", recipe_file(), "--out", "out", *dry), 1, "1000 B free")
    assert not Path("out").exists()


def test_eval_refuses_a_place_it_cannot_write_to_before_training(set_file: Path):
    Path("file").write_text("in the way")
    said = ddkit("eval", set_file, "--set", "epochs=1", "--out", "file/verdict.json")
    assert said.code == 1
    assert "file" in said.err
    assert "evaluate" not in said.err  # the line of progress


@pytest.mark.parametrize("words", [["-v", "--version"], ["--version", "-v"]])
def test_the_version_tells_of_torch_when_asked(words: list[str]):
    said = ddkit(*words)
    assert said.code == 0
    assert f"torch {torch.__version__}" in said.out


@pytest.mark.skipif(os.name == "nt", reason="pipes are POSIX's")
def test_a_reader_that_goes_away_is_no_bug_of_ours():
    process = start("recipes", "list")
    process.stdout.close()  # type: ignore[union-attr]
    assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]
    process.wait()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed")])
@pytest.mark.filterwarnings("ignore:the reporter")
def test_a_standard_error_that_takes_nothing_costs_no_work(
    error: Exception, recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from ddkit.cli.progress import Terminal

    def write(self: Any, *_: Any, **__: Any) -> None:
        raise error

    for name in ("begin", "advance", "note", "end"):
        monkeypatch.setattr(Terminal, name, write)
    said = ddkit("distill", recipe_file(), "--out", "out", "--eval", "--set", "eval.seeds=1")
    assert said.code == 0, said.err
    assert NAMES | {"eval.json"} <= set(tree(Path("out")))


@pytest.mark.parametrize("verbose", [False, True])
def test_a_plugin_that_raises_costs_one_line_and_its_traceback_on_request(
    verbose: bool, recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    def mean_matching(*_: Any) -> Any:
        raise ZeroDivisionError("its own mistake")

    monkeypatch.setattr("ddkit_methods.dm.mean_matching", mean_matching)
    monkeypatch.setattr("ddkit.runtime.blame.BUILTIN", "another")
    said = ddkit(*(["-v"] if verbose else []), "distill", recipe_file(), "--out", "out", "-q")
    assert said.code == 1
    assert ("Traceback" in said.err) == verbose
    assert "Error: the method 'dm' of plugin ddkit:dm" in said.lines[-1]
    assert verbose or len(said.lines) == 1


# Signals


def test_an_interrupted_evaluation_says_what_is_so_and_writes_nothing(
    set_file: Path, monkeypatch: pytest.MonkeyPatch
):
    from ddkit.evaluation import judge

    original = judge.accuracy

    def accuracy(*arguments: Any) -> float:
        signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(judge, "accuracy", accuracy)
    said = ddkit("eval", set_file, "--set", "epochs=1", "--out", "verdict.json")
    assert (said.code, said.out) == (130, "")
    assert "cache" not in said.err  # which holds no judges
    assert not Path("verdict.json").exists()


def start(*words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ddkit", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_waits_for_the_step_and_the_second_does_not(
    number: signal.Signals,
    recipe_file: Callable[..., Path],
    loaded: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    dm = loaded.methods["dm"].factory
    original, finished = dm.step, []
    signals: dict[int, int] = {}  # how many arrive in which step

    def step(self: Any, run: Any, i: int) -> Any:
        for _ in range(signals.get(i, 0)):
            signal.raise_signal(number)
        metrics = original(self, run, i)
        finished.append(i)
        return metrics

    monkeypatch.setattr(dm, "step", step)
    path = recipe_file()
    for signals, done in (({1: 1}, [0, 1]), ({2: 2}, [])):  # noqa: B007 - `step` reads it
        finished.clear()
        said = ddkit("distill", path, "--out", "out", "-q")
        assert (said.code, said.out, finished) == (130, "", done)
        assert "Traceback" not in said.err
    signals = {}
    assert ddkit("distill", path, "--out", "out", "-q").code == 0
    assert finished == [2, 3]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_saves_the_state_and_the_same_command_goes_on_to_the_same_bytes(
    recipe_file: Callable[..., Path],
):
    method = {"name": "dm", "iterations": 6, "batch_real": 8, "momentum": 0.9}
    path, step = recipe_file(method=method), 3
    script = PAUSING + "from ddkit.cli import main\nmain()"
    command = [sys.executable, "-c", script, str(step - 1), "distill", str(path), "--out", "out"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == f"in step {step - 1}\n"
    process.send_signal(signal.SIGINT)
    assert any("stopping after this step" in line for line in process.stderr)
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert f"stopped after step {step} of 6" in err
    assert "--out out" in err
    assert Path("out/checkpoint.pt").is_file()
    assert not Path("out/synthetic.safetensors").exists()
    assert not [p for p in Path("out").iterdir() if p.name.startswith(".")]

    resumed = ddkit("distill", path, "--out", "out")
    assert resumed.code == 0, resumed.err
    assert f"at step {step} of 6" in resumed.err
    assert ddkit("distill", path, "--out", "whole").code == 0
    ours, whole = tree(Path("out")), tree(Path("whole"))
    assert set(ours) == set(whole) == NAMES
    for name in NAMES - {"run.json"}:  # which holds the seconds
        assert ours[name] == whole[name], name


def test_the_table_of_the_tests_is_a_recipe():
    assert Recipe.parse(recipe_table()).method.name == "dm"


def test_the_command_line_starts_without_what_reads_packages_and_computes():
    script = "import sys, ddkit.cli; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    heavy = {"torch", "numpy", "rich", "pluggy", "importlib.metadata", "platformdirs", "tempfile"}
    assert not heavy & set(said.stdout.split())
