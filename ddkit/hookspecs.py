"""The four hooks: each returns {recipe name: factory}; the factory's signature is its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from torch import nn

    from ddkit.data import Dataset
    from ddkit.method import Method
    from ddkit.regularizer import Regularizer

hookspec = pluggy.HookspecMarker("ddkit")
hookimpl = pluggy.HookimplMarker("ddkit")
"""What a plugin marks its hooks with; also ``ddkit.hookimpl``."""


@hookspec
def register_methods() -> dict[str, type[Method]]:  # type: ignore[empty-body]
    """Return the distillation methods, by recipe name."""


@hookspec
def register_regularizers() -> dict[str, type[Regularizer]]:  # type: ignore[empty-body]
    """Return the regularizers, by recipe name."""


@hookspec
def register_backbones() -> dict[str, Callable[..., nn.Module]]:  # type: ignore[empty-body]
    """Return the network factories `(info: DataInfo, **options)`, by recipe name.

    A name ending in ``/`` is a family: ``timm/`` receives what follows the slash as `model`.
    """


@hookspec
def register_datasets() -> dict[str, Callable[..., Dataset]]:  # type: ignore[empty-body]
    """Return the dataset factories `(root: Path, **options)`, by recipe name."""
