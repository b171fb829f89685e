"""Where everything is printed: results on standard output, notes on standard error.

`guarded` puts a `Stream` before each of the two, for click, rich and whatever else prints: a stream
that is closed, full, left by its reader or of a small character set loses text, never work.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ddkit.errors import shown

PLAIN = {"±": "+-", "…": "...", "×": "x", "–": "-", "—": "-", "−": "-", "’": "'"}
"""What stands for our own signs where a stream cannot carry them."""


def result(text: object, end: str = "\n") -> None:
    """Print what a command was asked for. Control characters in it are shown, not sent."""
    print(_lines(str(text)), end=end, flush=True)


def data(value: Any) -> None:
    """Print a result as JSON, all of it in ASCII."""
    print(json.dumps(value, indent=2).replace("\x7f", "\\u007f"), flush=True)


def note(text: object) -> None:
    """Print what is good to know, or went wrong, on standard error."""
    print(_lines(str(text)), file=sys.stderr, flush=True)


def _lines(text: str) -> str:
    """Return `text` with every character but line ends and tabs as `shown` has it."""
    return "".join(p if p in "\n\t" else shown(p) for p in re.split(r"([\n\t])", text))


def carried(text: str, encoding: str | None) -> str:
    r"""Return `text` in characters that `encoding` has: ``+-`` for ±, ``\u732b`` for 猫."""
    encoding = encoding or "utf-8"
    if _fits(text, encoding):
        return text
    return "".join(c if _fits(c, encoding) else PLAIN.get(c) or _escape(c) for c in text)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escape(character: str) -> str:
    """Return the escape that TOML, JSON (of the basic plane) and Python read back."""
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class Stream(io.TextIOBase):
    """Stands before a text stream, or the lack of one, and never raises.

    `lost` is the first reason for which something could not be written.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.lost: Exception | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click asks so whether bytes may be written
            raise TypeError("text alone can be written")
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._stream.write(carried(text, self.encoding))
        except (OSError, ValueError) as error:  # ValueError: the file was closed in Python
            self.lost = self.lost or error
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError) as error:
            self.lost = self.lost or error

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("the stream is closed")
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def words(self) -> str:
        """Why text was lost; empty where none was, or where the reader wanted no more."""
        if self.lost is None or isinstance(self.lost, BrokenPipeError):
            return ""
        return getattr(self.lost, "strerror", None) or str(self.lost)

    def give_up(self) -> None:
        """Where text was lost, let the interpreter's last flush go to the null device."""
        self.flush()
        if self.lost is None:
            return
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)


@contextlib.contextmanager
def guarded() -> Iterator[Stream]:
    """Print through streams that never raise; yields the one for standard output."""
    _occupy_descriptors()
    kept = sys.stdin, sys.stdout, sys.stderr
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    with open(os.devnull) as nothing:  # noqa: PTH123 - the null device
        sys.stdin, sys.stdout, sys.stderr = sys.stdin or nothing, out, err
        try:
            yield out
        finally:
            sys.stdin, sys.stdout, sys.stderr = kept
            out.give_up()
            err.give_up()


def _occupy_descriptors() -> None:
    """Open the null device wherever 0, 1 or 2 is closed.

    Else the next file of a run would get that number, and what libraries print there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
