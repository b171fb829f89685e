"""The sections of a recipe that core itself understands; plugins' options are `Part`s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from ddkit.errors import RecipeError
from ddkit.options import (
    Count,
    Fraction,
    Momentum,
    NonNegative,
    Positive,
    Range,
    Strategy,
    Whole,
)
from ddkit.recipes.binding import checked
from ddkit.recipes.place import Place, told


@dataclass(frozen=True)
class Part:
    """A component chosen by name, with its options as the user wrote them."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inner = ", ".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.name}({inner})" if inner else self.name


@dataclass(frozen=True)
class DatasetKeys:
    """What ddkit itself reads of ``[dataset]``; the other keys are the dataset's own options.

    Attributes:
        classes: only these, by name or number, which are labelled in this order; mean and deviation
            stay those of the whole dataset.
        hold_out: the share of each class's training images, drawn once for all, that takes the test
            images' place, so that settings are not chosen on these.
        zca: whiten images after normalisation, fitted on the training images that are left.
    """

    classes: tuple[str | int, ...] | None = None
    hold_out: Annotated[float, Range(above=0, below=1)] | None = None
    zca: bool = False


@dataclass(frozen=True)
class BackboneKeys:
    """What ddkit itself reads of a backbone; the other keys are the backbone's own options.

    Attributes:
        weights: a safetensors file of weights that networks start from, each name and shape of
            which must fit; without it they are random, or what the backbone's options say.
    """

    weights: Path | None = None


@dataclass(frozen=True)
class TermKeys:
    """What ddkit itself reads of a regularizer; the other keys are the regularizer's own options.

    Attributes:
        weight: what the regularizer is multiplied by before it is added to the method's loss.
    """

    weight: NonNegative


@dataclass(frozen=True)
class SyntheticSpec:
    """How the synthetic images start and are stored.

    Attributes:
        ipc: stored images per class.
        init: random real images, the first of each class in the order of the data, noise, or the
            images of an existing ``set``, whose file `path` names.
        factor: each stored image is a mosaic of factor x factor pictures, decoded to full size.
        order: how the pictures of a mosaic are read.
        init_resize: how real images are shrunk into a mosaic.
        kind: how a stored image is read: with `factor`; with each factor from 1 to it; or with the
            greatest that leaves a class at most `bound` training images.
        bound: training images per class at most; with ``kind = "bound"`` alone, where it is 128.
        space: where pixels are learned and stored: in [0, 1], or normalised by mean and deviation.
        path: the set, or run folder, that ``init = "set"`` starts from.
    """

    ipc: Count = 10
    init: Literal["real", "first", "noise", "set"] = "real"
    factor: Count = 1
    order: Literal["row", "column"] = "row"
    init_resize: Literal["nearest", "bilinear"] = "bilinear"
    kind: Literal["single", "multi", "bound"] = "single"
    bound: Count | None = None
    space: Literal["normalized", "pixel"] = "normalized"
    path: str | None = None

    @property
    def factors(self) -> tuple[int, ...]:
        """Every factor that a stored image may be read with."""
        return (self.factor,) if self.kind == "single" else tuple(range(1, self.factor + 1))


# What trainings and pools are made of. A dataclass has the fields of its last base first, and their
# order shows: in resolved recipes, and in the key of a cached pool, which is TrainSpec's repr.


@dataclass(frozen=True)
class _Networks:
    """Which network, and how many of it.

    Attributes:
        backbone: the network that is trained; a name, or a table with its options.
        count: how many networks.
    """

    backbone: Part = Part("resnet18")
    count: Count = 20


@dataclass(frozen=True)
class _Batches:
    """How long, and on how much at a time.

    Attributes:
        epochs: passes over the images.
        batch_size: images per batch; fewer where there are fewer.
    """

    epochs: Count = 300
    batch_size: Count = 256


