"""The file of a set as a stranger may bring it: taken whole, or refused in a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ddkit.data import Dataset
from ddkit.errors import CheckpointError, DDKitError
from ddkit.images import set_file
from ddkit.images.formation import Formation
from ddkit.images.synthetic import SyntheticSet

Table = dict[str, Any]


@pytest.fixture
def good(tiny: Dataset) -> SyntheticSet:
    """Six images of three classes, made by a recipe."""
    torch.manual_seed(0)
    return SyntheticSet(
        nn.Parameter(torch.randn(6, *tiny.info.shape)),
        torch.arange(3).repeat_interleave(2),
        tiny.info,
        soft=torch.rand(6, 3).softmax(1),
        recipe={"seed": 1, "dataset": {"name": "tiny"}, "eval": {"archs": ["mlp"], "lr": 0.1}},
        provenance={"seed": 1, "data": "hash"},
    )


@pytest.fixture
def forged(good: SyntheticSet, tmp_path: Path) -> Callable[..., Path]:
    """A function that saves a set, changes its description and tensors, and returns its path."""
    path = tmp_path / "forged"
    good.save(path)
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["ddkit"])
        held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118

    def forge(
        describe: Callable[[Table], Any] = lambda d: d, tensors: Callable[..., Any] = lambda t: t
    ) -> Path:
        changed = describe(deepcopy(described))
        text = changed if isinstance(changed, str) else json.dumps(changed)
        save_file(tensors(held), path, {"ddkit": text})
        return path

    return forge


def refused(path: Path, *words: str) -> None:
    """Check that reading costs one line that names the file and holds `words`."""
    with pytest.raises(CheckpointError) as caught:
        SyntheticSet.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text) < len(str(path)) + 350
    assert text.isprintable()
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("keep", [0, 4, 60, -1, -400])
def test_a_truncated_file_is_refused(keep: int, good: SyntheticSet, tmp_path: Path):
    path = tmp_path / "set"
    good.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "set: not a readable safetensors file")


def test_a_foreign_file_is_refused(tmp_path: Path):
    save_file({"images": torch.zeros(1), "labels": torch.zeros(1)}, tmp_path / "a")
    save_file({"weight": torch.zeros(1)}, tmp_path / "b", {"ddkit": "{}"})
    for name in ("a", "b"):
        refused(tmp_path / name, "not a set made by ddkit")


def test_what_is_no_plain_file_is_refused_without_waiting_for_it(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a file")
    refused(tmp_path, "not a file")
    refused(tmp_path / "pipe" / "set", "no such file")


def test_a_header_longer_than_any_sets_is_refused_unread(tmp_path: Path):
    path = tmp_path / "set"
    path.write_bytes((5 << 20).to_bytes(8, "little"))
    os.truncate(path, 6 << 20)
    refused(path, "its header takes 5,242,880 bytes")


def test_a_newer_format_says_to_upgrade(forged: Callable[..., Path]):
    refused(forged(lambda d: {**d, "format": 99, "new": 1}), "newer than this ddkit", "upgrade")


def changed(path: str, value: Any) -> Callable[[Table], Table]:
    """Return a function that puts `value` at the dotted `path` of a description."""

    def change(described: Table) -> Table:
        *tables, last = path.split(".")
        table = described
        for name in tables:
            table = table[name]
        table[last] = value
        return described

    return change


DAMAGED_TEXT: list[tuple[Callable[[Table], Any], str]] = [
    (lambda d: "{", "description in it is damaged"),
    (lambda d: "[" * 100_000, "description in it is damaged"),
    (lambda d: '{"format": ' + "1" * 5000 + "}", "description in it is damaged"),
    (lambda d: [1], "must be a table, not [1]"),
    (lambda d: {}, "format: must be an integer"),
    (lambda d: {k: v for k, v in d.items() if k != "info"}, "info: missing"),
    (changed("format", "one"), "format: must be an integer"),
    (changed("format", True), "format: must be an integer"),
    (changed("format", 0), "format: must be at least 1"),
    (changed("extra", 1), "unknown field 'extra'"),
    (changed("info", {"name": "x"}), "info.channels: missing"),
    (changed("info.x", 1), "info: unknown field 'x'"),
    (changed("info.name", 5), "info.name: must be a string"),
    (changed("info.height", True), "info.height: must be an integer"),
    (changed("info.height", 5), "images must be of shape [6, 3, 5, 16], not [6, 3, 16, 16]"),
    (changed("info.height", -16), "info.height: must be at least 1"),
    (changed("info.height", 10**30), "info.height: must be an integer that 64 bits hold"),
    (changed("info.mean", [0.5, 0.5]), "mean and std must be 3 numbers"),
    (changed("info.mean", [0.5, 0.5, float("nan")]), "NaN is no number"),
    (changed("info.std", [1, 0, 1]), "info.std.1: must be at least 1e-30, not 0"),
    (changed("info.std", [1, -1, 1]), "info.std.1: must be at least 1e-30"),
    (changed("info.std", 1), "info.std: must be a list of"),
    (changed("info.classes", ["a", "b"]), "soft must be of shape [6, 2], not [6, 3]"),
    (changed("info.classes", ["a", "b", "a"]), "classes: two are called 'a'"),
    (changed("info.classes", ["a", "b", ["a"]]), "classes.2: must be a string"),
    (changed("info.classes", ["a", "b", "c" * 501]), "in at most 500 characters"),
    (changed("info.classes", []), "at least one class"),
    (changed("formation", {"factor": 0}), "formation.factor: must be at least 1"),
    (changed("formation", {"factor": True}), "formation.factor: must be an integer"),
    (changed("formation", {"bound": 0}), "formation.bound: must be at least 1"),
    (changed("formation", {"factr": 2}), "unknown field 'factr' (did you mean 'factor'?)"),
    (changed("formation.order", "diagonal"), "formation.order: must be 'row' or 'column'"),
    (changed("space", "hyper"), "space: must be 'normalized' or 'pixel'"),
    (changed("recipe", []), "recipe: must be a table"),
    (changed("recipe.seed", None), "recipe.seed: must be a value, not null"),
    (changed("recipe.seed", 2**64), "recipe.seed: must be an integer that 64 bits hold"),
    (lambda d: json.dumps(d).replace('"lr": 0.1', '"lr": 1e999'), "recipe.eval.lr: must be a"),
    (changed("recipe.a", json.loads("[" * 20 + "]" * 20)), "more than 16 deep"),
    (changed("provenance", "mine"), "provenance: must be a table"),
    (changed("recipe", "\x1b[31m" * 999), "recipe: must be a table"),
]


@pytest.mark.parametrize(("change", "words"), DAMAGED_TEXT, ids=[w for _, w in DAMAGED_TEXT])
def test_a_damaged_description_is_refused(change: Any, words: str, forged: Callable[..., Path]):
    refused(forged(change), words)


DAMAGED_TENSORS: list[tuple[Callable[[Table], Any], str]] = [
    (lambda t: {**t, "labels": t["labels"][:-1].clone()}, "images must be of shape [5, 3"),
    (lambda t: {**t, "labels": t["labels"] + 7}, "labels must be 0 to 2"),
    (lambda t: {**t, "labels": t["labels"] - 1}, "labels must be 0 to 2"),
    (lambda t: {**t, "labels": t["labels"][:, None].clone()}, "not of shape [6, 1]"),
    (lambda t: {**t, "labels": t["labels"].float()}, "labels must be of type I64"),
    (lambda t: {k: v[:0].clone() for k, v in t.items()}, "labels must be a number for each"),
    (lambda t: {**t, "images": (t["images"] * 9).to(torch.uint8)}, "images must be of type F64"),
    (lambda t: {**t, "images": t["images"].bool()}, "images must be of type F64"),
    (lambda t: {**t, "images": torch.zeros(6)}, "images must be of shape"),
    (lambda t: {**t, "images": t["images"] / 0}, "6 of 6 rows (the first: 0) hold values"),
    (lambda t: {**t, "images": t["images"].double() * 1e300}, "are not finite"),
    (lambda t: {**t, "soft": torch.rand(5, 3)}, "soft must be of shape [6, 3], not [5, 3]"),
    (lambda t: {**t, "soft": torch.rand(6, 9)}, "soft must be of shape [6, 3], not [6, 9]"),
    (lambda t: {**t, "soft": t["soft"] * torch.nan}, "soft: 6 of 6 rows"),
    (lambda t: {**t, "soft": t["soft"].log()}, "of logits, store the softmax"),
    (lambda t: {**t, "soft": t["soft"] * 1.02}, "of logits, store the softmax"),
    (lambda t: {**t, "soft": torch.tensor([[1.5, -0.5, 0.0]] * 6)}, "-0.5 to 1.5 and the sum 1"),
    (lambda t: {**t, "sofd": torch.zeros(1)}, "unknown tensor 'sofd' (did you mean 'soft'?)"),
    (lambda t: {**t, "zca_mean": torch.zeros(768)}, "zca_mean and zca_matrix go together"),
    (lambda t: {**t, "zca_matrix": torch.eye(5)}, "zca_matrix must be of shape [768, 768]"),
]


@pytest.mark.parametrize(("change", "words"), DAMAGED_TENSORS, ids=[w for _, w in DAMAGED_TENSORS])
def test_damaged_tensors_are_refused(change: Any, words: str, forged: Callable[..., Path]):
    refused(forged(tensors=change), words)


@pytest.mark.parametrize("factor", [9, 17, 4000, 2**62])
@pytest.mark.parametrize("kind", ["single", "multi", "bound"])
def test_a_factor_that_would_cost_memory_is_refused_before_any_is_taken(
    factor: int, kind: str, forged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    def never(*_: Any) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(set_file, "_converted", never)
    path = forged(changed("formation", {"factor": factor, "kind": kind}))
    refused(path, "formation.factor", "tiles do not fit images of 16x16")


def test_no_formation_gives_more_than_a_thousand_images_of_one():
    assert Formation(32).unfit(256, 256) is None
    assert Formation(33).unfit(256, 256) is not None
    assert Formation(13, kind="multi").unfit(256, 256) is None
    assert Formation(15, kind="multi").unfit(256, 256) is not None


def test_sizes_are_compared_before_tensors_are_read(
    forged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    def never(*_: Any) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(set_file, "_converted", never)
    refused(forged(changed("info.width", 1 << 40)), "images must be of shape")


NARROW = {
    torch.float64: 0.0,
    torch.float16: 1e-3,
    torch.bfloat16: 1e-2,
    torch.float8_e4m3fn: 0.1,
    torch.float8_e5m2: 0.2,
}


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_images_of_other_float_types_are_read_as_float32(
    dtype: torch.dtype, good: SyntheticSet, forged: Callable[..., Path]
):
    read = SyntheticSet.load(forged(tensors=lambda t: {**t, "images": t["images"].to(dtype)}))
    assert read.images.dtype == torch.float32
    torch.testing.assert_close(read.images, good.images, rtol=NARROW[dtype], atol=0.02)


def test_rounded_probabilities_and_narrow_labels_are_read(forged: Callable[..., Path]):
    narrow = {"soft": torch.bfloat16, "labels": torch.uint8}
    read = SyntheticSet.load(
        forged(tensors=lambda t: {k: v.to(narrow.get(k, v.dtype)) for k, v in t.items()})
    )
    assert read.soft is not None
    assert (read.soft.dtype, read.labels.dtype) == (torch.float32, torch.int64)


def test_a_set_in_memory_says_what_no_network_can_learn_from(good: SyntheticSet):
    assert good.problem() is None
    good.soft = torch.randn(6, 3)
    assert "store the softmax" in str(good.problem())
    with torch.no_grad():
        good.images[4] = torch.nan
    assert "images: 1 of 6 rows (the first: 4)" in str(good.problem())


# Whatever stands where in a description

GARBAGE: list[Any] = [
    *(None, True, -1, 0, 10**40, 0.5, -1e300, "", "x", "\ud800", "\x1b[2J\n", "9" * 10_000),
    *([], [None], ["a", "a"], {}, {"": {}}, {"name": 3}, {"name": "\u202e"}, [[[]]] * 3),
]


def paths(table: Table, above: str = "") -> Iterator[str]:
    """Yield the dotted paths of everything in a description."""
    for name, value in table.items():
        yield above + name
        if isinstance(value, dict):
            yield from paths(value, f"{above}{name}.")


def test_garbage_anywhere_in_a_description_is_refused_or_harmless(
    forged: Callable[..., Path], good: SyntheticSet, loaded: Any
):
    from ddkit.cli.sets import describe
    from ddkit.evaluation.compose import stored_runtime, stored_spec, test_data

    consumers: list[Callable[[SyntheticSet], Any]] = [
        *(describe, lambda s: stored_spec(s, seeds=2, settings=["protocol=dm", "lr=0.1"])),
        *(stored_spec, stored_runtime, lambda s: test_data(s, loaded)),
        lambda s: stored_spec(s, settings=["presets.x.lr=0.1"]),
    ]
    read = 0
    good.recipe |= {"backbone": "mlp", "runtime": {"precision": "float32"}}
    good.recipe["eval"] |= {"protocol": "dm", "presets": {"x": {"lr": 1}}, "teacher": {"count": 1}}
    for path in paths({"recipe": good.recipe}):
        for value in GARBAGE:
            recipe = changed(path, value)({"recipe": deepcopy(good.recipe)})["recipe"]
            if isinstance(recipe, dict):
                made = SyntheticSet(good.images, good.labels, good.info, recipe=recipe)
                for consumer in consumers:
                    _harmless(consumer, made)
    for path in paths({"info": vars(good.info), "formation": vars(good.formation), "space": 0}):
        if path == "info.whitening":
            continue
        for value in GARBAGE:
            if _harmless(lambda p: describe(SyntheticSet.load(p)), forged(changed(path, value))):
                read += 1
    assert read >= 4  # names, and a formation of defaults


def _harmless(use: Callable[[Any], Any], given: Any) -> bool:
    """Return whether `use` works; that it does not must cost few words."""
    try:
        use(given)
    except DDKitError as error:
        assert len(str(error).splitlines()) <= 10
        return False
    return True
