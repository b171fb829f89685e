"""A run folder whose files were changed while nobody worked on it."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fence import Fault, Sandbox
from forge import flipped

from ddkit.data import Dataset
from ddkit.distillation.bench import tiny_dataset
from ddkit.distillation.loop import run_recipe
from ddkit.errors import Interrupted
from ddkit.plugins import Plugins
from ddkit.recipes.recipe import Recipe
from ddkit.reporter import Metrics, Silent
from ddkit.runs.folder import SEAL, SET

STEPS = 3
TABLE: dict[str, Any] = {
    "dataset": "digits",
    "backbone": {"name": "mlp", "width": 4},
    "synthetic": {"ipc": 1},
    "method": {"name": "dm", "iterations": STEPS, "batch_real": 2},
    "runtime": {"device": "cpu", "checkpoint_seconds": 0.001},
}


class Stopper(Silent):
    """Stops the run in its last step but one."""

    def __init__(self) -> None:
        self.steps = 0

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.steps += 1
        if self.steps == STEPS - 1:
            raise Interrupted("enough")


@cache
def _made() -> tuple[Recipe, Plugins, Dataset, dict[str, dict[str, bytes]]]:
    """Return a tiny recipe, its data, and the files of its run's folder, begun and finished."""
    from ddkit import plugins

    recipe, loaded, data = Recipe.parse(TABLE), plugins.load(), tiny_dataset()
    with TemporaryDirectory() as name:
        begun, finished = Path(name) / "begun", Path(name) / "finished"
        with suppress(Interrupted):
            run_recipe(recipe, loaded, Stopper(), begun, dataset=data)
        run_recipe(recipe, loaded, Silent(), finished, dataset=data)
        kept = {f.name: {p.name: p.read_bytes() for p in f.iterdir()} for f in (begun, finished)}
    return recipe, loaded, data, kept


def runs(case: dict[str, Any], box: Sandbox) -> None:
    """Go on with a run whose files were changed: to the same set, or refused."""
    recipe, loaded, data, kept = _made()
    folder = box.given / "run"
    folder.mkdir()
    for name, content in kept[case["state"]].items():
        (folder / name).write_bytes(content)
    for name, how, what in case["edits"]:
        try:
            _edit(folder, name, how, what)
        except (OSError, ValueError):  # an edit before made that impossible
            continue
    done = run_recipe(recipe, loaded, Silent(), folder, dataset=data)
    sealed = any(how == "sealed" for _, how, _ in case["edits"])  # as nobody but ddkit could
    if not sealed and done.folder.set.read_bytes() != kept["finished"][SET]:
        raise Fault("a changed folder was gone on with, to another set")


def _edit(folder: Path, name: str, how: str, what: Any) -> None:
    path = folder / name.replace("/", "_").replace("\0", "_")
    if path.name in ("", ".", "..") or path == folder:
        return
    match how:
        case "flip":
            path.write_bytes(flipped(path.read_bytes(), [what]))
        case "cut":
            content = path.read_bytes()
            path.write_bytes(content[: what * len(content) // 1000])
        case "bytes":
            path.write_bytes(what)
        case "json":
            path.write_text(json.dumps(what), encoding="utf-8")
        case "lines":
            path.write_text("".join(json.dumps(v) + "\n" for v in what), encoding="utf-8")
        case "sealed":
            path.write_text(_sealed(path, what), encoding="utf-8")
        case "twice":
            path.write_bytes(path.read_bytes() * 2)
        case _:
            path.unlink()
            if how == "folder":
                path.mkdir()
            elif how == "link":
                path.symlink_to(path.name)


def _sealed(path: Path, what: Any) -> str:
    """Return a file's text with something else in it and a hash that says it is whole."""
    if path.suffix == ".toml":
        return f"{what}{SEAL}{_hash(what)}\n"
    key, value = what
    status = json.loads(path.read_text(encoding="utf-8"))
    status.pop("digest")
    status[key] = value
    return json.dumps(status | {"digest": _hash(json.dumps(status, sort_keys=True))})


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
