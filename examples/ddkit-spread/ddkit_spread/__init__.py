"""Keep the images of one class apart in the embedding of a network trained on the real data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from ddkit import hookimpl
from ddkit.backbone import embed
from ddkit.options import Range
from ddkit.regularizer import Match, Regularizer


@dataclass
class Spread(Regularizer):
    """The cosine similarity above `margin` of two images of one class, summed over all pairs.

    Attributes:
        margin: the similarity up to which a pair costs nothing.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"syn", "labels", "proxy"})
    margin: Annotated[float, Range(min=-1, max=1)] = 0.2

    def loss(self, m: Match) -> Tensor:
        if m.proxy is None:
            raise ValueError("spread needs a proxy; ddkit supplies one, since it is required")
        directions = normalize(embed(m.proxy, m.syn))
        pairs = (m.labels[:, None] == m.labels).triu(1)
        return ((directions @ directions.T - self.margin).relu() * pairs).sum()


@hookimpl
def register_regularizers() -> dict[str, type[Regularizer]]:
    return {"spread": Spread}
