"""Paths on the command line: every one goes through the one type that expands them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from conftest import ddkit

from ddkit import api
from ddkit.cli import cli
from ddkit.cli.options import UserPath


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, with a home folder beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "user"))
    return tmp_path / "user"


def commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield from commands(command) if isinstance(command, click.Group) else [command]


def test_every_path_of_every_command_is_expanded():
    paths = [p for c in commands(cli) for p in c.params if isinstance(p.type, click.Path)]
    assert len(paths) >= 9
    assert all(isinstance(p.type, UserPath) for p in paths)


def test_a_tilde_means_the_home_folder_in_options_arguments_and_from_python(
    recipe_file: Callable[..., Path], at_home: Path
):
    at_home.mkdir()
    recipe_file().replace(at_home / "mine.toml")
    said = ddkit("distill", "~/mine.toml", "-q", "--out=~/x")
    assert said.code == 0, said.err
    assert (at_home / "x/synthetic.safetensors").is_file()
    assert not Path("~").exists()
    assert ddkit("show", "~/x", "--png=~/set.png").code == 0
    assert (at_home / "set.png").is_file()
    assert ddkit("distill", "--resume=~/x", "-q").code == 0
    assert ddkit("recipes", "copy", "dm-digits-ipc1", "~/copy.toml").code == 0
    assert (at_home / "copy.toml").is_file()
    assert api.distill("~/mine.toml", out="~/x").already
    assert len(api.load("~/x/synthetic.safetensors")) == 20
    assert not Path("~").exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("distill", "dm-digits-ipc1", "--out", "~nosuchuser/x"), "--out: ~nosuchuser/x: there is"),
        (("distill", "~nosuchuser/x"), "~nosuchuser/x: there is no user 'nosuchuser'"),
        (("show", "~nosuchuser/x"), "SET: ~nosuchuser/x: there is no user 'nosuchuser'"),
        (("eval", "a\0b"), "SET: 'a\\x00b': no path holds a NUL"),
        (("distill", "dm-digits-ipc1", "--out="), "--out: the path is empty"),
        (("distill", "loop"), "loop: cannot be looked at: its links lead in a circle"),
        (("distill", "--resume", "loop"), "its links lead in a circle"),
        (("show", "loop"), "its links lead in a circle"),
        (("eval", "x" * 300), "the name is too long"),
        (("recipes", "copy", "dm-digits-ipc1", "loop"), "its links lead in a circle"),
    ],
)
def test_a_path_that_cannot_be_costs_one_line(arguments: tuple[str, ...], said: str):
    Path("loop").symlink_to("loop")
    result = ddkit(*arguments)
    assert result.code in (1, 2)
    assert len(result.lines) == 1, result.err
    assert said in result.err


@pytest.mark.parametrize("name", ["DDKIT_HOME", "DDKIT_DATA"])
def test_folders_named_by_the_environment_are_looked_at_as_others_are(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, "~nosuchuser/x")
    if name == "DDKIT_HOME":
        commands = [("cache", "list"), ("cache", "prune", "--yes")]
    else:
        commands = [("distill", "dm-digits-ipc1", "--dry-run")]
    for command in commands:
        said = ddkit(*command)
        assert (said.code, len(said.lines)) == (2, 1), said.err
        assert f"{name}: ~nosuchuser/x: there is no user 'nosuchuser'" in said.err


def test_a_path_in_a_recipe_is_refused_with_its_place(recipe_file: Callable[..., Path]):
    path = recipe_file(dataset={"name": "folder", "path": "~nosuchuser/x"})
    said = ddkit("distill", path, "--dry-run")
    assert said.code == 2
    assert "dataset.path" in said.lines[0]
    assert "there is no user 'nosuchuser'" in said.lines[0]
