"""A run's folder: its files, whose run it is, and how far that has come."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import tomli_w

from ddkit.errors import CheckpointError
from ddkit.recipes.recipe import Recipe
from ddkit.runtime import storage
from ddkit.runtime.storage import write_text

SET, RECIPE, METRICS, GRID = "synthetic.safetensors", "recipe.toml", "metrics.jsonl", "grid.png"
STATUS, CHECKPOINT, VERDICT = "run.json", "checkpoint.pt", "eval.json"


def identity(recipe: Recipe, data: str) -> str:
    """Return the hash of what determines the set: the resolved recipe and the data.

    The data is known by its own hash, wherever it lies now.
    """
    table = recipe.table()
    del table["eval"], table["dataset"]  # judges come after
    table["runtime"] = {
        k: v for k, v in table["runtime"].items() if k not in ("device", "checkpoint_seconds")
    }
    text = json.dumps([table, data], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    path: Path

    @property
    def set(self) -> Path:
        return self.path / SET

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    def status(self) -> dict[str, Any]:
        """Return what `run.json` says, empty where there is none."""
        path = self.path / STATUS
        try:
            status = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from None
        if not isinstance(status, dict):
            raise CheckpointError(f"{path}: damaged; choose another folder, or remove this one")
        return status

    def write_status(self, **values: Any) -> None:
        """Add `values` to `run.json`."""
        merged = json.dumps(self.status() | values, indent=2, sort_keys=True) + "\n"
        write_text(self.path / STATUS, merged)

    def write_recipe(self, recipe: Recipe) -> None:
        write_text(self.path / RECIPE, tomli_w.dumps(recipe.table()))

    def claim(self, run_identity: str) -> bool:
        """Take the folder for a run; return whether the run is finished. Errors as `check`."""
        finished = self.check(run_identity)
        if not finished:
            self.write_status(identity=run_identity, finished=False)
        return finished

    def check(self, run_identity: str) -> bool:
        """Return whether the folder holds this very run, finished; write nothing.

        Raises:
            CheckpointError: it holds something else.
        """
        if os.path.exists(self.path) and not os.path.isdir(self.path):  # noqa: PTH110, PTH112
            raise CheckpointError(f"{self.path}: is a file; give a folder")
        if not os.access(storage.existing(self.path), os.W_OK | os.X_OK):
            raise CheckpointError(f"{self.path}: cannot be written: permission denied")
        status = self.status()
        if status and status.get("identity") != run_identity:
            raise CheckpointError(
                f"{self.path}: holds a run of another recipe or other data; choose another folder"
            )
        if not status and self.path.is_dir() and any(self.path.iterdir()):
            raise CheckpointError(f"{self.path}: holds something else; choose another folder")
        return bool(status.get("finished"))

    def finish(self, **values: Any) -> None:
        """Mark the run finished and drop its checkpoint."""
        self.write_status(finished=True, **values)
        self.checkpoint.unlink(missing_ok=True)


def new_folder(runs: Path, name: str) -> RunFolder:
    """Return a folder under `runs` that does not exist: ``name``, ``name-2``, …"""
    number = 1
    while (path := runs / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return RunFolder(path)


def set_file(path: Path) -> Path:
    """Return the set that `path` means: itself, or the one in the run folder that it is."""
    return path / SET if path.is_dir() else path


def newest_set(runs: Path) -> Path:
    """Return the most recently written set under `runs`.

    Raises:
        CheckpointError: there is none.
    """
    sets = sorted(runs.glob(f"*/{SET}"), key=lambda p: p.stat().st_mtime)
    if not sets:
        raise CheckpointError(f"no set under {runs}{'/'}; name one, or run `ddkit distill` first")
    return sets[-1]