@dataclass(frozen=True)
class _Optimizer:
    """What takes the steps.

    Attributes:
        optimizer: SGD with momentum, or AdamW.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"


@dataclass(frozen=True)
class _Steps:
    """How far the steps go, and what they see.

    Attributes:
        lr: the rate.
        momentum: of SGD.
        weight_decay: of either optimizer.
        schedule: ``constant``; or ``dc``, the published loop of the DM family, which trains
            `epochs` + 1 epochs, and after number `epochs` // 2 + 1 (counted from 0) multiplies the
            rate by `gamma` and starts the optimizer anew (released code of DM); or ``steps``,
            which multiplies the rate by `gamma` at each of `milestones` and goes on.
        gamma: what a schedule multiplies the rate by.
        milestones: fractions of `epochs`, rounded down.
        augmentation: operations drawn per batch, parameters per image: ``color_crop`` draws one of
            these, ``chain:color_crop`` applies them in turn.
        cutmix: the probability that a batch is mixed with a shuffle of itself.
    """

    lr: Positive = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    schedule: Literal["constant", "dc", "steps"] = "constant"
    gamma: Fraction = 0.1
    milestones: tuple[Fraction, ...] = ()
    augmentation: Strategy = "none"
    cutmix: Fraction = 0.0


@dataclass(frozen=True)
class TrainSpec(_Steps, _Optimizer, _Batches):
    """How a classifier is trained: proxies, teachers and judges alike."""


@dataclass(frozen=True)
class PoolSpec(_Steps, _Batches, _Networks):
    """Networks trained on the real data, by SGD.

    Attributes:
        schedule: ``constant``; or ``steps``, which multiplies the rate by `gamma` at each of
            `milestones` and goes on.
        images: train on so many images only, spread evenly over the classes; default all.
        input: what networks are trained on and shown: normalised or raw pixels.
        seed: of their initial weights and training.
    """

    epochs: Count = 40
    schedule: Literal["constant", "steps"] = "constant"
    images: Count | None = None
    input: Literal["normalized", "raw"] = "normalized"
    seed: Whole = 0

    def training(self) -> TrainSpec:
        """Return the training recipe of one network of the pool."""
        shared = (*fields(_Batches), *fields(_Steps))
        return TrainSpec(**{f.name: getattr(self, f.name) for f in shared})


@dataclass(frozen=True)
class ProxySpec(PoolSpec):
    """The pool that regularizers look through (IID and CMI publish with the same kind).

    Attributes:
        mode: the mode that drawn networks run in; published code has them in training mode.
    """

    mode: Literal["eval", "train"] = "eval"


@dataclass(frozen=True)
class TeacherSpec(PoolSpec):
    """Networks trained on the real data that label what judges train on, random sets included.

    The label of an image, before augmentation, is the mean of their probabilities.

    Attributes:
        wrong: what replaces an answer that is not the image's class: the label alone, or a one
            among *logits* (the released program of NCFM).
        hard_epochs: the last epochs, which train on the classes themselves.
    """

    count: Count = 1
    wrong: Literal["label", "logit"] = "label"
    hard_epochs: Whole = 0

    def pool(self) -> ProxySpec:
        """Return the networks' side of it."""
        return ProxySpec(**{f.name: getattr(self, f.name) for f in fields(PoolSpec)})


@dataclass(frozen=True)
class EvalSpec:
    """Who judges the set, how many networks each, and by which protocol.

    Attributes:
        archs: the architectures that judge; which may repeat with other options.
        seeds: networks of each architecture.
        protocol: a named evaluation protocol, whose settings the other keys override.
        training: how judges are trained; its settings stand in ``[eval]`` itself.
        presets: patterns of architecture names, such as ``timm/vit_*``, with the settings by which
            those depart from `training`, since one rate that suits a ConvNet leaves others at
            chance; the longest pattern that matches goes.
        teacher: whose soft labels the judges learn, instead of the set's own labels.
    """

    archs: tuple[Part, ...]
    seeds: Count
    protocol: str
    training: TrainSpec
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    teacher: TeacherSpec | None = None

    def preset(self, arch: Part) -> Mapping[str, Any]:
        """Return the settings in which the training of `arch` departs from `training`."""
        matching = [p for p in self.presets if fnmatchcase(arch.name, p)]
        return self.presets[max(matching, key=len)] if matching else {}

    def training_of(self, arch: Part) -> TrainSpec:
        """Return how networks of `arch` are trained."""
        return replace(self.training, **self.preset(arch))


@dataclass(frozen=True)
class RuntimeSpec:
    """The machine's side of a run. ``auto`` is resolved once, from device and shapes, and recorded.

    Attributes:
        device: ``auto`` takes a GPU if there is one; or ``cpu``, ``cuda``, ``cuda:1``.
        precision: of forward passes; losses and statistics are float32 whatever it is.
        chunk: how many classes go through the networks at once.
        micro_batch: how many images per forward pass where no gradient is taken.
        checkpoint_seconds: the time between checkpoints; it changes no result.
    """

    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    chunk: Literal["auto"] | Count = "auto"
    micro_batch: Literal["auto"] | Count = "auto"
    checkpoint_seconds: Positive = 60.0


def as_part(value: Any, place: Place) -> Part:
    """Read ``"name"`` or ``{ name = "…", option = … }``.

    Raises:
        RecipeError: it is neither.
    """
    if isinstance(value, str):
        return Part(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise RecipeError(f'{place}: must be a name or a table {{ name = "…" }}, not {told(value)}')
    return Part(value["name"], {k: v for k, v in value.items() if k != "name"})


def own_keys(spec: type[Any], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return those of `options` that `spec`, a section above, has a field for, and the rest."""
    names = {f.name for f in fields(spec)}
    own = {k: v for k, v in options.items() if k in names}
    return own, {k: v for k, v in options.items() if k not in names}


def as_table(value: Any, place: Place) -> dict[str, Any]:
    """Return a copy of the table `value`; errors as in `as_part`."""
    if not isinstance(value, Mapping):
        raise RecipeError(f"{place}: must be a table, not {told(value)}")
    return dict(value)


def section(spec: type[Any], value: Any, place: Place) -> Any:
    """Read one of the sections above from the table `value`."""
    return spec(**checked(spec, as_table(value, place), place))


def part_table(part: Part) -> dict[str, Any]:
    """Return the table that `as_part` reads back."""
    return {"name": part.name, **{k: toml_value(v) for k, v in part.options.items()}}


def plain_table(spec: Any) -> dict[str, Any]:
    """Return the table that `section` reads back."""
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    return {k: toml_value(v) for k, v in values.items() if v is not None}


def toml_value(value: Any) -> Any:
    """Return `value` as TOML has it: tables, lists and plain values."""
    if isinstance(value, Part):
        return part_table(value)
    if isinstance(value, list | tuple):
        return [toml_value(v) for v in value]
    return str(value) if isinstance(value, Path) else value
