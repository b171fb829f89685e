"""DenseNet-BC for small images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit.options import Count
from ddkit_backbones.layers import HeadPool, Network, SizelessNorm, norm_layer


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution to four times `growth`, norm, ReLU, 3x3; joined to the input."""

    def __init__(self, fan_in: int, growth: int, norm: SizelessNorm):
        super().__init__()
        self.new = nn.Sequential(
            *_preactivated(fan_in, norm),
            nn.Conv2d(fan_in, 4 * growth, 1, bias=False),
            *_preactivated(4 * growth, norm),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], 1)


def densenet(info: DataInfo, growth: Count = 12, norm: SizelessNorm = "batch") -> nn.Module:
    """Return the 121-layer DenseNet-BC that IDC evaluates on CIFAR, batch norm by default.

    Huang et al. (https://arxiv.org/abs/1608.06993) with bottlenecks and halving transitions, at
    the setting of IDC's repository (https://arxiv.org/abs/2205.14959): 3x3 stem to twice
    `growth`, blocks of 6, 12, 24 and 16 layers, growth 12, average pooling with window 4 (a
    smaller map is pooled whole). Embedding of 384 at 32x32. No paper gives a parameter count for
    it; this one has 1,000,618 for ten classes of colour images. PyTorch's initialisation.

    Raises:
        IncompatibleError: images under 8x8; under 16x16 with instance norm.
    """
    channels = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(info.channels, channels, 3, padding=1, bias=False)]
    for block, depth in enumerate(_BLOCKS):
        if block:
            layers += [
                *_preactivated(channels, norm),
                nn.Conv2d(channels, channels // 2, 1, bias=False),
            ]
            layers.append(nn.AvgPool2d(2))
            channels //= 2
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth, norm))
            channels += growth
    features = nn.Sequential(*layers, *_preactivated(channels, norm), HeadPool(4))
    return Network("densenet", info, features)


_BLOCKS = (6, 12, 24, 16)


def _preactivated(channels: int, norm: SizelessNorm) -> list[nn.Module]:
    # Not in place: without a norm it would overwrite the map that the shortcut still carries.
    return [norm_layer(norm, channels), nn.ReLU()]


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"densenet": densenet}
