"""What is done with a case of each target: the way that a user's bytes go through ddkit."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import strangers
import strategies
import tomli_w
from abroad import locales, streams
from fence import Fault, Sandbox, check_plain, check_words
from forge import PLUGIN, forged_set, good_set, plant
from hypothesis.strategies import SearchStrategy
from running import runs

from ddkit.errors import DDKitError
from ddkit.plugins import KINDS, Plugins
from ddkit.recipes.recipe import Recipe


class Target(NamedTuple):
    """A strategy and what is done with a case; `share` of all cases, by their cost."""

    draw: Callable[[], SearchStrategy[Any]]
    run: Callable[[Any, Sandbox], None]
    share: float


@cache
def loaded() -> Plugins:
    from ddkit import plugins

    return plugins.load()


def recipes(case: bytes, box: Sandbox) -> None:
    path = box.given / "recipe.toml"
    path.write_bytes(case)
    _checked(Recipe.load(path))


def overrides(case: tuple[str, list[str]], box: Sandbox) -> None:
    _checked(Recipe.load(case[0], case[1]))


def _checked(recipe: Recipe) -> None:
    """Check names and options; what a run folder keeps of a recipe must give it back."""
    from ddkit.recipes.resolution import check_early, check_names, resolved

    check_early(recipe)
    check_names(recipe, loaded())
    whole = resolved(recipe, loaded())
    import tomllib

    if Recipe.parse(tomllib.loads(tomli_w.dumps(whole.table()))) != whole:
        raise Fault("a recipe does not come back from its table")


def sets(case: dict[str, Any], box: Sandbox) -> None:
    from ddkit.evaluation.compose import stored_runtime, stored_spec
    from ddkit.images.synthetic import SyntheticSet

    path = box.given / "set.safetensors"
    content = case["raw"] if "raw" in case else forged_set(case, good_set(case["kind"]))
    path.write_bytes(content)
    syn = SyntheticSet.load(path)
    said = [_command("show", str(path)), _command("show", str(path), "--json")]
    said.append(_command("show", str(path), "--png", str(box.given / "grid.png")))
    said.append(_command("export", str(path), str(box.given / "out")))
    for text in said:
        check_plain(text)
    pictures = list((box.given / "out").glob("*/*.png"))
    if len(pictures) != len(syn):
        raise Fault(f"{len(syn)} images, but {len(pictures)} pictures are written")
    stored_spec(syn)
    stored_runtime(syn)
    syn.save(box.given / "again.safetensors")
    SyntheticSet.load(box.given / "again.safetensors")


def _command(*given: str) -> str:
    """Run a command in this process; return what it printed."""
    from ddkit.cli import cli

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        cli.main(args=list(given), prog_name="ddkit", standalone_mode=False)
    return out.getvalue()


def folders(case: dict[str, Any], box: Sandbox) -> None:
    import torch

    from ddkit.images.real import RealImages, make_dataset
    from ddkit.recipes.place import Place, Source
    from ddkit.recipes.sections import Part

    plant(box.given / "images", case)
    part = Part("folder", {"path": str(box.given / "images"), **case["options"]})
    data = make_dataset(part, loaded(), Place(Source("recipe"), "dataset"))
    data.fingerprint()
    for split in (data.train, data.test):
        split.fetch(torch.arange(len(split.labels)))
    RealImages(data, 0, torch.device("cpu"))


def plugins(case: dict[str, Any], box: Sandbox) -> None:
    from importlib import invalidate_caches, metadata

    from ddkit import plugins as ours

    folder = box.given / case["folder"].replace("\0", "")[:200]
    with contextlib.suppress(OSError, UnicodeError):
        folder.mkdir()
        (folder / "entry_points.txt").write_bytes(case["entries"])
        if case["metadata"] is not None:
            (folder / "METADATA").write_bytes(case["metadata"])
    text = PLUGIN.format(**{k: case[k] for k in ("line", "kind", "hook", "said")})
    (box.given / "fuzzed.py").write_bytes(text.encode("utf-8", "backslashreplace"))
    whole = metadata.distributions
    here = lambda: whole(path=[str(box.given)])  # noqa: E731
    everyone = {"DDKIT_LOAD_PLUGINS": None}
    invalidate_caches()
    with (
        mock.patch.object(metadata, "distributions", here),
        mock.patch.object(sys, "path", [str(box.given), *sys.path]),
        _environment(everyone),
    ):
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # where what plugins print goes
                found = ours.load()
            _look_at_plugins(found)
        finally:
            sys.modules.pop("fuzzed", None)


def _look_at_plugins(found: Plugins) -> None:
    for failure in found.failures:
        check_words(failure.reason)
    texts = [_command("plugins"), _command("plugins", "--json")]
    names = ((kind, name) for kind in KINDS for name in getattr(found, kind))
    for kind in KINDS:
        texts.append(_command("list", kind))
    for kind, name in names:
        for form in ([], ["--json"]):
            with contextlib.suppress(DDKitError):
                texts.append(_command("list", kind, *form, "--", name))
    for text in texts:
        check_plain(text)


@contextlib.contextmanager
def _environment(values: dict[str, str | None]) -> Any:
    import os

    with mock.patch.dict(os.environ):
        for key, value in values.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
        yield


TARGETS = {
    "recipes": Target(strategies.recipes, recipes, 0.3),
    "overrides": Target(strategies.overrides, overrides, 0.2),
    "sets": Target(strategies.sets, sets, 0.16),
    "folders": Target(strangers.folders, folders, 0.14),
    "plugins": Target(strangers.plugins, plugins, 0.1),
    "streams": Target(strangers.streams, streams, 0.072),
    "runs": Target(strategies.runs, runs, 0.026),
    "locales": Target(strangers.locales, locales, 0.002),
}
