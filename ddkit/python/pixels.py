"""Images as pictures, arrays or tensors of whatever layout, as uint8 [N,C,H,W]."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddkit.errors import DataError

CHANNELS = (1, 3)  # by which the axis of channels is known


def tensor_of(value: Any) -> Tensor | None:
    """Return a picture, an array or a tensor as a tensor on the CPU; None if it is none of them."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if hasattr(value, "convert") and hasattr(value, "mode"):  # one of Pillow's
        grey = value.mode in ("1", "L")
        value = np.array(value.convert("L" if grey else "RGB"))
    if isinstance(value, np.ndarray) and value.dtype.kind in "buif":
        return torch.from_numpy(np.ascontiguousarray(value))
    return None


def uint8_images(images: Tensor | None, name: str) -> Tensor:
    """Return images as uint8 [N,C,H,W].

    They are uint8, or floating-point in [0, 1], as [N,H,W], [N,C,H,W] or [N,H,W,C] with one or
    three channels.

    Raises:
        DataError: another type, range or layout, or which axis holds channels cannot be told.
    """
    if images is None or not (images.dtype == torch.uint8 or images.is_floating_point()):
        kind = "no numbers" if images is None else str(images.dtype)
        raise DataError(f"{name}: images must be uint8, or floating-point in [0, 1], not {kind}")
    images = _channels_first(images, name)
    if images.dtype == torch.uint8:
        return images.contiguous()
    low, high = (float(images.min()), float(images.max())) if images.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # nor is NaN
        raise DataError(
            f"{name}: floating-point images must be pixels in [0, 1], these reach from {low:.3g} "
            f"to {high:.3g}; give them as they are before any normalisation"
        )
    return (images * 255).round().to(torch.uint8).contiguous()


def _channels_first(images: Tensor, name: str) -> Tensor:
    if images.ndim == 3:
        return images[:, None]
    shape = f"[{', '.join(map(str, images.shape))}]"
    if images.ndim != 4:
        raise DataError(f"{name}: images must be [N,C,H,W], [N,H,W,C] or [N,H,W], not {shape}")
    first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
    if first == last:
        raise DataError(
            f"{name}: which axis of {shape} holds channels cannot be told; give [N,C,H,W] with one "
            f"or three channels, or a ddkit.Dataset"
        )
    return images if first else images.permute(0, 3, 1, 2)
