"""The backbone contract, which is timm's own, and the two ways in which methods look at a network.

A backbone has `forward_features`, `forward_head(f, pre_logits=…)` and `get_classifier`; every
timm model satisfies it as it is. ``get_classifier()(embed(net, x))`` equals ``net(x)``.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Backbone(Protocol):
    """What ddkit calls on a network."""

    def forward_features(self, x: Tensor) -> Tensor: ...

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor: ...

    def get_classifier(self) -> nn.Module: ...

    def __call__(self, x: Tensor) -> Tensor: ...


def look(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `maps` and `embed` of one forward pass."""
    backbone = cast(Backbone, net)
    f = backbone.forward_features(x)
    return as_maps(net, f), backbone.forward_head(f, pre_logits=True).flatten(1)


def maps(net: nn.Module, x: Tensor) -> Tensor:
    """Return local features [N,C,P]: C channels at P positions."""
    return as_maps(net, cast(Backbone, net).forward_features(x))


def embed(net: nn.Module, x: Tensor) -> Tensor:
    """Return the input of the classifier, flattened, [N,D]."""
    backbone = cast(Backbone, net)
    return backbone.forward_head(backbone.forward_features(x), pre_logits=True).flatten(1)


def as_maps(net: nn.Module, f: Tensor) -> Tensor:
    """Bring the output of `forward_features` to [N,C,P] from NCHW, NHWC, tokens or vectors."""
    if f.ndim == 4:
        if str(getattr(net, "output_fmt", "NCHW")).upper().endswith("NHWC"):
            f = f.permute(0, 3, 1, 2)
        return f.flatten(2)
    if f.ndim == 3:  # tokens, class and register tokens first
        prefix = int(cast(Any, getattr(net, "num_prefix_tokens", 0)))
        return f[:, prefix:].transpose(1, 2)
    return f.unsqueeze(-1)


def has_batch_statistics(net: nn.Module) -> bool:
    """Whether the output for one image depends on the rest of the batch in training mode."""
    return any(isinstance(m, _BatchNorm) for m in net.modules())


def freeze(net: nn.Module) -> nn.Module:
    """Let no parameter of `net` take a gradient; return it."""
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net
