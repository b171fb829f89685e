"""ResNets that shrink their maps by average pooling instead of strides."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit.options import Count
from ddkit_backbones.layers import Network, SizelessNorm, norm_layer


class PooledBlock(nn.Module):
    """A basic block whose stride, if any, is average pooling of both branches.

    The residual is pooled after its first norm and ReLU, the shortcut between its 1x1
    convolution and its norm.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: SizelessNorm):
        super().__init__()
        pool: list[nn.Module] = [nn.AvgPool2d(stride)] if stride > 1 else []
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False),
            norm_layer(norm, fan_out),
            nn.ReLU(inplace=True),
            *pool,
            nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False),
            norm_layer(norm, fan_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut.append(nn.Conv2d(fan_in, fan_out, 1, bias=False))
            self.shortcut.extend([*pool, norm_layer(norm, fan_out)])
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def resnet18_ap(info: DataInfo, width: Count = 64, norm: SizelessNorm = "instance") -> nn.Module:
    """Return ResNet18 with average pooling for strides and no pooling before the classifier.

    As in the DM and MTT repositories (https://arxiv.org/abs/2110.04181): 3x3 stem, four stages of
    two blocks. The embedding is the flattened last map, 512x4x4 = 8192 at 32x32, which gives
    11,250,762 parameters for ten classes. PyTorch's initialisation.

    Raises:
        IncompatibleError: the last map is 1x1 under an instance norm, or nothing at all.
    """
    features = nn.Sequential(*_stem(info, width, norm, 3), *_stages(width, norm, blocks=2))
    return Network("resnet18_ap", info, features)


def resnet10_ap(info: DataInfo, width: Count = 64, norm: SizelessNorm = "instance") -> nn.Module:
    """Return ResNetAP-10, the network of IDC and NCFM for ImageNet subsets.

    As in IDC (https://arxiv.org/abs/2205.14959): one block a stage, global average pooling,
    convolutions drawn from N(0, 2 / (k^2 fan_out channels)). The stem follows the image: 3x3 up
    to 64 pixels, 3x3 and pooling by 2 up to 128, 7x7 and pooling by 4 above. Embedding of 512;
    4.90 million parameters for ten classes of small images.

    Raises:
        IncompatibleError: the last map is 1x1 under an instance norm, or nothing at all.
    """
    size = max(info.height, info.width)
    stem = _stem(info, width, norm, 7 if size > 128 else 3)
    if size > 64:
        stem.append(nn.AvgPool2d(4 if size > 128 else 2))
    features = nn.Sequential(*stem, *_stages(width, norm, blocks=1), nn.AdaptiveAvgPool2d(1))
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return Network("resnet10_ap", info, features)


def _stem(info: DataInfo, width: int, norm: SizelessNorm, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(info.channels, width, kernel, padding=kernel // 2, bias=False),
        norm_layer(norm, width),
        nn.ReLU(inplace=True),
    ]


def _stages(width: int, norm: SizelessNorm, blocks: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = width
    for stage, stride in enumerate((1, 2, 2, 2)):
        for block in range(blocks):
            layers.append(PooledBlock(channels, width * 2**stage, 1 if block else stride, norm))
            channels = width * 2**stage
    return layers


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"resnet10_ap": resnet10_ap, "resnet18_ap": resnet18_ap}
