"""Which rows of a batch belong to which class, and statistics over them without a class loop.

Sizes are known on the host, so nothing here waits for the device; classes may differ in size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """The classes of a batch of N rows.

    Attributes:
        labels: int64 [N], on the device of the batch.
        host: the same on the CPU.
        classes: the G distinct classes, ascending.
        counts: rows of each of them.
        order: int64 [N], the rows sorted by class; None where they are already.
    """

    labels: Tensor
    host: Tensor
    classes: tuple[int, ...]
    counts: tuple[int, ...]
    order: Tensor | None

    @classmethod
    def of(cls, labels: Tensor, device: torch.device | str | None = None) -> Groups:
        """Group rows by `labels`, int64 [N], best given on the CPU (else one synchronisation)."""
        host = labels.cpu()
        device = labels.device if device is None else torch.device(device)
        classes, counts = torch.unique(host, return_counts=True)
        in_order = bool((host[1:] >= host[:-1]).all())
        order = None if in_order else host.argsort(stable=True).to(device)
        return cls(host.to(device), host, tuple(classes.tolist()), tuple(counts.tolist()), order)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def equal(self) -> bool:
        """Whether all classes have the same number of rows."""
        return len(set(self.counts)) == 1

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of `x` [N, …] over the rows of each class, [G, …]."""
        rows = self._sorted(x)
        if self.equal:
            return rows.unflatten(0, (len(self), -1)).mean(1)
        weights = torch.zeros(len(self), len(x), dtype=x.dtype)
        start = 0
        for group, count in enumerate(self.counts):
            weights[group, start : start + count] = 1 / count
            start += count
        means = weights.to(x.device) @ rows.reshape(len(rows), -1)
        return means.view(len(self), *x.shape[1:])

    def pad(self, x: Tensor) -> Tensor:
        """Return `x` [N, …] as [G, max(counts), …], short classes filled up with zeros."""
        rows = self._sorted(x)
        if self.equal:
            return rows.unflatten(0, (len(self), -1))
        padded = x.new_zeros(len(self) * max(self.counts), *x.shape[1:])
        padded = padded.index_copy(0, self._slots(x.device), rows)
        return padded.unflatten(0, (len(self), -1))

    def spread(self, per_class: Tensor) -> Tensor:
        """Return the row of `per_class` [G, …] that belongs to each row of the batch, [N, …]."""
        counts = torch.tensor(self.counts, device=per_class.device)
        rows = per_class.repeat_interleave(counts, 0, output_size=sum(self.counts))
        if self.order is None:
            return rows
        return rows[self.order.argsort()]

    def sizes(self, like: Tensor) -> Tensor:
        """Return the counts as a tensor [G] of the type and device of `like`."""
        return torch.tensor(self.counts, dtype=like.dtype, device=like.device)

    def _sorted(self, x: Tensor) -> Tensor:
        return x if self.order is None else x[self.order]

    def _slots(self, device: torch.device) -> Tensor:
        width = max(self.counts)
        slots = [g * width + torch.arange(n) for g, n in enumerate(self.counts)]
        return torch.cat(slots).to(device)
