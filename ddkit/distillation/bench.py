"""Tiny parts on the CPU: a dataset, a network, a match, and a bench to try methods on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddkit.backbone import freeze, look
from ddkit.data import DataInfo, Dataset, MemoryImages, statistics
from ddkit.distillation.compose import Composition
from ddkit.distillation.start import prepare
from ddkit.errors import ContractError
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.method import Method
from ddkit.networks.fresh import build
from ddkit.networks.pool import ProxyPool
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import EvalSpec, Part, ProxySpec, SyntheticSpec, TrainSpec
from ddkit.regularizer import Match, Regularizer, Term
from ddkit.reporter import Silent
from ddkit.run import Run
from ddkit.runtime.device import Runtime
from ddkit.runtime.randomness import generator

CPU = torch.device("cpu")


def tiny_dataset(
    num_classes: int = 3, per_class: int = 12, size: int = 16, channels: int = 3, seed: int = 0
) -> Dataset:
    """Return a dataset in memory, easy to learn: a pattern for each class, under noise.

    `per_class` training images and half as many test images (at least one) of each class.
    """
    rng = generator(seed, "tiny-dataset")
    patterns = torch.rand(num_classes, channels, size, size, generator=rng)

    def split(count: int) -> MemoryImages:
        labels = torch.arange(count * num_classes) % num_classes
        noise = torch.rand(len(labels), channels, size, size, generator=rng)
        pixels = (patterns[labels] + noise) / 2
        return MemoryImages((pixels * 255).round().to(torch.uint8), labels)

    train, test = split(per_class), split(max(1, per_class // 2))
    names = tuple(f"class {i}" for i in range(num_classes))
    info = DataInfo("tiny", channels, size, size, names, *statistics(train.images))
    return Dataset(info, train, test)


class StandIn(nn.Module):
    """A network of a few thousand parameters that follows the backbone contract."""

    def __init__(self, info: DataInfo, width: int = 8):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(info.channels, width, 3, stride=2, padding=1),
            nn.GroupNorm(width // 4, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Softplus(),
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classifier = nn.Linear(4 * width, info.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.pool(x)
        return pooled if pre_logits else self.classifier(pooled)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class Witness(Regularizer):
    """A term that reads some fields of a `Match`, and looks whether their sizes fit."""

    def __init__(self, fields: frozenset[str]):
        self.requires = fields  # type: ignore[misc]  # this object's alone

    def loss(self, m: Match) -> Tensor:
        """Return the sum of the squared pixels.

        Raises:
            ContractError: a class's rows are not as many as its images.
        """
        for view, its, what in (
            (m.syn, m.labels, "syn"),
            (m.syn_view, m.labels, "syn_view"),
            (m.real_view, m.real_labels, "real_view"),
        ):
            if view is not None and its is not None and len(view) != len(its):
                problem = f"its Match has {len(view)} images in {what}, but {len(its)} labels"
                raise ContractError("method", problem)
        return m.syn.square().sum()


def witnesses(provided: frozenset[str]) -> tuple[Term, ...]:
    """Return a term of every kind: for each field that a method provides, proxies and groups."""
    names = sorted(provided | {"groups", "proxy"}) if provided else []
    return tuple(Term(f"reads {name}", 1.0, Witness(frozenset({name}))) for name in names)


def tiny_match(dataset: Dataset, syn: Tensor, labels: Tensor, wanted: frozenset[str]) -> Match:
    """Return a match of synthetic images `syn` [N,C,H,W] with real ones of the same classes.

    `labels` [N] are of three classes or fewer; fields that are not `wanted` are empty.
    """
    real = RealImages(dataset, 0, CPU)
    own = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])  # real classes differ in size
    rows = [(real.source.labels == c).nonzero()[: int((own == c).sum()), 0] for c in range(3)]
    kept = torch.isin(own, labels)
    view, own = real.fetch(torch.cat(rows))[kept], own[kept]
    make = partial(stand_in, dataset.info)
    net, proxy = (freeze(build(make, CPU, 0, name)).eval() for name in ("net", "proxy"))
    syn_view = syn * 0.9
    fields: dict[str, Any] = {
        "syn_view": syn_view,
        "real_view": view,
        "syn_maps": look(net, syn_view)[0],
        "real_maps": look(net, view)[0],
        "proxy": proxy,
    }
    known = {name: value for name, value in fields.items() if name in wanted}
    of_real = {"real_groups", "real_labels", "real_view", "real_maps"}
    real_groups = Groups.of(own) if wanted & of_real else None
    return Match(syn=syn, groups=Groups.of(labels), real_groups=real_groups, **known)


def stand_in(info: DataInfo) -> nn.Module:
    """Return a tiny network for the images and classes of `info`, where any backbone will do."""
    return StandIn(info)


@dataclass(frozen=True)
class Bench:
    """Tiny parts on the CPU for a method to be tried with; replace what the method cannot take."""

    dataset: Dataset = field(default_factory=tiny_dataset)
    backbone: Callable[[DataInfo], nn.Module] = stand_in
    synthetic: SyntheticSpec = SyntheticSpec(ipc=2)
    terms: tuple[Term, ...] = ()

    def run(self, method: Method, folder: Path, hurried: bool = False) -> Run:
        """Return a new run, set up by `method`; a pool, where one is read, is kept in `folder`.

        `hurried`: pools that the method asks for are hardly trained.
        """
        runtime, make, pool = Runtime(CPU), partial(self.backbone, self.dataset.info), None
        net, method_part = Part("stand-in"), Part(type(method).__name__)
        judges = EvalSpec((net,), 1, "dm", TrainSpec())
        recipe = Recipe(Part("tiny"), net, method_part, judges, self.synthetic)
        if method.reads_proxies or any("proxy" in t.regularizer.requires for t in self.terms):
            spec = ProxySpec(net, count=2, epochs=1, batch_size=16)
            pool = ProxyPool(spec, make, self.dataset, runtime, recipe.seed, folder)
        method.check(self.synthetic, self.dataset.info, build(make, CPU, 0, "check"))
        parts = Composition(recipe, self.dataset, make, method, self.terms, pool, folder)

        def pools(spec: ProxySpec) -> ProxyPool:
            spec = replace(spec, backbone=net, epochs=1, batch_size=64)
            return ProxyPool(spec, make, self.dataset, runtime, recipe.seed, folder)

        return prepare(parts, runtime, Silent(), pools if hurried else None)
