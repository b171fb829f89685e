"""Losses over classes that several methods share."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from ddkit.groups import Groups


def classification(logits: Tensor, groups: Groups) -> Tensor:
    """Return the mean cross-entropy of each class's images, summed over classes; `logits` [N,C]."""
    each = cross_entropy(logits, groups.labels, reduction="none")
    return groups.mean(each[:, None]).sum()
