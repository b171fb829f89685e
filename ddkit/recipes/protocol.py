"""Evaluation protocols: read, overridden, and where an evaluation departs from the one it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddkit.errors import RecipeError, near
from ddkit.options import Count
from ddkit.paths import expanded, is_file
from ddkit.recipes import catalog
from ddkit.recipes.binding import checked, convert
from ddkit.recipes.place import Place, Source, told
from ddkit.recipes.sections import (
    EvalSpec,
    Part,
    TeacherSpec,
    TrainSpec,
    as_part,
    as_table,
    part_table,
    plain_table,
    toml_value,
)

SEEDS = 5  # judges of each architecture, unless the recipe says


def eval_spec(value: Any, place: Place, backbone: Any = "convnet") -> EvalSpec:
    """Read ``[eval]``: who judges, and a named protocol with whatever it overrides.

    A setting given here also goes before the protocol's presets, unless these are given too.
    """
    table = as_table(value, place)
    name = convert(table.pop("protocol", "dm"), str, place / "protocol")
    protocol = load_protocol(name, place / "protocol", backbone)
    own_teacher = table.pop("teacher", None)
    teacher = _teacher(own_teacher, place / "teacher", backbone, protocol.teacher)
    archs = table.pop("archs", [backbone])
    if not isinstance(archs, list) or not archs:
        raise RecipeError(f"{place / 'archs'}: must be a list of backbones, not {told(archs)}")
    parts = tuple(as_part(a, place / "archs" / str(i)) for i, a in enumerate(archs))
    seeds = convert(table.pop("seeds", SEEDS), Count, place / "seeds")
    presets = table.pop("presets", None)
    own = checked(TrainSpec, table, place)
    if presets is None:
        presets = {p: _without(v, own) for p, v in protocol.presets.items()}
    presets = _presets(presets, place / "presets")
    training = dataclasses.replace(protocol.training, **own)
    spec = EvalSpec(parts, seeds, name, training, presets, teacher)
    _check_teacher(spec, place / "teacher")
    return spec


def eval_table(spec: EvalSpec) -> dict[str, Any]:
    """Return `spec` as the ``[eval]`` table that reads back to it."""
    table: dict[str, Any] = {"archs": [part_table(a) for a in spec.archs], "seeds": spec.seeds}
    table |= {"protocol": spec.protocol} | plain_table(spec.training)
    if spec.teacher is not None:
        table["teacher"] = plain_table(spec.teacher)
    return table | {"presets": {p: toml_value(dict(v)) for p, v in spec.presets.items()}}


def load_protocol(name: str, place: Place, backbone: Any = "convnet") -> EvalSpec:
    """Return the evaluation protocol called `name`: its training, and presets for architectures.

    A teacher whose backbone it leaves open is a `backbone`.

    Raises:
        RecipeError: there is none of that name; a file that is no protocol.
    """
    path = _file(name, place)
    text, table = catalog.read(path, str(path) if name.endswith(".toml") else path.name)
    here = Place(Source(path.name, text))
    presets = _presets(table.pop("presets", {}), here / "presets")
    teacher = _teacher(table.pop("teacher", None), here / "teacher", backbone)
    training = TrainSpec(**checked(TrainSpec, table, here))
    return EvalSpec((Part("convnet"),), SEEDS, name, training, presets, teacher)


def _file(name: str, place: Place) -> Path:
    """Return the file of a protocol: one that ships, or a path that ends in ``.toml``.

    Raises:
        RecipeError: there is neither.
    """
    files = catalog.protocols()
    if name in files:
        return files[name]
    if name.endswith(".toml"):
        path = expanded(name, RecipeError, str(place))
        if not is_file(path, RecipeError):
            raise RecipeError(f"{place}: {name}: no such file")
        return path
    hint = near(name, files) or f"; there are: {', '.join(files)}"
    also = "; a file's name ends in .toml"
    raise RecipeError(f"{place}: no protocol is called {name!r}{hint}{also}")


def deviations(spec: EvalSpec) -> dict[str, Any]:
    """Return the settings in which `spec` departs from the protocol it names, presets aside."""
    named = load_protocol(spec.protocol, Place(Source("protocol")))
    own, published = _settings(spec), _settings(named)
    return {k: own.get(k) for k in {**own, **published} if own.get(k) != published.get(k)}


def _settings(spec: EvalSpec) -> dict[str, Any]:
    """Return training and teacher, flat; no protocol names the teacher's backbone."""
    flat = dataclasses.asdict(spec.training)
    teacher = spec.teacher or TeacherSpec()
    flat |= {f"teacher.{k}": v for k, v in _without(plain_table(teacher), ("backbone",)).items()}
    return flat


def _presets(value: Any, place: Place) -> dict[str, dict[str, Any]]:
    table = as_table(value, place)
    return {p: checked(TrainSpec, as_table(v, place / p), place / p) for p, v in table.items()}


def _without(table: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _teacher(
    value: Any, place: Place, backbone: Any, base: TeacherSpec | None = None
) -> TeacherSpec | None:
    """Read ``[eval.teacher]``, which changes the protocol's teacher, if it has one."""
    if value is None:
        return base
    table = as_table(value, place)
    if base is None or "backbone" in table:
        table["backbone"] = as_part(table.get("backbone", backbone), place / "backbone")
    own = checked(TeacherSpec, table, place)
    return TeacherSpec(**own) if base is None else dataclasses.replace(base, **own)


def _check_teacher(spec: EvalSpec, place: Place) -> None:
    """Refuse hard labels in all epochs: such a teacher would do nothing."""
    if spec.teacher is None:
        return
    fewest = min(spec.training_of(arch).epochs for arch in spec.archs)
    if spec.teacher.hard_epochs >= fewest:
        raise RecipeError(
            f"{place / 'hard_epochs'}: {spec.teacher.hard_epochs} leaves none of {fewest} epochs "
            f"for the teacher's labels; lower it or raise epochs"
        )
