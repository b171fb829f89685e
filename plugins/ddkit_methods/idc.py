"""IDC: match gradients of mosaics, in networks in training on the real images.

J.-H. Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022,
arXiv 2205.14959.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ddkit import hookimpl
from ddkit.data import DataInfo
from ddkit.errors import IncompatibleError
from ddkit.images.augment import draw_per_class
from ddkit.images.groups import Groups
from ddkit.images.optimizers import ClassSweep
from ddkit.method import Method
from ddkit.networks.gradients import Gradients, check_twice_differentiable
from ddkit.networks.training import make_optimizer
from ddkit.options import Count, Fraction, Momentum, NonNegative, Positive, Strategy, Whole
from ddkit.recipes.sections import ProxySpec, SyntheticSpec, TrainSpec
from ddkit.regularizer import FIELDS
from ddkit.reporter import Metrics
from ddkit.run import Run, added
from ddkit_methods.gradient_matching import Comparison, row_cosines, train_between


def kernels(real: Gradients, syn: Gradients) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the gradients that are compared, [G,R,…]: of neither vectors nor matrices."""
    return ((r, s) for r, s in zip(real, syn, strict=True) if r.ndim > 3)


def squared_distance(real: Gradients, syn: Gradients) -> Tensor:
    """Return ``mse``: the squared distance of kernels' gradients; a sum, despite the name.

    `real` and `syn` hold for each parameter the gradients of G classes, [G, *shape]. The published
    learning rates belong to the sum.
    """
    return torch.stack([(r - s).square().sum() for r, s in kernels(real, syn)]).sum()


def absolute_distance(real: Gradients, syn: Gradients) -> Tensor:
    """Return ``l1``: the sum of absolute differences of kernels' gradients."""
    return torch.stack([(r - s).abs().sum() for r, s in kernels(real, syn)]).sum()


def mean_absolute_distance(real: Gradients, syn: Gradients) -> Tensor:
    """Return ``l1_mean``: the mean absolute difference of each output channel, summed over them."""
    pairs = kernels(real, syn)
    return torch.stack([(r - s).abs().flatten(2).mean(2).sum() for r, s in pairs]).sum()


def cosine_distance(real: Gradients, syn: Gradients) -> Tensor:
    """Return ``cos``: one minus the cosine of each output channel's kernel, summed."""
    pairs = ((r.flatten(2), s.flatten(2)) for r, s in kernels(real, syn))
    return torch.stack([(1 - row_cosines(r, s)).sum() for r, s in pairs]).sum()


DISTANCES = {
    "mse": squared_distance,
    "l1": absolute_distance,
    "l1_mean": mean_absolute_distance,
    "cos": cosine_distance,
}


