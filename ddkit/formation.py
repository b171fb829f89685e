"""Formation: how stored images become training images (mosaics that decode to full size).

J.-H. Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad


@dataclass(frozen=True)
class Formation:
    """A stored image is a mosaic of `factor` x `factor` tiles, each enlarged to full size.

    `order` is the order in which tiles are read: row-major (IDC, NCFM) or column-major (IDM).
    `init_resize` shrinks real images into tiles; enlarging is always bilinear.
    """

    factor: int = 1
    order: Literal["row", "column"] = "row"
    init_resize: Literal["nearest", "bilinear"] = "bilinear"

    @property
    def pieces(self) -> int:
        """Training images for each stored one."""
        return self.factor**2

    def decode(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """Return the tiles of `x` [n,C,H,W] at full size, [n * pieces,C,H,W], tile-major.

        First the first tile of all n images, then the second. Sizes that `factor` does not divide
        are padded right and bottom with `fill`.
        """
        if self.factor == 1:
            return x
        height, width = x.shape[-2:]
        down, right = -height % self.factor, -width % self.factor
        x = pad(x, (0, right, 0, down), value=fill)
        tile_h, tile_w = x.shape[-2] // self.factor, x.shape[-1] // self.factor
        tiles = x.unflatten(2, (self.factor, tile_h)).unflatten(4, (self.factor, tile_w))
        axes = (2, 4) if self.order == "row" else (4, 2)
        tiles = tiles.permute(*axes, 0, 1, 3, 5).flatten(0, 2)
        return interpolate(tiles, size=(height, width), mode="bilinear", align_corners=False)

    def tile_labels(self, labels: Tensor) -> Tensor:
        """Return the labels (or rows of soft labels) of what `decode` returns."""
        return labels.repeat(self.pieces, *[1] * (labels.ndim - 1))

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
