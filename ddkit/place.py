"""Where in a recipe something was said, so that an error can point at file and line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TABLE = re.compile(r"^\s*\[{1,2}\s*([\w.\-\"]+)\s*\]{1,2}")


@dataclass(frozen=True)
class Source:
    """A recipe's text under the name it goes by, and the paths that ``--set`` replaced."""

    name: str
    text: str = ""
    overridden: frozenset[str] = field(default_factory=frozenset)

    def line(self, path: str) -> int | None:
        """Return the 1-based line on which the dotted `path` (or its nearest parent) is written."""
        keys = path.split(".")
        lines = self.text.splitlines()
        start, best, consumed = 0, None, 0
        for number, line in enumerate(lines):  # the longest [table] header that leads to the path
            header = _TABLE.match(line)
            if header:
                table = header[1].replace('"', "").split(".")
                if keys[: len(table)] == table and len(table) > consumed:
                    start, best, consumed = number, number, len(table)
        for key in keys[consumed:]:
            if key.isdigit():
                continue
            found = self._find(lines, start, key)
            if found is None:
                break
            start = best = found
        return None if best is None else best + 1

    @staticmethod
    def _find(lines: list[str], start: int, key: str) -> int | None:
        pattern = re.compile(rf"(^|[\s{{,.])\"?{re.escape(key)}\"?\s*(=|\.)")
        for number in range(start, len(lines)):
            if pattern.search(lines[number].split("#")[0]):
                return number
        return None


@dataclass(frozen=True)
class Place:
    """A dotted path inside a source; its text is what stands before an error's message."""

    source: Source
    path: str = ""

    def __truediv__(self, key: str) -> Place:
        return Place(self.source, f"{self.path}.{key}" if self.path else key)

    def __str__(self) -> str:
        parts = self.path.split(".")
        prefixes = {".".join(parts[: i + 1]) for i in range(len(parts))}
        if prefixes & self.source.overridden:
            return f"--set {self.path}"
        line = self.source.line(self.path) if self.path else None
        name = self.source.name if line is None else f"{self.source.name}:{line}"
        return f"{name}: {self.path}" if self.path else name