@dataclass
class IDC(Method):
    """Efficient parameterization: mosaics (``synthetic.factor``), matched on real-trained networks.

    A step is one sweep of the images over all classes and the network's training after it. The
    published optimizer steps once per class with one momentum buffer for all; see `ClassSweep`.

    Attributes:
        iterations: networks.
        outer_steps: image updates for each network (the released code's ``inner_loop``).
        lr_images: rate of SGD on the images, as applied. The released code scales its own by
            ``ipc / 10 * (size / base) ** 2``: 5e-3 for CIFAR at ipc 10, 5e-4 at 1, 2.5e-2 at 50.
        momentum: of the same; decays once per class, so little is left after a sweep.
        batch_real: real images per class and update, none again before its class is through.
        batch_syn: decoded images per class and update, drawn where there are more.
        distance: see the functions of this module.
        augmentation: Siamese strategy for matching; one draw for each class and update.
        pretrain_epochs: on all real images, for each new network.
        pretrain_pool: pretrain so many networks once, cached, and start from one of them each time.
        train_images: real images that the network trains on after each update, rounded up to whole
            batches; one pass over all where there are fewer.
        batch_train, lr_net, momentum_net, weight_decay_net: of SGD on the network.
        augmentation_train: of the same; each image by itself, no cutout beside CutMix.
        cutmix: the probability that a training batch is mixed with a shuffle of itself.
        pad: accept a factor that does not divide the image, and pad it, as published for 224 and 3.
    """

    provides: ClassVar[frozenset[str]] = FIELDS - {"proxy"}
    iterations: Count = 2000
    outer_steps: Count = 100
    lr_images: Positive = 5e-3
    momentum: Momentum = 0.5
    batch_real: Count = 64
    batch_syn: Count = 128
    distance: Literal["mse", "l1", "l1_mean", "cos"] = "mse"
    augmentation: Strategy = "chain:color_crop_cutout"
    pretrain_epochs: Whole = 0
    pretrain_pool: Whole = 0
    train_images: Count = 2000
    batch_train: Count = 64
    lr_net: Positive = 0.01
    momentum_net: Momentum = 0.9
    weight_decay_net: NonNegative = 5e-4
    augmentation_train: Strategy = "chain:color_crop"
    cutmix: Fraction = 0.5
    pad: bool = False

    def check(self, spec: SyntheticSpec, info: DataInfo, net: nn.Module) -> None:
        if not self.pad and any(info.height % f or info.width % f for f in spec.factors):
            raise IncompatibleError(
                f"synthetic.factor = {spec.factor} does not divide the {info.height}x{info.width} "
                f"images of {info.name}; choose one that does, or set method.pad = true"
            )
        if all(p.ndim < 3 for p in net.parameters()):
            raise IncompatibleError(
                "IDC matches the gradients of convolution kernels, and this backbone has none; "
                "choose another, or method dsa"
            )
        check_twice_differentiable(net, info)

    def steps(self, run: Run) -> int:
        return self.iterations * self.outer_steps

    def setup(self, run: Run) -> None:
        how = (run.num_classes, self.lr_images, self.momentum)
        run.optimizers = [ClassSweep(run.synthetic.images, run.synthetic.labels, *how)]
        self._pool = run.nets.pool(self._pretraining()) if self.pretrain_pool else None
        if self._pool is not None:
            self._pool.prepare(run.reporter)
        self._take(self._new(run, 0))

    def step(self, run: Run, i: int) -> Metrics:
        iteration, outer = divmod(i, self.outer_steps)
        if outer == 0:
            self._take(self._new(run, iteration))
            if run.synthetic.space == "pixel":  # here only; they may leave the range in between
                run.synthetic.images.data.clamp_(0, 1)
            if self.pretrain_epochs and self._pool is None:
                self._train(run, i, pretrain=True)
        sweep = run.optimizers[0]
        assert isinstance(sweep, ClassSweep)
        sweep.drift()
        metrics = self._match(run, i)
        run.apply()
        if outer + 1 < self.outer_steps:  # after the last, nobody would use it
            self._train(run, i)
        return metrics

    def _new(self, run: Run, iteration: int) -> nn.Module:
        if self._pool is None:
            return run.nets.fresh(iteration)
        return deepcopy(self._pool.draw(iteration)).train()

    def _take(self, net: nn.Module) -> None:
        self._net = net
        self._optimizer = make_optimizer(net.requires_grad_(True), self._spec(1), self.lr_net)
        net.requires_grad_(False)

    def _match(self, run: Run, i: int) -> Metrics:
        draw = draw_per_class(self.augmentation, run.num_classes, run.stream("augment", i))
        comparison = Comparison(run, self._net, DISTANCES[self.distance], draw, run.draw_proxy(i))
        most = min(self.batch_syn, run.synthetic.ipc * run.synthetic.formation.most)
        metrics: Metrics = {}
        for classes in run.class_chunks(self._net, self.batch_real + 3 * most):
            real = run.real.cycle(classes, self.batch_real, i)
            metrics = added(metrics, comparison.backward(real, self._decoded(run, classes, i)))
        return metrics

    def _decoded(self, run: Run, classes: Tensor, i: int) -> tuple[Tensor, Groups]:
        """Return training images of `classes`, at most `batch_syn` of each, drawn anew."""
        syn, groups = run.synthetic.decode(classes)
        if max(groups.counts) <= self.batch_syn:
            return syn, groups
        most = run.synthetic.ipc * run.synthetic.formation.most
        keys = torch.rand(run.num_classes, most, generator=run.stream("decoded", i))
        kept = []
        for c, count in zip(groups.classes, groups.counts, strict=True):
            own = (groups.host == c).nonzero()[:, 0]
            kept.append(own[keys[c, :count].argsort()[: self.batch_syn]])
        rows = torch.cat(kept)
        return syn[rows.to(syn.device)], Groups.of(groups.host[rows], syn.device)

    def _train(self, run: Run, i: int, pretrain: bool = False) -> None:
        """Train the network on `train_images` real images, or `pretrain_epochs` on all."""
        total = len(run.real.source.labels)
        batches = -(-self.train_images // self.batch_train)
        count = total if pretrain else min(total, batches * self.batch_train)
        name = "network-pretraining" if pretrain else "network-training"
        order = torch.randperm(total, generator=run.stream(name, i))

        def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
            index = order[rows]
            return run.real.fetch(index), run.real.source.labels[index].to(run.runtime.device)

        spec = self._spec(self.pretrain_epochs if pretrain else 1)
        train_between(run, self._net, fetch, count, spec, run.derive(name, i), self._optimizer)

    def _spec(self, epochs: int) -> TrainSpec:
        return TrainSpec(
            epochs=epochs,
            batch_size=self.batch_train,
            lr=self.lr_net,
            momentum=self.momentum_net,
            weight_decay=self.weight_decay_net,
            augmentation=self.augmentation_train,
            cutmix=self.cutmix,
        )

    def _pretraining(self) -> ProxySpec:
        return ProxySpec(
            count=self.pretrain_pool,
            epochs=max(1, self.pretrain_epochs),
            batch_size=self.batch_train,
            lr=self.lr_net,
            momentum=self.momentum_net,
            weight_decay=self.weight_decay_net,
            augmentation=self.augmentation_train,
            cutmix=self.cutmix,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])


@hookimpl
def register_methods() -> dict[str, type[Method]]:
    return {"idc": IDC}
