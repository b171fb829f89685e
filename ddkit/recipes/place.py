"""Where in a recipe something was said, and what, so that an error can point at file and line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time

from ddkit.errors import shown

_TABLE = re.compile(r"^\s*\[{1,2}\s*([\w.\-\"]+)\s*\]{1,2}\s*$")
_KEY = re.compile(r"^\"?([\w\-/]+)\"?\s*[=.]")


@dataclass(frozen=True)
class Source:
    """A recipe's text under the name it goes by, and the paths that `by` replaced.

    Each path leads to the value as it was typed, None where a value was given, not a text.
    """

    name: str
    text: str = ""
    overridden: Mapping[str, str | None] = field(default_factory=dict)
    by: str = "--set"

    def line(self, path: str) -> int | None:
        """Return the 1-based line on which the dotted `path` (or its nearest parent) is written.

        Reads the usual ways of writing TOML, not all of them: it serves error messages.
        """
        keys = path.split(".")
        lines = [line.split("#")[0] for line in self.text.split("\n")]
        header, keys = _header(lines, keys)
        start = 0 if header is None else header + 1
        region = range(start, _end(lines, start))
        if not keys:
            return _counted(header)
        own = [n for n in region if (m := _KEY.match(lines[n].strip())) and m[1] == keys[0]]
        if not own:
            return _counted(header)
        top = [n for n in region if n > own[0] and (m := _KEY.match(lines[n])) and m[1] != keys[0]]
        return _counted(_within(lines, range(own[0], min(top, default=region.stop)), keys[1:]))


def _header(lines: list[str], keys: list[str]) -> tuple[int | None, list[str]]:
    """Return the line of the longest ``[table]`` that leads to `keys`, and the keys after it."""
    best, rest, seen = None, keys, dict[str, int]()
    for number, line in enumerate(lines):
        match = _TABLE.match(line)
        if match is None:
            continue
        names = match[1].replace('"', "").split(".")
        if line.strip().startswith("[["):
            seen[match[1]] = seen.get(match[1], -1) + 1
            names.append(str(seen[match[1]]))
        if keys[: len(names)] == names and len(keys) - len(names) < len(rest):
            best, rest = number, keys[len(names) :]
    return best, rest


def _end(lines: list[str], start: int) -> int:
    """Return where the table that begins at `start` ends."""
    tables = (n for n in range(start, len(lines)) if _TABLE.match(lines[n]))
    return next(tables, len(lines))


def _within(lines: list[str], region: range, keys: list[str]) -> int:
    """Return the line in `region` that the keys lead to; a number counts items of a list."""
    found, item = region.start, 0
    for key in keys:
        if key.isascii() and key.isdigit() and len(key) < 10:
            item = int(key)
            continue
        pattern = re.compile(rf"(^|[\s{{,.])\"?{re.escape(key)}\"?\s*[=.]")
        places = [n for n in region if n >= found for _ in pattern.finditer(lines[n])]
        if not places:
            break
        found, item = places[min(item, len(places) - 1)], 0
    return found


def _counted(number: int | None) -> int | None:
    return None if number is None else number + 1


@dataclass(frozen=True)
class Place:
    """A dotted path inside a source; its text is what stands before an error's message."""

    source: Source
    path: str = ""

    def __truediv__(self, key: str) -> Place:
        return Place(self.source, f"{self.path}.{key}" if self.path else key)

    @property
    def typed(self) -> str | None:
        """The text that ``--set`` gave here, as it was typed."""
        return self.source.overridden.get(self.path)

    def __str__(self) -> str:
        parts, path = self.path.split("."), shown(self.path)
        prefixes = {".".join(parts[: i + 1]) for i in range(len(parts))}
        if prefixes & self.source.overridden.keys():
            return f"{self.source.by} {path}"
        line = self.source.line(self.path) if self.path else None
        name = shown(self.source.name)
        name = name if line is None else f"{name}:{line}"
        return f"{name}: {path}" if path else name


def told(value: object) -> str:
    """Return how a message names a value: as Python writes it, but short, and dates as typed."""
    if isinstance(value, date | time):
        return f"the date {value.isoformat()}, which is a string in quotes alone"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a list in itself
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:120]} … {text[-40:]}"
