"""Checkpoints and run folders: what a run leaves behind, and how it is taken up again."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import tomli_w
import torch

from ddkit.errors import CheckpointError
from ddkit.method import Method
from ddkit.recipes.recipe import Recipe
from ddkit.run import Run
from ddkit.runtime import storage
from ddkit.runtime.storage import write_atomically, write_text

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

    def save(self, run: Run, method: Method, step: int, run_identity: str) -> None:
        """Write the state after `step` steps."""
        state = {
            "identity": run_identity,
            "step": step,
            "chunk": run.chunk,
            "seconds": run.seconds,
            "drawn": run.real.drawn,
            "images": run.synthetic.images.detach(),
            "soft": run.synthetic.soft,
            "optimizers": [o.state_dict() for o in run.optimizers],
            "method": method.state_dict(),
        }
        write_atomically(self.checkpoint, lambda path: torch.save(state, path))

    def restore(self, run: Run, method: Method, run_identity: str) -> int:
        """Load the state into `run` and `method`; return the number of steps taken, 0 if none.

        Raises:
            CheckpointError: the checkpoint is damaged or of another run.
        """
        if not self.checkpoint.is_file():
            return 0
        try:
            state = torch.load(self.checkpoint, map_location=run.runtime.device, weights_only=True)
            if not isinstance(state, dict):
                raise ValueError("not a checkpoint")
            step = int(state["step"])
            if state["identity"] != run_identity:
                raise CheckpointError(f"{self.checkpoint}: belongs to another run; remove it")
            with torch.no_grad():
                run.synthetic.images.copy_(state["images"])
            run.synthetic.soft = state["soft"]
            run.chunk, run.seconds = state["chunk"], float(state["seconds"])
            run.real.drawn = int(state["drawn"])
            for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            method.load_state_dict(state["method"])
        except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
            raise _damaged(self.checkpoint, error) from None
        except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise _damaged(self.checkpoint, error) from None
        return step

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


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{path}: damaged ({reason}); remove it to start over")
