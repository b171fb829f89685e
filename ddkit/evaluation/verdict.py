"""What an evaluation says: results, the verdict they make, and how much of it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import mean, stdev
from typing import Any

from ddkit.recipes.protocol import deviations
from ddkit.recipes.sections import EvalSpec


@dataclass(frozen=True)
class Result:
    """Last-epoch test accuracies, 0 to 1, of networks of one architecture trained on one thing.

    `failures` say of each network that diverged its number and why: it gives no figure, and mean
    and deviation are those of the `n` others.
    `best` are the best of all tests of the same networks, selected on the test data as much
    published code does; empty unless asked for, and never the result.
    """

    arch: str
    subject: str
    accuracies: tuple[float, ...]
    seconds: float
    best: tuple[float, ...] = ()
    preset: Mapping[str, Any] = field(default_factory=dict)
    """Settings in which this architecture's training departs from the protocol's."""
    failures: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.accuracies)

    @property
    def mean(self) -> float | None:
        """The mean accuracy; None where every network diverged."""
        return mean(self.accuracies) if self.accuracies else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None of a single network."""
        return stdev(self.accuracies) if self.n > 1 else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"n": self.n, "mean": self.mean, "std": self.std}


@dataclass(frozen=True)
class Scope:
    """How much of an evaluation is wanted.

    Attributes:
        baseline: whether random sets are judged too.
        best_every: test every so many epochs as well, for the best that published code reports.
        networks: only these, by number; default all that the protocol has.
        judge_seed: of the networks' weights and training.
        data_seed: of the draws of the random sets.
    """

    baseline: bool = True
    best_every: int | None = None
    networks: range | None = None
    judge_seed: int = 0
    data_seed: int = 0


WHOLE = Scope()


@dataclass(frozen=True)
class Verdict:
    """All results of one evaluation, and by what protocol they were obtained."""

    spec: EvalSpec
    results: list[Result] = field(default_factory=list)
    teacher_accuracy: float | None = None
    scope: Scope = WHOLE
    tested: str = ""
    """What the test images are, where they are not the dataset's own."""

    @property
    def failures(self) -> list[str]:
        """Which networks gave no figure, a line each."""
        return [f"{r.arch} on {r.subject}, {f}" for r in self.results for f in r.failures]

    @property
    def protocol(self) -> str:
        """The protocol's name, its teacher's network, whatever departs from it, and other tests."""
        teacher, name = self.spec.teacher, self.spec.protocol
        departs = ", ".join(f"{k} = {v}" for k, v in deviations(self.spec).items())
        name = f"{name} (labels of {teacher.backbone})" if teacher else name
        name = f"{name} with {departs}" if departs else name
        seeds = {"judges": self.scope.judge_seed, "random sets": self.scope.data_seed}
        told = ", ".join(f"{k} {v}" for k, v in seeds.items() if v)
        name = f"{name}; seeds: {told}" if told else name
        if any("weights" in arch.options for arch in self.spec.archs):
            name = f"{name}; not from scratch where weights are given"
        return f"{name}; tested on {self.tested}" if self.tested else name

    def to_dict(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "tested": self.tested,
            "training": asdict(self.spec.training),
            "teacher": self.spec.teacher and asdict(self.spec.teacher),
            "teacher_accuracy": self.teacher_accuracy,
            "results": [r.to_dict() for r in self.results],
        }
