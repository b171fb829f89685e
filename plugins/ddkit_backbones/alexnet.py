"""AlexNet for small images."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit_backbones.layers import Network, SizelessNorm, norm_layer, pads_to_32


def alexnet(info: DataInfo, norm: SizelessNorm = "none") -> nn.Module:
    """Return five convolutions with ReLU and three max poolings, then a classifier.

    As in the DC and DM repositories (https://arxiv.org/abs/2006.05929): no dropout, no hidden
    layers after the trunk, no norm unless asked for (``batch`` is their AlexNetBN). Embedding
    192x4x4 = 3072 and 1,872,202 parameters at 32x32x3 with ten classes. One-channel 28x28 images
    are padded to 32x32.

    Raises:
        IncompatibleError: images under 8x8.
    """
    layers: list[nn.Module] = []
    channels = info.channels
    for index, (width, kernel, pool) in enumerate(_PLAN):
        padding = kernel // 2 + (2 if index == 0 and pads_to_32(info) else 0)
        layers.append(nn.Conv2d(channels, width, kernel, padding=padding))
        layers += [norm_layer(norm, width), nn.ReLU(inplace=True)]
        if pool:
            layers.append(nn.MaxPool2d(2))
        channels = width
    features = nn.Sequential(*layers)
    return Network("alexnet", info, features, remedy="use images of at least 8x8, or mlp")


# Channels, kernel, and whether a pooling follows.
_PLAN = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"alexnet": alexnet}
