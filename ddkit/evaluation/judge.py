"""Evaluation: train on the set, test on real images, with a random set beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from ddkit.data import Dataset
from ddkit.errors import IncompatibleError
from ddkit.images.formation import Formation
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.fresh import Build, build
from ddkit.networks.teacher import Teacher
from ddkit.networks.training import accuracy, epochs, fit
from ddkit.recipes.recipe import deviations
from ddkit.recipes.sections import EvalSpec, Part, TrainSpec
from ddkit.reporter import Reporter
from ddkit.runtime import randomness
from ddkit.runtime.device import Runtime

MakeBackbone = Callable[[Part], Build]
Draw = Callable[[int], SyntheticSet]
"""What network number k trains on."""


@dataclass(frozen=True)
class Result:
    """Last-epoch test accuracies, 0 to 1, of networks of one architecture trained on one thing.

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

    @property
    def n(self) -> int:
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        return mean(self.accuracies)

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
    """

    baseline: bool = True
    best_every: int | None = None
    networks: range | None = None


WHOLE = Scope()


@dataclass(frozen=True)
class Verdict:
    """All results of one evaluation, and by what protocol they were obtained."""

    spec: EvalSpec
    results: list[Result] = field(default_factory=list)
    teacher_accuracy: float | None = None

    @property
    def protocol(self) -> str:
        """The protocol's name, its teacher's network, and whatever departs from it."""
        teacher, name = self.spec.teacher, self.spec.protocol
        departs = ", ".join(f"{k} = {v}" for k, v in deviations(self.spec).items())
        name = f"{name} (labels of {teacher.backbone})" if teacher else name
        return f"{name} with {departs}" if departs else name

    def to_dict(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "training": asdict(self.spec.training),
            "teacher": self.spec.teacher and asdict(self.spec.teacher),
            "teacher_accuracy": self.teacher_accuracy,
            "results": [r.to_dict() for r in self.results],
        }


def evaluate(
    syn: SyntheticSet,
    archs: Sequence[Part],
    data: Dataset,
    spec: EvalSpec,
    make: MakeBackbone,
    runtime: Runtime,
    reporter: Reporter,
    teacher: Teacher | None = None,
    scope: Scope = WHOLE,
) -> Verdict:
    """Train `spec.seeds` new networks of each architecture on `syn`; test after the last epoch.

    The same networks (same seeds, same protocol) are also trained on random real images, a new draw
    for each network: as many full images as the set stores and, where the set is a mosaic, also
    mosaics of as many. A `teacher` labels everything that judges train on.

    Raises:
        IncompatibleError: the set and the data differ in shape or classes.
    """
    check_data(syn, data)
    data = replace(data, info=syn.info).to(runtime.device)  # whitened as the set was, if it was
    made = syn.to(runtime.device)
    subjects: list[tuple[str, Draw]] = [("set", lambda k: made)]
    if scope.baseline:
        real = RealImages(data, 0, runtime.device)
        subjects += [(name, draw) for name, draw in baselines(syn, real)]
    networks = range(spec.seeds) if scope.networks is None else scope.networks
    total = sum(epochs(spec.training_of(a)) for a in archs) * len(networks) * len(subjects)
    makes = [make(arch) for arch in archs]  # refuses before anything is trained
    if teacher is not None:
        teacher.prepare(reporter)
    verdict = Verdict(spec, teacher_accuracy=teacher.accuracy if teacher else None)
    reporter.begin("evaluate", total)
    try:
        for arch, build_it in zip(archs, makes, strict=True):
            training = spec.training_of(arch)
            judge = _Judge(arch, build_it, data, training, runtime, reporter, teacher, scope)
            for subject, draw in subjects:
                start = time.perf_counter()
                tests = [judge(k, draw(k)) for k in networks]
                result = Result(
                    arch=str(arch),
                    subject=subject,
                    accuracies=tuple(test[-1] for test in tests),
                    seconds=time.perf_counter() - start,
                    best=tuple(map(max, tests)) if scope.best_every else (),
                    preset=spec.preset(arch),
                )
                verdict.results.append(result)
    finally:
        reporter.end()
    return verdict


@dataclass
class _Judge:
    """One architecture's networks under one protocol."""

    arch: Part
    make: Build
    data: Dataset
    spec: TrainSpec
    runtime: Runtime
    reporter: Reporter
    teacher: Teacher | None
    scope: Scope

    def __call__(self, k: int, made: SyntheticSet) -> list[float]:
        """Train network number `k` on `made` from scratch.

        Returns:
            Its test accuracies, as often as the scope says and after the last epoch.
        """
        device = self.runtime.device
        net: nn.Module = build(self.make, device, 0, f"judge {self.arch}", k)
        seed = randomness.derive(0, f"judge-training {self.arch}", k)
        images, targets = made.training()
        total, hard_from, classes = epochs(self.spec), -1, targets
        every = self.scope.best_every or total
        if self.teacher is not None:
            classes = made.training_classes()
            targets = self.teacher.label(images, classes)
            hard_from = total - self.teacher.spec.hard_epochs
        tests: list[float] = []

        def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
            rows = rows.to(device)
            return images[rows], targets[rows]

        def after(epoch: int) -> None:
            nonlocal targets
            if epoch == hard_from:
                targets = classes
            if epoch == total or epoch % every == 0:
                tests.append(accuracy(net, self.data.test, self.data.info, self.runtime))

        fit(net, fetch, len(images), self.spec, seed, self.runtime, self.reporter, after=after)
        return tests


