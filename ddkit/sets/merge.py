"""Sets joined by the names of their classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ddkit.errors import IncompatibleError, shown
from ddkit.images.set_file import LONGEST_NAME
from ddkit.images.synthetic import SyntheticSet


def merged(
    sets: Sequence[SyntheticSet],
    names: Sequence[str],
    digests: Sequence[str],
    note: Callable[[str], None],
) -> SyntheticSet:
    """Return one set of the images of all `sets`, whose files have `names` and `digests`.

    Classes come in the order in which they first appear; those of several sets have the images of
    all. Everything is normalised as the first set is. Of the recipes stays what is the same in
    all. `note` is told of images that were converted and of soft labels that were left out.

    Raises:
        IncompatibleError: they differ in shape, space or formation.
        DataError: a set's whitening cannot be undone.
    """
    first = sets[0]
    for syn, name in zip(sets[1:], names[1:], strict=True):
        ours = {"shape": first.info.shape, "space": first.space, "formation": first.formation}
        theirs = {"shape": syn.info.shape, "space": syn.space, "formation": syn.formation}
        for what, value in ours.items():
            if value != theirs[what]:
                raise IncompatibleError(
                    f"{shown(name)}: has the {what} {theirs[what]}, but {shown(names[0])} has "
                    f"{value}; sets are merged that agree in it"
                )
    classes = tuple(dict.fromkeys(one for syn in sets for one in syn.info.classes))
    places = [torch.tensor([classes.index(c) for c in syn.info.classes]) for syn in sets]
    labels = torch.cat([at[syn.labels] for syn, at in zip(sets, places, strict=True)])
    images = torch.cat([_converted(s, first, n, note) for s, n in zip(sets, names, strict=True)])
    order = labels.argsort(stable=True)
    soft = _soft(sets, places, len(classes), note)
    title = "+".join(dict.fromkeys(syn.info.name for syn in sets))[:LONGEST_NAME]
    kept = {k: v for k, v in first.recipe.items() if all(s.recipe.get(k) == v for s in sets)}
    return SyntheticSet(
        nn.Parameter(images[order]),
        labels[order],
        replace(first.info, name=title, classes=classes),
        first.formation,
        first.space,
        None if soft is None else soft[order],
        {k: v for k, v in kept.items() if k in ("dataset", "backbone", "eval", "runtime")},
        {"merged": list(digests), "files": list(names)},
    )


def _converted(
    syn: SyntheticSet, first: SyntheticSet, name: str, note: Callable[[str], None]
) -> Tensor:
    """Return the stored images of `syn`, normalised as those of `first` are."""
    images, own, wanted = syn.images.detach(), syn.info, first.info
    whitened = [i.whitening and i.whitening.fingerprint for i in (own, wanted)]
    same = (own.mean, own.std, whitened[0]) == (wanted.mean, wanted.std, whitened[1])
    if syn.space == "pixel" or same:
        return images
    note(f"{shown(name)}: its images are converted to the normalisation of the first set")
    return wanted.normalize(own.denormalize(images))


def _soft(
    sets: Sequence[SyntheticSet], places: Sequence[Tensor], count: int, note: Callable[[str], None]
) -> Tensor | None:
    """Return probabilities of all `count` classes, float32 [n,K], where every set has them."""
    if any(syn.soft is None for syn in sets):
        if any(syn.soft is not None for syn in sets):
            note("soft labels are left out: not all of these sets have them")
        return None
    rows = []
    for syn, at in zip(sets, places, strict=True):
        if syn.soft is not None:
            row = torch.zeros(len(syn), count)
            row[:, at] = syn.soft
            rows.append(row)
    return torch.cat(rows)
