"""The frequencies at which NCFM compares: Gaussian, or learned to make the discrepancy large."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from ddkit.backbone import embed
from ddkit.networks.fresh import build
from ddkit.run import Run

REPEATS = 16  # frequencies that share one row of the sampling network's output
Kind = Literal["gaussian", "net", "scale_mixture"]


class SamplingNetwork(nn.Module):
    """Noise [n,D] to frequencies [n,D]: three linear layers with batch norm, tanh at the end.

    Always in training mode: batch norm takes its statistics over the n rows.
    """

    def __init__(self, dim: int):
        super().__init__()
        layers: list[nn.Module] = []
        for end in (nn.LeakyReLU(0.2), nn.LeakyReLU(0.2), nn.Tanh()):
            layers += [nn.Linear(dim, dim), nn.BatchNorm1d(dim), end]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise)


def scale_mixture(base: Tensor, scales: Tensor) -> Tensor:
    """Return frequencies ``t_k = base_k * scales_(k mod n)`` of `base` [K,D] and `scales` [n,D]."""
    return base * scales.repeat(len(base) // len(scales), 1)


class Frequencies:
    """What is drawn for each iteration, the same for all classes (they own disjoint images).

    ``gaussian``: K rows of N(0, 1). ``net``: the network's K / 16 rows; each stands for 16 equal
    ones, which changes no mean. ``scale_mixture``: K Gaussian rows, scaled by the network's.

    The published program cancels the network's gradient to zero. Here it is that of the very
    loss that the images descend, from the same backward pass, averaged over classes.
    """

    def __init__(self, run: Run, kind: Kind, count: int, base_variance: float):
        self._kind = kind
        self._count = count
        self._spread = base_variance**0.5
        images = run.synthetic.images
        net, image = run.nets.fresh(0), torch.zeros_like(images[:1])
        self._dim = embed(net.eval(), image).shape[1]
        self._like = image
        self.network: nn.Module | None = None
        if kind != "gaussian":
            device, dim = run.runtime.device, self._dim
            made = build(lambda: SamplingNetwork(dim), device, run.seed, "sampler")
            self.network = made.to(images.dtype).train()
        self._drawn: Tensor | None = None  # with the network's graph
        self._leaf: Tensor | None = None  # where the losses' gradients gather

    def ascent(self, lr: float, momentum: float) -> list[Optimizer]:
        """Return the optimizer of the network, if there is one."""
        if self.network is None:
            return []
        return [SGD(self.network.parameters(), lr=lr, momentum=momentum, maximize=True)]

    def draw(self, run: Run, i: int) -> Tensor:
        """Return the frequencies of iteration `i`, [K,D]."""
        if self.network is None:
            return self._noise(run, "frequencies", i, self._count)
        drawn = self.network(self._noise(run, "sampler-noise", i, self._count // REPEATS))
        if self._kind == "scale_mixture":
            base = self._noise(run, "frequencies", i, self._count)
            drawn = scale_mixture(self._spread * base, drawn)
        self._drawn, self._leaf = drawn, drawn.detach().requires_grad_()
        return self._leaf

    def backward(self, classes: int) -> None:
        """Hand on to the network the mean of what all classes' losses left at the frequencies.

        The released program means to step once per class: that would be the sum, `classes` times
        as far at the same rate.
        """
        if self._drawn is not None and self._leaf is not None and self._leaf.grad is not None:
            self._drawn.backward(self._leaf.grad / classes)
        self._drawn = self._leaf = None

    def _noise(self, run: Run, stream: str, i: int, rows: int) -> Tensor:
        rng = run.stream(stream, i, device=run.runtime.device)
        noise = torch.randn(rows, self._dim, generator=rng, device=run.runtime.device)
        return noise.to(self._like.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.network is None else self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.network is not None:
            self.network.load_state_dict(state)
