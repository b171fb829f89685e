"""What goes wrong by the user's hand, and the words for it.

Every child of `DDKitError` says where, what is wrong and what to do, in one or two lines. The
command line prints it and exits with `exit_code`; any other exception is a bug of ours.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: escape sequences, line ends, bells
    r"\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"  # direction; zero width
    r"\u2028\u2029\ufff9-\ufffb\U000e0000-\U000e007f"  # other line ends, annotations, tags
    r"\ud800-\udfff]"  # half characters, which no stream can carry
)


class DDKitError(Exception):
    """A mistake the user can mend; shown without a traceback.

    Its text may quote names from outside: characters of them that act on a terminal are shown.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(shown, super().__str__().split("\n")))


class RecipeError(DDKitError):
    """A recipe, an override or an option that cannot be used."""

    exit_code = 2


class PluginError(DDKitError):
    """A plugin that does not load, a name that no plugin provides, or one that two provide."""

    exit_code = 2


class BrokenPluginError(PluginError):
    """A plugin that raised while it worked; the state before that is kept."""

    exit_code = 1


class ContractError(Exception):
    """A part of a recipe that does not do what its kind must.

    Of a third party's part, the run tells it in one line as its plugin's; of ddkit's own, it is a
    bug. `kind` is ``method``, ``regularizer``, ``backbone`` or ``dataset``; `name` that of the
    recipe, where only one of several parts is meant.
    """

    def __init__(self, kind: str, problem: str, name: str = ""):
        super().__init__(problem)
        self.kind = kind
        self.name = name


class IncompatibleError(DDKitError):
    """Parts that are each fine but cannot work together."""

    exit_code = 2


class DataError(DDKitError):
    """Images that are missing, unreadable or not what the recipe says."""


class CheckpointError(DDKitError):
    """A run folder, a checkpoint or a set that cannot be read or written."""


class DivergedError(DDKitError):
    """A loss or gradient that is no longer a finite number."""


class OutOfMemoryError(DDKitError):
    """Memory that does not suffice, whatever ddkit itself can do about it."""


class Interrupted(DDKitError):
    """The user asked to stop; the state is saved."""

    exit_code = 130


def near(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "x"?)`` for the known names closest to `name`, or nothing."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.55)
    if not close:
        return ""
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)"


def shown(text: str) -> str:
    r"""Return `text` with characters that act, hide or cannot be printed as ``\x1b``, ``\u202e``.

    For names that came from outside, before they reach a terminal: a line stays one line, in the
    order in which it is written. Text that is whole is returned as it is.
    """
    return _UNSEEN.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)
