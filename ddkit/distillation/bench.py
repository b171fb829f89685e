"""Tiny parts on the CPU, for tests: a dataset, a network, and a bench to try methods on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ddkit.data import DataInfo, Dataset, MemoryImages, statistics
from ddkit.distillation.compose import Composition
from ddkit.distillation.start import prepare
from ddkit.method import Method
from ddkit.networks.fresh import build
from ddkit.networks.pool import ProxyPool
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import EvalSpec, Part, ProxySpec, SyntheticSpec, TrainSpec
from ddkit.regularizer import Term
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

    def run(self, method: Method, folder: Path) -> Run:
        """Return a new run, set up by `method`; a pool, where one is read, is kept in `folder`."""
        runtime, make, pool = Runtime(CPU), partial(self.backbone, self.dataset.info), None
        net, method_part = Part("stand-in"), Part(type(method).__name__)
        judges = EvalSpec((net,), 1, "dm", TrainSpec())
        recipe = Recipe(Part("tiny"), net, method_part, judges, self.synthetic)
        if method.reads_proxies or any("proxy" in t.regularizer.requires for t in self.terms):
            spec = ProxySpec(net, count=2, epochs=1, batch_size=16)
            pool = ProxyPool(spec, make, self.dataset, runtime, recipe.seed, folder)
        method.check(self.synthetic, self.dataset.info, build(make, CPU, 0, "check"))
        parts = Composition(recipe, self.dataset, make, method, self.terms, pool, folder)
        return prepare(parts, runtime, Silent())
