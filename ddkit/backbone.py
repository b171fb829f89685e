"""The backbone contract, which is timm's own, and the two ways in which methods look at a network.

A backbone has `forward_features`, `forward_head(f, pre_logits=…)` and `get_classifier`; every
timm model satisfies it as it is. ``get_classifier()(embed(net, x))`` equals ``net(x)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddkit.errors import IncompatibleError, near

METHODS = ("forward_features", "forward_head", "get_classifier")


class Backbone(Protocol):
    """What ddkit calls on a network."""

    def forward_features(self, x: Tensor) -> Tensor: ...

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor: ...

    def get_classifier(self) -> nn.Module: ...

    def __call__(self, x: Tensor) -> Tensor: ...


def lacking(net: nn.Module) -> list[str]:
    """Return the methods of the contract that `net` does not have."""
    return [name for name in METHODS if not callable(getattr(net, name, None))]


def wrap(module: nn.Module, features: str, classifier: str) -> nn.Module:
    """Return `module` as a backbone, by two of its layers, named as in ``named_modules()``.

    `features` is the layer whose output `forward_features` gives; `classifier` the last layer,
    whose input is what `embed` gives and whose output is the module's. Layers are read where
    ``module.forward`` calls them, the last call where there are several; the module's own weights
    are used.

    Raises:
        IncompatibleError: it has no layer of that name; or, when it is used, does not call it.
    """
    return _Wrapped(module, features, classifier)


class _Wrapped(nn.Module):
    """A module with timm's three methods."""

    def __init__(self, module: nn.Module, features: str, classifier: str):
        super().__init__()
        layers = [name for name, _ in module.named_modules() if name]
        for name in (features, classifier):
            if name not in layers:
                hint = near(name, layers) or f"; there are: {', '.join(layers) or 'none'}"
                raise IncompatibleError(f"{type(module).__name__} has no layer {name!r}{hint}")
        self.module = module
        self.output_fmt = getattr(module, "output_fmt", "NCHW")
        self.num_prefix_tokens = getattr(module, "num_prefix_tokens", 0)
        self._features, self._classifier = features, classifier
        self._last: tuple[Tensor, Tensor] | None = None  # features, and what came of them

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.module(x))

    def forward_features(self, x: Tensor) -> Tensor:
        with self._seen() as seen:
            self.module(x)
        for name in (self._features, self._classifier):
            if not isinstance(seen.get(name), Tensor):
                did = "gives no tensor" if name in seen else "is not called"
                kind = type(self.module).__name__
                raise IncompatibleError(f"the layer {name!r} {did} in {kind}'s forward pass")
        self._last = seen[self._features], seen[self._classifier]
        return self._last[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return what came of `x`, which must be what `forward_features` returned last."""
        if self._last is None or self._last[0] is not x:
            raise IncompatibleError(
                f"a wrapped {type(self.module).__name__} takes no features but those that its "
                f"forward_features returned last; give it the three methods itself"
            )
        return self._last[1] if pre_logits else cast(Tensor, self.get_classifier()(self._last[1]))

    def get_classifier(self) -> nn.Module:
        return self.module.get_submodule(self._classifier)

    @contextmanager
    def _seen(self) -> Iterator[dict[str, Any]]:
        """Collect the output of one layer and the input of the other in passes inside the block."""
        seen: dict[str, Any] = {}
        named = self.module.get_submodule

        def output(_: nn.Module, given: Any, made: Any) -> None:
            seen[self._features] = made

        def taken(_: nn.Module, given: Any) -> None:
            seen[self._classifier] = given[0] if given else None

        hooks = [
            named(self._features).register_forward_hook(output),
            named(self._classifier).register_forward_pre_hook(taken),
        ]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the last pass out of copies: its tensors are inside a graph."""
        return {**self.__dict__, "_last": None}


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
