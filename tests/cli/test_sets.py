"""``ddkit show`` and ``ddkit export``: what they print, and what they never overwrite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Said, ddkit, tree

from ddkit.images.formation import Formation
from ddkit.images.synthetic import SyntheticSet


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(said: Said, *words: str) -> None:
    assert said.code == 1, said.err
    assert "Traceback" not in said.err
    assert 1 <= len(said.lines) <= 2
    for word in words:
        assert word in said.err


def test_show_prints_and_writes_nothing_unasked(set_file: Path):
    before = tree(set_file.parent)
    for words in ([], ["--json"]):
        said = ddkit("show", set_file, *words)
        assert (said.code, "20 of 1x8x8, 2 per class" in said.out) == (0, True)
    assert tree(set_file.parent) == before
    assert tree(Path()) == {}


def test_show_draws_over_a_picture_but_never_over_the_set(set_file: Path):
    Path("set").write_bytes(set_file.read_bytes())
    for _ in range(2):
        assert ddkit("show", "set", "--png", "grid.png").code == 0
    said = ddkit("show", "set", "--png", "set")
    assert "20 of 1x8x8" in said.out
    refused(said, "set: exists and is not a PNG picture")
    assert Path("set").read_bytes() == set_file.read_bytes()


def test_a_picture_that_cannot_be_written_costs_the_text_nothing(set_file: Path):
    Path("file").write_text("in the way")
    said = ddkit("show", set_file, "--json", "--png", "file/grid.png")
    assert json.loads(said.out)["dataset"] == "digits"
    refused(said, "grid.png: cannot be written")


def test_names_that_act_on_a_terminal_are_shown_not_sent(set_file: Path):
    syn = SyntheticSet.load(set_file)
    evil = "\x1b]0;owned\x07\u202e\x9b\n"
    info = replace(syn.info, name=evil, classes=(evil, *syn.info.classes[1:]))
    made = replace(
        syn, info=info, recipe={evil: {"x": evil}}, provenance={evil: evil, "images": "9 million"}
    )
    made.save(Path("set"))
    said = ddkit("show", "set")
    assert said.code == 0, said.err
    assert all(line.isprintable() for line in said.out.split("\n"))
    assert r"\x1b]0;owned\x07\u202e\x9b\n" in said.out
    assert "9 million" not in said.out
    exported = ddkit("export", "set", "out")
    judged = ddkit("eval", "set", "--no-baseline")
    for said in (exported, judged):
        assert "Traceback" not in said.err
        assert all(line.isprintable() for line in (said.out + said.err).split("\n"))


def test_classes_of_unequal_numbers_are_told_so(set_file: Path):
    syn = SyntheticSet.load(set_file)
    replace(syn, labels=syn.labels.clamp(max=8)).save(Path("set"))
    assert "20 of 1x8x8, 0 to 4 per class" in ddkit("show", "set").out


def test_export_says_what_the_folder_does_not_show(set_file: Path):
    syn = SyntheticSet.load(set_file)
    with torch.no_grad():
        syn.images[:2] = 99.0
    info = replace(syn.info, classes=("z", *syn.info.classes[1:]))
    soft = torch.nn.functional.one_hot(syn.labels, 10).float()
    labels = syn.labels.clamp(max=8)
    replace(syn, info=info, soft=soft, labels=labels, formation=Formation(2)).save(Path("set"))
    said = ddkit("export", "set", "out")
    assert said.code == 0, said.err
    assert said.out.startswith("20 images in out\n")
    for words in (
        *("folders begin with the label", " of 1,280 values (", "were clipped", "soft labels"),
        *("1 of 10 classes have no images", "2 x 2 tiles"),
    ):
        assert words in said.out
    assert Path("out/0 z/0000.png").is_file()


def test_what_export_writes_is_read_back_with_the_same_labels(set_file: Path):
    syn = SyntheticSet.load(set_file)
    names = ("zero", "one", "train", "test", "..", "con", "a/b", "A/B", "lost+found", "")
    replace(syn, info=replace(syn.info, classes=names)).save(Path("set"))
    assert ddkit("export", "set", "out").code == 0
    from ddkit_datasets.folder import folder

    data = folder(Path(), Path("out"), test_every=2)
    assert data.info.classes[0] == "0 zero"
    first = data.train.fetch(torch.arange(10)).float() / 255
    wanted = syn.pixels(torch.arange(0, 20, 2))
    torch.testing.assert_close(first, wanted, rtol=0, atol=0.5 / 255 + 1e-6)
