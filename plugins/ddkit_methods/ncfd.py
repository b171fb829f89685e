"""NCFD, the discrepancy of characteristic functions at given frequencies.

S. Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective",
CVPR 2025, arXiv 2502.20653.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from ddkit.images.groups import Groups

PHASE_FLOOR = 1e-12  # of the squared phase term, whose root has no slope at 0
BLOCK = 1 << 24  # projections of real features that are held at once


def characteristic(features: Tensor, groups: Groups, t: Tensor) -> Tensor:
    """Return the empirical characteristic function of each class at `t` [K,D], [G,K,2].

    The class mean of ``exp(j <t_k, f>)`` over unit-length features f [N,D], as cosine and sine.
    """
    unit = normalize(features)
    size = max(1, BLOCK // max(1, len(unit)))
    parts = []
    for some in t.split(size):  # bounds memory where no gradient is taken
        angle = unit @ some.T
        parts.append(groups.mean(torch.stack([angle.cos(), angle.sin()], -1)))
    return torch.cat(parts, 1)


def discrepancy(real: Tensor, syn: Tensor, amplitude: float = 0.5, phase: float = 0.5) -> Tensor:
    """Return the distance of characteristic functions [G,K,2], averaged over k, [G].

    With ``A = |real| - |syn|`` and ``P = |real - syn|^2 - A^2``, which is
    ``2 |real| |syn| (1 - cos(difference of phases))``::

        (1/K) sum_k sqrt(amplitude * A_k^2 + phase * max(P_k, 1e-12))

    P is the difference of squares and not the textbook product, which loses all digits in float32
    where the two functions are close. Equal functions have no gradient, and no NaN.
    """
    apart = vector_norm(real, dim=-1) - vector_norm(syn, dim=-1)
    squared = (real - syn).square().sum(-1) - apart.square()
    turned = squared.clamp_min(PHASE_FLOOR).sqrt()
    both = torch.stack([amplitude**0.5 * apart, phase**0.5 * turned], -1)
    return vector_norm(both, dim=-1).mean(-1)


def ncfd(
    real: Tensor,
    real_groups: Groups,
    syn: Tensor,
    groups: Groups,
    t: Tensor,
    amplitude: float = 0.5,
    phase: float = 0.5,
) -> Tensor:
    """Return the discrepancy of features `real` [M,D] and `syn` [N,D], summed over classes."""
    functions = characteristic(real, real_groups, t), characteristic(syn, groups, t)
    return discrepancy(*functions, amplitude, phase).sum()
