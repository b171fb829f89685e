"""``ddkit doctor``: one line for each thing, exit codes, and the words of the real run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ddkit, tree
from PIL import Image

from ddkit.diagnosis import environment
from ddkit.distillation import preflight


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(*words: str | Path) -> tuple[int, dict[str, str], dict[str, str]]:
    """Return the exit code, and the levels and texts by subject, of a doctor's JSON."""
    said = ddkit("doctor", *words, "--json")
    told = json.loads(said.out)
    assert told["works"] == (said.code == 0)
    levels = {row["subject"]: row["level"] for row in told["findings"]}
    return said.code, levels, {row["subject"]: row["text"] for row in told["findings"]}


def test_the_machine_is_told_in_a_line_each():
    said = ddkit("doctor")
    assert said.code == 0, said.out
    assert {line[:4].strip() for line in said.out.splitlines()} <= {"ok", "note"}
    for word in ("ddkit", "torch", "device", "threads", "memory", "DDKIT_HOME", "plugins"):
        assert any(line[6:].startswith(word) for line in said.out.splitlines()), word


def test_a_healthy_recipe_is_told_what_it_will_cost_and_nothing_is_written(
    recipe_file: Callable[..., Path], tmp_path: Path
):
    path = recipe_file()
    before = tree(tmp_path)
    code, levels, texts = rows(path, "--set", "synthetic.ipc=1")
    assert code == 0
    assert "FAIL" not in levels.values()
    assert texts["set"].startswith("10 images")
    assert {"steps", "judges", "time"} <= texts.keys()
    assert tree(tmp_path) == before
    assert "steps" not in rows(path, "--no-probe")[2]


def test_a_dry_run_says_what_doctor_says_without_the_steps(recipe_file: Callable[..., Path]):
    path = recipe_file()
    machine = ddkit("doctor").out.splitlines()
    doctor = ddkit("doctor", path, "--no-probe", "--out", "out").out.splitlines()
    dry = ddkit("distill", path, "--dry-run", "--out", "out").err.splitlines()
    assert dry == doctor[len(machine) :]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--set", "method.nme=1"], 2),
        (["--set", "backbone.name=convnt"], 2),
        (["--set", "synthetic.ipc=5000"], 2),
        (["--device", "cuda:77"], 2),
        (["--out", "tiny.toml"], 1),
    ],
)
def test_what_cannot_work_is_refused_with_the_code_and_words_of_the_run(
    words: list[str], code: int, recipe_file: Callable[..., Path]
):
    path = recipe_file()
    said = ddkit("doctor", path, *words)
    run = ddkit("distill", path, *words)
    assert (said.code, run.code) == (code, code)
    (line,) = [line for line in said.out.splitlines() if line.startswith("FAIL")]
    assert run.err.splitlines()[0].removeprefix("Error: ") in line


def test_a_full_disk_ends_with_one(
    recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(preflight, "disk_free", lambda path: 1000)
    code, levels, texts = rows(recipe_file(), "--no-probe")
    assert (code, levels["disk"]) == (1, "FAIL")
    assert "1000 B free" in texts["disk"]


def images(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_a_folder_with_a_class_of_one_image_wrong_statistics_and_a_leak_is_told_so(
    recipe_file: Callable[..., Path],
):
    images(Path("data/train/a"), 12)
    images(Path("data/train/b"), 1, first=50)
    images(Path("data/test/a"), 3)  # the first of the training images
    images(Path("data/test/b"), 3, first=60)
    data = {"name": "folder", "path": "data", "mean": [0.1, 0.1, 0.1], "std": [0.1, 0.1, 0.1]}
    code, levels, texts = rows(recipe_file(dataset=data, synthetic={"ipc": 1}), "--no-probe")
    assert code == 0
    assert (levels["train"], levels["statistics"], levels["splits"]) == ("note",) * 3
    assert "few images of b" in texts["train"]
    assert "3 test images are training images" in texts["splits"]


def test_a_missing_compiler_is_a_note(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    found = environment.compiler()
    assert found.level == "note"
    assert "no C++ compiler" in found.text
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX=no-such-compiler" in environment.compiler().text


def test_a_home_that_cannot_be_written_is_refused_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "file" / "home"))
    code, levels, texts = rows()
    assert (code, levels["DDKIT_HOME"], levels["DDKIT_DATA"]) == (1, "FAIL", "note")
    assert "give a folder of yours in DDKIT_HOME" in texts["DDKIT_HOME"]


def test_a_device_that_is_there_but_does_not_compute_is_refused(monkeypatch: pytest.MonkeyPatch):
    import torch

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch, "ones", broken)
    found = environment.device("cuda:0", "some GPU")
    assert (found.level, found.exit_code) == ("FAIL", 1)
    assert "no kernel image is available; mend the driver" in found.text


def test_a_plugin_that_does_not_load_is_a_note_and_a_name_taken_twice_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
):
    from ddkit import plugins
    from ddkit.errors import PluginError

    loaded = plugins.load()
    loaded.failures.append(plugins.Failure("ddkit-sad:sad", "ImportError: gone"))
    monkeypatch.setattr(plugins, "load", lambda: loaded)
    said = ddkit("doctor")
    assert said.code == 0
    assert "note  plugins     ddkit-sad:sad did not load (ImportError: gone)" in said.out

    def twice() -> None:
        raise PluginError("the method 'dm' is provided by both a and b; uninstall one of them")

    monkeypatch.setattr(plugins, "load", twice)
    assert ddkit("doctor", "dm-digits-ipc1").code == 2


@pytest.mark.parametrize("words", [["--help"], ["doctor", "--help"]])
def test_help_needs_no_torch(words: list[str]):
    script = (
        "import sys\nfrom ddkit.cli import cli\n"
        "try: cli(sys.argv[1:], standalone_mode=False)\n"
        "finally: print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "False"
    assert "doctor" in said.stdout
