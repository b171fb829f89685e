"""The examples of the documentation are run, parsed or resolved: whatever their language allows."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from conftest import ROOT

from ddkit.cli import cli
from ddkit.recipes import catalog
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import check_names

PAGES = [ROOT / "README.md"]
PAGES += sorted(p for folder in ("docs", "examples") for p in (ROOT / folder).rglob("*.md"))
FENCE = re.compile(r"^(?P<mark>```+)(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^(?P=mark)\s*$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


class Block(NamedTuple):
    """A fenced block: where it stands and what it says."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(kind: str) -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match["kind"] == kind:
                yield Block(page, text.count("\n", 0, match.start()) + 1, match["text"])


def commands(script: str) -> Iterator[list[str]]:
    """Yield the words of every ``ddkit`` command of a shell script, without ``ddkit`` itself."""
    joined = re.sub(r"\\\n", " ", script)
    for line in joined.splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.wordchars += ":,=[]{}@%+"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                if "ddkit" in words:
                    yield words[words.index("ddkit") + 1 :]
                words = []
            else:
                words.append(word)


def test_commands_are_found_in_whatever_a_shell_allows():
    script = "\n".join(
        [
            "pip install . && ddkit distill a --set \\",
            "  method.iterations=5 | tee log  # ddkit no command",
            "$ DDKIT_HOME=/tmp ddkit eval runs/a --archs convnet,timm/vit; python -m ddkit show x",
            "ddkit distill a --set 'eval.archs=[\"lenet\"]'",
        ]
    )
    assert list(commands(script)) == [
        ["distill", "a", "--set", "method.iterations=5"],
        ["eval", "runs/a", "--archs", "convnet,timm/vit"],
        ["show", "x"],
        ["distill", "a", "--set", 'eval.archs=["lenet"]'],
    ]


def resolved(words: list[str]) -> tuple[str, dict[str, object]]:
    """Parse a command as click does, without running it; return its name and values."""
    command: click.Command = cli
    name, rest = "ddkit", list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, f"ddkit has no command {rest[0]!r}: {words}"
        command, name, rest = found, f"{name} {rest[0]}", rest[1:]
    if isinstance(command, click.Group) or {"--help", "-h", "--version"} & set(rest):
        return name, {}
    with command.make_context(name, rest) as context:
        return name, context.params


COMMANDS = [(b, words) for b in blocks("bash") for words in commands(b.text)]


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{b}-{' '.join(w)[:30]}" for b, w in COMMANDS]
)
def test_every_command_of_the_documentation_exists_with_its_options(block: Block, words: list[str]):
    name, values = resolved(words)
    recipe = values.get("recipe")
    if name == "ddkit distill" and recipe in catalog.recipes():
        Recipe.load(str(recipe), values["settings"])  # type: ignore[arg-type]
    elif name == "ddkit distill" and isinstance(recipe, str) and "." not in recipe:
        pytest.fail(f"{block}: no shipped recipe is called {recipe}")


EXAMPLES = [
    (name, line.strip())
    for name in sorted(cli.commands)
    for line in (getattr(cli.get_command(click.Context(cli), name), "help", None) or "").split("\n")
    if line.strip().startswith("ddkit ")
]


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line[:40] for _, line in EXAMPLES])
def test_every_example_on_a_help_page_parses(name: str, line: str):
    (words,) = commands(line)
    full, values = resolved(words)
    assert full.startswith(f"ddkit {name}")
    if name == "distill":
        Recipe.load(str(values["recipe"]), values["settings"])  # type: ignore[arg-type]


@pytest.mark.parametrize("block", list(blocks("toml")), ids=str)
def test_every_recipe_of_the_documentation_is_one(block: Block, loaded: object):
    table = tomllib.loads(block.text)
    if {"method", "dataset", "backbone"} <= table.keys():
        recipe = Recipe.parse(table)
        if block.page.name != "plugins.md":  # whose own plugins tests/test_seam.py installs
            check_names(recipe, loaded)  # type: ignore[arg-type]


SCRIPTS = [p for p in PAGES if any(b.page == p for b in blocks("python"))]


@pytest.mark.parametrize("page", SCRIPTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_python_of_every_page_runs_from_top_to_bottom(
    page: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, "runs/mine")
    shutil.copy(run_folder / "synthetic.safetensors", "set.safetensors")
    monkeypatch.setattr(sys, "argv", ["python"])
    found = [b for b in blocks("python") if b.page == page]
    text = "".join("\n" * (b.line - 1 if i == 0 else 1) + b.text for i, b in enumerate(found))
    script = tmp_path / f"{page.stem}.py"
    script.write_text(text, encoding="utf-8")
    runpy.run_path(str(script))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_somewhere(page: Path):
    missing = [
        link
        for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        if not (page.parent / link).exists()
    ]
    assert not missing


def test_the_architecture_tells_of_every_file_of_a_room_and_of_none_that_is_not_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = "recipes runtime runs images sets networks distillation evaluation diagnosis python"
    for room in rooms.split():
        (paragraph,) = re.findall(rf"^\*\*{room}\*\*: (.+?)\n\n", text, re.M | re.S)
        files = {p.stem for p in (ROOT / "ddkit" / room).glob("*.py")} - {"__init__"}
        told = set(re.findall(r"`(\w+)`", paragraph))
        assert files <= told, f"{room}: {files - told} is not told of"


def test_every_environment_variable_that_the_code_reads_is_told():
    told = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    code = [p for d in ("ddkit", "plugins") for p in (ROOT / d).rglob("*.py")]
    pattern = re.compile(r"environ(?:\.get\(|\[)[\"'](\w+)")
    read = {name for p in code for name in pattern.findall(p.read_text(encoding="utf-8"))}
    assert "DDKIT_HOME" in read
    assert not {name for name in read if f"`{name}`" not in told}


def test_the_glossary_is_in_order_of_the_alphabet():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = [line.split("|")[1].strip().casefold() for line in text.splitlines()[6:]]
    assert len(terms) > 20
    assert terms == sorted(terms)
