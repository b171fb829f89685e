"""Tiny runs of every method, for campaigns that disturb them; started in children of one process.

The process that starts them has imported torch, the plugins and the data once. It never runs a
backward pass: autograd refuses children of one that has.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DDKIT_LOAD_PLUGINS"] = ""  # built-ins alone, whatever else is installed
os.environ.pop("DDKIT_DATA", None)

from PIL import Image

from ddkit import plugins
from ddkit.cli.evaluate import write_verdict
from ddkit.distillation import loop
from ddkit.distillation.compose import compose
from ddkit.errors import DDKitError
from ddkit.evaluation.compose import judged
from ddkit.evaluation.verdict import Scope
from ddkit.recipes.recipe import Recipe
from ddkit.reporter import Reporter, Silent
from ddkit.runs import parts
from ddkit.runs.folder import METRICS, SET, VERDICT
from ddkit.runtime.device import open_runtime

RUN, HOME = "run", "home"  # the folders of a scene
REFUSED, FAILED = 3, 1  # how a child ends: in words, or otherwise than it should
NET = {"name": "convnet", "width": 8, "depth": 2}
POOL = {"backbone": NET, "count": 2, "epochs": 1, "images": 64}
IID = [{"name": "centralize", "weight": 0.01}, {"name": "covariance", "weight": 0.01}]
GRADIENT = {"iterations": 2, "outer_steps": 3, "inner_steps": 1, "batch_real": 8}
NCFM = {"name": "ncfm", "iterations": 6, "batch_real": 8, "num_freqs": 16}
NCFM |= {"pool_size": 2, "pool_epochs": 1}
METHODS: dict[str, dict[str, Any]] = {
    "dm": {"method": {"name": "dm", "iterations": 12, "batch_real": 8}},
    "dm-seldom": {  # without a checkpoint before its end
        "method": {"name": "dm", "iterations": 6, "batch_real": 8},
        "runtime": {"device": "cpu"},
    },
    "dm-iid-cmi": {
        "method": {"name": "dm", "iterations": 8, "batch_real": 8, "momentum": 0.5},
        "proxies": POOL,
        "regularizers": [*IID, {"name": "cmi", "weight": 1.0}],
    },
    "idm": {
        "synthetic": {"ipc": 1, "factor": 2, "order": "column"},
        "method": {"name": "idm", "iterations": 8, "batch_real": 8, "pool_size": 3}
        | {"pool_interval": 2, "train_steps": 1, "train_networks": 1, "momentum": 0.5},
    },
    "ncfm": {"synthetic": {"ipc": 1, "factor": 2, "space": "pixel"}, "method": NCFM},
    "ncfm-net": {
        "synthetic": {"ipc": 1, "space": "pixel"},
        "method": NCFM | {"frequency": "net", "num_freqs": 32},
    },
    "dc": {"method": {"name": "dc"} | GRADIENT},
    "dsa": {"method": {"name": "dsa"} | GRADIENT},
    "idc": {
        "synthetic": {"ipc": 1, "factor": 2, "space": "pixel"},
        "method": {"name": "idc", "iterations": 2, "outer_steps": 3, "train_images": 32}
        | {"batch_real": 8},
    },
    "herding": {"method": "herding"},
    "kmeans": {"method": "kmeans"},
    "random": {"method": "random"},
}
KINDS = {
    "checkpoint": "checkpoint",
    "part-": "part",
    "synthetic": "set",
    "eval": "verdict",
    "run.json": "status",
    "recipe": "recipe",
    "metrics": "metrics",
    "grid": "picture",
    ".safetensors": "pool network",
}


class Heard(Silent):
    """Keeps what is said, and at which step the run is taken up."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.resumed = 0

    def begin(self, task: str, total: int, done: int = 0) -> None:
        if task == "distill":
            self.resumed = done

    def note(self, text: str) -> None:
        self.notes.append(text)


def prepare() -> plugins.Plugins:
    """Make runs keep their state after every step, networks as parts; return the plugins."""
    loop.CHECK_SECONDS = -1.0
    parts.LARGE = 1 << 10
    loaded = plugins.load()
    parsed = recipe("dm")
    compose(parsed, loaded, open_runtime(parsed.runtime))  # imports much, once for all children
    Image.init()
    return loaded


def recipe(name: str) -> Recipe:
    """Return a scene's recipe; a checkpoint follows every step, unless it says otherwise."""
    table = {
        "dataset": {"name": "digits", "resolution": 8},
        "backbone": NET,
        "synthetic": {"ipc": 1},
        "eval": {"archs": [NET], "seeds": 1, "protocol": "dm-digits", "epochs": 1},
        "runtime": {"device": "cpu", "checkpoint_seconds": 1e-9},
    }
    return Recipe.parse(table | METHODS[name])


def work(name: str, place: Path, loaded: plugins.Plugins, reporter: Reporter) -> None:
    """Distill and judge, as the command does, with the home of the scene `place`."""
    os.environ["DDKIT_HOME"] = str(place / HOME)
    parsed, folder = recipe(name), place / RUN
    outcome = loop.run_recipe(parsed, loaded, reporter, folder)
    verdict = judged(
        *(outcome.synthetic, outcome.dataset, parsed.eval, loaded),
        *(open_runtime(parsed.runtime), Silent(), Scope(baseline=False)),
    )
    write_verdict(verdict, outcome.folder.set, folder / VERDICT)


def started(job: Callable[[], None], said: Path | None = None) -> int:
    """Start `job` in a child, and return its number; its last words go to `said`.

    It ends with 0, with `REFUSED` after a DDKitError, or with `FAILED`.
    """
    number = os.fork()
    if number:
        return number
    code, words = 0, ""
    try:
        job()
    except DDKitError as error:
        code, words = REFUSED, str(error)
    except BaseException as error:
        code, words = FAILED, f"{type(error).__name__}: {error}"
    if said is not None:
        said.write_text(words, encoding="utf-8")
    elif words:
        sys.stderr.write(words + "\n")
        sys.stderr.flush()
    os._exit(code)


def ended(child: int) -> int:
    """Wait for a child; return its code, negative the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kind_of(path: Path) -> str:
    """Return what kind of file a path is of."""
    return next((kind for word, kind in KINDS.items() if word in path.name), "other")


def result(place: Path) -> dict[str, Any]:
    """Return what a finished run is compared by."""
    folder = place / RUN
    verdict = json.loads((folder / VERDICT).read_text(encoding="utf-8"))
    return {
        "set": (folder / SET).read_bytes(),
        "metrics": (folder / METRICS).read_bytes(),
        "accuracies": [r["accuracies"] for r in verdict["results"]],
        "files": sorted(path.name for path in folder.iterdir()),
    }


def undisturbed(name: str, place: Path, loaded: plugins.Plugins) -> dict[str, Any]:
    """Return the result of a run that nothing disturbs, in the new folder `place`."""
    place.mkdir()
    if ended(started(lambda: work(name, place, loaded, Silent()))):
        raise SystemExit(f"{name}: the undisturbed run failed")
    return result(place)
