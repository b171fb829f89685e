"""A recipe: TOML to frozen dataclasses, with every mistake named by file and line."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddkit.errors import RecipeError, near
from ddkit.options import Count, NonNegative, Whole, checked, convert
from ddkit.recipes import catalog
from ddkit.recipes.place import Place, Source
from ddkit.recipes.sections import (
    EvalSpec,
    Part,
    ProxySpec,
    RuntimeSpec,
    SyntheticSpec,
    TeacherSpec,
    TrainSpec,
)

SEEDS = 5  # judges of each architecture, unless the recipe says
REQUIRED = ("dataset", "backbone", "method")
SECTIONS = (
    *("seed", "dataset", "backbone", "synthetic", "method"),
    *("proxies", "regularizers", "eval", "runtime"),
)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a distilled set and its verdict."""

    dataset: Part
    backbone: Part
    method: Part
    eval: EvalSpec
    synthetic: SyntheticSpec = SyntheticSpec()
    regularizers: tuple[tuple[float, Part], ...] = ()
    proxies: ProxySpec | None = None
    runtime: RuntimeSpec = RuntimeSpec()
    seed: int = 0
    source: Source = field(default=Source("recipe"), compare=False, repr=False)

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe from a path or by its shipped name, then apply ``key=value`` overrides.

        Raises:
            RecipeError: no such file or name, not TOML, an unknown key, a wrong type or range.
        """
        file = catalog.find_recipe(path)
        try:
            text = file.read_text(encoding="utf-8")
            table = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not a TOML recipe: {error}") from None
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
        return cls.parse(table, overrides, Source(str(path), text))

    @classmethod
    def parse(
        cls,
        table: Mapping[str, Any],
        overrides: Sequence[str] = (),
        source: Source = Source("recipe"),  # noqa: B008 - frozen
    ) -> Recipe:
        """Build a recipe from an already parsed table; errors as in `load`."""
        tree = _copy(table)
        paths = frozenset(override(tree, item) for item in overrides)
        source = dataclasses.replace(source, overridden=paths)
        top = Place(source)
        problems = [
            f"{top / key}: unknown section{near(key, SECTIONS) or '; there are: ' + _and(SECTIONS)}"
            for key in tree
            if key not in SECTIONS
        ]
        problems += [
            f"{top}: the section {key!r} is missing" for key in REQUIRED if key not in tree
        ]
        if problems:
            raise RecipeError("\n".join(problems))
        return cls(
            dataset=as_part(tree["dataset"], top / "dataset"),
            backbone=as_part(tree["backbone"], top / "backbone"),
            method=as_part(tree["method"], top / "method"),
            synthetic=_section(SyntheticSpec, tree.get("synthetic", {}), top / "synthetic"),
            regularizers=_regularizers(tree.get("regularizers", []), top / "regularizers"),
            proxies=_proxies(tree.get("proxies"), top / "proxies"),
            eval=eval_spec(tree.get("eval", {}), top / "eval", tree["backbone"]),
            runtime=_section(RuntimeSpec, tree.get("runtime", {}), top / "runtime"),
            seed=convert(tree.get("seed", 0), Whole, top / "seed"),
            source=source,
        )

    def place(self, path: str) -> Place:
        """Return where the dotted `path` stands in this recipe, for error messages."""
        return Place(self.source, path)

    def table(self) -> dict[str, Any]:
        """Return the resolved recipe as a plain table that `parse` reads back to an equal one."""
        table: dict[str, Any] = {"seed": self.seed}
        table |= {key: _part_table(getattr(self, key)) for key in ("dataset", "backbone")}
        table["synthetic"] = _plain(self.synthetic)
        table["method"] = _part_table(self.method)
        if self.proxies is not None:
            table["proxies"] = _plain(self.proxies)
        if self.regularizers:
            table["regularizers"] = [
                {"name": part.name, "weight": weight, **part.options}
                for weight, part in self.regularizers
            ]
        table["eval"] = eval_table(self.eval)
        table["runtime"] = _plain(self.runtime)
        return table


def as_part(value: Any, place: Place) -> Part:
    """Read ``"name"`` or ``{ name = "…", option = … }``."""
    if isinstance(value, str):
        return Part(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise RecipeError(f'{place}: must be a name or a table {{ name = "…" }}, not {value!r}')
    return Part(value["name"], {k: v for k, v in value.items() if k != "name"})


def eval_spec(value: Any, place: Place, backbone: Any = "convnet") -> EvalSpec:
    """Read ``[eval]``: who judges, and a named protocol with whatever it overrides.

    A setting given here also goes before the protocol's presets, unless these are given too.
    """
    table = _as_table(value, place)
    name = convert(table.pop("protocol", "dm"), str, place / "protocol")
    protocol = load_protocol(name, place / "protocol", backbone)
    own_teacher = table.pop("teacher", None)
    teacher = _teacher(own_teacher, place / "teacher", backbone, protocol.teacher)
    archs = table.pop("archs", [backbone])
    if not isinstance(archs, list) or not archs:
        raise RecipeError(f"{place / 'archs'}: must be a list of backbones, not {archs!r}")
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
    table: dict[str, Any] = {"archs": [_part_table(a) for a in spec.archs], "seeds": spec.seeds}
    table |= {"protocol": spec.protocol} | _plain(spec.training)
    if spec.teacher is not None:
        table["teacher"] = _plain(spec.teacher)
    return table | {"presets": {p: _tomlable(dict(v)) for p, v in spec.presets.items()}}


def load_protocol(name: str, place: Place, backbone: Any = "convnet") -> EvalSpec:
    """Return the evaluation protocol called `name`: its training, and presets for architectures.

    A teacher whose backbone it leaves open is a `backbone`.

    Raises:
        RecipeError: there is none of that name.
    """
    files = catalog.protocols()
    if name not in files:
        hint = near(name, files) or f"; there are: {_and(files)}"
        raise RecipeError(f"{place}: no protocol is called {name!r}{hint}")
    text = files[name].read_text(encoding="utf-8")
    table, here = tomllib.loads(text), Place(Source(files[name].name, text))
    presets = _presets(table.pop("presets", {}), here / "presets")
    teacher = _teacher(table.pop("teacher", None), here / "teacher", backbone)
    training = TrainSpec(**checked(TrainSpec, table, here))
    return EvalSpec((Part("convnet"),), SEEDS, name, training, presets, teacher)


def deviations(spec: EvalSpec) -> dict[str, Any]:
    """Return the settings in which `spec` departs from the protocol it names, presets aside."""
    named = load_protocol(spec.protocol, Place(Source("protocol")))
    own, published = _settings(spec), _settings(named)
    return {k: own.get(k) for k in {**own, **published} if own.get(k) != published.get(k)}


def _settings(spec: EvalSpec) -> dict[str, Any]:
    """Return training and teacher, flat; no protocol names the teacher's backbone."""
    flat = dataclasses.asdict(spec.training)
    teacher = spec.teacher or TeacherSpec()
    flat |= {f"teacher.{k}": v for k, v in _without(_plain(teacher), ("backbone",)).items()}
    return flat


