"""LeNet with ReLU and max pooling."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit_backbones.layers import Network, pads_to_32


def lenet(info: DataInfo) -> nn.Module:
    """Return two 5x5 convolutions, each with ReLU and max pooling, then 120, 84 and the classes.

    As in the evaluation pool of DC (https://arxiv.org/abs/2006.05929); 62,006 parameters for ten
    classes at 32x32x3. Maps are [N,16,5,5] there, the embedding has 84 dimensions. One-channel
    28x28 images are padded to 32x32.

    Raises:
        IncompatibleError: images under 16x16.
    """
    features = nn.Sequential(
        nn.Conv2d(info.channels, 6, 5, padding=2 if pads_to_32(info) else 0),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
    return Network("lenet", info, features, (120, 84), "use images of at least 16x16, or mlp")


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"lenet": lenet}
