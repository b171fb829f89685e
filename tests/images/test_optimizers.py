"""Sweeps equal torch's optimizers stepped once per class; that of AdamW is in `test_ncfm_parts`."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from ddkit.images.optimizers import AdamWSweep, ClassSweep, Sweep

COUNTS = (2, 1, 3, 2, 2)  # images per class; ragged on purpose


def _images(dtype: torch.dtype = torch.float64) -> tuple[nn.Parameter, Tensor]:
    rng = torch.Generator().manual_seed(3)
    positions = torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS))
    images = torch.randn(len(positions), 1, 4, 4, generator=rng, dtype=torch.float64)
    return nn.Parameter(images.to(dtype)), positions


def _loss(images: Tensor, scale: float) -> Tensor:
    """A loss whose gradient for an image depends, nonlinearly, on that image alone."""
    return (scale * images).sin().square().sum() + images.pow(3).sum() / 50


def _per_class(images: nn.Parameter, positions: Tensor, sweeps: int, momentum: float) -> None:
    """The published loop: every class in its turn, one buffer for the whole tensor."""
    optimizer = SGD([images], lr=0.05, momentum=momentum)
    for sweep in range(sweeps):
        for c in range(len(COUNTS)):
            optimizer.zero_grad(set_to_none=False)
            _loss(images[positions == c], 1 + sweep).backward()
            optimizer.step()


def _batched(
    images: nn.Parameter, optimizer: ClassSweep, sweeps: range, halves: bool = False
) -> None:
    for sweep in sweeps:
        optimizer.drift()
        if halves:  # chunks of classes add up
            _loss(images[:4], 1 + sweep).backward()
            _loss(images[4:], 1 + sweep).backward()
        else:
            _loss(images, 1 + sweep).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("halves", [False, True])
def test_equals_one_step_per_class(momentum: float, halves: bool) -> None:
    published, positions = _images()
    ours = nn.Parameter(published.detach().clone())
    _per_class(published, positions, 7, momentum)
    sweep = ClassSweep(ours, positions, len(COUNTS), lr=0.05, momentum=momentum)
    _batched(ours, sweep, range(7), halves)
    torch.testing.assert_close(ours, published, rtol=1e-9, atol=1e-9)


def test_a_part_of_the_images_moves_as_in_the_whole() -> None:
    whole, positions = _images()
    part = nn.Parameter(whole.detach()[3:8].clone())
    _batched(whole, ClassSweep(whole, positions, 5, lr=0.05, momentum=0.5), range(4))
    _batched(part, ClassSweep(part, positions[3:8], 5, lr=0.05, momentum=0.5), range(4))
    torch.testing.assert_close(part.data, whole.data[3:8], rtol=0, atol=0)


def test_state_continues_bit_for_bit() -> None:
    unbroken, positions = _images(torch.float32)
    broken = nn.Parameter(unbroken.detach().clone())
    _batched(unbroken, ClassSweep(unbroken, positions, 5, lr=0.05, momentum=0.5), range(6))
    first = ClassSweep(broken, positions, 5, lr=0.05, momentum=0.5)
    _batched(broken, first, range(3))
    second = ClassSweep(broken, positions, 5, lr=0.05, momentum=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    _batched(broken, second, range(3, 6))
    assert torch.equal(broken, unbroken)


@pytest.mark.parametrize("kind", [ClassSweep, AdamWSweep])
def test_halves_of_a_sweep_must_alternate(kind: Callable[..., Sweep]) -> None:
    images, positions = _images()
    sweep = kind(images, positions, 5, lr=0.05)
    with pytest.raises(RuntimeError, match="without drift"):
        sweep.step()
    sweep.drift()
    with pytest.raises(RuntimeError, match="twice"):
        sweep.drift()


@pytest.mark.parametrize("kind", [ClassSweep, AdamWSweep])
def test_positions_must_fit(kind: Callable[..., Sweep]) -> None:
    images, positions = _images()
    with pytest.raises(ValueError, match="9 positions for 10 images"):
        kind(images, positions[1:], 5, lr=0.05)


def test_positions_of_adamw_must_ascend() -> None:
    images, positions = _images()
    with pytest.raises(ValueError, match="ascend"):
        AdamWSweep(images, positions.flip(0), 5, lr=0.05)
