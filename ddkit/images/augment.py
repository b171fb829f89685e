"""Differentiable Siamese augmentation: one draw, shared by whatever belongs together.

B. Zhao, H. Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021. All
operations act on images [N,C,H,W] in normalised pixel space; filling is 0 there, the mean colour.
One call applies one operation, drawn from a strategy such as ``color_crop_cutout``; or, in the
form of IDC (J.-H. Kim et al., ICML 2022) and NCFM, a chain of them.

The published program reseeds torch's global generator from the clock for each draw; here operation
and parameters are drawn once, explicitly, and handed to every batch that shares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, pi

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from ddkit.images.groups import Groups
from ddkit.options import CHAIN
from ddkit.options import OPERATIONS as NAMES

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP, CUTOUT, SCALE, ROTATE = 0.125, 0.5, 1.2, 15.0  # ratios of the size, a factor, degrees


def brightness(x: Tensor, u: Tensor) -> Tensor:
    """Add the same offset, -0.5 to 0.5, to all pixels; `u` in [0, 1), one per image."""
    return x + ((u - 0.5) * BRIGHTNESS)[:, None, None, None]


def saturation(x: Tensor, u: Tensor) -> Tensor:
    """Scale the distance from each pixel's grey value by 0 to 2."""
    mean = x.mean(1, keepdim=True)
    return (x - mean) * (u * SATURATION)[:, None, None, None] + mean


def contrast(x: Tensor, u: Tensor) -> Tensor:
    """Scale the distance from each image's mean by 0.5 to 1.5."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (u + CONTRAST)[:, None, None, None] + mean


def color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast; `u` [N,3]."""
    return contrast(saturation(brightness(x, u[:, 0]), u[:, 1]), u[:, 2])


def shift(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Return ``y[i, j] = x[i + rows, j + cols]``, 0 outside; int64 `rows` and `cols`, per image."""
    height, width = x.shape[-2:]
    reach_r, reach_c = _reach(height), _reach(width)
    padded = pad(x, (reach_c, reach_c, reach_r, reach_r))
    i = (torch.arange(height, device=x.device) + reach_r) + rows[:, None]
    j = (torch.arange(width, device=x.device) + reach_c) + cols[:, None]
    wide = padded.shape[-1]
    taken = padded.gather(2, i[:, None, :, None].expand(-1, x.shape[1], -1, wide))
    return taken.gather(3, j[:, None, None, :].expand(-1, x.shape[1], height, -1))


def crop(x: Tensor, u: Tensor) -> Tensor:
    """Shift by up to an eighth of the size in each direction."""
    reach_r, reach_c = _reach(x.shape[-2]), _reach(x.shape[-1])
    rows = (u[:, 0] * (2 * reach_r + 1)).floor().long() - reach_r
    cols = (u[:, 1] * (2 * reach_c + 1)).floor().long() - reach_c
    return shift(x, rows, cols)


def erase(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Zero a box of half of either side, centred at (`rows`, `cols`), cut off at the border."""
    return x * ~(
        _hole(x.shape[-2], rows)[:, None, :, None] & _hole(x.shape[-1], cols)[:, None, None]
    )


def cutout(x: Tensor, u: Tensor) -> Tensor:
    """Zero such a box at a random place; for even sides the centre may lie just outside."""
    places = [size + 1 - _side(size) % 2 for size in x.shape[-2:]]
    return erase(x, (u[:, 0] * places[0]).floor().long(), (u[:, 1] * places[1]).floor().long())


def flip(x: Tensor, u: Tensor) -> Tensor:
    """Mirror left-right where `u`'s first column is below one half."""
    return torch.where((u[:, 0] < 0.5)[:, None, None, None], x.flip(3), x)


def zoom(x: Tensor, sx: Tensor, sy: Tensor) -> Tensor:
    """Sample at coordinates scaled by `sx` (columns) and `sy` (rows): above 1 shrinks."""
    zero = torch.zeros_like(sx)
    return _affine(x, torch.stack([sx, zero, zero, zero, sy, zero], 1))


def scale(x: Tensor, u: Tensor) -> Tensor:
    """Zoom each axis by its own factor from [1/1.2, 1.2)."""
    s = u * (SCALE - 1 / SCALE) + 1 / SCALE
    return zoom(x, s[:, 0], s[:, 1])


def turn(x: Tensor, theta: Tensor) -> Tensor:
    """Turn by `theta` radians, anticlockwise as displayed.

    The grid's coordinates go from -1 to 1 along either side, however long: where the sides differ,
    a turn of the pixels is one of the grid only after scaling, or the image would be sheared.
    """
    cos, sin, zero = theta.cos(), theta.sin(), torch.zeros_like(theta)
    aspect = x.shape[-2] / x.shape[-1]
    return _affine(x, torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], 1))