def _presets(value: Any, place: Place) -> dict[str, dict[str, Any]]:
    table = _as_table(value, place)
    return {p: checked(TrainSpec, _as_table(v, place / p), place / p) for p, v in table.items()}


def _without(table: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _regularizers(value: Any, place: Place) -> tuple[tuple[float, Part], ...]:
    if not isinstance(value, list):
        raise RecipeError(f"{place}: must be a list of tables, not {value!r}")
    result = []
    for i, item in enumerate(value):
        part, here = as_part(item, place / str(i)), place / str(i)
        options = dict(part.options)
        if "weight" not in options:
            raise RecipeError(f"{here}: regularizer {part.name!r} needs a weight")
        weight = convert(options.pop("weight"), NonNegative, here / "weight")
        result.append((weight, Part(part.name, options)))
    return tuple(result)


def _proxies(value: Any, place: Place) -> ProxySpec | None:
    if value is None:
        return None
    table = _as_table(value, place)
    if "backbone" in table:
        table["backbone"] = as_part(table["backbone"], place / "backbone")
    return _section(ProxySpec, table, place)


def _teacher(
    value: Any, place: Place, backbone: Any, base: TeacherSpec | None = None
) -> TeacherSpec | None:
    """Read ``[eval.teacher]``, which changes the protocol's teacher, if it has one."""
    if value is None:
        return base
    table = _as_table(value, place)
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


def _section(spec: type[Any], value: Any, place: Place) -> Any:
    return spec(**checked(spec, _as_table(value, place), place))


def _as_table(value: Any, place: Place) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{place}: must be a table, not {value!r}")
    return dict(value)


def override(tree: dict[str, Any], item: str) -> str:
    """Apply ``key=value`` to `tree` and return the key, dotted; the value is TOML, else a string.

    Raises:
        RecipeError: it is not of that form, or leads through something that is not a table.
    """
    path, equals, text = item.partition("=")
    path = path.strip()
    if not equals or not path:
        raise RecipeError(f"--set {item}: must look like key=value, as in seed=1")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    node: Any = tree
    *parents, last = path.split(".")
    for key in parents:
        node = _descend(node, key, item)
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            raise RecipeError(f"--set {item}: {last!r} is no position in the list")
        node[int(last)] = value
    else:
        node[last] = value
    return path


def _descend(node: Any, key: str, item: str) -> Any:
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise RecipeError(f"--set {item}: {key!r} is no position in the list")
        position: Any = int(key)
    else:
        position = key
        node.setdefault(key, {})
    if isinstance(node[position], str):  # dataset = "digits", then --set dataset.resolution=8
        node[position] = {"name": node[position]}
    if not isinstance(node[position], dict | list):
        raise RecipeError(f"--set {item}: {key!r} is not a table")
    return node[position]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _part_table(part: Part) -> dict[str, Any]:
    return {"name": part.name, **{k: _tomlable(v) for k, v in part.options.items()}}


def _plain(spec: Any) -> dict[str, Any]:
    values = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    return {k: _tomlable(v) for k, v in values.items() if v is not None}


def _tomlable(value: Any) -> Any:
    if isinstance(value, Part):
        return _part_table(value)
    if isinstance(value, list | tuple):
        return [_tomlable(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _and(names: Iterable[str]) -> str:
    return ", ".join(names)
