"""A set and the registries to what an evaluation needs: judges, teacher, test data, protocol."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ddkit.data import DataInfo, Dataset
from ddkit.errors import CheckpointError, DataError, RecipeError, near
from ddkit.evaluation import judge
from ddkit.evaluation.baselines import fitted
from ddkit.evaluation.journal import Journal, evaluation_key
from ddkit.evaluation.verdict import WHOLE, Scope, Verdict
from ddkit.images.real import make_dataset
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.fresh import Build, backbone_maker, probe
from ddkit.networks.pool import ProxyPool
from ddkit.networks.teacher import Teacher
from ddkit.paths import expanded, is_folder
from ddkit.plugins import Plugins
from ddkit.recipes.binding import checked
from ddkit.recipes.place import Place, Source
from ddkit.recipes.protocol import eval_spec
from ddkit.recipes.recipe import override, parse_part
from ddkit.recipes.resolution import full, plain
from ddkit.recipes.sections import (
    EvalSpec,
    Part,
    RuntimeSpec,
    TeacherSpec,
    as_part,
    as_table,
    part_table,
)
from ddkit.reporter import Reporter
from ddkit.runtime.blame import blamed, used_judges, used_part
from ddkit.runtime.device import Runtime, own_settings
from ddkit.runtime.progress import Guarded
from ddkit.runtime.stopping import stoppable


def judged(
    syn: SyntheticSet,
    data: Dataset,
    spec: EvalSpec,
    loaded: Plugins,
    runtime: Runtime,
    reporter: Reporter,
    scope: Scope = WHOLE,
    journal: Path | None = None,
) -> Verdict:
    """Judge `syn` by the architectures of `spec`, each under its shortest name.

    The name seeds the networks: one and the same architecture gets the same ones, however many of
    its defaults are spelled out. Finished networks are kept in the file `journal`, from which an
    interrupted evaluation goes on; the caller removes it with the verdict written.

    Raises:
        CheckpointError: the set holds what no network can learn from.
    """
    wrong = syn.problem()
    if wrong:
        raise CheckpointError(f"the set cannot be judged: {wrong}")
    reporter = Guarded(reporter)
    data = fitted(syn, data, reporter.note)
    archs = [plain(arch, loaded.backbones) for arch in spec.archs]
    make = partial(judge_maker, plugins=loaded, info=syn.info)
    teacher = None
    if spec.teacher is not None:
        teacher = _teacher(data, spec.teacher, loaded, runtime)
        named = plain(spec.teacher.backbone, loaded.backbones)
        spec = replace(spec, teacher=replace(spec.teacher, backbone=named))
    kept = None
    if journal is not None:
        taught = "" if teacher is None else teacher.identity
        kept = Journal(journal, evaluation_key(syn, data, spec, runtime, scope, taught))
        if len(kept):
            reporter.note(f"going on: {len(kept)} networks were judged before")
    with own_settings(), stoppable(reporter.note), blamed(used_judges(spec, loaded)):
        return judge.evaluate(syn, archs, data, spec, make, runtime, reporter, teacher, scope, kept)


def _teacher(data: Dataset, spec: TeacherSpec, loaded: Plugins, runtime: Runtime) -> Teacher:
    """Return the teacher, not trained yet; it sees images as the set's are: whitened, if they were.

    Its backbone's options are all stated, as in a recipe that ran, so that a pool trained for
    distilling serves as well.
    """
    place = Place(Source("evaluation"), "teacher.backbone")
    make = judge_maker(spec.backbone, loaded, data.info, place)
    kind = replace(spec.pool(), backbone=full(spec.backbone, loaded.backbones))
    pool = ProxyPool(kind, make, data, runtime, spec.seed)
    return Teacher(pool, spec, runtime)


def judge_maker(part: Part, plugins: Plugins, info: DataInfo, place: Place | None = None) -> Build:
    """Return a function that builds the judge `part`, checked on blank images."""
    place = place or Place(Source("judge"), part.name)
    make = backbone_maker(part, plugins, place, info)
    probe(make, info, place)
    return make


def stored_spec(
    syn: SyntheticSet,
    archs: Sequence[str] | None = None,
    seeds: int | None = None,
    settings: Sequence[str] = (),
) -> EvalSpec:
    """Return the evaluation stored with `syn`, with what the caller overrides."""
    recipe, place = syn.recipe or {"backbone": "convnet"}, Place(Source("evaluation"))
    table: dict[str, Any] = deepcopy(as_table(recipe.get("eval", {}), place))
    if any(item.partition("=")[0].strip() == "protocol" for item in settings):
        table = {k: v for k, v in table.items() if k in ("archs", "seeds")}
    if archs:
        table["archs"] = [_arch(one, recipe.get("backbone", "convnet"), place) for one in archs]
    if seeds is not None:
        table["seeds"] = seeds
    for item in settings:
        changed = override(table, item)
        presets = as_table(table.get("presets", {}), place / "presets")
        for name, preset in presets.items():  # what the caller says goes first
            presets[name] = as_table(preset, place / "presets" / name)
            presets[name].pop(changed, None)
        if presets:
            table["presets"] = presets
    return eval_spec(table, place, recipe.get("backbone", "convnet"))


def _arch(text: str, backbone: Any, place: Place) -> dict[str, Any]:
    """Return the architecture that `text` means; of the recipe's own name, with its options."""
    part, own = parse_part(text, "--archs"), as_part(backbone, place / "backbone")
    kept = own.options if part.name == own.name else {}
    return part_table(Part(part.name, {**kept, **part.options}))


