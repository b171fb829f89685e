"""What is printed: a stream that is closed, full, narrow or of few characters costs no work."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from conftest import ddkit, recipe_table

from ddkit.cli import cli, main, progress, screen
from ddkit.cli.table import print_verdict
from ddkit.evaluation.verdict import Result, Verdict
from ddkit.recipes.recipe import Recipe

QUICK = ["--seeds", "1", "--no-baseline", "--set", "epochs=1", "-q"]
posix = pytest.mark.skipif(os.name == "nt", reason="descriptors and devices of POSIX")


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Faulty(io.StringIO):
    """A stream on which every write, or only the flush, fails."""

    def __init__(self, error: Exception, late: bool = False):
        super().__init__()
        self.error, self.late = error, late

    def write(self, text: str) -> int:
        if self.late:
            return len(text)
        raise self.error

    def flush(self) -> None:
        raise self.error


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


FULL = OSError(28, "No space left on device")
STREAMS: dict[str, Callable[[], Any]] = {
    "not there": lambda: None,
    "closed": closed,
    "full": lambda: Faulty(FULL),
    "full when flushed": lambda: Faulty(FULL, late=True),
    "left by its reader": lambda: Faulty(BrokenPipeError(32, "Broken pipe")),
}


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path, out: Any, err: Any) -> int:
    """Run the command line on two streams and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["ddkit", *map(str, words)])
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        monkeypatch.undo()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(end.value.code or 0)


