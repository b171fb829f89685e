"""The outer loop: resumed runs equal unbroken ones, and nothing is overwritten."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_POOL, tree
from torch import Tensor

from ddkit.data import Dataset
from ddkit.distillation import loop
from ddkit.distillation.loop import Outcome, run_recipe
from ddkit.errors import (
    CheckpointError,
    DDKitError,
    DivergedError,
    IncompatibleError,
    Interrupted,
    RecipeError,
)
from ddkit.images.synthetic import SyntheticSet
from ddkit.recipes.binding import schema
from ddkit.recipes.recipe import Recipe
from ddkit.regularizer import Match
from ddkit.reporter import Metrics, Silent
from ddkit.run import Run
from ddkit.runtime.progress import JsonLines, Tee

SAME = ("synthetic.safetensors", "metrics.jsonl", "recipe.toml", "grid.png")


class Watching(Silent):
    """Counts steps of the distillation, and raises at one of them."""

    def __init__(self, stop: int | None = None, error: Exception | None = None):
        self.stop, self.error = stop, error or Interrupted("stopped")
        self.task = ""
        self.steps = self.ended = 0
        self.notes: list[str] = []

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self.task = task

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        if self.task == "distill":
            self.steps += 1
            if self.steps == self.stop:
                raise self.error

    def end(self) -> None:
        self.ended += 1

    def note(self, text: str) -> None:
        self.notes.append(text)


class Killing(Silent):
    """Copies the run's folder in the middle of a step's end, as a kill would leave it."""

    def __init__(self, step: int, folder: Path, to: Path):
        self.step, self.folder, self.to = step, folder, to

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.step -= 1
        if self.step == 0:
            shutil.copytree(self.folder, self.to)


RECIPES: dict[str, dict[str, Any]] = {
    "dm": {"method": {"name": "dm", "iterations": 5, "batch_real": 8, "momentum": 0.9}},
    "dm + iid": {
        "method": {"name": "dm", "iterations": 5, "batch_real": 8},
        "regularizers": [
            {"name": "centralize", "weight": 0.1},
            {"name": "covariance", "weight": 0.01},
        ],
        "proxies": TINY_POOL,
    },
    "mosaic in pixels": {
        "method": {"name": "dm", "iterations": 5, "batch_real": 8},
        "synthetic": {"ipc": 2, "factor": 2, "space": "pixel", "init": "noise"},
    },
    "random": {"method": {"name": "random"}},
}


@pytest.fixture
def run(loaded: Any, tiny: Dataset) -> Callable[..., Outcome]:
    def run(recipe: Recipe, out: Path, reporter: Any = None) -> Outcome:
        return run_recipe(recipe, loaded, reporter or Silent(), out, dataset=tiny)

    return run


def assert_same(ours: Path, theirs: Path) -> None:
    for name in SAME:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_recipe_twice_gives_the_same_bytes(
    name: str, run: Any, tiny_recipe: Any, tmp_path: Path
):
    for folder in ("a", "b"):
        torch.rand(5)
        run(tiny_recipe(**RECIPES[name]), tmp_path / folder)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_another_seed_gives_another_set(run: Any, tiny_recipe: Any, tmp_path: Path):
    one, two = (run(tiny_recipe(seed=s), tmp_path / str(s)).synthetic for s in (0, 1))
    assert not torch.equal(one.images, two.images)


@pytest.mark.parametrize("name", ["dm", "dm + iid", "mosaic in pixels"])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_interrupted_at_any_step_ends_as_an_unbroken_one(
    name: str, step: int, run: Any, tiny_recipe: Any, tmp_path: Path
):
    recipe = tiny_recipe(**RECIPES[name])
    run(recipe, tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"after step {step} of 5, state saved") as stop:
        run(recipe, tmp_path / "broken", Watching(step))
    assert str(tmp_path / "broken") in str(stop.value)
    assert stop.value.exit_code == 130
    broken = tree(tmp_path / "broken")
    assert "checkpoint.pt" in broken
    assert "synthetic.safetensors" not in broken
    assert len(broken["metrics.jsonl"].splitlines()) == step
    rest = Watching()
    run(recipe, tmp_path / "broken", rest)
    assert rest.steps == 5 - step
    assert any(f"at step {step} of 5" in note for note in rest.notes)
    assert_same(tmp_path / "broken", tmp_path / "whole")
    assert "checkpoint.pt" not in tree(tmp_path / "broken")


def test_a_run_interrupted_twice_ends_as_an_unbroken_one(
    run: Any, tiny_recipe: Any, tmp_path: Path
):
    recipe = tiny_recipe(**RECIPES["dm"])
    run(recipe, tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Interrupted):
            run(recipe, tmp_path / "broken", Watching(2))
    run(recipe, tmp_path / "broken")
    assert_same(tmp_path / "broken", tmp_path / "whole")


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(
    run: Any, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "CHECK_SECONDS", 0.0)
    runtime = {"device": "cpu", "checkpoint_seconds": 1e-9}
    recipe = tiny_recipe(**RECIPES["dm"], runtime=runtime)
    run(recipe, tmp_path / "whole", Killing(4, tmp_path / "whole", tmp_path / "killed"))
    rest = Watching()
    run(recipe, tmp_path / "killed", rest)
    assert rest.steps == 2  # the fourth step had not been saved
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_a_run_killed_before_any_checkpoint_starts_over(run: Any, tiny_recipe: Any, tmp_path: Path):
    recipe = tiny_recipe(**RECIPES["dm"])
    run(recipe, tmp_path / "whole", Killing(3, tmp_path / "whole", tmp_path / "killed"))
    run(recipe, tmp_path / "killed")
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_a_finished_run_is_left_alone(run: Any, tiny_recipe: Any, tmp_path: Path):
    first = run(tiny_recipe(), tmp_path / "out")
    before = tree(tmp_path)
    again = Watching()
    second = run(tiny_recipe(), tmp_path / "out", again)
    assert (first.already, second.already) == (False, True)
    assert again.steps == 0
    assert torch.equal(first.synthetic.images, second.synthetic.images)
    assert tree(tmp_path) == before


def test_a_folder_of_another_recipe_is_refused_finished_or_not(
    run: Any, tiny_recipe: Any, tmp_path: Path
):
    run(tiny_recipe(), tmp_path / "finished")
    with pytest.raises(Interrupted):
        run(tiny_recipe(), tmp_path / "broken", Watching(2))
    before = tree(tmp_path)
    for name in ("finished", "broken"):
        with pytest.raises(CheckpointError, match=r"another recipe \(seed is 0 there, 1 here\)"):
            run(tiny_recipe(seed=1), tmp_path / name)
    assert tree(tmp_path) == before


def test_other_data_is_another_run(run: Any, loaded: Any, tiny_recipe: Any, tmp_path: Path):
    from ddkit.testing import tiny_dataset

    run(tiny_recipe(), tmp_path / "out")
    with pytest.raises(CheckpointError, match="other data"):
        data = tiny_dataset(seed=1)
        run_recipe(tiny_recipe(), loaded, Silent(), tmp_path / "out", dataset=data)


@pytest.mark.parametrize(
    "changes",
    [
        {"regularizers": [{"name": "centralize", "weight": 1.0}]},
        {"method": {"name": "random"}, "regularizers": [{"name": "covariance", "weight": 1.0}]},
        {"backbone": {"name": "convnet", "width": 8, "depth": 9}},
        {"synthetic": {"ipc": 99}},
        {"proxies": {**TINY_POOL, "backbone": {"name": "convnet", "depth": 9}}},
    ],
)
def test_what_cannot_work_is_refused_before_anything_trains_or_is_written(
    changes: dict[str, Any], run: Any, tiny_recipe: Any, tmp_path: Path
):
    if "proxies" in changes:
        changes["regularizers"] = [{"name": "centralize", "weight": 1.0}]
    watching = Watching()
    with pytest.raises(DDKitError) as refusal:
        run(tiny_recipe(**changes), tmp_path / "out", watching)
    assert refusal.value.exit_code == 2
    assert watching.task == ""
    assert watching.notes == []
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken_is_refused_before_the_pool_is_trained(
    run: Any, tiny_recipe: Any, tmp_path: Path
):
    (tmp_path / "notes.txt").write_text("mine")
    pool = {**TINY_POOL, "epochs": 2, "seed": 77}
    recipe = tiny_recipe(regularizers=[{"name": "centralize", "weight": 1.0}], proxies=pool)
    watching = Watching()
    with pytest.raises(CheckpointError, match="something else"):
        run(recipe, tmp_path, watching)
    assert watching.task == ""


# Divergence


def hopeless(tiny_recipe: Any, iterations: int, rate: float, **changes: Any) -> Recipe:
    method = {"name": "dm", "iterations": iterations, "batch_real": 8, "lr_images": rate}
    return tiny_recipe(method=method, **changes)


def test_a_run_that_diverges_says_where_and_writes_no_set(
    run: Any, tiny_recipe: Any, tmp_path: Path
):
    with pytest.raises(DivergedError, match="lr_images") as refusal:
        run(hopeless(tiny_recipe, 6, 1e30), tmp_path / "out")
    assert len(str(refusal.value).splitlines()) <= 2
    assert "synthetic.safetensors" not in tree(tmp_path)


def test_a_loss_that_is_not_finite_stops_a_run_whatever_its_gradient(
    run: Any, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backward = Run.backward
    monkeypatch.setattr(
        Run, "backward", lambda self, loss, match: backward(self, loss - torch.inf, match)
    )
    with pytest.raises(DivergedError, match=r"step 0: loss \(-inf\) is no longer finite"):
        run(tiny_recipe(), tmp_path / "out")


@pytest.mark.parametrize("worst", ["loss", "gradient"])
def test_a_run_that_diverges_names_term_step_and_class(
    worst: str, run: Any, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backward = Run.backward

    def poisoned(self: Run, loss: Tensor, match: Match) -> Any:
        if self.at == 3:
            image = match.syn[match.groups.labels == 1]
            if worst == "loss":
                loss = loss + (image.sum() * 0).log()
            else:
                image.register_hook(lambda grad: grad * torch.nan)
                loss = loss + image.sum() * 0
        return backward(self, loss, match)

    monkeypatch.setattr(Run, "backward", poisoned)
    with pytest.raises(DivergedError) as refusal:
        run(tiny_recipe(method={"name": "dm", "iterations": 6}), tmp_path / "out")
    what = "loss (-inf)" if worst == "loss" else "the gradient"
    assert f"step 3: {what} of class 'class 1' is no longer finite" in str(refusal.value)
    assert "checkpoint" not in str(refusal.value)  # there was none yet


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("rate", [1e38, 1e300])
def test_a_finished_set_is_finite(
    iterations: int, rate: float, run: Any, tiny_recipe: Any, tmp_path: Path
):
    try:
        syn = run(hopeless(tiny_recipe, iterations, rate), tmp_path / "out").synthetic
    except (DivergedError, RecipeError):
        assert "out/synthetic.safetensors" not in tree(tmp_path)
        return
    assert torch.isfinite(syn.images).all()


def test_a_last_step_that_overflows_writes_no_set(run: Any, tiny_recipe: Any, tmp_path: Path):
    terms = [{"name": "covariance", "weight": 1e4}]  # a gradient that is finite, and large
    with pytest.raises(DivergedError):
        run(hopeless(tiny_recipe, 1, 3e38, regularizers=terms), tmp_path / "out")
    assert "synthetic.safetensors" not in tree(tmp_path / "out")


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(
    run: Any, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: Any
):
    monkeypatch.setattr(loop, "CHECK_SECONDS", 0.0)
    dm = loaded.methods["dm"].factory
    original = dm.step

    def poisoned(self: Any, run: Any, i: int) -> Any:
        if i == 3:
            run.optimizers[0].param_groups[0]["params"][0].register_hook(lambda g: g * torch.nan)
        return original(self, run, i)

    monkeypatch.setattr(dm, "step", poisoned)
    recipe = tiny_recipe(
        method={"name": "dm", "iterations": 6, "batch_real": 8},
        runtime={"device": "cpu", "checkpoint_seconds": 1e-9},
    )
    with pytest.raises(DivergedError, match="checkpoint is kept"):
        run(recipe, tmp_path / "out")
    monkeypatch.setattr(dm, "step", original)
    rest = Watching()
    outcome = run(recipe, tmp_path / "out", rest)
    assert rest.steps == 3
    assert torch.isfinite(outcome.synthetic.images).all()
    run(recipe, tmp_path / "whole")
    assert_same(tmp_path / "out", tmp_path / "whole")


@pytest.mark.parametrize("rate", [1.0, 1e30])
def test_every_task_that_begins_is_ended(rate: float, run: Any, tiny_recipe: Any, tmp_path: Path):
    watching = Watching()
    try:
        run(hopeless(tiny_recipe, 6, rate), tmp_path / "out", watching)
    except DivergedError:
        assert rate > 1
    assert watching.ended == 1  # or a terminal is left without its cursor


# What a run leaves behind


def test_the_set_knows_its_recipe_and_where_it_comes_from(
    run: Any, tiny_recipe: Any, tiny: Dataset, tmp_path: Path
):
    recipe = tiny_recipe(seed=4)
    run(recipe, tmp_path / "out")
    syn = SyntheticSet.load(tmp_path / "out" / "synthetic.safetensors")
    assert run(Recipe.parse(syn.recipe), tmp_path / "out").already
    assert syn.provenance["seed"] == 4
    assert syn.provenance["data"] == tiny.fingerprint()
    assert {"ddkit", "torch", "python"} <= set(syn.provenance)
    assert syn.info == tiny.info


def test_the_resolved_recipe_states_every_option_so_that_new_defaults_change_nothing(
    run: Any, tiny_recipe: Any, tmp_path: Path, loaded: Any
):
    syn = run(tiny_recipe(**RECIPES["dm + iid"]), tmp_path / "out").synthetic
    kept = tomllib.loads((tmp_path / "out" / "recipe.toml").read_text())
    for table in (syn.recipe, kept):
        method = schema(loaded.methods["dm"].factory)
        assert set(table["method"]) == {"name", *method}
        assert set(table["backbone"]) == {"name", *schema(loaded.backbones["convnet"].factory)} - {
            "info"
        }
        term = table["regularizers"][0]
        assert set(term) == {"name", "weight", *schema(loaded.regularizers["centralize"].factory)}


def test_metrics_name_every_term_of_every_step(run: Any, tiny_recipe: Any, tmp_path: Path):
    run(tiny_recipe(**RECIPES["dm + iid"]), tmp_path / "out")
    text = (tmp_path / "out" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == list(range(5))
    assert all(set(line) == {"step", "loss", "centralize", "covariance"} for line in lines)


def test_a_regularizer_that_appears_twice_has_two_names(run: Any, tiny_recipe: Any, tmp_path: Path):
    terms = [{"name": "covariance", "weight": w} for w in (0.01, 0.02)]
    run(tiny_recipe(regularizers=terms), tmp_path / "out")
    line = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["covariance#2"] == pytest.approx(2 * line["covariance"])


def test_a_regularizer_changes_the_set(run: Any, tiny_recipe: Any, tmp_path: Path):
    plain = run(tiny_recipe(), tmp_path / "a").synthetic.images
    terms = [{"name": "covariance", "weight": 0.1}]
    carried = run(tiny_recipe(regularizers=terms), tmp_path / "b").synthetic.images
    assert not torch.equal(plain, carried)


@pytest.mark.parametrize("chunk", [1, 2])
def test_the_size_of_chunks_changes_no_result_but_in_the_last_digits(
    chunk: int, run: Any, tiny_recipe: Any, tmp_path: Path
):
    whole = run(tiny_recipe(), tmp_path / "whole").synthetic
    parts = run(tiny_recipe(runtime={"device": "cpu", "chunk": chunk}), tmp_path / "parts")
    torch.testing.assert_close(parts.synthetic.images, whole.images, rtol=1e-3, atol=1e-4)


# Reporters


def test_metrics_go_to_their_file_in_batches_and_all_at_the_end(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    lines = JsonLines(path, every=1e9)
    lines.begin("distill", 3)
    for i in range(3):
        lines.advance({"loss": torch.tensor(float(i))})
    assert path.read_text() == ""
    lines.end()
    assert [json.loads(t) for t in path.read_text().splitlines()] == [
        {"step": i, "loss": float(i)} for i in range(3)
    ]


def test_a_resumed_run_cuts_its_metrics_to_what_is_saved(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_text("".join(f'{{"step": {i}}}\n' for i in range(5)))
    lines = JsonLines(path)
    lines.begin("distill", 9, done=3)
    lines.advance({})
    lines.end()
    assert [json.loads(t)["step"] for t in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_every_reporter_hears_everything():
    one, two = Watching(), Watching()
    both = Tee(one, two)
    both.begin("distill", 2)
    both.advance({})
    both.note("hello")
    both.end()
    for heard in (one, two):
        assert (heard.task, heard.steps, heard.notes, heard.ended) == ("distill", 1, ["hello"], 1)


def test_a_missing_pool_is_refused_in_words(run: Any, tiny_recipe: Any, tmp_path: Path):
    with pytest.raises(IncompatibleError, match=r"needs a pool .*add proxies = "):
        recipe = tiny_recipe(regularizers=[{"name": "centralize", "weight": 1.0}])
        run(recipe, tmp_path / "out")
