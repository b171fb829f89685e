"""What a run will cost: a few real steps, and short timed trainings, of which nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ddkit.data import Dataset, MemoryImages
from ddkit.distillation.checkpoint import save
from ddkit.distillation.compose import Composition
from ddkit.distillation.contract import count_steps, take_step
from ddkit.distillation.preflight import HEADROOM, check_free, size, stored_bytes
from ddkit.distillation.start import prepare
from ddkit.errors import CheckpointError, DDKitError, DivergedError
from ddkit.findings import Finding, looked
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.fresh import Build, backbone_maker, build
from ddkit.networks.pool import ProxyPool
from ddkit.networks.training import accuracy, epochs, fit
from ddkit.plugins import Plugins
from ddkit.recipes.sections import Part, ProxySpec, TrainSpec
from ddkit.reporter import Silent
from ddkit.run import Run
from ddkit.runtime.blame import blamed, used_parts
from ddkit.runtime.device import Runtime
from ddkit.runtime.memory import physical
from ddkit.runtime.progress import duration

STEPS = 3  # the first warms up
PATIENCE = 60.0  # seconds after which no further step is tried
ROWS = 64  # images of a judge's timed epoch
FULL = 0.8  # of the machine's memory, beyond which a run may be stopped


def probe_run(parts: Composition, plugins: Plugins, runtime: Runtime, out: Path) -> list[Finding]:
    """Take a few steps of the recipe's own method on its own images; say what all will cost.

    Nothing is written but to a temporary folder: where networks of a pool would be trained,
    untrained ones of the same size stand in.
    """
    with blamed(used_parts(parts.recipe, plugins)):
        return looked("steps", lambda: _probed(parts, plugins, runtime, out))


def _probed(parts: Composition, plugins: Plugins, runtime: Runtime, out: Path) -> Iterator[Finding]:
    wanted = [] if parts.proxies is None else [parts.proxies]
    with _temporary() as name:
        folder, small = Path(name), _one_of_each(parts.dataset)

        def pools(spec: ProxySpec) -> ProxyPool:
            spec = replace(spec, backbone=parts.recipe.backbone)
            args = parts.dataset, runtime, parts.recipe.seed
            wanted.append(ProxyPool(spec, parts.make, *args))
            return stand_in(wanted[-1], small, runtime, folder)

        proxies = parts.proxies and stand_in(parts.proxies, small, runtime, folder)
        with _words_for_memory():
            run = prepare(replace(parts, proxies=proxies), runtime, Silent(), pools)
            seconds = _steps(run, parts, runtime)
        total = parts.method.steps(run)
        costs = [seconds * total]
        yield Finding(
            "ok", "steps", f"{seconds:.3g} s each; {total:,} take about {duration(costs[0])}"
        )
        yield _memory(runtime)
        yield from looked("checkpoint", lambda: [_checkpoint(run, parts, folder, out)])
        made = run.synthetic
    for pool in wanted:
        yield from _priced("pool", pool, costs)
    if (teacher := parts.recipe.eval.teacher) is not None:
        make = _maker(teacher.backbone, parts, plugins)
        pool = ProxyPool(teacher.pool(), make, parts.dataset, runtime, teacher.seed)
        yield from _priced("teacher", pool, costs)
    judges = _judges(parts, plugins, runtime, made)
    yield Finding("ok", "judges", f"about {duration(judges)} with --eval, the random sets included")
    rest = f", and {duration(judges)} for --eval" if judges >= 1 else ""
    yield Finding("ok", "time", f"about {duration(sum(costs))} in all{rest}")


def _temporary() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="ddkit-probe-")
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(
            f"no temporary folder can be made ({reason}); set TMPDIR to one of yours"
        ) from None


def stand_in(pool: ProxyPool, small: Dataset, runtime: Runtime, folder: Path) -> ProxyPool:
    """Return a pool of as many networks of the same kind, which cost next to nothing to train."""
    count = len(small.train.labels)
    spec = replace(pool.spec, epochs=1, batch_size=count, images=None, input="normalized")
    made = ProxyPool(spec, pool.build, small, runtime, 0)  # what `build` returns takes them so
    made.folder = folder / str(len(list(folder.iterdir())))
    made.folder.mkdir()
    return made


def _one_of_each(data: Dataset) -> Dataset:
    """Return the first two images of each class of `data`, or the only one, as both splits."""
    labels = data.train.labels
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels, minlength=data.info.num_classes)
    within = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    rows = order[within < 2]
    images = MemoryImages(data.train.fetch(rows), labels[rows])
    return Dataset(data.info, images, images)


def _steps(run: Run, parts: Composition, runtime: Runtime) -> float:
    """Take steps as `loop` does; return the seconds of one, the first left out if there are more.

    Raises:
        DivergedError: images or gradients are no longer finite already.
    """
    method, spent, first = parts.method, [], time.perf_counter()
    for i in range(min(STEPS, count_steps(method, run))):
        start = time.perf_counter()
        take_step(method, run, i)
        _wait(runtime)
        spent.append(time.perf_counter() - start)
        if time.perf_counter() - first > PATIENCE:
            break
    if run.watch.found() or not bool(torch.isfinite(run.synthetic.images).all()):
        raise DivergedError(
            f"after {len(spent)} steps images or gradients are no longer finite; lower "
            f"method.lr_images or the weights"
        )
    spent = spent[1:] or spent or [0.0]
    return sum(spent) / len(spent)


def _memory(runtime: Runtime) -> Finding:
    """Return the peak of this process or, on a GPU, of its memory, against what there is."""
    peak, there = runtime.memory(), physical(runtime.device)
    if not peak or not there:
        return Finding("note", "memory", "not known on this system")
    text = f"{size(peak)} at most so far, of {size(there)}"
    if peak > FULL * there:
        advice = "lower runtime.chunk, runtime.micro_batch or method.batch_real"
        return Finding("note", "memory", f"{text}: the run may be stopped; {advice}")
    return Finding("ok", "memory", text)


def _checkpoint(run: Run, parts: Composition, folder: Path, out: Path) -> Finding:
    """Return what a checkpoint takes on the disk, with what methods keep.

    Raises:
        CheckpointError: two of them and the set do not fit where `out` is.
    """
    path = folder / "checkpoint.pt"
    save(path, run, parts.method, 0, "probe")
    taken = path.stat().st_size
    check_free(out, 2 * taken + 2 * stored_bytes(parts) + HEADROOM, "the run")
    return Finding("ok", "checkpoint", f"{size(taken)} each after these steps")


def _priced(subject: str, pool: ProxyPool, costs: list[float]) -> Iterator[Finding]:
    """Yield what training the rest of `pool` takes, once; add it to `costs`."""
    missing = len(pool.missing())
    if not missing:
        yield Finding("ok", subject, f"all {pool.spec.count} networks are in the cache")
        return
    costs.append(pool.price() * missing)
    text = f"{missing} x {pool.spec.backbone} to train, about {duration(costs[-1])}, once"
    yield Finding("ok", subject, text)


def _judges(parts: Composition, plugins: Plugins, runtime: Runtime, made: SyntheticSet) -> float:
    """Return the seconds that judging the set and the random sets will take."""
    spec, counts = parts.recipe.eval, parts.dataset.train.labels.bincount()
    images, targets = made.training()
    stored = parts.recipe.synthetic.ipc
    subjects = [len(images)]  # the set, random images, random mosaics
    if stored * made.formation.pieces <= int(counts.min()):
        subjects += [len(made), len(images)][: 1 + (made.formation.factor > 1)]
    seconds = 0.0
    for arch in spec.archs:
        training = spec.training_of(arch)
        one, tested = _timed(
            _maker(arch, parts, plugins), training, images, targets, parts, runtime
        )
        seconds += spec.seeds * sum(one * n * epochs(training) + tested for n in subjects)
    return seconds


def _timed(
    make: Build,
    spec: TrainSpec,
    images: Tensor,
    targets: Tensor,
    parts: Composition,
    runtime: Runtime,
) -> tuple[float, float]:
    """Return the seconds of training one image once, and of testing a network."""
    net = build(make, runtime.device, 0, "probe-judge")
    count = min(ROWS, len(images))
    once = replace(spec, epochs=1, schedule="constant", batch_size=min(count, spec.batch_size))

    def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows.to(images.device)
        return images[rows], targets.to(images.device)[rows]

    test = parts.dataset.test
    rows = torch.arange(min(4 * ROWS, len(test.labels)))
    part = MemoryImages(test.fetch(rows), test.labels[rows])
    trained = tested = 0.0
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        fit(net, fetch, count, once, 0, runtime, Silent())
        _wait(runtime)
        between = time.perf_counter()
        accuracy(net, part, parts.dataset.info, runtime)
        trained, tested = between - start, time.perf_counter() - between
    return trained / count, tested / len(rows) * len(test.labels)


def _maker(part: Part, parts: Composition, plugins: Plugins) -> Build:
    return backbone_maker(part, plugins, parts.recipe.place("eval"), parts.dataset.info)


@contextmanager
def _words_for_memory() -> Iterator[None]:
    """Say what to lower where memory does not suffice.

    Raises:
        DDKitError: an allocation failed inside the block.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in reason:
            raise
        raise DDKitError(
            f"a step does not fit the memory ({reason}); lower runtime.chunk, "
            f"runtime.micro_batch or method.batch_real"
        ) from None


def _wait(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
