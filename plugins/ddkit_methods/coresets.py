"""Coresets: sets of real images, the floor under every learned one.

``random`` draws them; ``herding`` picks images one by one so that their mean feature follows the
class mean (M. Welling, "Herding dynamical weights to learn", ICML 2009); ``kmeans`` takes the real
image nearest to each of ipc cluster centres.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ddkit import hookimpl
from ddkit.backbone import embed
from ddkit.images.groups import Groups
from ddkit.method import Method
from ddkit.reporter import Metrics
from ddkit.run import Run


class Coreset(Method):
    """Fills the set with chosen real images in one step. No regularizer has anything to act on."""

    provides: ClassVar[frozenset[str]] = frozenset()
    chooses: ClassVar[bool] = True

    @abstractmethod
    def choose(self, run: Run, need: int) -> Tensor:
        """Return the numbers of `need` training images of each class, int64 [C * need]."""

    def steps(self, run: Run) -> int:
        return 1

    def setup(self, run: Run) -> None:
        run.optimizers = []

    def step(self, run: Run, i: int) -> Metrics:
        need = run.synthetic.ipc * run.synthetic.formation.pieces
        run.synthetic.fill(run.real.fetch(self.choose(run, need)))
        return {}


@dataclass
class Random(Coreset):
    """Random real images."""

    def choose(self, run: Run, need: int) -> Tensor:
        return run.real.choose(need, 0, "coreset")


@dataclass
class Herding(Coreset):
    """Greedy mean matching.

    Attributes:
        features: of what images are compared by: their pixels, or the embedding of a network
            trained on the real data, the first of ``[proxies]``.
    """

    features: Literal["pixels", "trained"] = "pixels"

    @property
    def reads_proxies(self) -> bool:
        return self.features == "trained"

    def choose(self, run: Run, need: int) -> Tensor:
        features, groups = all_features(run, self.features == "trained")
        return class_rows(run.real.source.labels, herd(features, groups, need))


@dataclass
class KMeans(Coreset):
    """The real images nearest to the centres of a clustering of each class.

    Attributes:
        features: as for ``herding``.
    """

    features: Literal["pixels", "trained"] = "pixels"

    @property
    def reads_proxies(self) -> bool:
        return self.features == "trained"

    def choose(self, run: Run, need: int) -> Tensor:
        from sklearn.cluster import KMeans as Clustering

        features, groups = all_features(run, self.features == "trained")
        picked = []
        # sklearn clusters one set at a time, and this happens once in a run
        for c, rows in zip(groups.classes, features.split(list(groups.counts)), strict=True):
            state = run.derive("kmeans", c) % 2**32
            clustering = Clustering(need, n_init=1, random_state=state).fit(rows.cpu().numpy())
            centres = torch.from_numpy(clustering.cluster_centers_).to(rows)
            picked.append(nearest_distinct(torch.cdist(centres, rows)))
        return class_rows(run.real.source.labels, torch.stack(picked))


def herd(features: Tensor, groups: Groups, need: int) -> Tensor:
    """Return the positions within their class of `need` herded rows, int64 [G,need].

    `features` [N,D] are class-major. Each pick brings the mean of the picked nearest to the class
    mean; no row is picked twice.
    """
    padded = groups.pad(features)
    target = groups.mean(features)
    counts = groups.sizes(features)
    taken = torch.arange(padded.shape[1], device=features.device) >= counts[:, None]
    total = torch.zeros_like(target)
    picked = []
    squares = padded.square().sum(2)
    for k in range(1, need + 1):
        # |(total + row) / k - target|^2 but for what is the same for every row
        rest = total / k - target
        distance = squares / k + 2 * (padded @ rest[:, :, None])[..., 0]
        best = distance.masked_fill(taken, torch.inf).argmin(1)
        taken = taken.scatter(1, best[:, None], True)
        total = total + padded[torch.arange(len(best), device=best.device), best]
        picked.append(best)
    return torch.stack(picked, 1).cpu()


def nearest_distinct(distance: Tensor) -> Tensor:
    """Return for each row of `distance` [K,N] its nearest column not taken by a row before."""
    distance = distance.clone()
    picked = []
    for row in range(len(distance)):
        best = distance[row].argmin()
        distance[:, best] = torch.inf
        picked.append(best)
    return torch.stack(picked).cpu()


def class_rows(labels: Tensor, positions: Tensor) -> Tensor:
    """Return training image numbers, class-major, of `positions` [C,K] within their classes."""
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    return order[(starts[:, None] + positions).flatten()]


@torch.no_grad()
def all_features(run: Run, trained: bool) -> tuple[Tensor, Groups]:
    """Return features [N,D] of all training images, sorted by class, and their groups."""
    labels = run.real.source.labels
    order = labels.argsort(stable=True)
    net = run.proxies.member(0) if trained and run.proxies is not None else None
    parts = []
    for rows in order.split(run.runtime.micro_batch):
        images = run.real.fetch(rows)
        parts.append(images.flatten(1) if net is None else embed(net, images))
    return torch.cat(parts), Groups.of(labels[order], run.runtime.device)


@hookimpl
def register_methods() -> dict[str, type[Method]]:
    return {"random": Random, "herding": Herding, "kmeans": KMeans}
