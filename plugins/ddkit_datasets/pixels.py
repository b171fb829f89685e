"""Resizing of images that are in memory already."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resized(images: Tensor, resolution: int) -> Tensor:
    """Return square `images` [N,C,H,W], of values 0..255, as uint8 [N,C,resolution,resolution].

    Bilinear, smoothed when the images get smaller; computed in float32 and rounded once, so that
    the result does not depend on the number of threads or on the processor's uint8 kernels.
    """
    if images.shape[-1] == resolution:
        return images if images.dtype == torch.uint8 else _bytes(images)
    size = (resolution, resolution)
    result = torch.empty((*images.shape[:2], *size), dtype=torch.uint8)
    for start in range(0, len(images), 1024):  # float32 of all images at once may not fit
        part = images[start : start + 1024].float()
        part = interpolate(part, size, mode="bilinear", align_corners=False, antialias=True)
        result[start : start + 1024] = _bytes(part)
    return result


def _bytes(images: Tensor) -> Tensor:
    return images.round().clamp_(0, 255).to(torch.uint8)
