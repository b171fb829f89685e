"""DC and DSA: match the gradients that real and synthetic images give a network in training.

B. Zhao et al., "Dataset Condensation with Gradient Matching", ICLR 2021, arXiv 2006.05929; B. Zhao,
H. Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021, arXiv
2102.08259.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from ddkit import hookimpl
from ddkit.backbone import has_batch_statistics
from ddkit.data import DataInfo
from ddkit.errors import IncompatibleError, RecipeError
from ddkit.images.augment import draw_per_class
from ddkit.method import Method
from ddkit.networks.gradients import Gradients, check_twice_differentiable
from ddkit.options import Count, Momentum, Positive, Strategy
from ddkit.recipes.sections import SyntheticSpec, TrainSpec
from ddkit.regularizer import FIELDS
from ddkit.reporter import Metrics
from ddkit.run import Run, added
from ddkit_methods.gradient_matching import Comparison, row_cosines, train_between

PUBLISHED = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""By ipc: image updates for each network, and epochs of training between them (released code)."""

BATCH_NORM_IMAGES = 16  # real images per class whose statistics the matching step runs on


def row_distance(real: Gradients, syn: Gradients) -> Tensor:
    """Return ``ours``: one minus the cosine, of each output's row of weights, summed.

    `real` and `syn` hold for each parameter the gradients of G classes, [G, *shape]. Vectors
    (biases, most norms) do not count; the paper does not say so, the released code does, and its
    numbers are with it.
    """
    rows = [(r.flatten(2), s.flatten(2)) for r, s in zip(real, syn, strict=True) if r.ndim > 2]
    return torch.stack([(1 - row_cosines(r, s)).sum() for r, s in rows]).sum()


def squared_distance(real: Gradients, syn: Gradients) -> Tensor:
    """Return ``mse``: the squared distance of all gradients, vectors included; a sum, no mean."""
    parts = [(r - s).square().sum() for r, s in zip(real, syn, strict=True)]
    return torch.stack(parts).sum()


def cosine_distance(real: Gradients, syn: Gradients) -> Tensor:
    """Return ``cos``: one minus the cosine of all gradients as one vector, summed over classes."""
    whole = [torch.cat([g.flatten(1) for g in gradients], 1) for gradients in (real, syn)]
    return (1 - row_cosines(*whole)).sum()


DISTANCES = {"ours": row_distance, "mse": squared_distance, "cos": cosine_distance}


@dataclass
class DC(Method):
    """Gradient matching, on a network in training on the synthetic set itself.

    A step is one update of the images and the network's training after it.

    Attributes:
        iterations: networks; one more is in the published loop, after its last evaluation.
        outer_steps: image updates for each network; by default as published for the ipc.
        inner_steps: epochs on the synthetic set after each update but a network's last; likewise.
        lr_images: rate of SGD on the images; 0.01 is published for an MLP.
        momentum: of the same.
        batch_real: real images per class and update; a smaller class gives all it has.
        distance: see `row_distance`, `squared_distance` and `cosine_distance`.
        augmentation: Siamese strategy for matching, one draw for each class and update; the network
            trains on images augmented one by one.
        lr_net: rate of SGD on the network, without momentum or weight decay.
        batch_train: of the same.
    """

    provides: ClassVar[frozenset[str]] = FIELDS - {"proxy"}
    iterations: Count = 1000
    outer_steps: Count | None = None
    inner_steps: Count | None = None
    lr_images: Positive = 0.1
    momentum: Momentum = 0.5
    batch_real: Count = 256
    distance: Literal["ours", "mse", "cos"] = "ours"
    augmentation: Strategy = "none"
    lr_net: Positive = 0.01
    batch_train: Count = 256

    def counts(self, ipc: int) -> tuple[int, int]:
        """Return outer and inner steps, as given or as published for `ipc`.

        Raises:
            RecipeError: one is not given, and nothing is published.
        """
        outer, inner = PUBLISHED.get(ipc, (None, None))
        outer, inner = self.outer_steps or outer, self.inner_steps or inner
        if outer is None or inner is None:
            known = ", ".join(map(str, PUBLISHED))
            raise RecipeError(
                f"no outer_steps and inner_steps are published for ipc {ipc} (there are for "
                f"{known}); give both, as outer_steps = 10, inner_steps = 50"
            )
        return outer, inner

    def check(self, spec: SyntheticSpec, info: DataInfo, net: nn.Module) -> None:
        self.counts(spec.ipc)
        if any(info.height % f or info.width % f for f in spec.factors):
            raise IncompatibleError(
                f"synthetic.factor = {spec.factor} does not divide the {info.height}x{info.width} "
                f"images of {info.name}; choose one that does"
            )
        check_twice_differentiable(net, info)

    def steps(self, run: Run) -> int:
        return self.iterations * self.counts(run.synthetic.ipc)[0]

    def setup(self, run: Run) -> None:
        run.optimizers = [SGD([run.synthetic.images], lr=self.lr_images, momentum=self.momentum)]
        self._net = run.nets.fresh(0)

    def step(self, run: Run, i: int) -> Metrics:
        outer_steps, inner_steps = self.counts(run.synthetic.ipc)
        iteration, outer = divmod(i, outer_steps)
        if outer == 0:
            self._net = run.nets.fresh(iteration)
        self._settle(run, i)
        metrics = self._match(run, i, run.draw_proxy(iteration))
        run.apply()
        if outer + 1 < outer_steps:
            self._train(run, i, inner_steps)
        return metrics

    def _settle(self, run: Run, i: int) -> None:
        """Give batch norms the statistics of real images of all classes, and keep them there."""
        if not has_batch_statistics(self._net):
            return
        classes = torch.arange(run.num_classes)
        images, _ = run.real.sample(classes, BATCH_NORM_IMAGES, i, stream="batch-norm")
        with torch.no_grad(), run.runtime.autocast():
            self._net.train()(images)
        for module in self._net.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def _match(self, run: Run, i: int, proxy: nn.Module | None) -> Metrics:
        draw = draw_per_class(self.augmentation, run.num_classes, run.stream("augment", i))
        comparison = Comparison(run, self._net, DISTANCES[self.distance], draw, proxy)
        graphs = self.batch_real + 3 * run.synthetic.ipc * run.synthetic.formation.most
        metrics: Metrics = {}
        for classes in run.class_chunks(self._net, graphs):
            real = run.real.sample(classes, self.batch_real, i)
            metrics = added(metrics, comparison.backward(real, run.synthetic.decode(classes)))
        return metrics

    def _train(self, run: Run, i: int, epochs: int) -> None:
        """Train the network on the synthetic set as it is now."""
        spec = TrainSpec(
            epochs=epochs,
            batch_size=self.batch_train,
            lr=self.lr_net,
            momentum=0.0,
            weight_decay=0.0,
            augmentation=self.augmentation,
        )
        images, targets = run.synthetic.training()

        def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
            rows = rows.to(images.device)
            return images[rows], targets[rows]

        seed = run.derive("network-training", i)
        train_between(run, self._net, fetch, len(images), spec, seed)

    def state_dict(self) -> dict[str, Any]:
        return {"net": self._net.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._net.load_state_dict(state["net"])


@dataclass
class DSA(DC):
    """Gradient matching with differentiable Siamese augmentation.

    As ``dc`` but for the default of `augmentation`; the published one drops ``flip`` for MNIST and
    SVHN.
    """

    augmentation: Strategy = "color_crop_cutout_flip_scale_rotate"


@hookimpl
def register_methods() -> dict[str, type[Method]]:
    return {"dc": DC, "dsa": DSA}
