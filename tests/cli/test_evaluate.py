"""The figures of ``ddkit eval``: what was computed is what is printed and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from conftest import ddkit

from ddkit.cli.evaluate import split_archs
from ddkit.evaluation.verdict import Result, Verdict

ACCURACIES = {"set": (0.5012, 0.4634, 0.6010), "random": (0.25, 0.35, 0.30)}
BEST = {"set": (0.61, 0.62, 0.69), "random": (0.4, 0.5, 0.6)}


@pytest.fixture
def printed(set_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that has ``ddkit eval`` find these accuracies; its words, and what it wrote."""
    from ddkit.evaluation import compose

    def printed(accuracies: dict[str, tuple[float, ...]], best: bool = False) -> Any:
        def judged(syn: Any, data: Any, spec: Any, *_: Any, **__: Any) -> Verdict:
            kept = {k: v for k, v in BEST.items() if best}
            results = [Result("net", k, v, 1.0, kept.get(k, ())) for k, v in accuracies.items()]
            return Verdict(spec, results)

        monkeypatch.setattr(compose, "judged", judged)
        said = ddkit("eval", set_file, "--out", tmp_path / "verdict.json")
        assert said.code == 0, said.err
        return said.out, json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))

    return printed


def deviation(values: tuple[float, ...], less: int) -> float:
    """Return the root of the squared distances from the mean, over n less `less`."""
    squares = [(v - mean(values)) ** 2 for v in values]
    return (sum(squares) / (len(values) - less)) ** 0.5


def row(text: str, subject: str) -> str:
    return next(" ".join(line.split()) for line in text.splitlines() if f" {subject} " in line)


def test_the_table_prints_mean_and_sample_deviation_of_what_was_computed(printed: Any):
    text, _ = printed(ACCURACIES)
    for subject, values in ACCURACIES.items():
        own = f"{100 * mean(values):.1f} ± {100 * deviation(values, 1):.1f}"
        assert own in row(text, subject)
        with_n = f"± {100 * deviation(values, 0):.1f}"
        assert with_n not in row(text, subject)
        assert " 3 " in row(text, subject).split(own)[1]
    assert "52.2 ± 7.1" in row(text, "set")
    assert "30.0 ± 5.0" in row(text, "random")


def test_the_best_stands_beside_the_result_and_not_in_its_place(printed: Any):
    text, _ = printed(ACCURACIES, best=True)
    line = row(text, "set")
    assert line.index("52.2 ± 7.1") < line.index("64.0 ± 4.4")


def test_one_network_has_no_deviation(printed: Any):
    text, written = printed({"set": (0.5,)})
    assert "50.0" in row(text, "set")
    assert "±" not in row(text, "set")
    assert written["results"][0]["std"] is None


def test_the_file_holds_what_was_computed(printed: Any):
    _, written = printed(ACCURACIES)
    for result, (subject, values) in zip(written["results"], ACCURACIES.items(), strict=True):
        assert (result["subject"], tuple(result["accuracies"])) == (subject, values)
        assert (result["n"], result["mean"]) == (3, pytest.approx(mean(values)))
        assert result["std"] == pytest.approx(deviation(values, 1))


def test_an_item_with_an_option_belongs_to_the_architecture_before_it():
    assert split_archs("convnet:depth=4,width=64, resnet18,, mlp:width=3") == [
        *("convnet:depth=4,width=64", "resnet18", "mlp:width=3")
    ]


def test_the_set_stands_over_the_table(printed: Any, set_file: Path):
    text, _ = printed(ACCURACIES)
    assert text.startswith(f"{set_file}, made from digits\n")


def test_other_seeds_are_other_judges_and_other_random_sets_and_are_told(
    set_file: Path, tmp_path: Path
):
    def accuracies(*words: str) -> list[Any]:
        out = tmp_path / "verdict.json"
        said = ddkit("eval", set_file, "--out", out, "-q", "--set", "epochs=2", *words)
        assert said.code == 0, said.err
        verdict = json.loads(out.read_text(encoding="utf-8"))
        return [verdict["protocol"], *(r["accuracies"] for r in verdict["results"])]

    told, ours, random = accuracies()
    others = accuracies("--data-seed", "2")
    assert others[0] == f"{told}; seeds: random sets 2"
    assert others[1] == ours and others[2] != random
    assert accuracies("--judge-seed", "3")[1] != ours


@pytest.mark.parametrize("command", ["distill", "eval"])
def test_no_threads_are_refused_in_words(command: str):
    said = ddkit(command, "x", "--threads", "0")
    assert said.code == 2
    assert "'--threads': 0 is not in the range x>=1" in said.err
