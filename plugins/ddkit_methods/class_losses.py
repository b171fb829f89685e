"""Losses over classes that several methods share."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from ddkit.images.groups import Groups


def mean_matching(real: Tensor, real_groups: Groups, syn: Tensor, groups: Groups) -> Tensor:
    """Return the squared distance of class means, summed over feature dimensions and classes.

    `real` [M,D] and `syn` [N,D] are features of the same classes. Nothing divides by the number of
    dimensions or classes: the published learning rates belong to this scaling (DM, eq. 4).
    """
    return (real_groups.mean(real) - groups.mean(syn)).square().sum()


def classification(logits: Tensor, groups: Groups) -> Tensor:
    """Return the mean cross-entropy of each class's images, summed over classes; `logits` [N,C]."""
    each = cross_entropy(logits, groups.labels, reduction="none")
    return groups.mean(each[:, None]).sum()
