"""ResNets for small images: with strides, and with average pooling instead."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit.options import Count
from ddkit_backbones.layers import HeadPool, Network, SizelessNorm, norm_layer


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: 1x1 convolution and norm where shapes change.

    The map shrinks by the stride of each branch's first convolution. If `pooled`, by average
    pooling of the same size: the residual is pooled after its first norm and ReLU, the shortcut
    between its 1x1 convolution and its norm.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: SizelessNorm, pooled: bool):
        super().__init__()
        pool: list[nn.Module] = [nn.AvgPool2d(stride)] if pooled and stride > 1 else []
        step = 1 if pooled else stride
        self.residual = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride=step, padding=1, bias=False),
            norm_layer(norm, fan_out),
            nn.ReLU(inplace=True),
            *pool,
            nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False),
            norm_layer(norm, fan_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut.append(nn.Conv2d(fan_in, fan_out, 1, stride=step, bias=False))
            self.shortcut.extend([*pool, norm_layer(norm, fan_out)])
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
    layers = _stem(info, width, norm) + _stages(width, norm, blocks=2, pooled=False)
    return Network("resnet18", info, nn.Sequential(*layers, HeadPool(4)))


def resnet18_ap(info: DataInfo, width: Count = 64, norm: SizelessNorm = "instance") -> nn.Module:
    """Return ResNet18 with average pooling for strides and no pooling before the classifier.

    As in the DM and MTT repositories (https://arxiv.org/abs/2110.04181): 3x3 stem, four stages of
    two blocks. The embedding is the flattened last map, 512x4x4 = 8192 at 32x32, which gives
    11,250,762 parameters for ten classes. PyTorch's initialisation.

    Raises:
        IncompatibleError: the last map is 1x1 under an instance norm, or nothing at all.
    """
    layers = _stem(info, width, norm) + _stages(width, norm, blocks=2, pooled=True)
    return Network("resnet18_ap", info, nn.Sequential(*layers))


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
    stem = _stem(info, width, norm, kernel=7 if size > 128 else 3)
    if size > 64:
        stem.append(nn.AvgPool2d(4 if size > 128 else 2))
    stages = _stages(width, norm, blocks=1, pooled=True)
    features = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1))
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return Network("resnet10_ap", info, features)


def _stem(info: DataInfo, width: int, norm: SizelessNorm, kernel: int = 3) -> list[nn.Module]:
    return [
        nn.Conv2d(info.channels, width, kernel, padding=kernel // 2, bias=False),
        norm_layer(norm, width),
        nn.ReLU(inplace=True),
    ]


def _stages(width: int, norm: SizelessNorm, blocks: int, pooled: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = width
    for stage, stride in enumerate((1, 2, 2, 2)):
        for block in range(blocks):
            out, shrink = width * 2**stage, 1 if block else stride
            layers.append(BasicBlock(channels, out, shrink, norm, pooled))
            channels = out
    return layers


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"resnet18": resnet18, "resnet10_ap": resnet10_ap, "resnet18_ap": resnet18_ap}
