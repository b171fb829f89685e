"""IDM: match mean features in a queue of partly trained networks, and classify rightly in them.

G. Zhao, G. Li, Y. Qin, Y. Yu, "Improved Distribution Matching for Dataset Condensation", CVPR 2023,
arXiv 2307.09742.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import nn

from ddkit import hookimpl
from ddkit.backbone import Backbone
from ddkit.data import DataInfo
from ddkit.errors import RecipeError
from ddkit.images.augment import draw_per_class
from ddkit.images.optimizers import ClassSweep
from ddkit.method import Method
from ddkit.options import Count, Momentum, NonNegative, Positive, Strategy
from ddkit.recipes.sections import SyntheticSpec
from ddkit.regularizer import FIELDS
from ddkit.reporter import Metrics
from ddkit.run import Run, added
from ddkit_methods.class_losses import classification, mean_matching
from ddkit_methods.idm_queue import Queue, Training


@dataclass
class IDM(Method):
    """Improved distribution matching, to be used with ``synthetic.factor`` 2, ``order`` "column".

    For each class c, with the pick q of the queue (trunk phi, training accuracy a_q in percent)
    and one augmentation A for both sides::

        | mean phi(A(real_c)) - mean phi(A(syn_c)) |^2  +  ce_weight * a_q * CE(q(A(syn_c)), c)

    The images' optimizer steps once per class, with one momentum buffer for all of them.

    Attributes:
        iterations: outer updates; one more is in the published loop, after its last evaluation.
        lr_images: rate of SGD on the images.
        momentum: of the same.
        batch_real: real images per class and iteration; a smaller class gives all it has.
        ce_weight: of the cross-entropy, times the accuracy in percent (0 to 100).
        accuracy_window: networks count their training accuracy anew at every multiple of it, or
            at the iterations listed; until trained again a network's cross-entropy is off. The
            published programs do so whenever they evaluate.
        pool_size: networks in the queue.
        pool_interval: iterations between new networks.
        train_networks: networks trained in each iteration.
        train_steps: steps that each of them takes.
        train_batch: real images, of any class, in each of these steps.
        lr_networks: rate of SGD on the networks.
        momentum_networks: of the same.
        weight_decay: of the same.
        augmentation: Siamese strategy; one draw for each class, shared by real and synthetic.
    """

    provides: ClassVar[frozenset[str]] = FIELDS - {"proxy"}
    iterations: Count = 20000
    lr_images: Positive = 0.2
    momentum: Momentum = 0.5
    batch_real: Count = 256
    ce_weight: NonNegative = 0.5
    accuracy_window: Count | tuple[Count, ...] = 100
    pool_size: Count = 100
    pool_interval: Count = 30
    train_networks: Count = 2
    train_steps: Count = 10
    train_batch: Count = 256
    lr_networks: Positive = 0.01
    momentum_networks: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    augmentation: Strategy = "color_crop_cutout_flip_scale_rotate"

    def check(self, spec: SyntheticSpec, info: DataInfo, net: nn.Module) -> None:
        if self.train_networks > self.pool_size:
            raise RecipeError(
                f"trains train_networks = {self.train_networks} different networks in each "
                f"iteration, but pool_size is {self.pool_size}; raise it"
            )

    def steps(self, run: Run) -> int:
        return self.iterations

    def setup(self, run: Run) -> None:
        syn = run.synthetic
        self._sweep = ClassSweep(
            syn.images, syn.labels, run.num_classes, lr=self.lr_images, momentum=self.momentum
        )
        run.optimizers = [self._sweep]
        training = Training(
            steps=self.train_steps,
            batch=self.train_batch,
            lr=self.lr_networks,
            momentum=self.momentum_networks,
            weight_decay=self.weight_decay,
        )
        self._queue = Queue(run, self.pool_size, self.pool_interval, training)

    def step(self, run: Run, i: int) -> Metrics:
        if self._counts_anew(i):
            self._queue.reset()
        self._queue.renew(i)
        member = self._queue.pick(run.stream("idm-pick", i))
        net, proxy = member.still(), run.draw_proxy(i)
        accuracy = member.percent()
        draw = draw_per_class(self.augmentation, run.num_classes, run.stream("augment", i))
        metrics: Metrics = {}
        self._sweep.drift()
        for classes in run.class_chunks(net):
            real, syn = run.real.sample(classes, self.batch_real, i), run.synthetic.decode(classes)
            match, real_features, syn_features = run.compare(net, real, syn, draw, proxy)
            logits = cast(Backbone, net).get_classifier()(syn_features)  # of the same forward pass
            self._queue.see(logits.detach().float().mean())
            loss = mean_matching(real_features, real[1], syn_features, syn[1])
            loss = loss + self.ce_weight * accuracy * classification(logits, syn[1])
            metrics = added(metrics, run.backward(loss, match))
        run.apply()
        self._queue.train(run, i, self.train_networks)
        return {**metrics, "accuracy": accuracy}

    def _counts_anew(self, i: int) -> bool:
        window = self.accuracy_window
        return i in window if isinstance(window, tuple) else i > 0 and i % window == 0

    def state_dict(self) -> dict[str, Any]:
        return self._queue.state_dict()

    def state_bytes(self) -> int:
        return self._queue.state_bytes()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._queue.load_state_dict(state)


@hookimpl
def register_methods() -> dict[str, type[Method]]:
    return {"idm": IDM}
