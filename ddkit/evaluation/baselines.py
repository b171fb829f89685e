"""Random real images beside a set, as many of them; and data as a set is judged on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ddkit.data import Dataset
from ddkit.errors import IncompatibleError, near, shown
from ddkit.images.formation import Formation
from ddkit.images.real import RealImages, of_classes
from ddkit.images.synthetic import SyntheticSet

Draw = Callable[[int], SyntheticSet]
"""What network number k trains on."""


def baselines(syn: SyntheticSet, real: RealImages) -> Iterable[tuple[str, Draw]]:
    """Yield the random sets that `syn` is compared with, each as a function of a number."""
    lacking = no_baseline(syn, real.counts)
    if lacking:
        raise IncompatibleError(f"{lacking}; use --no-baseline")
    counts, formation = per_class(syn), syn.formation
    yield "random", lambda k: random_set(real, counts, Formation(), k)
    if formation.factor > 1:
        name = f"random {formation.factor}x{formation.factor}"
        yield name, lambda k: random_set(real, counts, formation, k)


def per_class(syn: SyntheticSet) -> Tensor:
    """Return how many images `syn` stores of each class, int64 [K]."""
    return torch.bincount(syn.labels, minlength=syn.info.num_classes)


def random_set(real: RealImages, counts: Tensor, formation: Formation, k: int) -> SyntheticSet:
    """Return draw number `k` of as many random real images (or mosaics of them) as `counts` says.

    `counts`, int64 [K] on the CPU, are those of each class. Every image, every tile of a mosaic, is
    another one.
    """
    labels = torch.arange(real.info.num_classes).repeat_interleave(counts)
    most = int(counts.max()) * formation.pieces
    drawn = real.choose(most, k, "baseline")  # class-major; of a class fewer than that, all
    images = real.fetch(drawn[_tiles(torch.tensor(real.counts).clamp_max(most), counts, formation)])
    return SyntheticSet(nn.Parameter(formation.compose(images)), labels, real.info, formation)


def _tiles(drawn: Tensor, counts: Tensor, formation: Formation) -> Tensor:
    """Return the rows that mosaics take, piece-major, of images of which `drawn` are of each class.

    Both int64 [K]; of a class the first ``counts * pieces`` rows are taken.
    """
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    within = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels]
    first = (drawn.cumsum(0) - drawn)[labels] + within
    pieces = torch.arange(formation.pieces)[:, None] * counts[labels]
    return (first + pieces).flatten()


def no_baseline(syn: SyntheticSet, counts: Sequence[int]) -> str | None:
    """Return why there are no random sets beside `syn`, given the images per class, or None."""
    need = (per_class(syn) * syn.formation.pieces).tolist()
    lacking = [c for c, (n, has) in enumerate(zip(need, counts, strict=True)) if n > has]
    if not lacking:
        return None
    first = lacking[0]
    return (
        f"the random baseline needs {need[first]} images of class "
        f"{syn.info.classes[first]!r}, but {syn.info.name} has {counts[first]}"
    )


def check_data(syn: SyntheticSet, data: Dataset) -> None:
    """Refuse data that the set was not made for; other images of its classes are welcome.

    Raises:
        IncompatibleError: other shape or classes. Its mean and deviation may be others: the set's
            own are what judges see.
    """
    for what in ("shape", "classes"):
        ours, theirs = getattr(syn.info, what), getattr(data.info, what)
        if ours != theirs:
            raise IncompatibleError(
                f"the set was made for {shown(syn.info.name)} with {what} {_short(ours)}, but the "
                f"test data {shown(data.info.name)} has {_short(theirs)}"
            )


def fitted(syn: SyntheticSet, data: Dataset, note: Callable[[str], None]) -> Dataset:
    """Return `data` as `syn` is judged on it: its classes in the set's order, its statistics.

    Classes are found by name; those that the set does not have are left out. `note` is told of
    every way in which the data was not as the set is.

    Raises:
        IncompatibleError: other shape, or a class of the set that the data lacks.
    """
    name, ours, theirs = shown(data.info.name), syn.info.classes, data.info.classes
    lacking = [one for one in ours if one not in theirs]
    if lacking:
        raise IncompatibleError(
            f"the set has {len(lacking)} of {len(ours)} classes that the test data {name} lacks, "
            f"the first {shown(lacking[0])!r}{near(lacking[0], theirs)}; classes are found by name"
        )
    if ours != theirs:
        if len(theirs) > len(ours):
            note(f"test data {name}: the set's {len(ours)} of its {len(theirs)} classes are taken")
        else:
            i = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
            note(
                f"test data {name}: its classes come in another order (number {i} is "
                f"{shown(theirs[i])!r} there, {shown(ours[i])!r} in the set); they go by name"
            )
        data = of_classes(data, [theirs.index(one) for one in ours])
    check_data(syn, data)
    for what in ("mean", "std"):
        if getattr(syn.info, what) != getattr(data.info, what):
            own, other = (_short(getattr(info, what)) for info in (syn.info, data.info))
            note(f"test data {name}: normalised by the set's {what}, {own}, not its own {other}")
    tested = data.tested
    if data.info.name != syn.info.name:
        tested = f"{tested or 'the test images'} of {data.info.name}"
    return replace(data, info=syn.info, tested=tested)


def _short(value: tuple[Any, ...]) -> str:
    text = shown(", ".join(map(str, value[:4])))
    return f"({text}, … {len(value)} in all)" if len(value) > 4 else f"({text})"
