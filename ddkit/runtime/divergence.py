"""Divergence: which class's gradient was first not finite, and when; all kept on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NEVER = 2**62


@dataclass(frozen=True)
class Divergence:
    """The first step that was not finite, and the numbers of the classes that showed it."""

    step: int
    classes: tuple[int, ...]

    def told(self, names: Sequence[str]) -> str:
        """Return the classes in words; empty where the gradient was none of the images'."""
        if not self.classes:
            return ""
        if len(self.classes) == len(names):
            return "all classes"
        shown = ", ".join(repr(names[c]) for c in self.classes[:3])
        more = f" and {len(self.classes) - 3} more" if len(self.classes) > 3 else ""
        return f"{'class' if len(self.classes) == 1 else 'classes'} {shown}{more}"


class Watch:
    """Looks at gradients without waiting for the device."""

    def __init__(self, images: nn.Parameter, labels: Tensor, num_classes: int):
        self._images = images
        self._labels = labels.to(images.device)
        self._first = torch.full((num_classes + 1,), NEVER, device=images.device)

    def look(self, parameter: Tensor, grad: Tensor, step: int) -> Tensor:
        """Return whether `grad`, that of `parameter`, has a value that is not finite, bool [].

        Of the images' gradient it is remembered by class; of any other, at the end.
        """
        hits = torch.zeros(len(self._first), device=grad.device)
        if parameter is self._images:
            rows = ~torch.isfinite(grad).flatten(1).all(1)
            hits.index_add_(0, self._labels, rows.float())
        else:
            hits[-1] = (~torch.isfinite(grad)).any()
        now = torch.where(hits > 0, step, NEVER)
        self._first = torch.minimum(self._first, now)
        return (hits > 0).any()

    def found(self) -> Divergence | None:
        """Return what was first not finite, or None; waits for the device."""
        first = self._first.tolist()
        step = min(first)
        if step == NEVER:
            return None
        return Divergence(step, tuple(c for c, at in enumerate(first[:-1]) if at == step))
