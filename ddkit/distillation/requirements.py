"""What the parts of a recipe ask of each other, refused in words before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import nn

from ddkit.data import DataInfo
from ddkit.errors import ContractError, IncompatibleError, RecipeError, near
from ddkit.images.synthetic import SyntheticSet
from ddkit.method import Method
from ddkit.recipes.place import Place
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import SyntheticSpec
from ddkit.regularizer import FIELDS, Regularizer, Term
from ddkit.runs.folder import set_file

ALWAYS = frozenset({"syn", "groups", "labels"})
"""What every `Match` has, whatever its method says of it."""


def check_part(part: object, kind: str, name: str) -> None:
    """Refuse a method or a regularizer that is none, or that does not say what it fills or reads.

    Raises:
        ContractError: naming what its class must be, or have.
    """
    must, word = _PARTS[kind]
    if not isinstance(part, must):
        home = f"{must.__module__}.{must.__qualname__}"
        problem = f"must be of a class derived from {home}, not {type(part).__name__}"
        raise ContractError(kind, problem, name)
    names = getattr(part, word, None)
    if not isinstance(names, frozenset | set) or not all(isinstance(n, str) for n in names):
        said = "has none" if names is None else f"has {names!r}"
        problem = f"its class must have {word} = frozenset of names of Match fields, but {said}"
        raise ContractError(kind, problem, name)
    unknown = sorted(names - FIELDS)
    if unknown:
        hint = near(unknown[0], FIELDS)
        problem = f"{word} names {', '.join(unknown)}, which no Match has{hint}"
        raise ContractError(kind, f"{problem}; it has {listed(FIELDS)}", name)


_PARTS: dict[str, tuple[type, str]] = {
    "method": (Method, "provides"),
    "regularizer": (Regularizer, "requires"),
}


def supplied(method: Method) -> frozenset[str]:
    """Return the `Match` fields that `method` fills, with those that come along with them.

    A method that provides nothing makes no `Match`: it selects images.
    """
    real = {"real_groups", "real_labels"}
    along = ALWAYS | real if method.provides & real else ALWAYS
    return method.provides | along if method.provides else method.provides


def check_requirements(recipe: Recipe, method: Method, terms: tuple[Term, ...]) -> None:
    """Refuse a regularizer that the method, or the lack of ``[proxies]``, cannot supply.

    Raises:
        IncompatibleError: saying what is needed and what there is.
    """
    given = supplied(method)
    for term in terms:
        needs = term.regularizer.requires
        lacking = needs - given - {"proxy"}
        if lacking:
            raise IncompatibleError(
                f"{recipe.place('regularizers')}: {term.name!r} needs {listed(needs)}; method "
                f"{recipe.method.name!r} provides {listed(given) or 'nothing'}. "
                f"Remove it or choose another method."
            )
        if "proxy" in needs and recipe.proxies is None:
            raise IncompatibleError(
                f"{recipe.place('regularizers')}: {term.name!r} needs a pool of trained networks; "
                f'add proxies = {{ backbone = "resnet18", count = 3, epochs = 5 }}'
            )
    if method.reads_proxies and recipe.proxies is None:
        raise IncompatibleError(
            f"{recipe.place('method')}: this setting of {recipe.method.name!r} needs a pool of "
            f'trained networks; add proxies = {{ backbone = "convnet", count = 1, epochs = 20 }}'
        )


def check_synthetic(recipe: Recipe) -> None:
    """Refuse what does not go together, such as whitened pixels in [0, 1].

    Raises:
        IncompatibleError: both are asked for, or one without the other.
    """
    spec = recipe.synthetic
    if (spec.init == "set") != (spec.path is not None):
        raise IncompatibleError(
            f'{recipe.place("synthetic.path")}: init = "set" and the path of a set go '
            f"together; give both or neither"
        )
    if spec.bound is not None and spec.kind != "bound":
        raise IncompatibleError(
            f'{recipe.place("synthetic.bound")}: belongs to kind = "bound", not to '
            f"{spec.kind!r}; drop it"
        )
    if recipe.dataset.options.get("zca") and recipe.synthetic.space == "pixel":
        raise IncompatibleError(
            f'{recipe.place("synthetic.space")}: "pixel" does not go with dataset.zca; '
            f'choose space = "normalized"'
        )


def check_method(recipe: Recipe, method: Method, info: DataInfo, net: nn.Module) -> None:
    """Let the method refuse what it cannot do, and say where the recipe asks for it."""
    try:
        method.check(recipe.synthetic, info, net)
    except (RecipeError, IncompatibleError) as error:
        raise type(error)(f"{recipe.place('method')}: {error}") from error


@dataclass(frozen=True)
class Start:
    """A set whose images a run starts from, and the digest of its file."""

    synthetic: SyntheticSet
    path: Path
    digest: str

    @classmethod
    def read(cls, spec: SyntheticSpec, info: DataInfo, place: Place) -> Start | None:
        """Return the set that ``init = "set"`` names, None with any other `init`.

        Raises:
            IncompatibleError: it has other images than the recipe asks for.
            CheckpointError: it cannot be read.
        """
        if spec.init != "set" or spec.path is None:
            return None
        path = set_file(Path(spec.path)).absolute()
        made = SyntheticSet.load(path)
        problem = _misfit(made, spec, info)
        if problem:
            raise IncompatibleError(f"{place / 'path'}: {path}: {problem}")
        return cls(made, path, blake2b(path.read_bytes(), digest_size=16).hexdigest())


def _misfit(made: SyntheticSet, spec: SyntheticSpec, info: DataInfo) -> str | None:
    if made.info.shape != info.shape or made.info.classes != info.classes:
        return f"its images or classes are not those of {info.name}; choose another set"
    if made.soft is not None:
        return "its labels are soft, which no run starts from; choose another set"
    if not torch.equal(made.labels, torch.arange(info.num_classes).repeat_interleave(spec.ipc)):
        return f"has other numbers of images per class than synthetic.ipc = {spec.ipc}"
    for name in ("factor", "order", "kind"):
        theirs = getattr(made.formation, name)
        if theirs != getattr(spec, name):
            return f"was made with {name} = {theirs!r}; set synthetic.{name} to it"
    return None


def listed(names: frozenset[str]) -> str:
    """Return names of `Match` fields for a message."""
    return ", ".join(sorted(names))