def stored_runtime(
    syn: SyntheticSet, device: str | None = None, precision: str | None = None
) -> RuntimeSpec:
    """Return how judges of `syn` are to run: in the precision of its recipe."""
    place = Place(Source("the set's recipe"), "runtime")
    stored = as_table(syn.recipe.get("runtime", {}), place)
    kept = {k: v for k, v in stored.items() if k == "precision"}
    if precision is not None:
        kept["precision"] = precision
    own = checked(RuntimeSpec, kept, place)
    return RuntimeSpec(device=device or RuntimeSpec.device, **own)


def test_data(syn: SyntheticSet, loaded: Plugins, given: str | None = None) -> Dataset:
    """Read the dataset that the set names, or the one `given` in its place; see `_given`.

    It is not whitened: `judge.evaluate` applies the whitening that is stored in the set.

    Raises:
        RecipeError: neither names one.
        DataError: as the dataset does; where the set remembers a relative path, with what helps.
    """
    place, own = Place(Source("the set's recipe"), "dataset"), None
    if "dataset" in syn.recipe:
        own = as_part(syn.recipe["dataset"], place)
        own = Part(own.name, {k: v for k, v in own.options.items() if k != "zca"})
    if given is not None:
        part = _given(given, own, loaded)
        with blamed(used_part("dataset", loaded.datasets, part)):
            return make_dataset(part, loaded, Place(Source("--data")))
    if own is None:
        raise RecipeError(
            "the set does not say which dataset it was made from; "
            "give --data, a folder of class folders or the name of a dataset"
        )
    try:
        with blamed(used_part("dataset", loaded.datasets, own)):
            return make_dataset(own, loaded, place)
    except DataError as error:
        told = str(own.options.get("path", ""))
        if not told or told[0] == "~" or Path(told).is_absolute():
            raise
        raise DataError(
            f"{error}\nthe set remembers this path as it was where the set was made; name the "
            f"folder's place with --data DIR, or judge from there"
        ) from error


def _given(given: str, own: Part | None, loaded: Plugins) -> Part:
    """Return the dataset that `given` means: a folder, or a name with options after a colon.

    A folder is where the set's `own` images are now, if those lie in one; else class folders. A
    dataset of the set's own name has the options of its recipe, on the whole of its training and
    test images; others have their defaults.

    Raises:
        RecipeError: it is neither.
    """
    if not is_folder(expanded(given, RecipeError, "--data"), RecipeError):
        named = parse_part(given, "--data")
        if own is not None and named.name == own.name:
            kept = {k: v for k, v in own.options.items() if k != "hold_out"}
            return Part(own.name, {**kept, **named.options})
        if named.name in loaded.datasets or named.options:
            return named
        if own is None or "path" not in own.options:
            hint = near(given, loaded.datasets) or "; `ddkit list datasets` shows the datasets"
            raise RecipeError(f"--data: no such folder, and no dataset is called {given!r}{hint}")
    if own is not None and "path" in own.options:
        return Part(own.name, {**own.options, "path": given})
    return Part("folder", {"path": given})
