"""The only loop that trains classifiers: proxies, teachers and judges go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer

from ddkit.data import DataInfo, ImageSource
from ddkit.errors import DataError, DivergedError, IncompatibleError
from ddkit.images.augment import draw_per_image
from ddkit.recipes.sections import TrainSpec
from ddkit.reporter import Reporter
from ddkit.runtime import randomness
from ddkit.runtime.device import Runtime

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Row numbers (int64 [n], CPU) to normalised images [n,C,H,W] and targets, on the device.

Targets are classes, int64 [n], or class probabilities [n,K].
"""

SUM_TOLERANCE = 0.01
"""Of a row of probabilities: those stored in 16 bits miss 1 by some thousandths."""


def fit(
    net: nn.Module,
    fetch: Fetch,
    count: int,
    spec: TrainSpec,
    seed: int,
    runtime: Runtime,
    reporter: Reporter,
    optimizer: Optimizer | None = None,
    after: Callable[[int], None] | None = None,
) -> None:
    """Train `net` in place on rows 0 to `count` - 1; a function of `seed` and nothing else.

    `optimizer` goes on from an earlier call; by default a new one is made. The reporter is advanced
    once an epoch, with the mean loss; then `after` is called with the number of epochs taken.
    A last batch of one image joins the one before it where `net` cannot take it: see `joins`.

    Raises:
        DivergedError: what was trained holds a value that is not finite.
        DataError: targets of several columns are no class probabilities.
        IncompatibleError: as `joins`, before anything is trained.
    """
    net.train()
    join = joins(net, count, spec.batch_size, lambda: fetch(torch.arange(1))[0], runtime)
    optimizer = optimizer or make_optimizer(net, spec, spec.lr)
    with randomness.global_generator(seed, "layers", device=runtime.device):  # dropout
        for epoch, rate in enumerate(rates(spec)):
            if rate != optimizer.param_groups[0]["lr"]:
                if spec.schedule == "dc":  # the published loop starts anew here
                    optimizer = make_optimizer(net, spec, rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate
            split = batches(count, spec.batch_size, seed, epoch, join)
            loss = _epoch(net, optimizer, fetch, split, spec, (seed, epoch), runtime)
            reporter.advance({"loss": loss}, images=count)
            if after is not None:
                after(epoch + 1)
                net.train()
    if not finite(net):
        raise DivergedError("its weights are no longer finite")


def _epoch(
    net: nn.Module,
    optimizer: Optimizer,
    fetch: Fetch,
    split: Iterator[Tensor],
    spec: TrainSpec,
    at: tuple[int, int],
    runtime: Runtime,
) -> Tensor:
    """Take one epoch, `at` (seed, number), over the batches of `split`; return its mean loss."""
    total, count = torch.zeros((), device=runtime.device), 0
    for step, rows in enumerate(split):
        images, targets = fetch(rows)
        if at[1] == 0 and targets.ndim > 1:  # once: later epochs bring the same rows
            require_probabilities(targets)
        rng = randomness.generator(at[0], "train-augment", at[1], step)
        images = draw_per_image(spec.augmentation, len(rows), rng).single(images)
        images, other, share = cutmix(images, spec.cutmix, rng)
        with runtime.autocast():
            logits = net(images)
        loss = mixed_loss(logits.float(), targets, other, share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
        count += len(rows)
    return total / count


@torch.no_grad()
def finite(net: nn.Module) -> bool:
    """Whether every parameter and buffer of `net` is finite; waits for the device once."""
    tensors = [*net.parameters(), *net.buffers()]
    whole = [torch.isfinite(t).all() for t in tensors if t.is_floating_point()]
    return not whole or bool(torch.stack(whole).all())


def require_probabilities(targets: Tensor) -> None:
    """Refuse `targets` [n,K] that are no class probabilities, such as logits.

    Raises:
        DataError: a value is negative or no number, or a row does not sum to one.
    """
    right = (targets >= 0).all() & ((targets.sum(1) - 1).abs() <= SUM_TOLERANCE).all()
    if not bool(right):
        raise DataError(
            "soft labels must be probabilities: rows at least 0 that sum to 1; these are others, "
            "perhaps logits, of which softmax makes probabilities"
        )


def joins(
    net: nn.Module, count: int, size: int, image: Callable[[], Tensor], runtime: Runtime
) -> bool:
    """Whether a last batch of one image must join the one before it.

    So where `count` rows in batches of `size` leave one over, and `net` cannot train on one: batch
    norm has nothing to normalise by in a map of 1x1. `image` gives one to try, [1,C,H,W].

    Raises:
        IncompatibleError: `net` cannot take one image, and every batch is of one.
    """
    if (size > 1 and count % size != 1) or _takes_one(net, image, runtime):
        return False
    if min(count, size) > 1:
        return True
    why = "batch_size is 1; raise it" if size == 1 else "there is but one image to train on"
    raise IncompatibleError(
        f"this network normalises over the batch and cannot train on a single image, but {why}, or "
        f"choose one without batch norm"
    )


def _takes_one(net: nn.Module, image: Callable[[], Tensor], runtime: Runtime) -> bool:
    """Whether `net` trains on a batch of one image; tried on a copy, it draws from no stream."""
    tried = deepcopy(net).train()
    with randomness.global_generator(0, "one-image", device=runtime.device), torch.no_grad():
        try:
            return bool(torch.isfinite(tried(image())).all()) or not finite(net)
        except (ValueError, RuntimeError):  # torch's batch norm raises the one, others the other
            return False


def epochs(spec: TrainSpec) -> int:
    """Return how many epochs are trained: the published loop of ``dc`` runs one more."""
    return spec.epochs + (spec.schedule == "dc")


def rates(spec: TrainSpec) -> list[float]:
    """Return the learning rate of each epoch."""
    if spec.schedule == "constant":
        return [spec.lr] * epochs(spec)
    if spec.schedule == "steps":
        falls = [int(m * spec.epochs) for m in spec.milestones]
        return [spec.lr * spec.gamma ** sum(e >= f for f in falls) for e in range(spec.epochs)]
    first = min(spec.epochs // 2 + 2, epochs(spec))  # the fall comes after epoch E // 2 + 1
    return [spec.lr] * first + [spec.lr * spec.gamma] * (epochs(spec) - first)


def batches(count: int, size: int, seed: int, epoch: int, join: bool = False) -> Iterator[Tensor]:
    """Yield a shuffle of the rows in batches, the last short one included.

    With `join`, a last batch of one row is part of the batch before it.
    """
    order = torch.randperm(count, generator=randomness.generator(seed, "shuffle", epoch))
    split = list(order.split(size))
    if join and len(split) > 1 and len(split[-1]) == 1:
        split[-2:] = [torch.cat(split[-2:])]
    yield from split


def cutmix(
    images: Tensor, probability: float, rng: torch.Generator
) -> tuple[Tensor, Tensor | None, float]:
    """With `probability`, paste a box from a shuffle of the batch into it.

    S. Yun et al., "CutMix", ICCV 2019, with the share of the box uniform in [0, 1).

    Returns:
        The images, the shuffle (None where nothing was pasted), and the share that is their own.
    """
    if probability == 0 or float(torch.rand((), generator=rng)) >= probability:
        return images, None, 1.0
    height, width = images.shape[-2:]
    side = (1 - float(torch.rand((), generator=rng))) ** 0.5
    row, col = (int(torch.randint(size, (), generator=rng)) for size in (height, width))
    other = torch.randperm(len(images), generator=rng).to(images.device)
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(row - half_h, 0), min(row + half_h, height)
    left, right = max(col - half_w, 0), min(col + half_w, width)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[other, :, top:bottom, left:right]
    return mixed, other, 1 - (bottom - top) * (right - left) / (height * width)


def mixed_loss(logits: Tensor, targets: Tensor, other: Tensor | None, share: float) -> Tensor:
    """Return the cross-entropy of a batch after `cutmix`, the mean over images."""
    loss = cross_entropy(logits, targets)
    if other is None:
        return loss
    return share * loss + (1 - share) * cross_entropy(logits, targets[other])


def make_optimizer(net: nn.Module, spec: TrainSpec, lr: float) -> Optimizer:
    """Return the optimizer of `spec` over all parameters that take gradients."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    if spec.optimizer == "adamw":
        return AdamW(parameters, lr=lr, weight_decay=spec.weight_decay)
    return SGD(parameters, lr=lr, momentum=spec.momentum, weight_decay=spec.weight_decay)


@torch.no_grad()
def accuracy(net: nn.Module, source: ImageSource, info: DataInfo, runtime: Runtime) -> float:
    """Return the share of images of `source` that `net` classifies rightly, 0 to 1.

    Raises:
        DivergedError: an answer is no number. (Its largest logit would be the first that is none,
            so that the network seemed to know a class.)
    """
    net.eval()
    right = torch.zeros((), dtype=torch.int64, device=runtime.device)
    lost = torch.zeros_like(right)
    labels = source.labels
    for rows in torch.arange(len(labels)).split(max(runtime.micro_batch, 256)):
        images = info.normalize(source.fetch(rows).float().div_(255))
        with runtime.autocast():
            logits = net(images)
        right += (logits.argmax(1) == labels[rows].to(logits.device)).sum()
        lost += torch.isnan(logits).any(1).sum()
    if int(lost):
        raise DivergedError(f"its answers to {int(lost)} of {len(labels)} images are no numbers")
    return int(right) / len(labels)
