"""Pictures: folders that every reader of image folders reads with the right labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tree
from PIL import Image
from torch import nn

from ddkit.data import DataInfo
from ddkit.errors import DataError
from ddkit.images.synthetic import SyntheticSet
from ddkit.sets.export import export, folder_names
from ddkit.sets.grid import grid, is_png, write_grid

CLASSES = [
    *(["a-b 2", "a-b", "a/b"], ["b", "a"], ["0", "2", "10"], ["a", "A"], ["é", "e\u0301"]),
    *(["..", ".", "/x"], ["con", "nul.txt", "x."], ["train", "test"], ["", " ", "%20"]),
    *(["@eaDir", "lost+found", "Thumbs.db"], ["x" * 300, "x" * 301], ["classes.json", "d"]),
    *(["\x1b[2J", "\u202e", "\ud800"], ["a\\b", "a:b", 'a"b', "a|b"], ["猫" * 100, "猫"]),
    [f"class {i}" for i in range(12)],
]


def of(classes: list[str], **changes: Any) -> SyntheticSet:
    """A grey set in pixel space, one image per class; all of class k's values are k / 100."""
    info = DataInfo("d", 1, 4, 4, tuple(classes), (0.5,), (0.5,))
    shades = torch.arange(len(classes))[:, None, None, None] / 100
    images = nn.Parameter(shades.expand(-1, *info.shape).clone())
    syn = SyntheticSet(images, torch.arange(len(classes)), info, space="pixel")
    return replace(syn, **changes)


@pytest.mark.parametrize("classes", CLASSES, ids=ascii)
def test_folders_in_alphabetical_order_are_the_classes_in_the_order_of_labels(
    classes: list[str], tmp_path: Path
):
    syn, out = of(classes), tmp_path / "deep" / "out"
    assert export(syn, out).images == len(classes)
    written = tree(tmp_path)
    assert len(written) == len(classes) + 1
    folders = sorted(p.name for p in out.iterdir() if p.is_dir())
    for label, folder in enumerate(folders):
        (picture,) = (out / folder).iterdir()
        assert round(float(np.asarray(Image.open(picture)).mean()) / 2.55) == label
    said = json.loads((out / "classes.json").read_text())["classes"]
    assert [c["name"] for c in said] == classes
    assert [c["folder"] for c in said] == folders
    assert [c["label"] for c in said] == list(range(len(classes)))
    for name in folders:
        assert len(name.encode()) <= 255
        assert name.isprintable()
        assert not set(name) & set('<>:"/\\|?*$@')
        assert not name.startswith((".", " ")) and not name.endswith((".", " "))
        assert name.split(".")[0].lower() not in ("con", "nul")
    assert len({name.casefold() for name in folders}) == len(folders)


def test_numbers_stand_before_names_only_where_they_are_needed():
    assert folder_names(["ant", "bee"]) == (["ant", "bee"], False)
    assert folder_names(["bee", "ant"]) == (["0 bee", "1 ant"], True)
    assert folder_names(["a b", "a/b"]) == (["a b", "a%2Fb"], False)


def test_what_was_clipped_is_counted_and_what_rounding_takes_in_is_not(tmp_path: Path):
    syn = of(["a", "b"])
    with torch.no_grad():
        syn.images[0, 0, 0] = torch.tensor([-1.0, 1.5, -0.001, 1.001])
    done = export(syn, tmp_path / "out")
    assert (done.clipped, done.values) == (2, 32)
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["values_clipped"] == 2


def test_a_class_without_images_keeps_its_folder_and_with_it_the_labels_of_others(tmp_path: Path):
    syn = of(["a", "b", "c"], labels=torch.tensor([0, 0, 2]))
    export(syn, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "b", "c", "classes.json"]
    assert list((tmp_path / "out" / "b").iterdir()) == []
    assert len(list((tmp_path / "out" / "a").iterdir())) == 2


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("mine")
    for place in (tmp_path, tmp_path / "mine", tmp_path / "mine" / "out"):
        with pytest.raises(DataError, match=r"not empty|cannot be written: not a directory"):
            export(of(["a"]), place)
    assert tree(tmp_path) == {"mine": b"mine"}


def test_an_export_that_fails_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self: Any, path: Path, **_: Any) -> None:
        if "b" in path.parts:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"picture")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match="out: cannot be written: no space left on device"):
        export(of(["a", "b"]), tmp_path / "out")
    assert tree(tmp_path) == {}


def test_a_grid_has_a_row_for_each_class_and_white_where_one_has_fewer():
    canvas = grid(of(["a", "b"], labels=torch.tensor([1, 1])))
    assert canvas.shape == (2 * 66 + 2, 2 * 66 + 2, 3)
    assert bool((canvas[:66] == 255).all())
    assert canvas[70, 10].tolist() == [0, 0, 0]
    assert canvas[70, 120].tolist() == [3, 3, 3]


def test_a_grid_costs_memory_for_what_it_shows_alone():
    count = 200_000
    info = DataInfo("d", 1, 1, 1, ("a",), (0.0,), (1.0,))
    syn = SyntheticSet(
        nn.Parameter(torch.zeros(count, 1, 1, 1)), torch.zeros(count, dtype=torch.int64), info
    )
    assert grid(syn).shape == (68, 662, 3)


def test_a_picture_is_known_by_its_first_bytes(tmp_path: Path):
    write_grid(of(["a"]), tmp_path / "grid")
    (tmp_path / "words.png").write_text("words")
    assert is_png(tmp_path / "grid")
    assert not is_png(tmp_path / "words.png")
    assert not is_png(tmp_path)
