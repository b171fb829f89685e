"""Reporters: where progress goes. Core reports; only the command line prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

Metrics = Mapping[str, Tensor]
"""Names to scalars on the device; only reporters read their values, a few times a second."""


class Reporter(Protocol):
    """Receives progress; to subclass, with what is of interest: the rest does nothing.

    `advance` may raise `Interrupted` to stop the run: state is whole when it is called.
    """

    def begin(self, task: str, total: int, done: int = 0) -> None:
        """Start a task of `total` steps, `done` of which an earlier run took."""
        return

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        """One step is done, in which `images` images went through a network."""
        return

    def note(self, text: str) -> None:
        """Say something once."""
        return

    def end(self) -> None:
        """End the task."""
        return


class Silent(Reporter):
    """Reports nothing."""
