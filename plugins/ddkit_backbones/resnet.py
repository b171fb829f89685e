"""ResNet18 with a stem for small images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit.options import Count
from ddkit_backbones.layers import HeadPool, Network, SizelessNorm, norm_layer


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: 1x1 convolution and norm where shapes change."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: SizelessNorm):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False),
            norm_layer(norm, fan_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False),
            norm_layer(norm, fan_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut.append(nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False))
            self.shortcut.append(norm_layer(norm, fan_out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def resnet18(info: DataInfo, width: Count = 64, norm: SizelessNorm = "instance") -> nn.Module:
    """Return ResNet18 with a 3x3 stride-1 stem without pooling, instance norm by default.

    As in the DM and IID repositories (https://arxiv.org/abs/2110.04181), which add to He et al.
    the small-image stem: four stages of two basic blocks, `width` x 1, 2, 4 and 8 channels,
    average pooling with window 4, classifier. The embedding has 512 dimensions at 32x32
    (11,173,962 parameters for ten classes) and 2048 at 64x64, where the pooling leaves 2x2; a map
    smaller than the window, as of 16x16 images, is pooled whole. This is not the ResNet18 of
    torchvision or timm (``timm/resnet18``).

    Raises:
        IncompatibleError: the last map is 1x1 under an instance norm (8x8 images).
    """
    layers: list[nn.Module] = [
        nn.Conv2d(info.channels, width, 3, padding=1, bias=False),
        norm_layer(norm, width),
        nn.ReLU(inplace=True),
    ]
    channels = width
    for stage, stride in enumerate((1, 2, 2, 2)):
        out = width * 2**stage
        layers += [BasicBlock(channels, out, stride, norm), BasicBlock(out, out, 1, norm)]
        channels = out
    features = nn.Sequential(*layers, HeadPool(4))
    return Network("resnet18", info, features)


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"resnet18": resnet18}
