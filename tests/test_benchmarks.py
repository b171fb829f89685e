"""The scripts under benchmarks/: what they keep, and what they print."""

from __future__ import annotations

import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from ddkit.recipes import catalog
from ddkit.recipes.recipe import Recipe

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("held_out", "mutations", "results", "results_page", "validate", "validate_table"):
        sys.modules.pop(name, None)


def line(row: str, seed: int, *accuracies: float, group: str = "g") -> dict[str, Any]:
    return {
        "group": group,
        "row": row,
        "seed": seed,
        "accuracies": accuracies,
        "iterations": 7,
        "seconds": 3.0,
        "machine": "one",
    }


def test_a_difference_is_paired_by_seed(scripts: None):
    from results_page import difference, spread

    group = {"name": "g", "base": "a", "sets": 3, "networks": 2}
    found = [line("a", 0, 0.5, 0.7), line("a", 1, 0.2), line("b", 1, 0.5), line("b", 0, 0.7)]
    done = {(x["group"], x["row"], x["seed"]): x for x in found}
    own = [done["g", "b", 0], done["g", "b", 1]]
    assert difference(group, own, "a", done) == "+20.00 ± 10.00"  # 10 and 30
    assert difference(group, [done["g", "b", 1]], "a", done) == "+30.00"
    assert difference(group, own, "c", done) == ""
    assert spread([60.0, 20.0]) == "40.0 ± 28.3"


def test_the_page_says_what_is_not_measured(scripts: None):
    from results_page import page

    group = {"name": "g", "title": "T", "about": "A", "sets": 2, "networks": 1, "base": "a"}
    text = page(
        [{**group, "rows": [{"name": "a"}, {"name": "b"}]}], {("g", "a", 0): line("a", 0, 0.5)}
    )
    assert "| a | 50.0 | 1 x 1 |  | 7 | 3 |" in text
    assert "| b | not measured |" in text


def test_what_was_finished_beside_a_failure_is_kept(scripts: None, monkeypatch: Any):
    import results

    def one(name: str) -> dict[str, Any]:
        if name == "bad":
            raise ValueError("row fails")
        return {"row": name}

    monkeypatch.setattr(results, "one", one)
    kept = []
    with ThreadPoolExecutor(2) as workers, pytest.raises(ValueError, match="row fails"):
        for got in results.side_by_side(
            workers, iter([("good",), ("bad",), ("also",), ("never",)]), 2, float("inf")
        ):
            kept.append(got["row"])
    assert "good" in kept


def test_every_row_of_the_results_is_a_recipe(scripts: None):
    import results

    for group in tomllib.loads(results.PLAN.read_text(encoding="utf-8"))["groups"]:
        names = [row.name for row in results.rows(group, "DIR")]
        assert len(set(names)) == len(names)
        assert {group["base"], *(row.get("base", group["base"]) for row in group["rows"])} <= set(
            names
        )
        for row in results.rows(group, "DIR"):
            recipe = Recipe.load(row.recipe, row.overrides)
            assert (recipe.dataset.options.get("path") == "DIR") == bool(group.get("folder"))


@pytest.mark.parametrize("quick", [False, True])
def test_every_job_of_the_validation_is_a_recipe(quick: bool, scripts: None):
    import validate

    options = Namespace(quick=quick, data="DIR", precision="bfloat16", chunk="2")
    for job in validate.jobs(validate.JUDGES):
        recipe = Recipe.load(job.recipe, validate.overrides(job.recipe, options))
        assert recipe.dataset.options == {"path": "DIR"}
        assert (recipe.runtime.precision, recipe.runtime.chunk) == ("bfloat16", 2)
        assert (recipe.method.options["iterations"] == 6) == quick


def test_a_recipes_heading_is_read_to_its_end(scripts: None):
    from validate import heading

    text = catalog.recipes()["ncfm-cifar10-ipc50"].read_text(encoding="utf-8")
    assert heading(text, "Reported").startswith("77.4 with the sampling network")
    assert heading(text, "Reported").endswith(
        "74.2 without both (the paper's ablation), which is this setting."
    )
    assert heading(text, "Reproduced") == "about 72, by users of the released code."
    assert heading("# A.\nseed = 0\n", "Reproduced") == ""


def test_the_validation_goes_on_with_the_networks_that_are_missing(
    scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import validate

    from ddkit.errors import Interrupted

    small = [
        *("method.iterations=2", "backbone.width=8", "runtime.device=cpu"),
        *('eval.archs=["mlp"]', "eval.epochs=2", "eval.seeds=2"),
    ]
    monkeypatch.setattr(validate, "overrides", lambda name, options: small)
    job = validate.Job("dm-digits-ipc1")
    options = Namespace(out=tmp_path / "out", precision="float32", quick=False)
    ends = validate.Deadline(float("inf"))
    original = ends.advance

    def advance(metrics: Any, images: int = 0) -> None:
        original(metrics, images)
        if ends._task == "evaluate" and validate.lines(options.out):
            raise Interrupted("the time is over")  # in the second judge

    monkeypatch.setattr(ends, "advance", advance)
    with pytest.raises(Interrupted):
        validate.work(job, options, ends)
    assert [x["network"] for x in validate.lines(options.out)] == [0]
    validate.work(job, options, validate.Deadline(float("inf")))
    found = validate.lines(options.out)
    assert [x["network"] for x in found] == [0, 1]
    assert all(len(r["best"]) == r["n"] == 1 for x in found for r in x["results"])
    printed = validate.table(found)
    assert "set " in printed
    assert " 2 " in printed
    validate.work(job, options, ends)  # nothing is left
    assert validate.lines(options.out) == found


def test_held_out_images_are_no_training_images_and_no_test_images(scripts: None, tiny: Any):
    from held_out import choices, without_test

    data = without_test(tiny, 0.25)
    train, test = (s.fetch(torch.arange(len(s.labels))) for s in (data.train, data.test))
    assert (len(train), len(test)) == (27, 9)
    whole = {x.numpy().tobytes() for x in tiny.train.fetch(torch.arange(36))}
    assert {x.numpy().tobytes() for x in torch.cat([train, test])} == whole
    assert choices("a.b=1,2") == ["a.b=1", "a.b=2"]


def test_every_mutation_changes_one_place_and_names_a_test_that_there_is(scripts: None):
    from mutations import mutations

    found = mutations()
    assert len({m.name for m in found}) == len(found) > 100
    assert sum(m.issue == "named" for m in found) >= 13
    for m in found:
        text = (ROOT / m.file).read_text(encoding="utf-8")
        assert m.applied(text) != text, m.name
        file, _, name = m.test.partition("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), m.test


def test_a_mutation_is_tried_in_a_copy_and_taken_back(scripts: None, tmp_path: Path):
    from mutations import Mutation, tried

    (tmp_path / "doubling.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_doubling.py").write_text(
        "from doubling import double\n\ndef test_double():\n    assert double(2) == 4\n"
    )
    changes = {"2 * x": "3 * x", "2 *": "(1 + 1) *", "* x": "* y"}
    listed = [
        Mutation(
            k, "doubling.py", k, v, "doubling", "test_doubling.py::test_double", survives="equal"
        )
        for k, v in changes.items()
    ]
    assert [tried(m, tmp_path).state for m in listed] == ["caught", "survived", "broken"]
    assert (tmp_path / "doubling.py").read_text() == "def double(x):\n    return 2 * x\n"
    absent = Mutation("a", "doubling.py", "3 * x", "x", "", "test_doubling.py::test_double")
    with pytest.raises(ValueError, match="not exactly once"):
        absent.applied((tmp_path / "doubling.py").read_text())
