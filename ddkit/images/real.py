"""Real images at work: the dataset that a recipe names, and batches of it drawn for all classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddkit.data import DataInfo, Dataset
from ddkit.errors import ContractError, DataError
from ddkit.images.groups import Groups
from ddkit.images.whitening import whitened
from ddkit.plugins import Plugins
from ddkit.recipes.binding import bind
from ddkit.recipes.place import Place
from ddkit.recipes.resolution import resolve, split_zca
from ddkit.recipes.sections import Part
from ddkit.runtime import randomness, storage


def make_dataset(part: Part, plugins: Plugins, place: Place, root: Path | None = None) -> Dataset:
    """Read the dataset that `part` names, under `root` (default: ddkit's data folder).

    ``zca = true`` is an option of every dataset: images are whitened after normalisation.
    """
    part, zca = split_zca(part, place)
    component, options = resolve(plugins.datasets, part, place)
    data: Dataset = bind(component.factory, options, place, root=root or storage.data_root())
    if not isinstance(data, Dataset):
        kind = type(data).__name__
        raise ContractError("dataset", f"must return a ddkit.data.Dataset, not {kind}", part.name)
    return whitened(data) if zca else data


def count_classes(info: DataInfo, labels: Tensor) -> Tensor:
    """Return how many training images each class has, int64 [C], of int64 `labels` [N].

    Raises:
        DataError: a class has none.
    """
    counts = torch.bincount(labels, minlength=info.num_classes)
    if bool((counts == 0).any()):
        empty = info.classes[int((counts == 0).nonzero()[0])]
        raise DataError(f"{info.name}: the class {empty!r} has no training images")
    return counts


class RealImages:
    """Batches of the training split, on the device, normalised; drawn without a class loop.

    Which images a step sees depends on (seed, stream, step) alone: draws are made for all classes
    and then sliced.
    """

    def __init__(self, dataset: Dataset, seed: int, device: torch.device):
        self.info = dataset.info.to(device)
        self.source = dataset.train.to(device)
        self.seed = seed
        self.device = device
        self.drawn = 0  # images fetched so far, for the display
        labels = self.source.labels
        counts = count_classes(self.info, labels)
        self.counts: list[int] = counts.tolist()
        order = labels.argsort(stable=True)
        starts = counts.cumsum(0) - counts
        columns = torch.arange(int(counts.max()))
        inside = columns < counts[:, None]
        self._table = order[(starts[:, None] + columns).clamp_max(len(order) - 1)].to(device)
        self._outside = ~inside
        self._last: tuple[Any, Tensor] | None = None
        self._decks: dict[tuple[str, int], tuple[int, Tensor]] = {}
        self._groups: dict[Any, tuple[Groups, Tensor]] = {}

    def sample(
        self, classes: Tensor, per_class: int, step: int, stream: str = "real"
    ) -> tuple[Tensor, Groups]:
        """Draw distinct random images of each of `classes` (int64 [G], CPU, ascending).

        A class with fewer than `per_class` images gives all of them.

        Returns:
            Normalised images [n,C,H,W], class-major, and their groups.
        """
        index = self._draw(per_class, step, stream)
        key = (tuple(classes.tolist()), per_class)
        if key not in self._groups:
            counts = torch.tensor([min(per_class, self.counts[c]) for c in key[0]])
            valid = torch.arange(index.shape[1]) < counts[:, None]
            labels = classes.repeat_interleave(counts)
            cells = classes[:, None] * index.shape[1] + torch.arange(index.shape[1])
            self._groups[key] = (Groups.of(labels, self.device), cells[valid].to(self.device))
        groups, cells = self._groups[key]
        return self.fetch(index.flatten()[cells]), groups

    def cycle(
        self, classes: Tensor, per_class: int, step: int, stream: str = "real"
    ) -> tuple[Tensor, Groups]:
        """Take the next images of each class, as `sample` does, from an endlessly reshuffled deck.

        A class is gone through in batches of `per_class`, the incomplete last one dropped, before
        any image comes again.
        """
        taken = []
        for c in classes.tolist():
            lap, place = divmod(step, max(1, self.counts[c] // per_class))
            deck = self._deck(c, lap, stream)
            taken.append(deck[place * per_class : (place + 1) * per_class])
        labels = classes.repeat_interleave(torch.tensor([len(t) for t in taken]))
        return self.fetch(torch.cat(taken)), Groups.of(labels, self.device)

    def first(self, classes: Tensor, per_class: int) -> tuple[Tensor, Groups]:
        """Return the first `per_class` images of each class in dataset order, as `sample` does."""
        counts = torch.tensor([min(per_class, self.counts[c]) for c in classes.tolist()])
        valid = torch.arange(per_class) < counts[:, None]
        index = self._table[classes.to(self.device), :per_class][valid.to(self.device)]
        return self.fetch(index), Groups.of(classes.repeat_interleave(counts), self.device)

    def choose(self, per_class: int, step: int, stream: str) -> Tensor:
        """Return the numbers of randomly drawn images, int64 [n] on the CPU, class-major."""
        index = self._draw(per_class, step, stream).cpu()
        counts = torch.tensor(self.counts).clamp_max(per_class)
        return index[torch.arange(index.shape[1]) < counts[:, None]]

    def fetch(self, index: Tensor) -> Tensor:
        """Return the normalised training images at `index` (int64 [n])."""
        self.drawn += len(index)
        return self.info.normalize(self.source.fetch(index).float().div_(255))

    def _deck(self, c: int, lap: int, stream: str) -> Tensor:
        """Return all image numbers of class `c`, shuffled for the given lap."""
        kept = self._decks.get((stream, c))
        if kept is None or kept[0] != lap:
            rng = randomness.generator(self.seed, f"{stream}-deck", lap, c)
            order = torch.randperm(self.counts[c], generator=rng).to(self.device)
            kept = self._decks[(stream, c)] = (lap, self._table[c][order])
        return kept[1]

    def _draw(self, per_class: int, step: int, stream: str) -> Tensor:
        """Return drawn image numbers of every class, [C,k]; short classes are filled up."""
        key = (per_class, step, stream)
        if self._last is None or self._last[0] != key:
            rng = randomness.generator(self.seed, stream, step)  # on the CPU, for all devices alike
            keys = torch.rand(self._table.shape, generator=rng).masked_fill_(self._outside, -1.0)
            chosen = keys.topk(min(per_class, keys.shape[1]), dim=1).indices
            self._last = (key, self._table.gather(1, chosen.to(self.device)))
        return self._last[1]
