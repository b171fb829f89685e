"""IID: class centralization and covariance matching.

W. Deng et al., "Exploiting Inter-sample and Inter-feature Relations in Dataset Distillation", CVPR
2024, arXiv 2404.00563. Published weights (CIFAR-10, ipc 10 only): on DM centralize 0.05, covariance
0.01; on IDM 0.01 and 0.03. With one image per class both are constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddkit import hookimpl
from ddkit.backbone import embed
from ddkit.images.groups import Groups
from ddkit.options import NonNegative
from ddkit.regularizer import Match, Regularizer


def centralization(
    features: Tensor, groups: Groups, alpha: float = 0.0, beta: float = 0.0
) -> Tensor:
    """Return the squared distance of each feature [N,D] to its class mean, summed over all.

    The released form (`alpha` 0) is a sum over samples, not a mean. With `alpha` above 0, the
    paper's hinge: ``max(0, exp(alpha d^2) - beta)`` of each distance d.
    """
    distance = (features - groups.spread(groups.mean(features))).square().flatten(1).sum(1)
    if alpha > 0:
        distance = (torch.exp(alpha * distance) - beta).relu()
    return distance.sum()


def covariances(maps: Tensor, groups: Groups) -> Tensor:
    """Return the covariance of channels over local features [N,C,P] of each class, [G,C,C].

    Centred over the samples at each position separately; products are summed over positions and
    averaged over samples.
    """
    centred = maps - groups.spread(groups.mean(maps))
    rows = groups.pad(centred).transpose(1, 2).flatten(2)  # [G, C, samples * positions]
    return rows @ rows.mT / groups.sizes(maps)[:, None, None]


def covariance_matching(real: Tensor, real_groups: Groups, syn: Tensor, groups: Groups) -> Tensor:
    """Return the squared Frobenius distance of the covariances, summed over classes.

    `real` [M,C,P] and `syn` [N,C,P] are local features of the same classes.
    """
    return (covariances(real, real_groups) - covariances(syn, groups)).square().sum()


@dataclass
class Centralize(Regularizer):
    """Class centralization: the synthetic images of a class lie together for a trained network.

    Grows with ipc, being a sum over samples: a weight per sample is the natural first guess.

    Attributes:
        alpha: rate of the paper's exponential hinge; 0 is the released form without it.
        beta: where that hinge begins.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"syn_view", "labels", "proxy"})
    alpha: NonNegative = 0.0
    beta: NonNegative = 0.0

    def loss(self, m: Match) -> Tensor:
        assert m.proxy is not None and m.syn_view is not None
        return centralization(embed(m.proxy, m.syn_view), m.groups, self.alpha, self.beta)


@dataclass
class Covariance(Regularizer):
    """Covariance matching: channels vary together in synthetic images as in real ones."""

    requires: ClassVar[frozenset[str]] = frozenset(
        {"syn_maps", "labels", "real_maps", "real_labels"}
    )

    def loss(self, m: Match) -> Tensor:
        assert m.real_maps is not None and m.real_groups is not None and m.syn_maps is not None
        return covariance_matching(m.real_maps, m.real_groups, m.syn_maps, m.groups)


@hookimpl
def register_regularizers() -> dict[str, type[Regularizer]]:
    return {"centralize": Centralize, "covariance": Covariance}
