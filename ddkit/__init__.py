"""ddkit: dataset distillation composed from recipes.

`load`, `distill` and `evaluate` do from Python what the commands do. They and the names beside them
are imported on first use, so that ``import ddkit`` stays light for plugins and the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddkit.errors import (
    BrokenPluginError,
    CheckpointError,
    DataError,
    DDKitError,
    DivergedError,
    IncompatibleError,
    Interrupted,
    OutOfMemoryError,
    PluginError,
    RecipeError,
)

if TYPE_CHECKING:
    from ddkit.api import distill, evaluate, load
    from ddkit.data import Dataset
    from ddkit.hookspecs import hookimpl
    from ddkit.images.synthetic import SyntheticSet
    from ddkit.recipes.recipe import Recipe
    from ddkit.reporter import Reporter

__version__ = "0.1.0"
__all__ = [
    "BrokenPluginError",
    "CheckpointError",
    "DDKitError",
    "DataError",
    "Dataset",
    "DivergedError",
    "IncompatibleError",
    "Interrupted",
    "OutOfMemoryError",
    "PluginError",
    "Recipe",
    "RecipeError",
    "Reporter",
    "SyntheticSet",
    "__version__",
    "distill",
    "evaluate",
    "hookimpl",
    "load",
]

_LATER = {
    "distill": "ddkit.api",
    "evaluate": "ddkit.api",
    "load": "ddkit.api",
    "Dataset": "ddkit.data",
    "Recipe": "ddkit.recipes.recipe",
    "Reporter": "ddkit.reporter",
    "SyntheticSet": "ddkit.images.synthetic",
    "hookimpl": "ddkit.hookspecs",
}

if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name: str) -> Any:
        if name in _LATER:
            return getattr(import_module(_LATER[name]), name)
        raise AttributeError(f"module 'ddkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
