"""What the built-in networks share: norms, activations, the padding rule, trunk plus classifier."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ddkit.data import DataInfo
from ddkit.errors import IncompatibleError

Norm = Literal["instance", "batch", "layer", "group", "none"]
SizelessNorm = Literal["instance", "batch", "group", "none"]
Activation = Literal["relu", "leaky_relu", "sigmoid", "swish"]


def norm_layer(kind: Norm, channels: int, size: tuple[int, int] = (1, 1)) -> nn.Module:
    """Return the norm of a map [N,C,H,W] with `channels` and `size`.

    ``instance`` is a group norm with one channel a group: affine, eps 1e-5, no running
    statistics, the same in training and evaluation. ``group`` has four groups; ``layer`` has a
    weight for every element of the map, and is the only one that needs `size`.

    Raises:
        IncompatibleError: four groups do not divide `channels`.
    """
    match kind:
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "layer":
            return nn.LayerNorm([channels, *size])
        case "group":
            if channels % 4:
                raise IncompatibleError(
                    f'norm "group" makes 4 groups, which do not divide {channels} channels; '
                    f"choose a width divisible by 4"
                )
            return nn.GroupNorm(4, channels)
        case "none":
            return nn.Identity()


def activation_layer(kind: Activation) -> nn.Module:
    """Return the activation.

    Only ReLU is in place: its double backward needs no more than its output.
    """
    match kind:
        case "relu":
            return nn.ReLU(inplace=True)
        case "leaky_relu":
            return nn.LeakyReLU(0.01)
        case "sigmoid":
            return nn.Sigmoid()
        case "swish":
            return nn.SiLU()


def pads_to_32(info: DataInfo) -> bool:
    """Whether the first convolution pads by two more, so that the image counts as 32x32.

    Published code does so for every one-channel image, all of which are 28x28 there. The padding
    exists to bring 28 to 32, so here it goes with that size: one-channel images of 16x16 or 32x32
    keep the usual padding.
    """
    return info.shape == (1, 28, 28)


class HeadPool(nn.Module):
    """Average pooling before a classifier, whose window shrinks to a map smaller than itself."""

    def __init__(self, window: int):
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        window = (min(self.window, h), min(self.window, w))
        return nn.functional.avg_pool2d(x, window)

    def extra_repr(self) -> str:
        return str(self.window)


class Network(nn.Module):
    """A trunk, hidden layers if any, and a linear classifier, by the contract of ddkit.backbone.

    `forward_features` gives the trunk's output, [N,C,H,W] or [N,D]; the classifier is as wide as
    a probe of the trunk says, so it fits any resolution that the trunk carries.
    """

    def __init__(
        self,
        name: str,
        info: DataInfo,
        features: nn.Module,
        hidden: tuple[int, ...] = (),
        remedy: str = "use larger images",
    ):
        """Build the head for `features`; `hidden` are widths of ReLU layers before the classifier.

        Raises:
            IncompatibleError: the trunk cannot carry the images; `remedy` says what to do.
        """
        super().__init__()
        widths = (probe(name, info, features, remedy).numel(), *hidden)
        self.features = features
        self.neck = nn.Sequential()
        for fan_in, fan_out in pairwise(widths):
            self.neck.extend([nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)])
        self.classifier = nn.Linear(widths[-1], info.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        e = self.neck(x.flatten(1))
        return e if pre_logits else self.classifier(e)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def probe(name: str, info: DataInfo, features: nn.Module, remedy: str) -> torch.Size:
    """Return the shape, without the batch, that `features` makes of one image.

    The probe runs on the meta device: it computes nothing, draws no random number and leaves
    running statistics alone.

    Raises:
        IncompatibleError: the map shrinks to nothing, or to 1x1 under an instance norm.
    """
    state = {k: v.to("meta") for k, v in features.state_dict(keep_vars=True).items()}
    norms = [m for m in features.modules() if _is_instance_norm(m)]
    handles = [m.register_forward_pre_hook(_needs_two_positions) for m in norms]
    images = torch.empty(2, *info.shape, device="meta")
    try:
        with torch.no_grad():
            return cast(Tensor, functional_call(features, state, (images,))).shape[1:]
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise IncompatibleError(
            f"{name} cannot carry the {info.height}x{info.width} images of {info.name}: "
            f"the map becomes too small ({reason}); {remedy}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _is_instance_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels


def _needs_two_positions(module: nn.Module, args: tuple[Any, ...]) -> None:
    # One value less its own mean is zero: the network would give every image the same logits.
    if args[0].shape[2:].numel() == 1:
        raise RuntimeError('an instance norm erases a map of 1x1; norm = "batch" would not')
