"""A run's folder: its files, whose run it is, who works on it, and how far that has come."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import tomli_w

from ddkit import paths
from ddkit.errors import CheckpointError
from ddkit.recipes.recipe import Recipe
from ddkit.runs import parts
from ddkit.runs.identity import differing
from ddkit.runtime import lock, storage
from ddkit.runtime.storage import write_text

SET, RECIPE, METRICS, GRID = "synthetic.safetensors", "recipe.toml", "metrics.jsonl", "grid.png"
STATUS, CHECKPOINT, VERDICT = "run.json", "checkpoint.pt", "eval.json"
SEAL = "# what is above, blake2b: "  # the last line of recipe.toml, with the hash of the others


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
        """Return what `run.json` says, empty where there is none.

        Raises:
            CheckpointError: it cannot be read, or is not as ddkit wrote it.
        """
        path = self.path / STATUS
        try:
            status = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from None
        known = isinstance(status, dict)
        if known and (_first_release(status) or status.pop("digest", "") == _digest(status)):
            return status
        raise CheckpointError(f"{path}: damaged; choose another folder, or remove this one")

    def write_status(self, **values: Any) -> None:
        """Add `values` to `run.json`."""
        merged = self.status() | values
        merged["digest"] = _digest(merged)
        write_text(self.path / STATUS, json.dumps(merged, indent=2, sort_keys=True) + "\n")

    def write_recipe(self, recipe: Recipe) -> None:
        text = tomli_w.dumps(recipe.table())
        write_text(self.path / RECIPE, f"{text}{SEAL}{_digest(text)}\n")

    @contextmanager
    def claimed(
        self, run_identity: str, recipe: Recipe, note: Callable[[str], None]
    ) -> Iterator[bool]:
        """Hold the folder for a run, alone; yield whether the run is finished already.

        While it is held, `run.json` says by whom. What killed writers left behind is removed.

        Raises:
            CheckpointError: as `check`, or another process holds it.
        """
        if self.check(run_identity, recipe):
            self._tidy()
            yield True
            return
        with self._locked(note):
            storage.sweep(self.path)
            if self.check(run_identity, recipe):  # finished while we came here
                yield True
                return
            self.write_status(identity=run_identity, finished=False, running=lock.myself())
            self.write_recipe(recipe)
            try:
                yield False
            finally:
                with suppress(CheckpointError):  # what stopped the run is what is told
                    if self.status().get("running"):
                        self.write_status(running=None)

    def _tidy(self) -> None:
        """Remove what a run that was killed as it finished left, where that can be done."""
        with suppress(CheckpointError, OSError):
            taken = lock.try_lock(self.path / storage.LOCK)
            if taken is not None:
                with taken:
                    storage.sweep(self.path)
                    discard(self.checkpoint)

    def _locked(self, note: Callable[[str], None]) -> lock.Lock:
        path = self.path / storage.LOCK
        try:
            storage.make_folder(self.path)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be made: {error.strerror}") from None
        taken = lock.try_lock(path)
        if taken is None:
            raise CheckpointError(
                f"{self.path}: {lock.holder(path)} works on it; wait for that, or choose another "
                f"folder"
            )
        if not taken.supported:
            note(f"{self.path}: cannot be locked on this disk; let no other process work in it")
        return taken

    def check(self, run_identity: str, recipe: Recipe) -> bool:
        """Return whether the folder holds this very run, finished; write nothing.

        Raises:
            CheckpointError: it holds something else, what it holds is damaged, or it cannot be
                written to.
        """
        if os.path.exists(self.path) and not os.path.isdir(self.path):  # noqa: PTH110, PTH112
            raise CheckpointError(f"{self.path}: is a file; give a folder")
        status = self.status()
        if status and status.get("identity") != run_identity:
            raise CheckpointError(f"{self.path}: {self._other(recipe)}; choose another folder")
        self._kept_recipe()
        if status.get("finished"):
            self.check_set()
            return True
        if not os.access(storage.existing(self.path), os.W_OK | os.X_OK):
            raise CheckpointError(f"{self.path}: cannot be written: permission denied")
        found = self.path.iterdir() if not status and self.path.is_dir() else ()
        if not all(map(storage.is_partial, found)):
            raise CheckpointError(f"{self.path}: holds something else; choose another folder")
        return False

    def check_set(self) -> None:
        """Refuse the set of a finished run if it is not the one that the run wrote.

        Raises:
            CheckpointError: it is gone, or its bytes are others.
        """
        told = self.status().get("set")
        try:
            same = told is None or storage.digest(self.set) == told
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"{self.set}: cannot be read: {reason}") from None
        if not same:
            raise CheckpointError(
                f"{self.set}: not the set that the run wrote: it is damaged, or was replaced; "
                f"remove {self.path} and run it again"
            )

    def _kept_recipe(self) -> dict[str, Any]:
        """Return the table in `recipe.toml`, empty where there is none."""
        path = self.path / RECIPE
        try:
            text, _, seal = path.read_text(encoding="utf-8").rpartition(SEAL)
            if seal != _digest(text) + "\n":
                raise CheckpointError(
                    f"{path}: damaged, or edited since the run began; remove it, and give the "
                    f"recipe that you have"
                )
            return tomllib.loads(text)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from None

    def _other(self, recipe: Recipe) -> str:
        """Return how the run that the folder holds differs from one of `recipe`."""
        kept = self._kept_recipe()
        return "holds a run of " + (differing(kept, recipe) if kept else "another recipe")

    def finish(self, **values: Any) -> None:
        """Mark the run finished, with the hash of its set, and drop its checkpoints.

        Its set and its metrics are on the disk before it is called finished.

        Raises:
            CheckpointError: the folder was emptied while the run went on, or the disk fails.
        """
        if not self.status():
            raise CheckpointError(f"{self.path / STATUS}: is gone; what there is of the run stays")
        try:
            storage.sync(self.metrics)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CheckpointError(f"{self.metrics}: cannot be written: {error.strerror}") from None
        self.write_status(finished=True, running=None, set=storage.digest(self.set), **values)
        discard(self.checkpoint)


def _digest(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _first_release(status: dict[str, Any]) -> bool:
    """Whether a finished run says so as ddkit 0.1.0 did, which took no digests."""
    return bool(status.get("finished")) and status.keys().isdisjoint({"digest", "running", "set"})


def previous(path: Path) -> Path:
    """Return where the checkpoint before the one at `path` is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def discard(path: Path) -> None:
    """Remove the checkpoint at `path`, the one before it, and their parts."""
    for place in (path, previous(path)):
        storage.remove(place)
    parts.keep(path.parent, set())


def new_folder(runs: Path, name: str) -> RunFolder:
    """Return a folder under `runs` that does not exist: ``name``, ``name-2``, …"""
    number = 1
    while paths.look(path := runs / (name if number == 1 else f"{name}-{number}"), CheckpointError):
        number += 1
    return RunFolder(path)


def set_file(path: Path) -> Path:
    """Return the set that `path` means: itself, or the one in the run folder that it is.

    Raises:
        CheckpointError: it is in the folder of a finished run, and not the one that the run wrote.
    """
    found = path / SET if paths.is_folder(path, CheckpointError) else path
    if found.name == SET and found.is_file():
        RunFolder(found.parent).check_set()
    return found


def newest_set(runs: Path) -> Path:
    """Return the most recently written set under `runs`.

    Raises:
        CheckpointError: there is none.
    """
    sets = sorted(runs.glob(f"*/{SET}"), key=lambda p: p.stat().st_mtime)
    if not sets:
        raise CheckpointError(f"no set under {runs}{'/'}; name one, or run `ddkit distill` first")
    return set_file(sets[-1])
