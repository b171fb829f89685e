"""Real images at work: the dataset that a recipe names, and batches of it drawn for all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddkit.data import DataInfo, Dataset, ImageSource, MemoryImages
from ddkit.errors import ContractError, DataError, RecipeError, near
from ddkit.images.groups import Groups
from ddkit.images.whitening import whitened
from ddkit.plugins import Plugins
from ddkit.recipes.binding import bind
from ddkit.recipes.place import Place
from ddkit.recipes.resolution import resolve, split_dataset
from ddkit.recipes.sections import Part
from ddkit.runtime import randomness, storage


def make_dataset(part: Part, plugins: Plugins, place: Place, root: Path | None = None) -> Dataset:
    """Read the dataset that `part` names, under `root` (default: ddkit's data folder).

    The options of `DatasetKeys` are those of every dataset: first ``classes``, then ``hold_out``,
    then ``zca``, which whitens after normalisation.
    """
    part, own = split_dataset(part, place)
    component, options = resolve(plugins.datasets, part, place)
    data: Dataset = bind(component.factory, options, place, root=root or storage.data_root())
    if not isinstance(data, Dataset):
        kind = type(data).__name__
        raise ContractError("dataset", f"must return a ddkit.data.Dataset, not {kind}", part.name)
    if own.classes is not None:
        data = of_classes(data, _numbers(own.classes, data.info, place / "classes"))
    if own.hold_out is not None:
        data = held_out(data, own.hold_out, place / "hold_out")
    return whitened(data) if own.zca else data


class Chosen:
    """Some images of a source, with labels of their own."""

    def __init__(self, source: ImageSource, rows: Tensor, labels: Tensor):
        """Take the numbers of the images in `source`, int64 [n], and their `labels`, int64 [n]."""
        self._source, self._rows, self.labels = source, rows, labels

    def fetch(self, index: Tensor) -> Tensor:
        return self._source.fetch(self._rows[index.cpu()])

    def to(self, device: torch.device) -> Chosen:
        return Chosen(self._source.to(device), self._rows, self.labels)

    def fingerprint(self) -> str:
        chosen = self._rows.numpy().tobytes() + self.labels.numpy().tobytes()
        return blake2b(self._source.fingerprint().encode() + chosen, digest_size=16).hexdigest()


def choose(source: ImageSource, rows: Tensor, labels: Tensor) -> ImageSource:
    """Return the images `rows`, int64 [n], of `source` alone, labelled `labels`, int64 [n]."""
    if isinstance(source, MemoryImages):  # the others' memory is given back
        return MemoryImages(source.images[rows.to(source.images.device)], labels)
    return Chosen(source, rows, labels)


def of_classes(data: Dataset, numbers: Sequence[int]) -> Dataset:
    """Return the images of `data` that are of the classes `numbers`, labelled in that order."""
    new = torch.full((data.info.num_classes,), -1)
    new[list(numbers)] = torch.arange(len(numbers))

    def of(source: ImageSource) -> ImageSource:
        rows = (new[source.labels] >= 0).nonzero()[:, 0]
        return choose(source, rows, new[source.labels[rows]])

    info = replace(data.info, classes=tuple(data.info.classes[n] for n in numbers))
    return replace(data, info=info, train=of(data.train), test=of(data.test))


def _numbers(wanted: Sequence[str | int], info: DataInfo, place: Place) -> list[int]:
    """Return the numbers of classes that are given by name or number.

    Raises:
        RecipeError: there is none of a name or number, one comes twice, or they are fewer than two.
    """
    found: list[int] = []
    for i, one in enumerate(wanted):
        here, number = place / str(i), one if isinstance(one, int) else -1
        if isinstance(one, str):
            if one not in info.classes:
                hint = near(one, info.classes) or "; numbers are written without quotes"
                raise RecipeError(f"{here}: {info.name} has no class called {one!r}{hint}")
            number = info.classes.index(one)
        if not 0 <= number < info.num_classes:
            raise RecipeError(
                f"{here}: {info.name} has the classes 0 to {info.num_classes - 1}, not {number}"
            )
        if number in found:
            raise RecipeError(f"{here}: the class {info.classes[number]!r} is named twice")
        found.append(number)
    if len(found) < 2:
        raise RecipeError(f"{place}: names {len(found)}; two classes are needed at least")
    return found


def held_out(data: Dataset, share: float, place: Place) -> Dataset:
    """Return `data` tested on `share` of its training images, which are drawn of each class.

    The same images are drawn whatever a recipe's seed is: runs of other seeds can be compared.

    Raises:
        RecipeError: a class has one training image alone.
    """
    labels = data.train.labels
    counts = count_classes(data.info, labels)
    if int(counts.min()) < 2:
        single = data.info.classes[int(counts.argmin())]
        raise RecipeError(f"{place}: the class {single!r} has one training image, none to hold out")
    keys = torch.rand(len(labels), generator=randomness.generator(0, "hold-out"))
    order = (labels + keys.double()).argsort()  # by class, and within a class by chance
    within = torch.empty_like(order)
    within[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[labels[order]]
    taken = (counts * share).round().long().clamp_min(1).minimum(counts - 1)
    out = within < taken[labels]
    parts = [rows.nonzero()[:, 0] for rows in (~out, out)]
    train, test = (choose(data.train, rows, labels[rows]) for rows in parts)
    words = f"{100 * share:g} % of the training images, held out"
    return replace(data, train=train, test=test, tested=words)


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
