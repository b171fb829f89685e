"""The only loop that trains classifiers: proxies, teachers and judges go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer

from ddkit.data import DataInfo, ImageSource
from ddkit.images.augment import draw_per_image
from ddkit.recipes.sections import TrainSpec
from ddkit.reporter import Reporter
from ddkit.runtime import randomness
from ddkit.runtime.device import Runtime

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Row numbers (int64 [n], CPU) to normalised images [n,C,H,W] and targets, on the device.

Targets are classes, int64 [n], or class probabilities [n,K].
"""


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
    """
    net.train()
    optimizer = optimizer or make_optimizer(net, spec, spec.lr)
    with randomness.global_generator(seed, "layers", device=runtime.device):  # dropout
        for epoch, rate in enumerate(rates(spec)):
            if rate != optimizer.param_groups[0]["lr"]:
                if spec.schedule == "dc":  # the published loop starts anew here
                    optimizer = make_optimizer(net, spec, rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate
            loss = _epoch(net, optimizer, fetch, count, spec, (seed, epoch), runtime)
            reporter.advance({"loss": loss}, images=count)
            if after is not None:
                after(epoch + 1)
                net.train()


def _epoch(
    net: nn.Module,
    optimizer: Optimizer,
    fetch: Fetch,
    count: int,
    spec: TrainSpec,
    at: tuple[int, int],
    runtime: Runtime,
) -> Tensor:
    """Take one epoch, `at` (seed, number); return its mean loss."""
    total = torch.zeros((), device=runtime.device)
    for step, rows in enumerate(batches(count, spec.batch_size, *at)):
        images, targets = fetch(rows)
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
    return total / count


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


def batches(count: int, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield a shuffle of the rows in batches, the last short one included."""
    order = torch.randperm(count, generator=randomness.generator(seed, "shuffle", epoch))
    yield from order.split(size)


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
    """Return the share of images of `source` that `net` classifies rightly, 0 to 1."""
    net.eval()
    right = torch.zeros((), dtype=torch.int64, device=runtime.device)
    labels = source.labels
    for rows in torch.arange(len(labels)).split(max(runtime.micro_batch, 256)):
        images = info.normalize(source.fetch(rows).float().div_(255))
        with runtime.autocast():
            guess = net(images).argmax(1)
        right += (guess == labels[rows].to(guess.device)).sum()
    return int(right) / len(labels)
