"""Run: what a method receives, and the one place where regularizers act."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ddkit.backbone import has_batch_statistics, look
from ddkit.images.augment import Draw
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.fresh import Networks
from ddkit.networks.pool import ProxyPool
from ddkit.regularizer import Match, Term, check_scalar
from ddkit.reporter import Metrics, Reporter
from ddkit.runtime import randomness
from ddkit.runtime.device import Runtime
from ddkit.runtime.divergence import Watch
from ddkit.runtime.memory import fitting, saved_bytes


@dataclass
class Run:
    """The live parts of one distillation.

    Attributes:
        real: batches of the training images, normalised, drawn for all classes at once.
        synthetic: the set that is learned; `decode` gives its images as networks see them.
        nets: random networks of the recipe's backbone, and pools of trained ones.
        runtime: device, precision, and how much goes through a network at once.
        reporter: takes notes for the user.
        seed: the recipe's seed; draw from `stream` and `derive`, which know it.
        terms: the recipe's regularizers with their weights; `backward` adds them.
        proxies: the recipe's pool of trained networks, where a part reads it.
        optimizers: those that `apply` steps and a checkpoint keeps; `Method.setup` sets them.
        at: the step that is being taken.
        seconds: spent on steps so far, in all sessions.
    """

    real: RealImages
    synthetic: SyntheticSet
    nets: Networks
    runtime: Runtime
    reporter: Reporter
    seed: int
    terms: tuple[Term, ...] = ()
    proxies: ProxyPool | None = None
    optimizers: list[Optimizer] = field(default_factory=list)
    at: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        syn = self.synthetic
        self.watch = Watch(syn.images, syn.labels, self.num_classes)
        self.chunk = self.runtime.chunk

    @property
    def num_classes(self) -> int:
        """How many classes the data has."""
        return self.synthetic.info.num_classes

    def stream(
        self, name: str, *counters: int, device: torch.device | str = "cpu"
    ) -> torch.Generator:
        """Return a generator that depends on the run's seed, `name` and `counters` alone.

        Draws on the CPU are the same for every device; only what is too large to be moved at each
        step should be drawn on another.
        """
        return randomness.generator(self.seed, name, *counters, device=device)

    def derive(self, name: str, *counters: int) -> int:
        """Return a 63-bit seed that depends on the same, for what takes no generator."""
        return randomness.derive(self.seed, name, *counters)

    def wants(self, *names: str) -> bool:
        """Whether a regularizer reads one of these `Match` fields."""
        return any(set(names) & term.regularizer.requires for term in self.terms)

    def draw_proxy(self, *counters: int) -> nn.Module | None:
        """Return the proxy for this point of the method's schedule, if a regularizer reads one."""
        if self.proxies is None or not self.wants("proxy"):
            return None
        return self.proxies.draw(*counters)

    def class_chunks(self, net: nn.Module, images: int | None = None) -> Iterator[Tensor]:
        """Yield int64 CPU tensors of classes that go through `net` together, in order.

        All at once where memory allows; `images` is how many images' graphs a class costs, by
        default its synthetic ones. Results do not depend on the size, except with batch
        normalisation, whose batch is all classes and is never split.
        """
        classes = torch.arange(self.num_classes)
        if has_batch_statistics(net) or self._proxy_is_bound_to_the_batch():
            return iter((classes,))
        if self.chunk is None:
            self.chunk = self._fitting(net, images)
        return iter(classes.split(self.chunk))

    def _proxy_is_bound_to_the_batch(self) -> bool:
        pool = self.proxies
        return pool is not None and pool.spec.mode == "train" and has_batch_statistics(pool.module)

    def _fitting(self, net: nn.Module, images: int | None) -> int:
        """Return how many classes' images fit the budget, from one image's graph."""
        image = torch.zeros(1, *self.synthetic.info.shape, device=self.runtime.device)
        cost = saved_bytes(net, image)
        if self.proxies is not None:
            cost += saved_bytes(self.proxies.module, image)  # not draw(): it changes weights
        per_class = images or self.synthetic.ipc * self.synthetic.formation.most
        return fitting(self.runtime.budget, cost * per_class, self.num_classes)

    def look_syn(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return local features [N,C,P] and embedding [N,D] of `x`, float32, differentiable."""
        with self.runtime.autocast():
            maps, embedding = look(net, x)
        return maps.float(), embedding.float()

    @torch.no_grad()
    def look_real(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same without gradient, a few images at a time (batch norm: all at once)."""
        size = len(x) if has_batch_statistics(net) else self.runtime.micro_batch
        parts = [self.look_syn(net, part) for part in x.split(size)]
        maps = torch.cat([m for m, _ in parts]) if self.wants("real_maps") else x.new_empty(0)
        return maps, torch.cat([e for _, e in parts])

    def compare(
        self,
        net: nn.Module,
        real: tuple[Tensor, Groups],
        syn: tuple[Tensor, Groups],
        draw: Draw,
        proxy: nn.Module | None = None,
    ) -> tuple[Match, Tensor, Tensor]:
        """Show real and synthetic images of the same classes, augmented alike, to `net`.

        Returns:
            The `Match`, and the embeddings: real [M,D] without gradient, and synthetic [N,D].
        """
        match, real_view, view = shown(real, syn, draw, proxy)
        real_maps, real_features = self.look_real(net, real_view)
        syn_maps, syn_features = self.look_syn(net, view)
        match = replace(match, syn_maps=syn_maps, real_maps=real_maps)
        return match, real_features, syn_features

    def backward(self, loss: Tensor | None, match: Match) -> Metrics:
        """Add the regularizers to `loss`, both sums over the classes of `match`; go backward.

        Pass None where the method wrote its gradients itself. A match without a proxy gets one
        where a term reads it: that of the step, `at`. A method with another schedule puts what
        `draw_proxy` returns into its match.

        Raises:
            ContractError: a loss is no scalar tensor; `match` lacks what a term reads.
        """
        if loss is not None:
            check_scalar(loss, "method", "the loss that it gives to run.backward must be")
        if match.proxy is None and self.wants("proxy"):
            match = replace(match, proxy=self.draw_proxy(self.at))
        metrics: dict[str, Tensor] = {} if loss is None else {"loss": loss.detach()}
        total = loss
        for term in self.terms:
            penalty = term.penalty(match)
            name = term.name
            metrics[name] = metrics.get(name, 0) + penalty.detach()
            total = penalty if total is None else total + penalty
        if total is not None and total.requires_grad:
            total.backward()
        return metrics

    def apply(self) -> None:
        """Step every optimizer, then drop the gradients.

        A gradient that is not finite is replaced by zero and remembered in `watch`; the check stays
        on the device.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    grad = parameter.grad
                    if grad is not None:
                        grad.masked_fill_(self.watch.look(parameter, grad, self.at), 0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def shown(
    real: tuple[Tensor, Groups],
    syn: tuple[Tensor, Groups],
    draw: Draw,
    proxy: nn.Module | None = None,
) -> tuple[Match, Tensor, Tensor]:
    """Augment real and synthetic images of the same classes alike.

    Returns:
        The `Match`, without maps; the real view [M,C,H,W] and the synthetic one [N,C,H,W] in it.
    """
    (images, groups), (real_images, real_groups) = syn, real
    view, real_view = draw.siamese(images, groups), draw.siamese(real_images, real_groups)
    match = Match(
        syn=images,
        groups=groups,
        syn_view=view,
        real_view=real_view,
        real_groups=real_groups,
        proxy=proxy,
    )
    return match, real_view, view


def added(total: Metrics, part: Metrics) -> Metrics:
    """Return the sum of two sets of metrics, by name."""
    return {**total, **{k: total[k] + v if k in total else v for k, v in part.items()}}
