"""Regularizers: terms that any method's matching step takes along.

A regularizer declares the names of the `Match` fields that it reads; whichever method supplies
them can carry it. It sums a within-class statistic over classes, so that chunks of classes add up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor, nn

from ddkit.errors import ContractError
from ddkit.images.groups import Groups


@dataclass(frozen=True, kw_only=True)
class Match:
    """One comparison of synthetic with real images, of whole classes.

    Attributes:
        syn: decoded, normalised, unaugmented images [N,C,H,W]; differentiable.
        groups: the classes of the rows of `syn`.
        syn_view: `syn` after augmentation.
        real_view: real images after the same augmentation, [M,C,H,W].
        real_groups: the classes of the rows of `real_view`.
        syn_maps: local features [N,C,P] of `syn_view` from the method's network.
        real_maps: the same of `real_view`, without gradient.
        proxy: a network trained on real data, frozen, drawn from ``[proxies]``; where a term
            reads it and the method left it out, `Run.backward` draws one anew each step.
    """

    syn: Tensor
    groups: Groups
    syn_view: Tensor | None = None
    real_view: Tensor | None = None
    real_groups: Groups | None = None
    syn_maps: Tensor | None = None
    real_maps: Tensor | None = None
    proxy: nn.Module | None = None

    @property
    def labels(self) -> Tensor:
        """The class of each row of `syn`, int64 [N]."""
        return self.groups.labels

    @property
    def real_labels(self) -> Tensor | None:
        """The class of each row of `real_view`, int64 [M]."""
        return None if self.real_groups is None else self.real_groups.labels


FIELDS = frozenset(f.name for f in fields(Match)) | {
    name for name, value in vars(Match).items() if isinstance(value, property)
}
"""All that a `Match` has, by name."""


class Regularizer(ABC):
    """A penalty on the synthetic images; options are the fields of a dataclass."""

    requires: ClassVar[frozenset[str]]
    """Names out of `FIELDS` that `loss` reads."""

    @abstractmethod
    def loss(self, m: Match) -> Tensor:
        """Return the penalty, summed over the classes of `m`; a scalar, unweighted."""


@dataclass(frozen=True)
class Term:
    """A weighted regularizer under its recipe name."""

    name: str
    weight: float
    regularizer: Regularizer

    def penalty(self, m: Match) -> Tensor:
        """Return the weighted loss.

        Raises:
            ContractError: `m` lacks what the regularizer reads; its loss is no scalar tensor.
        """
        lacking = [n for n in sorted(self.regularizer.requires) if getattr(m, n) is None]
        if lacking:
            raise ContractError(
                "method",
                f"the Match that it gives to run.backward lacks {', '.join(lacking)}, "
                f"which regularizer {self.name!r} reads",
            )
        loss = self.regularizer.loss(m)
        check_scalar(loss, "regularizer", "loss must return", self.name.partition("#")[0])
        return self.weight * loss


def check_scalar(value: object, kind: str, must: str, name: str = "") -> None:
    """Refuse what is no tensor of one number.

    Raises:
        ContractError: `must`, and what it is instead.
    """
    if not isinstance(value, Tensor):
        instead = f"a value of type {type(value).__name__}"
    elif value.ndim:
        instead = f"one of shape {list(value.shape)}; sum it over the classes"
    else:
        return
    raise ContractError(kind, f"{must} a scalar tensor, not {instead}", name)
