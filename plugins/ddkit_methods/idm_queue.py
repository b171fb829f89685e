"""IDM's queue: networks at many stages of partial training on the real data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from ddkit.errors import DivergedError
from ddkit.run import Run

START = 3  # networks in a new queue


@dataclass(frozen=True)
class Training:
    """How the networks of the queue are trained: SGD at a constant rate, without augmentation."""

    steps: int
    batch: int
    lr: float
    momentum: float
    weight_decay: float


class Member:
    """A network with its optimizer and its meter of training accuracy."""

    def __init__(self, net: nn.Module, training: Training, device: torch.device):
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        self.net = net
        self.optimizer = SGD(
            net.parameters(),
            lr=training.lr,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.seen = 0

    def reset(self) -> None:
        """Count anew."""
        self.right.zero_()
        self.seen = 0

    def percent(self) -> Tensor:
        """Return the training accuracy since the last reset, 0 to 100; 0 before any training."""
        return 100 * self.right / max(self.seen, 1)

    def still(self) -> nn.Module:
        """Return the network as features are taken from it: evaluation mode, no gradients."""
        return self._set(False)

    def train(self, images: Tensor, labels: Tensor, run: Run) -> Tensor:
        """Take one step, counting the hits before it; return the loss."""
        net = self._set(True)
        with run.runtime.autocast():
            logits = net(images)
        loss = cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        known = ~torch.isnan(logits.detach()).any(1)  # else the first that is no number would count
        self.right += (known & (logits.detach().argmax(1) == labels)).sum()
        self.seen += len(labels)
        return loss.detach()

    def _set(self, training: bool) -> nn.Module:
        for parameter in self.net.parameters():
            parameter.requires_grad_(training)
        return self.net.train(training)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "right": self.right,
            "seen": self.seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.right.copy_(state["right"])
        self.seen = state["seen"]


class Queue:
    """Up to `size` networks, the oldest of which makes room for a new one every `interval` steps.

    New networks, picks and training batches are functions of the step, not of what was before.
    """

    def __init__(self, run: Run, size: int, interval: int, training: Training):
        self._fresh: Callable[..., nn.Module] = run.nets.fresh
        self._device = run.runtime.device
        self._labels = run.real.source.labels.to(run.runtime.device)
        self._size = size
        self._interval = interval
        self._training = training
        self._made = 0
        self._seen: list[Tensor] = []
        self.members: deque[Member] = deque(maxlen=size)
        for _ in range(min(START, size)):
            self._append()

    def renew(self, i: int) -> None:
        """Append a new network at every multiple of the interval, 0 included."""
        if i % self._interval == 0:
            self._append()

    def reset(self) -> None:
        """Let all meters count anew."""
        for member in self.members:
            member.reset()

    def pick(self, rng: torch.Generator) -> Member:
        """Return a uniformly drawn member, trained or not."""
        return self.members[int(torch.randint(len(self.members), (), generator=rng))]

    def train(self, run: Run, i: int, count: int) -> None:
        """Train `count` distinct members, or all if there are fewer.

        Raises:
            DivergedError: what was seen up to the last call was no longer finite. Looked at only
                now, it lets nothing wait for the device.
        """
        seen, self._seen = self._seen, []
        if seen and not bool(torch.isfinite(torch.stack(seen)).all()):
            raise DivergedError(
                f"step {run.at}: a network of the queue diverged at lr {self._training.lr:g}: its "
                f"loss or its answers are no longer finite; lower method.lr_networks"
            )
        chosen = torch.randperm(len(self.members), generator=run.stream("idm-train", i))
        total = len(self._labels)
        for slot, number in enumerate(chosen[:count].tolist()):
            for step in range(self._training.steps):
                rng = run.stream("idm-batch", i, slot, step)
                rows = torch.randperm(total, generator=rng)[: self._training.batch]
                labels = self._labels[rows.to(self._device)]
                self.see(self.members[number].train(run.real.fetch(rows), labels, run))

    def see(self, value: Tensor) -> None:
        """Keep a loss or a mean of logits, [], that is finite as long as its network is."""
        self._seen.append(value)

    def _append(self) -> None:
        net = self._fresh(self._made)
        self.members.append(Member(net, self._training, self._device))
        self._made += 1

    def state_dict(self) -> dict[str, Any]:
        return {"made": self._made, "members": [m.state_dict() for m in self.members]}

    def state_bytes(self) -> int:
        """Return the bytes of a full queue: each network, and its momentum."""
        weights = self.members[0].net.state_dict().values()
        return 2 * self._size * sum(v.numel() * v.element_size() for v in weights)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.members.clear()
        for saved in state["members"]:
            self._append()
            self.members[-1].load_state_dict(saved)
        self._made = state["made"]
