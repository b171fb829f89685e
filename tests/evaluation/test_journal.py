"""An interrupted evaluation goes on, and only its own judges are taken over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ddkit

from ddkit.errors import Interrupted
from ddkit.evaluation import judge
from ddkit.evaluation.baselines import random_set
from ddkit.evaluation.compose import judged, stored_spec
from ddkit.evaluation.verdict import Scope
from ddkit.images.formation import Formation
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet
from ddkit.recipes.sections import Part
from ddkit.reporter import Silent
from ddkit.runtime.device import Runtime
from ddkit.testing import tiny_dataset

RUNTIME = Runtime(torch.device("cpu"))
NET = {"name": "convnet", "width": 8, "depth": 2}
EVAL = {"archs": [NET], "seeds": 2, "protocol": "dm-digits", "epochs": 2}


@pytest.fixture
def syn() -> SyntheticSet:
    made = random_set(
        RealImages(tiny_dataset(), 0, RUNTIME.device), torch.tensor([2, 2, 2]), Formation(), 7
    )
    made.recipe = {"backbone": NET, "eval": EVAL}
    return made


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every training, as it begins."""
    seen: list[int] = []
    fit = judge.fit

    def counted(net: Any, fetch: Any, count: int, *rest: Any, **more: Any) -> None:
        seen.append(count)
        fit(net, fetch, count, *rest, **more)

    monkeypatch.setattr(judge, "fit", counted)
    return seen


def judge_it(syn: SyntheticSet, loaded: Any, path: Path | None, *settings: str, **more: Any) -> Any:
    data = more.pop("data", None) or tiny_dataset()
    spec = stored_spec(syn, settings=settings)
    scope = Scope(**more)
    return judged(syn, data, spec, loaded, RUNTIME, Silent(), scope, path)


def figures(verdict: Any) -> list[Any]:
    return [(r.arch, r.subject, r.accuracies) for r in verdict.results]


def test_an_interrupted_evaluation_goes_on_and_gives_the_figures_of_an_unbroken_one(
    syn: SyntheticSet, loaded: Any, trained: list[int], tmp_path: Path, monkeypatch: Any
):
    whole = figures(judge_it(syn, loaded, None))
    assert len(trained) == 4
    del trained[:]
    counted = judge.fit

    def stops(*given: Any, **more: Any) -> None:
        if len(trained) == 3:
            raise Interrupted("stopped")
        counted(*given, **more)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(judge, "fit", stops)
        judge_it(syn, loaded, tmp_path / "judges")
    assert figures(judge_it(syn, loaded, tmp_path / "judges")) == whole
    assert len(trained) == 4  # three before, one after


def test_more_networks_go_on_from_fewer(
    syn: SyntheticSet, loaded: Any, trained: list[int], tmp_path: Path
):
    judge_it(syn, loaded, tmp_path / "judges")
    judge_it(syn, loaded, tmp_path / "judges", "seeds=3")
    assert len(trained) == 6


@pytest.mark.parametrize("what", ["image", "label", "data", "protocol", "best", "line"])
def test_a_judge_of_another_evaluation_or_a_damaged_line_is_trained_again(
    what: str, syn: SyntheticSet, loaded: Any, trained: list[int], tmp_path: Path
):
    path, settings, more = tmp_path / "judges", [], dict[str, Any]()
    judge_it(syn, loaded, path, baseline=False)
    again = 2
    if what == "image":
        syn.images.data[0, 0, 0, 0] += 1
    elif what == "label":
        syn.labels = syn.labels.flip(0)
    elif what == "data":
        more["data"] = tiny_dataset(seed=1)
        syn.info = replace(syn.info, mean=more["data"].info.mean, std=more["data"].info.std)
    elif what == "protocol":
        settings = ["lr=0.02"]
    elif what == "best":
        more["best_every"] = 1
    else:
        lines = path.read_text().splitlines()
        path.write_text(lines[0] + "\n" + lines[1].replace("0.", "1.") + "\n")
        again = 1
    del trained[:]
    judge_it(syn, loaded, path, *settings, baseline=False, **more)
    assert len(trained) == again


def test_a_network_whose_code_changed_is_judged_again(
    syn: SyntheticSet, loaded: Any, trained: list[int], tmp_path: Path
):
    judge_it(syn, loaded, tmp_path / "judges", baseline=False)
    factory = loaded.backbones["convnet"].factory
    component = loaded.backbones["convnet"]._replace(
        factory=lambda info, **o: factory(info, width=12)
    )
    registry = type(loaded.backbones)("backbones", {"convnet": component}, [])
    del trained[:]
    spec = replace(stored_spec(syn), archs=(Part("convnet", dict(NET, name=None) and {}),))
    assert spec.archs
    changed = replace(loaded, backbones=registry)
    judged(syn, tiny_dataset(), spec, changed, RUNTIME, Silent(), Scope(False), tmp_path / "judges")
    assert len(trained) == 2


def test_the_command_removes_the_journal_with_the_verdict_written(set_file: Path, tmp_path: Path):
    said = ddkit("eval", set_file, "--out", tmp_path / "verdict.json", "--seeds", "1", "-q")
    assert said.code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["verdict.json"]