@pytest.mark.parametrize("kind", STREAMS)
def test_no_fault_of_standard_output_costs_a_verdict_and_the_exit_code_tells(
    kind: str, set_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    err, target = io.StringIO(), tmp_path / "verdict.json"
    words = ("eval", set_file, *QUICK, "--out", target)
    assert run(monkeypatch, *words, out=STREAMS[kind](), err=err) == 1
    assert json.loads(target.read_text())["results"]
    if kind == "left by its reader":  # who wants no more, as `head` does
        assert err.getvalue() == ""
    else:
        assert err.getvalue().startswith("Error: standard output cannot be written: ")
        assert err.getvalue().count("\n") == 1


@pytest.mark.parametrize("kind", STREAMS)
def test_no_fault_of_standard_error_costs_a_run_or_changes_its_exit_code(
    kind: str, recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    path, out = recipe_file(), io.StringIO()
    words = ("distill", path, "--out", path.parent / "out")
    assert run(monkeypatch, *words, out=out, err=STREAMS[kind]()) == 0
    assert (path.parent / "out" / "synthetic.safetensors").is_file()
    assert out.getvalue().endswith("synthetic.safetensors\n")
    assert run(monkeypatch, "distill", "nothing", out=out, err=STREAMS[kind]()) == 2
    assert run(monkeypatch, "distil", out=out, err=STREAMS[kind]()) == 2


@posix
@pytest.mark.parametrize(
    ("shell", "code", "words"),
    [
        ("recipes list >&-", 1, "Bad file descriptor"),
        ("recipes list >/dev/full", 1, "No space left"),
        ("--help >/dev/full", 1, "No space left"),
        ("distill nothing 2>&-", 2, ""),
        ("distill nothing 2>/dev/full", 2, ""),
        ("distill nothing <&- >&- 2>&-", 2, ""),
    ],
)
def test_streams_that_the_shell_closed_or_filled_end_in_an_exit_code_and_a_line(
    shell: str, code: int, words: str
):
    said = subprocess.run(
        ["sh", "-c", f'"$0" -m ddkit {shell}', sys.executable], capture_output=True, text=True
    )
    assert (said.returncode, said.stdout) == (code, "")
    assert words in said.stderr
    assert said.stderr.count("\n") == bool(words)


@posix
def test_no_file_gets_the_number_of_a_stream_that_was_closed():
    script = (
        "from ddkit.cli import screen\n"
        "with screen.guarded(): print(open('mine', 'w').fileno(), file=open('number', 'w'))"
    )
    command = f'"$0" -c "{script}" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", command, sys.executable], check=True)
    assert int(Path("number").read_text()) > 2


def test_a_question_without_an_answer_stops_in_words(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    entry = own_home / "cache" / "networks" / "asked"
    entry.mkdir(parents=True)
    monkeypatch.setattr(sys, "stdin", None)
    said = ddkit("cache", "prune", "networks/asked")
    assert said.code == 130
    assert said.err.endswith("stopped\n")
    entry.rmdir()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_verdict_is_printed_in_the_characters_that_there_are(
    encoding: str, set_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    words = ("eval", set_file, *QUICK, "--seeds", "2", "--out", tmp_path / "verdict.json")
    assert run(monkeypatch, *words, out=out, err=io.StringIO()) == 0
    table = raw.getvalue().decode(encoding)
    assert (" +- " if encoding == "ascii" else " ± ") in table
    widths = {len(line) for line in table.splitlines() if line.startswith(("|", "+--"))}
    assert len(widths) == 1, "the table is even"


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        ("48.9 ± 0.6", "utf-8", "48.9 ± 0.6"),
        ("48.9 ± 0.6", "ascii", "48.9 +- 0.6"),
        ("48.9 ± 0.6", "latin-1", "48.9 ± 0.6"),
        ("猫 Käse", "latin-1", r"\u732b Käse"),
        ("猫 Käse \U0001f408", "ascii", r"\u732b K\u00e4se \U0001f408"),
        ("half \udcff", "utf-8", r"half \udcff"),
    ],
)
def test_what_an_encoding_lacks_is_written_as_its_escape(text: str, encoding: str, said: str):
    assert screen.carried(text, encoding) == said
    said.encode(encoding)


def test_control_characters_are_shown_in_results_notes_errors_and_usage():
    name = "no\x1b[31m\u202esuch"
    for words in (["distill", name], [name], ["recipes", "list", name], ["cache", "prune", name]):
        said = ddkit(*words)
        assert "\x1b" not in said.err + said.out
        assert "\u202e" not in said.err + said.out
        assert r"no\x1b[31m" in said.err


def test_json_stays_json_whatever_is_in_it(capsys: pytest.CaptureFixture[str]):
    value = {"name": "a\x1b\x7f\u202e\x9b猫"}
    screen.data(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert out.replace("\n", "").isascii() and out.replace("\n", "").isprintable()


class Window(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def verdict() -> Verdict:
    spec = Recipe.parse(recipe_table()).eval
    found = (0.2051, 0.1949, 0.2149)
    return Verdict(
        spec,
        [
            Result(arch, subject, found, 1234.0, best=found, preset=preset)
            for arch, preset in (
                ("convnet(depth=2, width=128)", {}),
                ("timm/vit_tiny_patch16_224[b]", {"lr": 0.0001}),
            )
            for subject in ("set", "random")
        ],
    )


@pytest.mark.parametrize("width", [14, 20, 24, 32, 40, 60, 72, 80, 90, 120, 200])
def test_no_figure_is_cut_or_broken_however_narrow_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", str(width))
    window = Window()
    monkeypatch.setattr(sys, "stdout", window)
    print_verdict(verdict())
    monkeypatch.undo()
    plain = click.unstyle(window.getvalue())
    assert "…" not in plain
    assert plain.count("20.5 ± 1.0") == 8
    assert plain.count("1234") == 4
    assert "[b]" in plain, "names are no markup"
    long = [line for line in plain.splitlines() if len(line) > width]
    assert all(" " not in line.strip() for line in long), "a word alone may be wider"


# Words for mistakes, and tracebacks


def test_verbose_shows_where_a_mistake_was_noticed_before_its_words():
    plain, verbose = (
        ddkit(*v, "distill", "dm-digits-ipc1", "--set", "seed=x") for v in ([], ["-v"])
    )
    assert plain.code == verbose.code == 2
    assert "Traceback" not in plain.err
    assert "Traceback" in verbose.err
    assert verbose.err.endswith(plain.err)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), EOFError("a bug"), OSError(5, "a bug")])
def test_a_bug_keeps_its_traceback_and_the_streams_are_put_back(
    error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cli.commands["list"], "callback", fail)
    before = sys.stdin, sys.stdout, sys.stderr
    with pytest.raises(type(error), match="a bug"):
        ddkit("list", "methods")
    assert (sys.stdin, sys.stdout, sys.stderr) == before


def test_an_interrupt_anywhere_is_exit_code_130(monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.commands["list"], "callback", interrupt)
    said = ddkit("list", "methods")
    assert (said.code, said.out, said.err.strip()) == (130, "", "stopped")


def test_the_live_display_takes_no_name_for_markup_and_sends_no_control_character(
    monkeypatch: pytest.MonkeyPatch,
):
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    window = Window()
    monkeypatch.setattr(sys, "stderr", window)
    monkeypatch.setattr(progress, "DRAWS", 0.0)
    reporter = progress.Terminal()
    reporter.begin("judge [b]", 2)
    reporter.advance({"[red]loss\x1b[7;31m": torch.tensor(1.5)})
    reporter.note("[bold]class :cat: \x1b[7;31m")
    reporter.end()
    monkeypatch.undo()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert reporter.live
    assert "\x1b[7;31m" not in window.getvalue()
    plain = click.unstyle(window.getvalue())
    for words in ("judge [b]", r"[red]loss\x1b[7;31m 1.5", r"[bold]class :cat: \x1b[7;31m"):
        assert words in plain