def baselines(syn: SyntheticSet, real: RealImages) -> Iterable[tuple[str, Draw]]:
    """Yield the random sets that `syn` is compared with, each as a function of a number."""
    lacking = no_baseline(syn, real.counts)
    if lacking:
        raise IncompatibleError(f"{lacking}; use --no-baseline")
    yield "random", lambda k: random_set(real, syn.ipc, Formation(), k)
    if syn.formation.factor > 1:
        formation = syn.formation
        name = f"random {formation.factor}x{formation.factor}"
        yield name, lambda k: random_set(real, syn.ipc, formation, k)


def random_set(real: RealImages, ipc: int, formation: Formation, k: int) -> SyntheticSet:
    """Return draw number `k` of `ipc` random real images (or mosaics of them) per class."""
    info = real.info
    labels = torch.arange(info.num_classes).repeat_interleave(ipc)
    images = torch.empty(len(labels), *info.shape, device=real.device)
    made = SyntheticSet(nn.Parameter(images), labels, info, formation)
    classes = torch.arange(info.num_classes)
    drawn, _ = real.sample(classes, ipc * formation.pieces, k, stream="baseline")
    made.fill(drawn)
    return made


def no_baseline(syn: SyntheticSet, counts: Sequence[int]) -> str | None:
    """Return why there are no random sets beside `syn`, given the images per class, or None."""
    need = syn.ipc * syn.formation.pieces
    if need <= min(counts):
        return None
    return (
        f"the random baseline needs {need} images per class, but a class of {syn.info.name} has "
        f"{min(counts)}"
    )


def check_data(syn: SyntheticSet, data: Dataset) -> None:
    """Refuse data that the set was not made for.

    Raises:
        IncompatibleError: other shape, classes or normalisation.
    """
    for what in ("shape", "classes", "mean", "std"):
        ours, theirs = getattr(syn.info, what), getattr(data.info, what)
        if ours != theirs:
            raise IncompatibleError(
                f"the set was made for {syn.info.name} with {what} {_short(ours)}, but the test "
                f"data {data.info.name} has {_short(theirs)}"
            )


def _short(value: tuple[Any, ...]) -> str:
    text = ", ".join(map(str, value[:4]))
    return f"({text}, … {len(value)} in all)" if len(value) > 4 else f"({text})"
