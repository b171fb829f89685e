"""ddkit: dataset distillation composed from recipes.

`load`, `distill` and `evaluate` do from Python what the commands do; they are imported on first
use, so that ``import ddkit`` stays light for plugins and for the command line; so is `hookimpl`,
which brings pluggy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddkit.api import distill, evaluate, load
    from ddkit.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["__version__", "distill", "evaluate", "hookimpl", "load"]


def __getattr__(name: str) -> Any:
    if name in {"distill", "evaluate", "load"}:
        from ddkit import api

        return getattr(api, name)
    if name == "hookimpl":
        from ddkit.hookspecs import hookimpl

        return hookimpl
    raise AttributeError(f"module 'ddkit' has no attribute {name!r}")
