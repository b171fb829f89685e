"""One optimizer step per class, taken for all classes at once: SGD in closed form, and AdamW.

Some published programs (IDC, IDM) step their optimizer once per class, with one momentum buffer for
the whole tensor of images. The step of another class has no gradient for an image, and still moves
it by what is left of its velocity. So an image's way through a sweep is known beforehand but for
its own gradient g, which arrives at its class's turn c out of C. With velocity b before the sweep,
rate r and momentum m,

    before its turn   image -= r * (m + … + m^c) * b
    from then on      image -= r * ((m^(c+1) + … + m^C) * b + (1 + m + … + m^(C-1-c)) * g)
    velocity           = m^C * b + m^(C-1-c) * g

and g is the gradient where the image stands at its turn. The classes' gradients do not depend on
each other's images, so they can all be taken together after the first line.

AdamW (NCFM) has no closed form, as its step is no linear function of what was before, but an image
is just as predictable while other classes have their turns: those steps are elementwise and need
no gradient, so they are taken one by one for all the images that wait.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Sweep(Optimizer, ABC):
    """An optimizer of one tensor of images that steps once per class, in order of `positions`.

    Use: `drift`, then the gradients of all classes at the images as they stand, then `step`.
    Between `step` and `drift` the images stand where they do at the end of a sweep.
    """

    def __init__(self, images: Tensor, positions: Tensor, turns: int, options: dict[str, Any]):
        """Take the turn of each image, `positions` int64 [n], among `turns` classes.

        Positions are global: a part of the images (a rank's, a chunk's) moves as in the whole.
        """
        if len(positions) != len(images):
            raise ValueError(f"{len(positions)} positions for {len(images)} images")
        super().__init__([images], options)
        turn = positions.to(images.device)[(..., *[None] * (images.ndim - 1))]
        self._turn = turn.double()
        self._turns = turns
        self._drifted = False

    @torch.no_grad()
    def drift(self) -> None:
        """Move each image to where it stands at its class's turn; the first half of a sweep."""
        if self._drifted:
            raise RuntimeError("drift() twice without step()")
        self._drifted = True
        self._approach()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Finish the sweep with the gradients taken after `drift`; None counts as zero."""
        if not self._drifted:
            raise RuntimeError("step() without drift()")
        self._drifted = False
        images = self._images
        self._finish(torch.zeros_like(images) if images.grad is None else images.grad)

    @abstractmethod
    def _approach(self) -> None:
        """Take the turns before each image's own."""

    @abstractmethod
    def _finish(self, gradient: Tensor) -> None:
        """Take each image's own turn, and those after it."""

    @property
    def _images(self) -> Tensor:
        return self.param_groups[0]["params"][0]


class ClassSweep(Sweep):
    """SGD, swept over the classes.

    It equals `torch.optim.SGD` (no dampening, no weight decay, not Nesterov) stepped `turns` times,
    each time with the gradient of one class and zero elsewhere.
    """

    def __init__(
        self,
        images: Tensor,
        positions: Tensor,
        turns: int,
        lr: float | Tensor,
        momentum: float = 0.0,
    ):
        super().__init__(images, positions, turns, {"lr": lr, "momentum": momentum})

    def _approach(self) -> None:
        images, rate, momentum = self._parts()
        velocity = self.state[images].get("velocity")
        if velocity is not None:
            way = rate * momentum * _series(momentum, self._turn)
            images.sub_(way.to(images.dtype) * velocity)

    def _finish(self, gradient: Tensor) -> None:
        images, rate, momentum = self._parts()
        velocity = self.state[images].setdefault("velocity", torch.zeros_like(images))
        left = self._turns - self._turn  # this class's turn and those after it
        own = rate * _series(momentum, left)
        rest = own * momentum ** (self._turn + 1)
        images.sub_(rest.to(images.dtype) * velocity + own.to(images.dtype) * gradient)
        kept = momentum ** (left - 1)
        velocity.mul_(momentum**self._turns).add_(kept.to(images.dtype) * gradient)

    def _parts(self) -> tuple[Tensor, float | Tensor, float]:
        group = self.param_groups[0]
        return self._images, group["lr"], group["momentum"]


class AdamWSweep(Sweep):
    """AdamW, swept over the classes; `positions` must ascend.

    It equals `torch.optim.AdamW` stepped `turns` times, each time with the gradient of one class
    and zero elsewhere, which moves every image every time: by what is left of its first moment,
    and by weight decay. The rate may be a tensor, changed on the device.
    """

    def __init__(
        self,
        images: Tensor,
        positions: Tensor,
        turns: int,
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        if bool((positions.diff() < 0).any()):
            raise ValueError("the positions of an AdamWSweep must ascend")
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(images, positions, turns, options)
        bounds = torch.searchsorted(positions.cpu().contiguous(), torch.arange(turns + 1))
        self._starts: list[int] = bounds.tolist()  # where the images of each turn begin

    def _approach(self) -> None:
        taken = self._state()["taken"]
        for turn in range(self._turns - 1):
            self._coast(slice(self._starts[turn + 1], None), taken + turn + 1)

    def _finish(self, gradient: Tensor) -> None:
        state, betas = self._state(), self.param_groups[0]["betas"]
        state["mean"].mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
        state["square"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        number = self._turn + (state["taken"] + 1)  # of each image's own step
        corrections = [(1 - beta**number).to(self._images.dtype) for beta in betas]
        self._move(slice(None), corrections[0], corrections[1].sqrt())
        for turn in range(1, self._turns):
            self._coast(slice(0, self._starts[turn]), state["taken"] + turn + 1)
        state["taken"] += self._turns

    def _coast(self, rows: slice, number: int) -> None:
        """Take step `number` without a gradient."""
        state, betas = self._state(), self.param_groups[0]["betas"]
        state["mean"][rows].mul_(betas[0])
        state["square"][rows].mul_(betas[1])
        self._move(rows, 1 - betas[0] ** number, (1 - betas[1] ** number) ** 0.5)

    def _move(self, rows: slice, first: float | Tensor, second: float | Tensor) -> None:
        """Move by the moments, given how much of each has come in so far."""
        state, group = self._state(), self.param_groups[0]
        rate, images = group["lr"], self._images[rows]
        scale = state["square"][rows].sqrt().div_(second).add_(group["eps"])
        images.mul_(1 - rate * group["weight_decay"])
        images.sub_(state["mean"][rows].div(scale).mul_(rate / first))

    def _state(self) -> dict[str, Any]:
        images = self._images
        state = self.state[images]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(images), torch.zeros_like(images)
            state["taken"] = 0
        return state


def _series(ratio: float, terms: Tensor) -> Tensor:
    """Return ``1 + ratio + ratio^2 + …`` of as many `terms`."""
    return (1 - ratio**terms) / (1 - ratio)
