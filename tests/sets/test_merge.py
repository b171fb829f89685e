"""Sets joined by class names, and judged together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ddkit
from torch import nn

from ddkit.data import DataInfo, Dataset
from ddkit.errors import IncompatibleError
from ddkit.images.formation import Formation
from ddkit.images.synthetic import SyntheticSet
from ddkit.runtime.storage import digest
from ddkit.sets.merge import merged


def one(info: DataInfo, classes: str, **changes: Any) -> SyntheticSet:
    """Return a set of two images of each of the classes, which are letters."""
    info = replace(info, classes=tuple(classes))
    images = torch.rand(2 * len(classes), *info.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(classes)).repeat_interleave(2)
    return SyntheticSet(nn.Parameter(images), labels, info, **changes)


def join(*sets: SyntheticSet, note: Callable[[str], None] = print) -> SyntheticSet:
    names = [f"{n}.safetensors" for n in range(len(sets))]
    return merged(sets, names, [f"digest {n}" for n in range(len(sets))], note)


def test_classes_come_in_the_order_of_the_union_and_common_ones_add_up(tiny: Dataset):
    a, b = one(tiny.info, "xa"), one(tiny.info, "bxc")
    made = join(a, b)
    assert made.info.classes == ("x", "a", "b", "c")
    assert made.per_class == (4, 2, 2, 2)
    of = {c: (made.labels == i).nonzero()[:, 0] for i, c in enumerate(made.info.classes)}
    assert torch.equal(made.images[of["x"]], torch.cat([a.images[:2], b.images[2:4]]))
    assert torch.equal(made.images[of["c"]], b.images[4:])
    assert made.provenance["merged"] == ["digest 0", "digest 1"]
    assert made.problem() is None


def test_other_statistics_are_converted_to_those_of_the_first_and_that_is_said(tiny: Dataset):
    notes: list[str] = []
    a, b = one(tiny.info, "ab"), one(replace(tiny.info, mean=(0.1, 0.2, 0.3)), "cd")
    made = join(a, b, note=notes.append)
    assert torch.allclose(made.raw_pixels()[4:], b.raw_pixels(), atol=1e-6)
    assert torch.equal(made.images[:4], a.images)
    assert (made.info.mean, len(notes)) == (a.info.mean, 1)


def test_soft_labels_are_kept_where_all_sets_have_them(tiny: Dataset):
    soft = torch.tensor([[0.75, 0.25]]).repeat(4, 1)
    a, b = one(tiny.info, "ab", soft=soft), one(tiny.info, "ca", soft=soft)
    made = join(a, b)
    assert made.soft is not None and made.info.classes == ("a", "b", "c")
    assert made.soft[:2].tolist() == [[0.75, 0.25, 0]] * 2
    assert made.soft[-1].tolist() == [0.25, 0, 0.75]
    notes: list[str] = []
    assert join(a, one(tiny.info, "c"), note=notes.append).soft is None
    assert "soft labels are left out" in notes[0]


@pytest.mark.parametrize("what", ["shape", "space", "formation"])
def test_sets_that_do_not_fit_each_other_are_refused(tiny: Dataset, what: str):
    info = replace(tiny.info, height=8) if what == "shape" else tiny.info
    changes: dict[str, Any] = {
        "space": {"space": "pixel"},
        "formation": {"formation": Formation(2)},
    }
    other = one(info, "cd", **changes.get(what, {}))
    with pytest.raises(IncompatibleError, match=rf"1\.safetensors: has the {what}"):
        join(one(tiny.info, "ab"), other)


def test_two_sets_of_three_classes_are_merged_and_judged_on_six_by_the_commands_alone(
    recipe_file: Callable[..., Path], tmp_path: Path
):
    for name, classes in (("a", ["3", "1", "2"]), ("b", ["7", "5", "0"])):
        dataset = {"name": "digits", "resolution": 8, "classes": classes}
        path = recipe_file(f"{name}.toml", dataset=dataset)
        assert ddkit("distill", path, "--out", tmp_path / name, "-q").code == 0
    both = tmp_path / "both.safetensors"
    said = ddkit("merge", tmp_path / "a", tmp_path / "b", "--out", both)
    assert (said.code, said.out) == (0, f"12 images of 6 classes in {both}\n"), said.err
    asked = ddkit("eval", both)
    assert (asked.code, len(asked.lines)) == (2, 2) and "give --data" in asked.err
    said = ddkit("eval", both, "--data", "digits:resolution=8")
    assert said.code == 0, said.err
    assert "the set's 6 of its 10 classes are taken" in said.err
    syn = SyntheticSet.load(both)
    assert syn.info.classes == ("3", "1", "2", "7", "5", "0")
    files = [tmp_path / n / "synthetic.safetensors" for n in "ab"]
    assert syn.provenance["merged"] == [digest(f) for f in files]
    again = ddkit("merge", tmp_path / "a", tmp_path / "b", "--out", both)
    assert (again.code, len(again.lines)) == (1, 1) and "exists" in again.err
