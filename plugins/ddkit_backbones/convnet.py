"""ConvNet, the network of nearly all published distillation results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit.errors import IncompatibleError
from ddkit.options import Count
from ddkit_backbones.layers import (
    Activation,
    Network,
    Norm,
    activation_layer,
    norm_layer,
    pads_to_32,
)

Pooling = Literal["avg", "max", "none"]


def convnet(
    info: DataInfo,
    depth: Count = 3,
    width: Count = 128,
    norm: Norm = "instance",
    activation: Activation = "relu",
    pooling: Pooling = "avg",
) -> nn.Module:
    """Return `depth` blocks of 3x3 convolution, norm, activation and 2x2 pooling, and a classifier.

    As in DC (https://arxiv.org/abs/2006.05929): convolutions have biases, instance norm is the
    default, layers keep PyTorch's initialisation (it is part of DM), and the embedding is
    the flattened map after the last pooling, positions included: 128x4x4 = 2048 at 32x32, which
    gives 320,010 parameters for ten classes. One-channel 28x28 images are padded to 32x32 by the
    first convolution.

    Raises:
        IncompatibleError: the image cannot be halved `depth` times.
    """
    rows, columns = (s + 4 if pads_to_32(info) else s for s in (info.height, info.width))
    layers: list[nn.Module] = []
    channels = info.channels
    for block in range(depth):
        padding = 3 if block == 0 and pads_to_32(info) else 1
        layers += [
            nn.Conv2d(channels, width, 3, padding=padding),
            norm_layer(norm, width, (rows, columns)),
            activation_layer(activation),
            _pool(pooling),
        ]
        channels = width
        if pooling != "none":
            rows, columns = rows // 2, columns // 2
        if not rows or not columns:
            raise IncompatibleError(
                f"convnet of depth {depth} cannot carry the {info.height}x{info.width} images of "
                f"{info.name}: pooling {block + 1} leaves nothing; "
                f'lower depth to {max(block, 1)} or set pooling = "none"'
            )
    return Network("convnet", info, nn.Sequential(*layers), remedy="lower depth")


def _pool(kind: Pooling) -> nn.Module:
    match kind:
        case "avg":
            return nn.AvgPool2d(2)
        case "max":
            return nn.MaxPool2d(2)
        case "none":
            return nn.Identity()


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"convnet": convnet}
