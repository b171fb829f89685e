"""What goes wrong by the user's hand, and the words for it.

Every child of `DDKitError` says where, what is wrong and what to do, in one or two lines. The
command line prints it and exits with `exit_code`; any other exception is a bug of ours.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class DDKitError(Exception):
    """A mistake the user can mend; shown without a traceback."""

    exit_code = 1


class RecipeError(DDKitError):
    """A recipe, an override or an option that cannot be used."""

    exit_code = 2


class PluginError(DDKitError):
    """A plugin that does not load, a name that no plugin provides, or one that two provide."""

    exit_code = 2


class IncompatibleError(DDKitError):
    """Parts that are each fine but cannot work together."""

    exit_code = 2


class DataError(DDKitError):
    """Images that are missing, unreadable or not what the recipe says."""


class CheckpointError(DDKitError):
    """A run folder, a checkpoint or a set that cannot be read or written."""


class DivergedError(DDKitError):
    """A loss or gradient that is no longer a finite number."""


class Interrupted(DDKitError):
    """The user asked to stop; the state is saved."""

    exit_code = 130


def near(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "x"?)`` for the known names closest to `name`, or nothing."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.55)
    if not close:
        return ""
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)"
