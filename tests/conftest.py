"""Shared parts of the tests: a home of their own, tiny recipes, and the command line in-process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# Tiny networks gain nothing from threads, and on a busy machine threads wait for each other. Set
# before torch is imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DDKIT_LOAD_PLUGINS"] = ""  # built-ins alone, whatever else is installed here
os.environ.pop("DDKIT_STRICT_PLUGINS", None)
os.environ.pop("WORLD_SIZE", None)


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines on standard error, without progress and notes."""
        return [line for line in self.err.splitlines() if line.strip()]


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep caches in a folder of the session, shared by all tests (networks train once)."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("DDKIT_HOME", str(home))
        patch.delenv("DDKIT_DATA", raising=False)
        yield home


@pytest.fixture(scope="session")
def loaded() -> Any:
    from ddkit import plugins

    return plugins.load()


@pytest.fixture(scope="session")
def tiny() -> Any:
    """A dataset in memory: three classes of twelve 16x16 colour images."""
    from ddkit.testing import tiny_dataset

    return tiny_dataset()


def recipe_table(**changes: Any) -> dict[str, Any]:
    """Return the table of a recipe that runs in a moment; each change replaces a section."""
    net = {"name": "convnet", "width": 8, "depth": 2}
    table: dict[str, Any] = {
        "seed": 0,
        "dataset": {"name": "digits", "resolution": 8},
        "backbone": net,
        "synthetic": {"ipc": 2},
        "method": {"name": "dm", "iterations": 4, "batch_real": 8},
        "eval": {"archs": [net], "seeds": 2, "protocol": "dm-digits", "epochs": 2},
        "runtime": {"device": "cpu"},
    }
    table.update(changes)
    return {k: v for k, v in table.items() if v is not None}


PAUSING = """
import sys
from ddkit import plugins
dm = plugins.load().methods["dm"].factory
original, at = dm.step, int(sys.argv.pop(1))
def step(self, run, i):
    if i == at:
        print("in step", i, flush=True)
        sys.stdin.readline()
    return original(self, run, i)
dm.step = step
"""
"""A script's head; its first argument is a step of DM in which it says so and waits for a line."""

TINY_POOL = {"backbone": {"name": "convnet", "width": 8, "depth": 2}, "count": 2, "epochs": 1}


@pytest.fixture
def tiny_recipe() -> Callable[..., Any]:
    """A function from changed sections to a recipe that runs in a moment."""
    from ddkit.recipes.recipe import Recipe

    return lambda **changes: Recipe.parse(recipe_table(**changes))


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes such a recipe and returns its path."""
    import tomli_w

    def write(name: str = "tiny.toml", **changes: Any) -> Path:
        path = tmp_path / name
        path.write_text(tomli_w.dumps(recipe_table(**changes)), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, loaded: Any) -> Path:
    """A finished run on digits, of two images per class."""
    from ddkit.distillation.loop import run_recipe
    from ddkit.recipes.recipe import Recipe
    from ddkit.reporter import Silent

    out = tmp_path_factory.mktemp("runs") / "tiny"
    return run_recipe(Recipe.parse(recipe_table()), loaded, Silent(), out).folder.path


@pytest.fixture(scope="session")
def set_file(run_folder: Path) -> Path:
    return run_folder / "synthetic.safetensors"


RAGGED = [0, 1, 1, 2, 1, 0, 1, 2, 2, 2, 1, 1, 2, 1]  # 2, 7 and 5 images, in no order


def numbered(labels: list[int], classes: int = 3) -> Any:
    """Images of one pixel that holds the image's number; a test split of one image per class."""
    import torch

    from ddkit.data import DataInfo, Dataset, MemoryImages

    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    info = DataInfo("numbered", 1, 1, 1, tuple("abcdefgh"[:classes]), (0.0,), (1.0,))
    test = MemoryImages(pixels[:classes], torch.arange(classes))
    return Dataset(info, MemoryImages(pixels, torch.tensor(labels)), test)


def ddkit(*words: str | Path) -> Said:
    """Run ``ddkit`` with `words` in this process. An exception that is no mistake of the user's
    passes through, as a traceback would."""
    from ddkit.cli import main
    from ddkit.runtime.stopping import SIGNALS

    out, err = io.StringIO(), io.StringIO()
    handlers = {n: signal.getsignal(n) for n in SIGNALS}
    argv, sys.argv = sys.argv, ["ddkit", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
        return Said(code, out.getvalue(), err.getvalue())
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    raise AssertionError("main() must end with sys.exit")


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file under `folder` by its relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


HOLDER = """
import sys, time
from pathlib import Path
from ddkit.runtime.lock import try_lock

held = try_lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def another_process_holds(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock at `path`, and is killed when the block ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that installs a distribution of one module in its `site`, as pip would."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("DDKIT_LOAD_PLUGINS")

    def install(distribution: str, source: str | None, entry: str = "it") -> None:
        name = distribution.replace("-", "_")
        if source is not None:
            (site / f"{name}.py").write_text(textwrap.dedent(source))
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        (info / "METADATA").write_text(text)
        (info / "entry_points.txt").write_text(f"[ddkit]\n{entry} = {name}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)

    install.site = site  # type: ignore[attr-defined]
    return install
