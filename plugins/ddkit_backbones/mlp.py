"""A perceptron with two hidden layers."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit.options import Count
from ddkit_backbones.layers import Network


def mlp(info: DataInfo, width: Count = 128) -> nn.Module:
    """Return pixels, two ReLU layers of `width`, classifier.

    As in the evaluation pool of DC (https://arxiv.org/abs/2006.05929); 411,146 parameters for ten
    classes at 32x32x3. The features are the second hidden layer, [N, width].
    """
    pixels = info.channels * info.height * info.width
    features = nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width),
        nn.ReLU(inplace=True),
    )
    return Network("mlp", info, features)


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"mlp": mlp}
