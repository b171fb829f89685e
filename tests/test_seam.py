"""Strangers' plugins, as little distributions: bad ones cost a line each, promises are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY_POOL, ddkit

from ddkit.images.synthetic import SyntheticSet

TERM = """
from ddkit import hookimpl
from ddkit.regularizer import Regularizer

class Term(Regularizer):
    requires = {"syn", "groups"}

    def loss(self, m):
        return m.groups.mean(m.syn).square().sum()

@hookimpl
def register_regularizers():
    return {"mine": Term}
"""
LOSS = "m.groups.mean(m.syn).square().sum()"
RETURNED = '{"mine": Term}'

LOADING = {  # a source, and the reason that `ddkit plugins` gives
    "raises at import": ("raise RuntimeError('sad')", "RuntimeError: sad"),
    "raises in a hook": (
        TERM.replace("return {", "{}['no such']; return {"),
        "KeyError: 'no such'",
    ),
    "a hook that returns a list": (TERM.replace(RETURNED, "[Term]"), "type list"),
    "a hook that returns None": (TERM.replace(RETURNED, "None"), "type NoneType"),
    "a hook that returns a number": (TERM.replace(RETURNED, "7"), "type int"),
    "a missing dependency": (
        "import no_such_library\n" + TERM,
        "ModuleNotFoundError: No module named 'no_such_library'",
    ),
}
WORKING = {  # a source, and what a run says of it
    "raises in loss": (TERM.replace(LOSS, "1 / 0"), " raised ZeroDivisionError: division by zero"),
    "a loss that is a float": (
        TERM.replace(LOSS, "0.5"),
        ": loss must return a scalar tensor, not a value of type float",
    ),
    "a loss that is a vector": (
        TERM.replace(LOSS, "m.syn.sum((1, 2, 3))"),
        ": loss must return a scalar tensor, not one of shape [6]; sum it over the classes",
    ),
    "no requires": (
        TERM.replace('requires = {"syn", "groups"}', ""),
        ": its class must have requires = frozenset of names of Match fields, but has none",
    ),
    "a misspelt field": (
        TERM.replace('groups"}', 'gruops"}'),
        ": requires names gruops, which no Match has (did you mean 'groups'",
    ),
    "no regularizer": (
        TERM.replace(RETURNED, '{"mine": type("Plain", (), {})}'),
        ": must be of a class derived from ddkit.regularizer.Regularizer, not Plain",
    ),
}
MINE = [{"name": "mine", "weight": 0.01}]


def goes_on(recipe_file: Callable[..., Path], out: Path) -> None:
    """Look whether commands that have nothing to do with a bad plugin work."""
    assert ddkit("plugins").code == 0
    listed = ddkit("list", "methods")
    assert listed.code == 0 and "dm" in listed.out
    method = {"name": "random"}
    said = ddkit("distill", recipe_file("other.toml", method=method), "--out", out / "other", "-q")
    assert said.code == 0, said.err


@pytest.mark.parametrize(("source", "reason"), LOADING.values(), ids=list(LOADING))
def test_a_plugin_that_does_not_load_costs_one_line_and_the_rest_goes_on(
    source: str, reason: str, install: Any, recipe_file: Callable[..., Path], tmp_path: Path
):
    install("bad-one", source)
    goes_on(recipe_file, tmp_path)
    (row,) = [r for r in json.loads(ddkit("plugins", "--json").out) if r["plugin"] == "bad-one:it"]
    assert row["status"].startswith("failed: ") and reason in row["status"]
    assert len(ddkit("list", "methods").lines) == 1
    said = ddkit("distill", recipe_file(regularizers=MINE), "--out", tmp_path / "mine", "-q")
    assert said.code == 2
    assert "no regularizer is called 'mine'" in said.err
    assert "plugin bad-one:it did not load: " in said.err and reason in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(("source", "words"), WORKING.values(), ids=list(WORKING))
def test_a_plugin_that_fails_at_work_costs_one_line_and_the_rest_goes_on(
    source: str, words: str, install: Any, recipe_file: Callable[..., Path], tmp_path: Path
):
    install("bad-one", source)
    goes_on(recipe_file, tmp_path)
    recipe = recipe_file(regularizers=MINE)
    for extra in ([], ["--dry-run"]):
        said = ddkit("distill", recipe, "--out", tmp_path / "mine", *extra)
        if extra and " raised " in words:  # it may be the tiny images
            assert said.code == 0 and words in said.err
            continue
        assert said.code == 1
        (line,) = [line for line in said.lines if line.startswith("Error: ")]
        assert f"the regularizer 'mine' of plugin bad-one:it (bad-one 1.0){words}" in line
        assert "Traceback" not in said.err


def test_a_plugin_that_prints_and_one_whose_name_is_taken_cost_nothing_but_words(
    install: Any, recipe_file: Callable[..., Path], tmp_path: Path
):
    install("aaa-loud", "print('loading')\n" + TERM)
    install("bad-name", TERM.replace('"mine"', '"covariance"'))
    recipe = recipe_file(regularizers=MINE)
    said = ddkit("distill", recipe, "--out", tmp_path / "mine")
    assert said.code == 0, said.err
    assert "loading" in said.err and "loading" not in said.out
    for name in ("run.json", "synthetic.safetensors"):
        assert b"aaa-loud 1.0" in (tmp_path / "mine" / name).read_bytes()
    goes_on(recipe_file, tmp_path)
    taken = recipe_file(regularizers=[{"name": "covariance", "weight": 0.01}])
    said = ddkit("distill", taken, "--out", tmp_path / "taken", "-q")
    assert said.code == 2
    assert len(said.lines) == 1
    assert "provided by both bad-name:it and ddkit:iid" in said.err
    assert "DDKIT_LOAD_PLUGINS" in said.err


METHOD = """
from torch.optim import SGD
from ddkit import hookimpl
from ddkit.method import Method
from ddkit.regularizer import Match

