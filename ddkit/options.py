"""What an option may be: annotations of ranges for the signatures of factories.

`ddkit.recipes.binding` reads them. Nothing here is slow to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """The values an annotated number may take, as in ``Annotated[int, Range(min=1)]``."""

    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = [("at least", self.min), ("above", self.above), ("at most", self.max)]
        words.append(("below", self.below))
        return " and ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)


Count = Annotated[int, Range(min=1)]
Whole = Annotated[int, Range(min=0)]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(min=0)]
Fraction = Annotated[float, Range(min=0, max=1)]
Momentum = Annotated[float, Range(min=0, below=1)]

CHAIN = "chain:"
OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""The names of the operations in `ddkit.images.augment`, here so that checking needs no torch."""


class _Strategies:
    """The strings that name a strategy."""

    def __contains__(self, value: str) -> bool:
        names = value.removeprefix(CHAIN).split("_")
        return value == "none" or (set(names) <= set(OPERATIONS) and len(set(names)) == len(names))

    def __str__(self) -> str:
        return f"'none' or names out of {', '.join(OPERATIONS)}, joined by '_'"


Strategy = Annotated[str, _Strategies()]
"""``color_crop_cutout``: one of the named operations per call (DSA). ``chain:color_crop_cutout``:
flip, then colour, then one of the rest, then cutout, as far as named (IDC, NCFM)."""
