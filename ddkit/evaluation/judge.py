"""Evaluation: train on the set, test on real images, with a random set beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ddkit.data import Dataset
from ddkit.errors import DivergedError, IncompatibleError
from ddkit.evaluation.baselines import Draw, baselines, check_data
from ddkit.evaluation.journal import Journal, Judged
from ddkit.evaluation.verdict import WHOLE, Result, Scope, Verdict
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.digest import build_digest
from ddkit.networks.fresh import Build, build
from ddkit.networks.teacher import Teacher
from ddkit.networks.training import accuracy, epochs, fit, joins
from ddkit.recipes.sections import EvalSpec, Part, TrainSpec
from ddkit.reporter import Reporter
from ddkit.runtime import randomness
from ddkit.runtime.device import Runtime

MakeBackbone = Callable[[Part], Build]


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
    journal: Journal | None = None,
) -> Verdict:
    """Train `spec.seeds` new networks of each architecture on `syn`; test after the last epoch.

    The same networks (same seeds, same protocol) are also trained on random real images, a new draw
    for each network: as many full images as the set stores and, where the set is a mosaic, also
    mosaics of as many. A `teacher` labels everything that judges train on. A network that diverged
    gives no figure: that is noted, and stands in the verdict. Networks that the `journal` knows are
    not trained again.

    Raises:
        IncompatibleError: the set and the data differ in shape or classes; an architecture cannot
            train on batches of one image, and the protocol makes no others.
        DivergedError: every network diverged.
    """
    check_data(syn, data)
    # Normalised and whitened as the set was: test images, random images and what the teacher sees.
    data = replace(data, info=syn.info).to(runtime.device)
    made = syn.to(runtime.device)
    subjects: list[tuple[str, Draw]] = [("set", lambda k: made)]
    if scope.baseline:
        real = RealImages(data, scope.data_seed, runtime.device)
        subjects += [(name, draw) for name, draw in baselines(syn, real)]
    networks = range(spec.seeds) if scope.networks is None else scope.networks
    total = sum(epochs(spec.training_of(a)) for a in archs) * len(networks) * len(subjects)
    makes = [make(arch) for arch in archs]  # refuses before anything is trained
    for arch, build_it in zip(archs, makes, strict=True):
        _check_batches(arch, build_it, made, spec.training_of(arch), runtime)
    if teacher is not None:
        teacher.prepare(reporter)
    taught = teacher.accuracy if teacher else None
    verdict = Verdict(spec, teacher_accuracy=taught, tested=data.tested, scope=scope)
    reporter.begin("evaluate", total)
    try:
        for arch, build_it in zip(archs, makes, strict=True):
            training = spec.training_of(arch)
            judge = _Judge(
                arch, build_it, data, training, runtime, reporter, teacher, scope, journal
            )
            for subject, draw in subjects:
                result = judge.judged(subject, draw, networks)
                verdict.results.append(replace(result, preset=spec.preset(arch)))
    finally:
        reporter.end()
    if not any(result.n for result in verdict.results):
        raise DivergedError(
            f"no network gives a figure: {verdict.failures[0]}, and all others too; lower the "
            f"protocol's lr (--set lr=…, or eval.lr in the recipe)"
        )
    return verdict


def _check_batches(
    arch: Part, make: Build, made: SyntheticSet, spec: TrainSpec, runtime: Runtime
) -> None:
    """Refuse networks that cannot train on a single image, where they would get no more.

    Raises:
        IncompatibleError: naming `arch`.
    """
    net = build(make, runtime.device, 0, "one-image")
    blank = torch.zeros(1, *made.info.shape, device=runtime.device)
    try:
        joins(net, len(made.training_classes()), spec.batch_size, lambda: blank, runtime)
    except IncompatibleError as error:
        raise IncompatibleError(f"{arch}: {error}") from None


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
    journal: Journal | None

    @cached_property
    def names(self) -> tuple[str, str]:
        """What tells this architecture: its name, and a digest of what it builds."""
        return str(self.arch), build_digest(self.make, self.data.info)

    def judged(self, subject: str, draw: Draw, networks: range) -> Result:
        """Train `networks` on what `draw` gives them; one that diverged gives no figure."""
        judged = [self.one(subject, draw, k) for k in networks]
        for failure in (one.failure for one in judged if one.failure):
            self.reporter.note(f"{self.arch} on {subject}, {failure}; it gives no figure")
        tests = [one.tests for one in judged if one.tests]
        return Result(
            arch=str(self.arch),
            subject=subject,
            accuracies=tuple(test[-1] for test in tests),
            seconds=sum(one.seconds for one in judged),
            best=tuple(map(max, tests)) if self.scope.best_every else (),
            failures=tuple(one.failure for one in judged if one.failure),
        )

    def one(self, subject: str, draw: Draw, k: int) -> Judged:
        """Return what comes of network number `k`, from the journal or by training it."""
        if self.journal is not None:
            known = self.journal.get([*self.names, subject, k])
            if known is not None:
                for _ in range(epochs(self.spec)):
                    self.reporter.advance({})
                return known
        start, tests, failure = time.perf_counter(), [], ""
        try:
            tests = self.tests(k, draw(k))
        except DivergedError as error:
            failure = f"network {k} diverged at lr {self.spec.lr:g}: {error}"
        made = Judged(tuple(tests), time.perf_counter() - start, failure)
        if self.journal is not None:
            self.journal.keep([*self.names, subject, k], made)
        return made

    def tests(self, k: int, made: SyntheticSet) -> list[float]:
        """Train network number `k` on `made` from scratch.

        Returns:
            Its test accuracies, as often as the scope says and after the last epoch.

        Raises:
            DivergedError: it is no longer finite, or its answers are not.
        """
        device = self.runtime.device
        net: nn.Module = build(self.make, device, self.scope.judge_seed, f"judge {self.arch}", k)
        seed = randomness.derive(self.scope.judge_seed, f"judge-training {self.arch}", k)
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
