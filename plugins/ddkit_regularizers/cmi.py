"""CMI: class-aware conditional mutual information.

X. Zhong et al., "Going Beyond Feature Similarity: Effective Dataset Distillation based on
Class-Aware Conditional Mutual Information", ICLR 2025, arXiv 2412.09945.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ddkit import hookimpl
from ddkit.backbone import embed
from ddkit.images.groups import Groups
from ddkit.options import Positive
from ddkit.regularizer import Match, Regularizer


def log_centroids(features: Tensor, groups: Groups, temperature: float = 1.0) -> Tensor:
    """Return ln Q, [G,M]: of each class, the mean over its images of P = softmax(z / T).

    `features` z [N,M] are embeddings. In log space throughout: where every image of a class
    underflows on a coordinate, the released ``log(mean(softmax))`` makes 0 * infinity of it.
    """
    log_p = groups.pad(log_softmax(features / temperature, 1))
    sizes = groups.sizes(features)[:, None]
    if not groups.equal:
        columns = torch.arange(log_p.shape[1], device=log_p.device)
        log_p = log_p.masked_fill((columns >= sizes)[:, :, None], -torch.inf)
    return log_p.logsumexp(1) - sizes.log()


def conditional_information(
    features: Tensor, groups: Groups, centroids: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Return the mean over a class's images of KL(P || Q), summed over classes, in nats.

    `features` [N,M] are embeddings, P = softmax(z / T) and Q the centroid of the class: that of
    these images, or `centroids` as ln Q [G,M]. The paper's CMI, a mean over all images, is this
    divided by the number of classes, where these are of one size.
    """
    log_p = log_softmax(features / temperature, 1)
    if centroids is None:
        # The derivative by Q is zero: Q is the mean of the very P that it is compared with.
        centroids = log_centroids(features.detach(), groups, temperature)
    divergence = (log_p.exp() * (log_p - groups.spread(centroids))).sum(1)
    return groups.mean(divergence[:, None]).sum()


@dataclass
class CMI(Regularizer):
    """The images of a class are to look alike to a network trained on the real data.

    Zero where a class has a single image. Published weights belong to two scalings: divided by the
    number of classes for DM, DC and DSA (50000 there is 5000 here for CIFAR-10), as they are for
    IDC.

    Attributes:
        temperature: of the softmax over the coordinates of an embedding.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"syn", "labels", "proxy"})
    temperature: Positive = 1.0

    def loss(self, m: Match) -> Tensor:
        assert m.proxy is not None
        features = embed(m.proxy, m.syn)
        if features.dtype in (torch.bfloat16, torch.float16):  # a proxy that casts by itself
            features = features.float()
        return conditional_information(features, m.groups, temperature=self.temperature)


@hookimpl
def register_regularizers() -> dict[str, type[Regularizer]]:
    return {"cmi": CMI}