class Mine(Method):
    provides = frozenset({"syn", "labels"})

    def steps(self, run):
        return 2

    def setup(self, run):
        run.optimizers = [SGD([run.synthetic.images], lr=0.1)]

    def step(self, run, i):
        syn, groups = run.synthetic.decode()
        metrics = run.backward(syn.square().sum(), Match(syn=syn, groups=groups))
        run.apply()
        return metrics

@hookimpl
def register_methods():
    return {"mine": Mine}
"""
BROKEN_METHODS = {
    "promises and does not supply": (
        METHOD.replace('"labels"}', '"real_view"}'),
        "the Match that it gives to run.backward lacks real_view, which regularizer",
    ),
    "no dict of metrics": (
        METHOD.replace("return metrics", "return 3.0"),
        "step must return a dict of names to scalar tensors, not a value of type float",
    ),
    "a metric that is a number": (
        METHOD.replace("return metrics", "return {'loss': 3.0}"),
        "step must return under 'loss' a scalar tensor, not a value of type float",
    ),
    "no whole number of steps": (
        METHOD.replace("return 2", "return 2.5"),
        "steps must return a whole number, not 2.5",
    ),
    "a loss that is a vector": (
        METHOD.replace("syn.square().sum()", "syn.square().sum((1, 2, 3))"),
        "the loss that it gives to run.backward must be a scalar tensor, not one of shape [6]",
    ),
    "no provides": (
        METHOD.replace('provides = frozenset({"syn", "labels"})', ""),
        "its class must have provides = frozenset of names of Match fields, but has none",
    ),
}


@pytest.mark.parametrize(("source", "words"), BROKEN_METHODS.values(), ids=list(BROKEN_METHODS))
def test_a_method_that_breaks_its_word_is_told_before_anything_is_trained(
    source: str, words: str, install: Any, recipe_file: Callable[..., Path], tmp_path: Path
):
    install("bad-one", source)
    recipe = recipe_file(method={"name": "mine"}, proxies=TINY_POOL)
    for extra in (["--dry-run"], []):
        said = ddkit("distill", recipe, "--out", tmp_path / "mine", *extra)
        assert said.code == 1
        (line,) = [line for line in said.lines if line.startswith("Error: ")]
        assert f"the method 'mine' of plugin bad-one:it (bad-one 1.0): {words}" in line
        assert not (tmp_path / "mine").exists()


def test_a_method_that_keeps_its_word_is_said_to_have_been_tried(
    install: Any, recipe_file: Callable[..., Path], tmp_path: Path
):
    install("good-one", METHOD)
    recipe = recipe_file(method={"name": "mine"})
    said = ddkit("distill", recipe, "--out", tmp_path / "mine", "--dry-run")
    assert said.code == 0, said.err
    assert "good-one 1.0: tried on tiny images" in said.err


FACTORIES = {
    "backbone": ("backbones", "must return a torch.nn.Module, not NoneType"),
    "dataset": ("datasets", "must return a ddkit.data.Dataset, not NoneType"),
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_factory_that_makes_nothing_is_told_as_its_plugins(
    kind: str, install: Any, recipe_file: Callable[..., Path], tmp_path: Path
):
    plural, words = FACTORIES[kind]
    given = "info" if kind == "backbone" else "root"
    install(
        "bad-one",
        f"""
        from ddkit import hookimpl

        def nothing({given}):
            return None

        @hookimpl
        def register_{plural}():
            return {{"mine": nothing}}
        """,
    )
    said = ddkit("distill", recipe_file(**{kind: {"name": "mine"}}), "--out", tmp_path / "out")
    assert said.code == 1
    assert f"the {kind} 'mine' of plugin bad-one:it (bad-one 1.0): {words}" in said.err
    assert "Traceback" not in said.err


def test_all_examples_of_the_documentation_work_together_in_its_recipe(
    install: Any, tmp_path: Path
):
    page = ROOT / "docs" / "plugins.md"
    text = page.read_text(encoding="utf-8")
    for number, source in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)):
        install(f"docs-{number}", source)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (spread,) = re.findall(
        r"^```python\n((?:(?!^```).)*?class Spread.*?)^```$", readme, re.M | re.S
    )
    install("docs-spread", spread)
    (table,) = re.findall(r"^```toml\n(dataset.*?)^```$", text, re.M | re.S)
    recipe, out = tmp_path / "docs.toml", tmp_path / "out"
    recipe.write_text(table + 'runtime = { device = "cpu" }\n', encoding="utf-8")
    said = ddkit("distill", recipe, "--out", out, "--eval")
    assert said.code == 0, said.err
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 20
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(line["spread"] > 0 for line in lines), "every step draws a proxy of its own"
    made_by = "docs-0 1.0, docs-1 1.0, docs-2 1.0, docs-spread 1.0"
    assert json.loads((out / "run.json").read_text())["plugins"] == made_by
    assert SyntheticSet.load(out / "synthetic.safetensors").provenance["plugins"] == made_by


def test_a_set_of_built_in_parts_alone_names_no_plugins(run_folder: Path):
    assert "plugins" not in json.loads((run_folder / "run.json").read_text())
    assert "plugins" not in SyntheticSet.load(run_folder / "synthetic.safetensors").provenance


def test_a_judge_that_raises_is_told_as_its_plugins(install: Any, set_file: Path):
    install(
        "bad-one",
        """
        from ddkit import hookimpl

        def net(info):
            raise KeyError("sad")

        @hookimpl
        def register_backbones():
            return {"mine": net}
        """,
    )
    said = ddkit("eval", set_file, "--archs", "mine", "--seeds", "1")
    assert said.code == 1
    assert "the backbone 'mine' of plugin bad-one:it (bad-one 1.0) raised KeyError" in said.err
    assert "Traceback" not in said.err
