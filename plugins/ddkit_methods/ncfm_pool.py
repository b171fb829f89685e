"""NCFM's networks: between untrained and trained weights, by a straight line."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddkit.networks.pool import ProxyPool


class Interpolated:
    """The members of a pool, with the weights that each was trained from, all on the device.

    Two modules are refilled at every draw: the extractor, part of the way from a member's initial
    to its trained parameters, and the judge, that member as trained. Buffers are the trained ones.
    """

    def __init__(self, pool: ProxyPool, device: torch.device):
        members = range(pool.spec.count)
        self.count = pool.spec.count
        self._initial = _stacked([pool.initial(i) for i in members], device)
        self._trained = _stacked([pool.trained(i) for i in members], device)
        self._extractor = deepcopy(pool.module).train()
        self._judge = deepcopy(pool.module).eval()
        self._parameters = {name for name, _ in self._judge.named_parameters()}

    @torch.no_grad()
    def draw(self, rng: torch.Generator) -> tuple[nn.Module, nn.Module]:
        """Return extractor and judge of a uniformly drawn member at a uniform place of its way."""
        member = int(torch.randint(self.count, (), generator=rng))
        share = float(torch.rand((), generator=rng))  # of the initial weights
        judge = self._judge.state_dict()
        for name, value in self._extractor.state_dict().items():
            trained = self._trained[name][member]
            judge[name].copy_(trained)
            value.copy_(trained)
            if name in self._parameters:
                value.lerp_(self._initial[name][member], share)
        return self._extractor, self._judge


def _stacked(states: list[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    return {k: torch.stack([s[k] for s in states]).to(device) for k in states[0]}


class Plateau:
    """Lower the rate of an optimizer when a metric stays above its best; all on the device.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau` (mode "min", relative threshold), which would
    wait for the device at every step. The optimizer's rate is a tensor and is changed in place.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.5,
        patience: int = 500,
        threshold: float = 1e-4,
        eps: float = 1e-8,
    ):
        self._optimizer = optimizer
        self._factor = factor
        self._patience = patience
        self._threshold = threshold
        self._eps = eps
        self._best = torch.full_like(self.rate, torch.inf)
        self._bad = torch.zeros_like(self.rate, dtype=torch.int64)

    @property
    def rate(self) -> Tensor:
        rate = self._optimizer.param_groups[0]["lr"]
        assert isinstance(rate, Tensor)
        return rate

    @torch.no_grad()
    def step(self, metric: Tensor) -> None:
        """Take the metric of one iteration."""
        better = metric < self._best * (1 - self._threshold)
        self._best.copy_(torch.where(better, metric, self._best))
        self._bad.add_(1).masked_fill_(better, 0)
        due = self._bad > self._patience
        self._bad.masked_fill_(due, 0)
        lower = self.rate * self._factor
        self.rate.copy_(torch.where(due & (self.rate - lower > self._eps), lower, self.rate))

    def state_dict(self) -> dict[str, Tensor]:
        return {"best": self._best, "bad": self._bad}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._best.copy_(state["best"])
        self._bad.copy_(state["bad"])
