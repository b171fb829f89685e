"""DM: match the mean feature of real and synthetic images in random networks.

B. Zhao, H. Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, arXiv 2110.04181.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.optim import SGD

from ddkit import hookimpl
from ddkit.images.augment import draw_per_class
from ddkit.method import Method
from ddkit.options import Count, Momentum, Positive, Strategy
from ddkit.regularizer import FIELDS
from ddkit.reporter import Metrics
from ddkit.run import Run, added
from ddkit_methods.class_losses import mean_matching


@dataclass
class DM(Method):
    """Distribution matching: a fresh random network and one step for all classes per iteration.

    Attributes:
        iterations: outer updates; one more is in the published loop, after its last evaluation.
        lr_images: rate of SGD on the images; 10 is published for ipc 100 and above.
        momentum: of the same.
        batch_real: real images per class and iteration; a smaller class gives all it has.
        augmentation: Siamese strategy; one draw for each class, shared by real and synthetic.
    """

    provides: ClassVar[frozenset[str]] = FIELDS - {"proxy"}
    iterations: Count = 20000
    lr_images: Positive = 1.0
    momentum: Momentum = 0.5
    batch_real: Count = 256
    augmentation: Strategy = "color_crop_cutout_flip_scale_rotate"

    def steps(self, run: Run) -> int:
        return self.iterations

    def setup(self, run: Run) -> None:
        run.optimizers = [SGD([run.synthetic.images], lr=self.lr_images, momentum=self.momentum)]

    def step(self, run: Run, i: int) -> Metrics:
        net, proxy = run.nets.fresh(i), run.draw_proxy(i)
        draw = draw_per_class(self.augmentation, run.num_classes, run.stream("augment", i))
        metrics: Metrics = {}
        for classes in run.class_chunks(net):
            real, syn = run.real.sample(classes, self.batch_real, i), run.synthetic.decode(classes)
            match, real_features, syn_features = run.compare(net, real, syn, draw, proxy)
            loss = mean_matching(real_features, real[1], syn_features, syn[1])
            metrics = added(metrics, run.backward(loss, match))
        run.apply()
        return metrics


@hookimpl
def register_methods() -> dict[str, type[Method]]:
    return {"dm": DM}
