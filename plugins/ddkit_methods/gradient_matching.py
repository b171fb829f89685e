"""What DC, DSA and IDC share: real and synthetic images compared by the gradients they give."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.optim import Optimizer

from ddkit.errors import DivergedError
from ddkit.images.augment import Draw
from ddkit.images.groups import Groups
from ddkit.networks.gradients import Distance, matched
from ddkit.networks.training import Fetch, fit
from ddkit.recipes.sections import TrainSpec
from ddkit.reporter import Metrics, Silent
from ddkit.run import Run, shown


@dataclass(frozen=True)
class Comparison:
    """Real and synthetic images compared by the gradients that they give one network.

    `draw` augments both sides; `proxy` is for the regularizers.
    """

    run: Run
    net: nn.Module
    distance: Distance
    draw: Draw
    proxy: nn.Module | None = None

    def backward(self, real: tuple[Tensor, Groups], syn: tuple[Tensor, Groups]) -> Metrics:
        """Add up distance and regularizers of a chunk of classes and go backward."""
        run, net = self.run, self.net
        match, real_view, view = shown(real, syn, self.draw, self.proxy)
        loss = matched(net, real_view, real[1], view, syn[1], self.distance, run.runtime)
        if run.wants("syn_maps", "real_maps"):  # at the price of a forward pass
            syn_maps, real_maps = run.look_syn(net, view)[0], run.look_real(net, real_view)[0]
            match = replace(match, syn_maps=syn_maps, real_maps=real_maps)
        return run.backward(loss, match)


def row_cosines(real: Tensor, syn: Tensor) -> Tensor:
    """Return the cosine of each pair of rows [...,D], 1e-6 added to the product of the norms."""
    norms = real.norm(dim=-1) * syn.norm(dim=-1)
    return (real * syn).sum(-1) / (norms + 1e-6)


def train_between(
    run: Run,
    net: nn.Module,
    fetch: Fetch,
    count: int,
    spec: TrainSpec,
    seed: int,
    optimizer: Optimizer | None = None,
) -> None:
    """Train the network that gradients are matched in, which takes none outside of this.

    Raises:
        DivergedError: it is no longer finite, which would look like diverged images.
    """
    net.requires_grad_(True)
    try:
        fit(net, fetch, count, spec, seed, run.runtime, Silent(), optimizer)
    except DivergedError as error:
        raise DivergedError(
            f"step {run.at}: the network that is trained between updates diverged at lr "
            f"{spec.lr:g}: {error}; lower method.lr_net"
        ) from None
    net.requires_grad_(False)
