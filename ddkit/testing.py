"""Checks for authors of plugins, which every component of ddkit's own passes too.

A plugin's test is one line: ``check_regularizer(Spread, margin=0.1)``. A check raises
`AssertionError` that says which rule is broken; all run on the CPU in a second or so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn

from ddkit.backbone import Backbone, embed, maps
from ddkit.data import DataInfo, Dataset, ImageSource
from ddkit.distillation.bench import (
    CPU,
    Bench,
    stand_in,
    tiny_dataset,
    tiny_match,
    witnesses,
)
from ddkit.distillation.checkpoint import restore, save
from ddkit.distillation.contract import count_steps, watched_step
from ddkit.errors import ContractError
from ddkit.images.synthetic import SyntheticSet
from ddkit.method import Method
from ddkit.networks.fresh import build
from ddkit.recipes.binding import bind
from ddkit.recipes.place import Place, Source
from ddkit.regularizer import FIELDS, Regularizer, check_scalar
from ddkit.reporter import Metrics
from ddkit.run import Run
from ddkit.runtime.randomness import generator, global_generator

__all__ = [
    "Bench",
    "check_backbone",
    "check_dataset",
    "check_method",
    "check_regularizer",
    "stand_in",
    "tiny_dataset",
]

STEPS = 4  # that `check_method` takes, or as many as the method has


def check_method(
    factory: Callable[..., Method], bench: Bench | None = None, /, **options: Any
) -> None:
    """Take a few steps with the method that `factory` makes of `options`, in several ways.

    Losses and images stay finite, and the images move; the global generator has no say; a run that
    is saved half-way and taken up again ends with the same bits as an unbroken one; every field
    that the method says it provides reaches a regularizer, whose gradient reaches the images; the
    set survives its file.

    Raises:
        AssertionError: naming the rule that is broken.
    """
    make, bench = partial(bind, factory, options, _place(factory)), bench or Bench()
    with TemporaryDirectory() as name:
        folder = Path(name)
        start = bench.run(make(), folder).synthetic.images.detach().clone()
        with global_generator(1, "check-method"):
            whole = _taken(bench, make, folder).synthetic
        _require(not torch.equal(whole.images, start), "the steps leave the images as they were")
        with global_generator(2, "check-method"):
            again = _taken(bench, make, folder).synthetic
        _same_set(whole, again, "draw randomness from Run.stream alone: a second run differs")
        broken = _taken(bench, make, folder, interrupt=True).synthetic
        _same_set(whole, broken, "a run taken up from its checkpoint differs from an unbroken one")
        whole.save(folder / "set.safetensors")
        loaded = SyntheticSet.load(folder / "set.safetensors")
        _same_set(whole, loaded, "the set changes on its way through its file")
        provided = make().provides
        _require(provided <= FIELDS, f"provides {sorted(provided)}, out of {sorted(FIELDS)}")
        if provided:
            terms = (*bench.terms, *witnesses(provided))
            seen = _taken(replace(bench, terms=terms), make, folder).synthetic
            _require(not torch.equal(whole.images, seen.images), "regularizers change nothing")


def check_regularizer(factory: Callable[..., Regularizer], /, **options: Any) -> None:
    """Evaluate the regularizer that `factory` makes of `options` on a match of three classes.

    The loss is a finite scalar, the same twice, with a finite gradient that is not all zero; it
    reads nothing but what it requires; chunks of classes add up to the whole; the order of the
    rows does not matter (mosaics decode in another one).

    Raises:
        AssertionError: naming the rule that is broken.
    """
    term: Regularizer = bind(factory, options, _place(factory))
    unknown = term.requires - FIELDS
    _require(not unknown, f"requires {sorted(unknown)}, which no Match has")
    dataset = tiny_dataset()
    images = torch.randn(12, *dataset.info.shape, generator=generator(0, "check-regularizer"))
    labels = torch.arange(12) // 4
    images.requires_grad_()
    match = tiny_match(dataset, images, labels, term.requires)
    loss = term.loss(match)
    with _in_rules():
        check_scalar(loss, "regularizer", "loss must return")
    _require(bool(torch.isfinite(loss)), f"loss must be finite, not {loss.item()}")
    _require(loss.requires_grad, "no gradient reaches the images: loss does not depend on them")
    (slope,) = torch.autograd.grad(loss, images, allow_unused=True, retain_graph=True)
    _require(slope is not None, "no gradient reaches the images")
    _require(bool(torch.isfinite(slope).all()), "the gradient is not finite")
    _require(bool(slope.any()), "the gradient is zero everywhere")
    _require(torch.equal(loss, term.loss(match)), "the same match gives another loss")
    parts = [labels < 1, labels >= 1]
    added = sum(term.loss(tiny_match(dataset, images[p], labels[p], term.requires)) for p in parts)
    _close(loss, added, "chunks of classes do not add up: sum over classes, do not average")
    order = torch.randperm(12, generator=generator(0, "check-order"))
    shuffled = tiny_match(dataset, images[order], labels[order], term.requires)
    _close(loss, term.loss(shuffled), "the order of the rows matters: go through Match.groups")


def check_backbone(
    factory: Callable[..., nn.Module], info: DataInfo | None = None, /, **options: Any
) -> None:
    """Build the network that `factory` makes for `info` and pass four images through it.

    Logits, features and maps have the contract's shapes; the classifier of the embedding is the
    output; gradients are finite and reach the images and parameters; initial weights depend on the
    global generator alone.

    Raises:
        AssertionError: naming the rule that is broken.
    """
    info = info or tiny_dataset().info
    make = partial(bind, factory, options, _place(factory), info=info)
    net = build(make, CPU, 0, "check-backbone")
    x = torch.randn(4, *info.shape, generator=generator(0, "check-images")).requires_grad_()
    logits, features = net.train()(x), embed(net, x)
    _require(logits.shape == (4, info.num_classes), f"logits are {list(logits.shape)}")
    _require(features.ndim == 2 and len(features) == 4, f"features are {list(features.shape)}")
    local = maps(net, x)
    _require(local.ndim == 3 and len(local) == 4, f"maps are {list(local.shape)}, not [N,C,P]")
    logits.square().sum().backward()
    slopes = [p.grad for p in net.parameters() if p.grad is not None]
    _require(x.grad is not None and bool(x.grad.any()), "no gradient reaches the images")
    _require(bool(slopes), "no gradient reaches the parameters")
    finite = all(bool(torch.isfinite(g).all()) for g in [cast(Tensor, x.grad), *slopes])
    _require(finite, "a gradient is not finite")
    with torch.no_grad():
        output, embedding = net.eval()(x), embed(net, x)
        head = cast(Backbone, net).get_classifier()
        _close(output, head(embedding), "get_classifier()(embed(net, x)) is not net(x)")
        _require(torch.equal(output, net(x)), "the same images give another output in eval()")
        twin = build(make, CPU, 0, "check-backbone")
    weights = zip(net.parameters(), twin.parameters(), strict=True)
    _require(all(torch.equal(a, b) for a, b in weights), "the same seed gives other weights")


def check_dataset(dataset: Dataset) -> None:
    """Look at both splits of `dataset`: types, shapes, labels, and what it says of itself.

    Raises:
        AssertionError: naming the rule that is broken.
    """
    info = dataset.info
    _require(len(set(info.classes)) == info.num_classes, "two classes have one name")
    lengths = (len(info.mean), len(info.std))
    _require(lengths == (info.channels,) * 2, "mean and std need one value for each channel")
    _require(all(s > 0 for s in info.std), f"std is {info.std}")
    _require(DataInfo.from_dict(info.to_dict()) == info, "info changes on its way through JSON")
    _check_source(dataset.train, info, "train")
    _check_source(dataset.test, info, "test")
    _require(dataset.fingerprint() == dataset.to(CPU).fingerprint(), "the fingerprint changes")


def _check_source(source: ImageSource, info: DataInfo, split: str) -> None:
    labels = source.labels
    _require(labels.dtype == torch.int64 and labels.ndim == 1, f"{split}: labels not int64 [N]")
    _require(labels.device == CPU, f"{split}: labels must stay on the CPU")
    present = labels.unique().tolist()
    _require(present == list(range(info.num_classes)), f"{split}: has the classes {present}")
    rows = torch.tensor([len(labels) - 1, 0, len(labels) - 1])
    images = source.fetch(rows)
    _require(images.dtype == torch.uint8, f"{split}: images are {images.dtype}, not uint8")
    _require(images.shape == (3, *info.shape), f"{split}: images are {list(images.shape)}")
    _require(torch.equal(images[:2], source.fetch(rows[:2])), f"{split}: images change")
    _require(torch.equal(images[0], images[2]), f"{split}: rows come in another order than asked")


def _taken(bench: Bench, make: Callable[[], Method], folder: Path, interrupt: bool = False) -> Run:
    """Take up to `STEPS` steps; if asked, go on half-way in new objects from a checkpoint."""
    method = make()
    run, state = bench.run(method, folder), folder / "checkpoint.pt"
    with _in_rules():
        total = min(STEPS, count_steps(method, run))
    for i in range(total):
        if interrupt and i == total // 2:
            save(state, run, method, i, "check")
            method = make()
            run = bench.run(method, folder)
            restore(state, run, method, "check")
        with _in_rules():
            metrics = watched_step(method, run, i)
        _check_metrics(metrics)
    method.finish(run)
    _require(run.watch.found() is None, "a gradient is not finite")
    _require(bool(torch.isfinite(run.synthetic.images).all()), "an image is not finite")
    return run


def _check_metrics(metrics: Metrics) -> None:
    for name, value in metrics.items():
        _require(bool(torch.isfinite(value)), f"{name!r} is {value}")


def _place(factory: Callable[..., Any]) -> Place:
    """Return where options stand that a test gives, for messages."""
    return Place(Source(f"options of {getattr(factory, '__name__', factory)}"))


def _same_set(a: SyntheticSet, b: SyntheticSet, rule: str) -> None:
    pairs = [(a.images, b.images), (a.labels, b.labels), (a.soft, b.soft)]
    same = all(x is y or (x is not None and y is not None and torch.equal(x, y)) for x, y in pairs)
    _require(same, rule)


def _close(a: Tensor, b: Tensor | float, rule: str) -> None:
    _require(torch.allclose(a, torch.as_tensor(b), rtol=1e-4, atol=1e-5), f"{rule}: {a} and {b}")


@contextmanager
def _in_rules() -> Iterator[None]:
    try:
        yield
    except ContractError as error:
        raise AssertionError(f"the {error.kind}: {error}") from error


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(rule)
