"""The outer loop: from a recipe to a set in a run folder, resumable after every step."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddkit.data import Dataset
from ddkit.distillation.checkpoint import VERSIONS, Kept, interval, restore, save, write
from ddkit.distillation.compose import Composition, make_method
from ddkit.distillation.contract import count_steps, take_step
from ddkit.distillation.failures import (
    ERROR,
    diverged,
    leave_traceback,
    refuse_non_finite,
    too_large,
)
from ddkit.distillation.preflight import brief, check_checkpoints, plan
from ddkit.distillation.start import Origin, prepare, run_identity, weights_of
from ddkit.errors import DDKitError, DivergedError, Interrupted
from ddkit.findings import refuse
from ddkit.images.synthetic import SyntheticSet
from ddkit.plugins import BUILTIN, Plugins
from ddkit.recipes.recipe import Recipe
from ddkit.reporter import Reporter
from ddkit.run import Run
from ddkit.runs.folder import GRID, RunFolder
from ddkit.runtime import storage
from ddkit.runtime.blame import blamed, release, used_parts
from ddkit.runtime.device import Runtime, own_settings
from ddkit.runtime.memory import is_out_of_memory
from ddkit.runtime.progress import Guarded, JsonLines, Tee
from ddkit.runtime.stopping import Stop, stoppable
from ddkit.sets.grid import write_grid

CHECK_SECONDS = 2.0  # between looks at the device's flag of non-finite values


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    folder: RunFolder
    synthetic: SyntheticSet
    dataset: Dataset
    already: bool = False
    """Whether the folder held this very run, finished before."""


@own_settings()
def run_recipe(
    recipe: Recipe,
    plugins: Plugins,
    reporter: Reporter,
    out: Path | None = None,
    name: str = "run",
    dataset: Dataset | None = None,
) -> Outcome:
    """Distill `recipe` into `out`, or into a new folder under ``runs/`` called after `name`.

    An unfinished run of the same recipe and data in `out` is continued; a finished one is left
    as it is. However a run ends, the state after its last whole step is saved. A reporter that
    raises is dropped; `Interrupted` from one stops the run.

    Raises:
        DDKitError: as `compose`; `CheckpointError` for the folder; `DivergedError`; `Interrupted`
            after a signal or by the reporter; `BrokenPluginError`; `OutOfMemoryError`.
        KeyboardInterrupt: a signal before the first step, or a second one.
    """
    reporter = Guarded(reporter)
    with stoppable(reporter.note) as stop, blamed(used_parts(recipe, plugins)):
        runtime, parts, folder, found = plan(recipe, plugins, out, name, dataset)
        refuse(found)
        key = run_identity(parts, Origin.of(folder))
        with folder.claimed(key, parts.recipe, reporter.note) as finished:
            if finished:
                syn = SyntheticSet.load(folder.set)
                return Outcome(folder, syn, parts.dataset, already=True)
            for line in brief(parts, runtime, found):
                reporter.note(line)
            return _distilled(parts, plugins, runtime, folder, key, stop, reporter)


def _distilled(
    parts: Composition,
    plugins: Plugins,
    runtime: Runtime,
    folder: RunFolder,
    key: str,
    stop: Stop,
    reporter: Reporter,
) -> Outcome:
    """Take the run from where it is to its end, and write what it made."""
    recipe = parts.recipe
    storage.remove(folder.path / ERROR)  # of an earlier session
    try:
        run = _learned(parts, plugins, runtime, folder, key, stop, reporter)
    except Exception as error:
        if not isinstance(error, DDKitError):
            leave_traceback(folder, error)
        raise
    syn = run.synthetic
    syn.recipe = recipe.table()
    syn.provenance = provenance(parts, plugins)
    syn.save(folder.set)
    write_grid(syn, folder.path / GRID)
    folder.finish(
        seconds=round(run.seconds, 2),
        device=str(runtime.device),
        threads=torch.get_num_threads(),
        peak_memory=runtime.memory(),
        images=run.real.drawn,
        chunk=run.chunk,
        **syn.provenance,
    )
    if stop.asked:  # while the last files were written
        raise Interrupted(f"{folder.path}: the run is finished; stopped after it")
    return Outcome(folder, syn, parts.dataset)


def _learned(
    parts: Composition,
    plugins: Plugins,
    runtime: Runtime,
    folder: RunFolder,
    key: str,
    stop: Stop,
    reporter: Reporter,
) -> Run:
    """Return the run after its last step; with smaller chunks where memory does not suffice."""
    chunk: int | None = None
    while True:
        run: Run | None = None
        try:
            run = prepare(parts, runtime, reporter)
            check_checkpoints(run, parts.method, folder.path)
            _Steps(run, parts, folder, key, stop, reporter).take(chunk)
            return run
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if run is None or not run.chunk or run.chunk == 1 or runtime.chunk is not None:
                raise too_large(parts.recipe, run, error) from error
            chunk = run.chunk // 2
            reporter.note(f"out of memory in step {run.at}: going on with {chunk} classes at once")
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = replace(parts, method=make_method(parts.recipe, plugins))


class _Steps:
    """Takes the steps that are left, and leaves a checkpoint however that ends."""

    def __init__(
        self,
        run: Run,
        parts: Composition,
        folder: RunFolder,
        key: str,
        stop: Stop,
        reporter: Reporter,
    ):
        self.run, self.recipe, self.method = run, parts.recipe, parts.method
        self.folder, self.key, self.stop, self.reporter = folder, key, stop, reporter
        self.total = count_steps(self.method, run)
        self.done = self.saved = 0
        self.cost = 0.0  # seconds that the last checkpoint took
        self.whole = True  # whether the run is in the state after `done` steps
        self.kept = Kept()
        self.lines = JsonLines(folder.metrics)
        self.both = Tee(self.lines, reporter)

    def take(self, chunk: int | None = None) -> None:
        """Take them, with checkpoints between; `chunk` replaces that of the state."""
        run = self.run
        where = (self.folder.checkpoint, run, self.method, self.key, self.folder.metrics)
        self.done = self.saved = restore(*where)
        run.chunk = chunk or run.chunk
        if self.done:
            self.reporter.note(f"continuing {self.folder.path} at step {self.done} of {self.total}")
        self.saved_at = self.checked_at = time.monotonic()
        self.started = self.saved_at - run.seconds  # of this session and those before it
        self.stop.holding = True  # until the set is written
        try:
            self.both.begin("distill", self.total, self.done)
            while self.done < self.total:
                self._step()
            self.kept.look(run, self.method, self.done, self.key)
            self.whole = False
            self.method.finish(run)
            run.seconds = time.monotonic() - self.started
        except BaseException as error:
            self._rescue(error)
            raise
        finally:
            self.both.end()

    def _step(self) -> None:
        run, i = self.run, self.done
        self.kept.look(run, self.method, i, self.key)
        before = run.real.drawn
        self.whole = False
        metrics = take_step(self.method, run, i)
        self.done = i + 1
        self.whole = True
        asked = False
        try:
            self.both.advance(metrics, run.real.drawn - before)
        except Interrupted:
            asked = True
        now = time.monotonic()
        run.seconds = now - self.started
        if asked or self.stop.asked:
            self._check(now)
            self._save(now)
            raise Interrupted(
                f"stopped after step {self.done} of {self.total}, state saved; "
                f"{_going_on(self.folder)}"
            )
        if now - self.checked_at > CHECK_SECONDS or self.done == self.total:
            self._check(now)
        every = interval(self.recipe.runtime.checkpoint_seconds, self.cost)
        due = now - self.saved_at > every
        if self.checked_at == now and due:
            self._save(now)

    def _check(self, now: float) -> None:
        refuse_non_finite(self.run, self.recipe, self.method, self.folder, self.lines)
        self.checked_at = now

    def _save(self, now: float) -> None:
        where = (self.folder.checkpoint, self.run, self.method, self.done, self.key)
        self.cost = save(*where, self.lines)
        self.saved, self.saved_at = self.done, now

    def _rescue(self, error: BaseException) -> None:
        """Save the last whole state that there is, when `error` ends the run before its time."""
        if isinstance(error, DivergedError):
            return
        state = self.kept.state
        try:
            if diverged(self.run, self.lines) is not None:
                return
            if self.whole and self.done > self.saved:
                self._save(time.monotonic())
            elif not self.whole and state is not None and state["step"] > self.saved:
                write(self.folder.checkpoint, state, self.lines)
                self.saved = state["step"]
        except Exception:
            return  # what ends the run is told, not that it could not be saved
        if self.saved and not isinstance(error, DDKitError):
            note = f"the state after step {self.saved} of {self.total} is saved"
            note = f"{note}; {_going_on(self.folder)}"
            error.add_note(note)
            if isinstance(error, KeyboardInterrupt):
                self.reporter.note(note)


def _going_on(folder: RunFolder) -> str:
    return f"the same command with --out {folder.path} goes on"


def provenance(parts: Composition, plugins: Plugins) -> dict[str, str | int]:
    """Return what a set should say of its making; nothing that changes from run to run.

    Packages of third parties that took part are named with their versions; judges come after.
    """
    start = {} if parts.start is None else {"start": parts.start.digest}
    made = used_parts(parts.recipe, plugins, judges=False)
    theirs = {release(part) for _, _, part in made if part.distribution != BUILTIN}
    named = {"plugins": ", ".join(sorted(theirs))} if theirs else {}
    return {
        "seed": parts.recipe.seed,
        "data": parts.dataset.fingerprint(),
        **start,
        **named,
        **weights_of(parts.recipe),
        **VERSIONS,
        "python": platform.python_version(),
    }