def rotate(x: Tensor, u: Tensor) -> Tensor:
    """Turn by up to 15 degrees either way."""
    return turn(x, (u[:, 0] - 0.5) * (2 * ROTATE * pi / 180))


OPERATIONS = dict(zip(NAMES, (color, crop, cutout, flip, scale, rotate), strict=True))


@dataclass(frozen=True)
class Stage:
    """An operation for each class (or one for all), and three uniform numbers for each row of it.

    Operations are known on the host, so that applying them waits for nothing.
    """

    operations: tuple[str, ...]
    uniforms: Tensor

    def siamese(self, x: Tensor, groups: Groups) -> Tensor:
        """Apply to every row of `x` the draw of its class, without a loop over classes."""
        uniforms = self.uniforms[groups.host].to(x)
        names = sorted({self.operations[c] for c in groups.classes})
        if len(names) == 1:
            return OPERATIONS[names[0]](x, uniforms)
        code = torch.tensor([names.index(o) if o in names else -1 for o in self.operations])
        rows = [(code[groups.host] == n).nonzero()[:, 0] for n in range(len(names))]
        back = torch.cat(rows).argsort().to(x.device)
        rows = [r.to(x.device) for r in rows]
        done = [OPERATIONS[o](x[r], uniforms[r]) for o, r in zip(names, rows, strict=True)]
        return torch.cat(done)[back]

    def single(self, x: Tensor) -> Tensor:
        """Apply the one drawn operation to `x`, with the parameters of each row."""
        return OPERATIONS[self.operations[0]](x, self.uniforms.to(x))


@dataclass(frozen=True)
class Draw:
    """The stages of one call, to be shared by every batch that belongs together."""

    stages: tuple[Stage, ...]

    def siamese(self, x: Tensor, groups: Groups) -> Tensor:
        """Apply to every row of `x` [N,C,H,W] the draw of its class."""
        for stage in self.stages:
            x = stage.siamese(x, groups)
        return x

    def single(self, x: Tensor) -> Tensor:
        """Apply one operation per stage to all of `x`, with the parameters of each row."""
        for stage in self.stages:
            x = stage.single(x)
        return x


def draw_per_class(strategy: str, num_classes: int, rng: torch.Generator) -> Draw:
    """Draw operations and parameters once for each of all classes (siamese form)."""
    return Draw(
        tuple(
            Stage(_pick(names, num_classes, rng), torch.rand(num_classes, 3, generator=rng))
            for names in _stages(strategy)
        )
    )


def draw_per_image(strategy: str, rows: int, rng: torch.Generator) -> Draw:
    """Draw operations for a batch and parameters for each image (for training a network)."""
    return Draw(
        tuple(
            Stage(_pick(names, 1, rng), torch.rand(rows, 3, generator=rng))
            for names in _stages(strategy)
        )
    )


def _stages(strategy: str) -> list[list[str]]:
    """Return the alternatives of each stage."""
    if strategy == "none":
        return []
    names = strategy.removeprefix(CHAIN).split("_")
    if not strategy.startswith(CHAIN):
        return [names]
    rest = [n for n in names if n not in ("flip", "color", "cutout")]
    flip, color, cutout = ([n for n in names if n == o] for o in ("flip", "color", "cutout"))
    return [stage for stage in (flip, color, rest, cutout) if stage]


def _pick(names: list[str], count: int, rng: torch.Generator) -> tuple[str, ...]:
    return tuple(names[i] for i in torch.randint(len(names), (count,), generator=rng).tolist())


def _reach(size: int) -> int:
    return floor(CROP * size + 0.5)


def _side(size: int) -> int:
    return floor(CUTOUT * size + 0.5)


def _hole(size: int, centre: Tensor) -> Tensor:
    start = (centre - _side(size) // 2)[:, None]
    places = torch.arange(size, device=centre.device)
    return (places >= start) & (places < start + _side(size))


def _affine(x: Tensor, matrix: Tensor) -> Tensor:
    grid = affine_grid(matrix.unflatten(1, (2, 3)), list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="zeros", align_corners=False)
