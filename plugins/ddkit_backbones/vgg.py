"""VGG11 for small images."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit_backbones.layers import Network, SizelessNorm, norm_layer, pads_to_32


def vgg11(info: DataInfo, norm: SizelessNorm = "instance") -> nn.Module:
    """Return VGG11's eight convolutions with norm and five max poolings, then one classifier.

    As in the DC and DM repositories (https://arxiv.org/abs/2006.05929): instance norm (``batch``
    is their VGG11BN), biases, no dropout and no hidden layers after the trunk; 9,231,114
    parameters for ten classes and an embedding of 512 at 32x32, of 2048 at 64x64. One-channel
    28x28 images are padded to 32x32.

    Images under 32x32 cannot be halved five times. A pooling is left out where it would hand a
    map under 2x2 to the convolutions after it (which an instance norm would erase), or would find
    nothing to pool; parameters stay the same.

    Raises:
        IncompatibleError: images of 1x1.
    """
    layers: list[nn.Module] = []
    side = min(info.height, info.width) + (4 if pads_to_32(info) else 0)
    channels = info.channels
    for stage, widths in enumerate(_STAGES):
        for width in widths:
            padding = 3 if not layers and pads_to_32(info) else 1
            layers.append(nn.Conv2d(channels, width, 3, padding=padding))
            layers += [norm_layer(norm, width), nn.ReLU(inplace=True)]
            channels = width
        if side // 2 >= (1 if stage == len(_STAGES) - 1 else 2):
            layers.append(nn.MaxPool2d(2))
            side //= 2
    return Network("vgg11", info, nn.Sequential(*layers))


_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"vgg11": vgg11}
