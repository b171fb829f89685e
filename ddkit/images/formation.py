"""Formation: how stored images become training images (mosaics that decode to full size).

J.-H. Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ddkit.options import Count

MOST = 1024  # training images of one stored image: more is no mosaic, but a demand for memory


@dataclass(frozen=True)
class Formation:
    """A stored image is a mosaic of `factor` x `factor` tiles, each enlarged to full size.

    `order` is the order in which tiles are read: row-major (IDC, NCFM) or column-major (IDM).
    `init_resize` shrinks real images into tiles; enlarging is always bilinear. `kind` says how a
    stored image is read: ``single`` with `factor`; ``multi`` with each of 1 to `factor`; ``bound``
    with the greatest factor that leaves its class at most `bound` training images.
    """

    factor: Count = 1
    order: Literal["row", "column"] = "row"
    init_resize: Literal["nearest", "bilinear"] = "bilinear"
    kind: Literal["single", "multi", "bound"] = "single"
    bound: Count = 128

    @property
    def pieces(self) -> int:
        """Tiles of a mosaic: real images that one stored image starts from."""
        return self.factor**2

    @property
    def most(self) -> int:
        """Training images that one stored image gives, at most."""
        return sum(f**2 for f in range(1, self.factor + 1)) if self.kind == "multi" else self.pieces

    def unfit(self, height: int, width: int) -> str | None:
        """Return why images of `height` x `width` cannot be mosaics of this kind, or None."""
        factors = (self.factor,) if self.kind == "single" else range(1, self.factor + 1)
        for f in factors:
            if any((f - 1) * -(-side // f) >= side for side in (height, width)):
                return (
                    f"{f} x {f} tiles do not fit images of {height}x{width}: the last would be "
                    f"padding alone"
                )
        if self.most > MOST:
            return f"one image would give {self.most} training images; {MOST} is the most"
        return None

    def decode(self, x: Tensor, fill: float = 0.0, labels: Tensor | None = None) -> Tensor:
        """Return the tiles of `x` [n,C,H,W] at full size, [N,C,H,W], tile-major.

        First the first tile of all n images, then the second. Sizes that the factor does not
        divide are padded right and bottom with `fill`. `labels` [n], on the CPU, are the classes of
        `x` (default: all one), which ``bound`` has to know.
        """
        if self.kind == "single":
            return self._tiles(x, self.factor, fill)
        plan = self._plan(_one_class(x) if labels is None else labels)
        return torch.cat([self._tiles(x[rows.to(x.device)], f, fill) for f, rows in plan])

    def tile_labels(self, values: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the labels (or rows of soft labels) of what `decode` returns."""
        if self.kind == "single":
            return _repeated(values, self.pieces)
        plan = self._plan(_one_class(values) if labels is None else labels)
        return torch.cat([_repeated(values[rows.to(values.device)], f**2) for f, rows in plan])

    def _tiles(self, x: Tensor, factor: int, fill: float) -> Tensor:
        if factor == 1:
            return x
        height, width = x.shape[-2:]
        x = pad(x, (0, -width % factor, 0, -height % factor), value=fill)
        tile_h, tile_w = x.shape[-2] // factor, x.shape[-1] // factor
        tiles = x.unflatten(2, (factor, tile_h)).unflatten(4, (factor, tile_w))
        axes = (2, 4) if self.order == "row" else (4, 2)
        tiles = tiles.permute(*axes, 0, 1, 3, 5).flatten(0, 2)
        return interpolate(tiles, size=(height, width), mode="bilinear", align_corners=False)

    def _plan(self, labels: Tensor) -> list[tuple[int, Tensor]]:
        """Return which rows, int64 on the CPU, are read with which factor, in order."""
        rows = torch.arange(len(labels))
        if self.kind == "multi":
            return [(f, rows) for f in range(1, self.factor + 1)]
        counts = torch.bincount(labels)
        within = torch.zeros_like(labels)  # which image of its class a row is
        within[labels.argsort(stable=True)] = torch.cat([torch.arange(int(n)) for n in counts])
        reach = torch.tensor([self._reach(int(n)) for n in counts])[labels]  # [n, factor]
        chosen = self.factor - (within[:, None] >= reach).sum(1)
        return [(f, rows[chosen == f]) for f in range(self.factor, 0, -1) if (chosen == f).any()]

    def _reach(self, count: int) -> list[int]:
        """Return up to which of `count` images each factor, the greatest first, is used."""
        taken, made, reach = 0, 0, []
        for f in range(self.factor, 0, -1):
            left = count - taken
            free = self.bound - made - left
            take = left if f == 1 else max(0, min(free // f**2, left))
            taken, made = taken + take, made + take * f**2
            reach.append(taken)
        return reach

    def compose(self, x: Tensor) -> Tensor:
        """Return mosaics [n,C,H,W] of real images `x` [pieces * n,C,H,W], in the order of `decode`.

        The first rows and columns of tiles are one pixel larger where `factor` does not divide.
        """
        if self.factor == 1:
            return x
        count = len(x) // self.pieces
        canvas = torch.empty_like(x[:count])
        rows, cols = self._edges(x.shape[-2]), self._edges(x.shape[-1])
        for k in range(self.pieces):
            i, j = divmod(k, self.factor) if self.order == "row" else divmod(k, self.factor)[::-1]
            top, bottom, left, right = rows[i], rows[i + 1], cols[j], cols[j + 1]
            tile = x[k * count : (k + 1) * count]
            canvas[..., top:bottom, left:right] = self._shrink(tile, bottom - top, right - left)
        return canvas

    def _shrink(self, x: Tensor, height: int, width: int) -> Tensor:
        if self.init_resize == "nearest":
            return interpolate(x, size=(height, width), mode="nearest")
        return interpolate(x, size=(height, width), mode="bilinear", align_corners=False)

    def _edges(self, size: int) -> list[int]:
        base, extra = divmod(size, self.factor)
        edges = [0]
        for k in range(self.factor):
            edges.append(edges[-1] + base + (k < extra))
        return edges


def _one_class(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64)


def _repeated(values: Tensor, times: int) -> Tensor:
    return values.repeat(times, *[1] * (values.ndim - 1))
