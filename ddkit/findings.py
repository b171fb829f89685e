"""Findings: what a look at the machine, the data or a recipe has shown. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from ddkit.errors import DDKitError

Level = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``; ``note``, which a user may want to know; ``FAIL``, with which it cannot work.
        subject: what was looked at, a word or two.
        text: what was found and, unless it is well, what to do.
        error: of ``FAIL``, what the real run raises.
    """

    level: Level
    subject: str
    text: str
    error: DDKitError | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.subject:<11} {self.text}"

    @property
    def exit_code(self) -> int:
        """What a command that finds it exits with."""
        if self.level != "FAIL":
            return 0
        return 1 if self.error is None else self.error.exit_code


def failed(subject: str, error: DDKitError) -> Finding:
    """Return the finding that a run would be refused, in the words of the refusal."""
    return Finding("FAIL", subject, str(error), error)


def looked(subject: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what `look` finds; what it raises, as one more finding."""
    try:
        return list(look())
    except DDKitError as error:
        return [failed(subject, error)]


def refuse(findings: Iterable[Finding]) -> None:
    """Raise the first refusal among `findings`, if there is one.

    Raises:
        DDKitError: what cannot work, as it was found.
    """
    for finding in findings:
        if finding.error is not None:
            raise finding.error
