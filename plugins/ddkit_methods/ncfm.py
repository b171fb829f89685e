"""NCFM: match neural characteristic functions, at frequencies that may learn to tell apart.

S. Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective",
CVPR 2025, arXiv 2502.20653.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from ddkit import hookimpl
from ddkit.backbone import Backbone
from ddkit.data import DataInfo
from ddkit.errors import RecipeError
from ddkit.images.augment import draw_per_class
from ddkit.images.groups import Groups
from ddkit.images.optimizers import AdamWSweep, ClassSweep, Sweep
from ddkit.method import Method
from ddkit.options import Count, Fraction, Momentum, NonNegative, Positive, Strategy, Whole
from ddkit.recipes.sections import ProxySpec, SyntheticSpec
from ddkit.regularizer import FIELDS
from ddkit.reporter import Metrics
from ddkit.run import Run, added
from ddkit_methods.class_losses import classification
from ddkit_methods.modes import Modes, check_modes, of_mode
from ddkit_methods.ncfd import ncfd
from ddkit_methods.ncfm_frequencies import REPEATS, Frequencies, Kind
from ddkit_methods.ncfm_pool import Interpolated, Plateau

LEARNED = {"lr_sampler": 1e-3, "momentum_sampler": 0.5}
MODES: Modes = {
    "optimizer": {
        "adamw": {"lr_images": 1e-3, "weight_decay": 5e-4},
        "sgd": {"lr_images": 0.01, "momentum": 0.5},
    },
    "frequency": {
        "gaussian": {},
        "net": LEARNED,
        "scale_mixture": {**LEARNED, "base_variance": 1.0},
    },
}


@dataclass
class NCFM(Method):
    """Neural characteristic function matching, on pixels in [0, 1] (``synthetic.space`` "pixel").

    Each iteration draws a network w between untrained and trained, and for each class c ::

        min_syn max_t  scale * NCFD(w(A(real_c)), w(A(syn_c)); t)    the frequencies t may learn
        min_syn        calibration * CE(g(A'(syn_c)), c)             g: that network as trained

    in two phases, in each of which the images' optimizer steps once per class.

    Attributes:
        iterations: outer updates.
        optimizer: of the images.
        lr_images: its rate at first; default 1e-3 for ``adamw``, 0.01 for ``sgd``, as published.
        weight_decay: of ``adamw``; default 5e-4.
        momentum: of ``sgd``; default 0.5.
        patience: iterations without a better loss before the rate falls.
        fall: factor by which it falls.
        batch_real: real images per class and iteration; a smaller class gives all it has.
        real_batch: drawn anew, or always the first of each class, as the published program has it.
        frequency: ``gaussian``: N(0, 1); ``net``: rows from a sampling network that ascends;
            ``scale_mixture``: Gaussian ones with scales from that network.
        num_freqs: frequencies; 16 share one row of the sampling network.
        lr_sampler: rate of the network's ascent (SGD), one step per iteration on the mean over
            classes; default 1e-3. The released program means one step per class at that rate:
            multiply by the number of classes to go as far.
        momentum_sampler: of the same; default 0.5.
        base_variance: of the Gaussian in ``scale_mixture``; default 1.
        amplitude: weight of the amplitudes' difference.
        phase: weight of the phases' difference.
        scale: factor on the discrepancy.
        calibration: weight of the calibration phase's cross-entropy.
        calibrations: calibration phases in each iteration.
        augmentation: Siamese strategy; one draw for each class, shared by real and synthetic.
        pool_size: networks trained on the real data.
        pool_epochs: epochs of that training; the rate falls to a fifth at 2/3 and 5/6 of them.
        pool_batch: of the same.
        pool_lr: of the same, SGD with momentum 0.9.
        pool_weight_decay: of the same.
        pool_augmentation: of the same.
        pool_cutmix: of the same, the probability.
        pool_images: train on this many images, spread evenly over the classes; default all.
    """

    provides: ClassVar[frozenset[str]] = FIELDS - {"proxy"}
    iterations: Count = 20000
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr_images: Positive | None = None
    weight_decay: NonNegative | None = None
    momentum: Momentum | None = None
    patience: Whole = 500
    fall: Fraction = 0.5
    batch_real: Count = 1024
    real_batch: Literal["random", "first"] = "random"
    frequency: Kind = "gaussian"
    num_freqs: Count = 4096
    lr_sampler: Positive | None = None
    momentum_sampler: Momentum | None = None
    base_variance: Positive | None = None
    amplitude: NonNegative = 0.5
    phase: NonNegative = 0.5
    scale: Positive = 300.0
    calibration: NonNegative = 1.0
    calibrations: Whole = 1
    augmentation: Strategy = "chain:color_crop_cutout"
    pool_size: Count = 20
    pool_epochs: Count = 60
    pool_batch: Count = 128
    pool_lr: Positive = 0.01
    pool_weight_decay: NonNegative = 5e-4
    pool_augmentation: Strategy = "chain:color_crop"
    pool_cutmix: Fraction = 0.5
    pool_images: Count | None = None

    def check(self, spec: SyntheticSpec, info: DataInfo, net: nn.Module) -> None:
        if spec.space != "pixel":
            raise RecipeError('learns pixels in [0, 1]; set synthetic.space = "pixel"')
        check_modes(self, MODES)
        rows, odd = divmod(self.num_freqs, REPEATS)
        if self.frequency != "gaussian" and (odd or rows < 2):
            raise RecipeError(
                f"num_freqs must be a multiple of {REPEATS}, at least {2 * REPEATS}, with "
                f"frequency = {self.frequency!r}, not {self.num_freqs}"
            )
        if self.amplitude == self.phase == 0:
            raise RecipeError("amplitude and phase are both 0: nothing is matched")

    def steps(self, run: Run) -> int:
        return self.iterations

    def setup(self, run: Run) -> None:
        pool = run.nets.pool(self._pool())
        pool.prepare(run.reporter)
        self._nets = Interpolated(pool, run.runtime.device)
        images, labels, turns = run.synthetic.images, run.synthetic.labels, run.num_classes
        lr = of_mode(self, MODES, "lr_images")
        rate = torch.full((), lr, dtype=images.dtype, device=images.device)
        self._sweep: Sweep
        if self.optimizer == "adamw":
            decay = of_mode(self, MODES, "weight_decay")
            self._sweep = AdamWSweep(images, labels, turns, rate, weight_decay=decay)
        else:
            self._sweep = ClassSweep(images, labels, turns, rate, of_mode(self, MODES, "momentum"))
        self._plateau = Plateau(self._sweep, self.fall, self.patience)
        variance = of_mode(self, MODES, "base_variance")
        self._frequencies = Frequencies(run, self.frequency, self.num_freqs, variance)
        rates = (of_mode(self, MODES, name) for name in ("lr_sampler", "momentum_sampler"))
        run.optimizers = [self._sweep, *self._frequencies.ascent(*rates)]

    def step(self, run: Run, i: int) -> Metrics:
        with torch.no_grad():
            run.synthetic.images.clamp_(0, 1)
        extractor, judge = self._nets.draw(run.stream("interpolation", i))
        metrics = self._match(run, i, extractor)
        own = metrics["loss"]
        for phase in range(self.calibrations):
            loss = self._calibrate(run, i, phase, judge)
            metrics, own = added(metrics, {"calibration": loss}), own + loss
        self._plateau.step(own / run.num_classes)
        return {**metrics, "rate": self._plateau.rate.clone()}

    def _match(self, run: Run, i: int, net: nn.Module) -> Metrics:
        """Take the matching phase; regularizers act here, and the frequencies learn."""
        proxy, t = run.draw_proxy(i), self._frequencies.draw(run, i)
        draw = draw_per_class(self.augmentation, run.num_classes, run.stream("augment", i))
        metrics: Metrics = {}
        self._sweep.drift()
        for classes in run.class_chunks(net):
            real, syn = self._real(run, classes, i), run.synthetic.decode(classes)
            match, real_features, syn_features = run.compare(net, real, syn, draw, proxy)
            sides = real_features, real[1], syn_features, syn[1]
            loss = self.scale * ncfd(*sides, t, self.amplitude, self.phase)
            metrics = added(metrics, run.backward(loss, match))
        self._frequencies.backward(run.num_classes)
        run.apply()
        return metrics

    def _calibrate(self, run: Run, i: int, phase: int, net: nn.Module) -> Tensor:
        """Take a calibration phase; return its loss, summed over classes."""
        rng = run.stream("calibration", i, phase)
        draw = draw_per_class(self.augmentation, run.num_classes, rng)
        total = torch.zeros((), device=run.runtime.device)
        self._sweep.drift()
        for classes in run.class_chunks(net):
            syn, groups = run.synthetic.decode(classes)
            _, features = run.look_syn(net, draw.siamese(syn, groups))
            logits = cast(Backbone, net).get_classifier()(features)
            loss = self.calibration * classification(logits, groups)
            loss.backward()
            total = total + loss.detach()
        run.apply()
        return total

    def finish(self, run: Run) -> None:
        with torch.no_grad():
            run.synthetic.images.clamp_(0, 1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "plateau": self._plateau.state_dict(),
            "frequencies": self._frequencies.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._plateau.load_state_dict(state["plateau"])
        self._frequencies.load_state_dict(state["frequencies"])

    def _real(self, run: Run, classes: Tensor, i: int) -> tuple[Tensor, Groups]:
        if self.real_batch == "first":
            return run.real.first(classes, self.batch_real)
        return run.real.sample(classes, self.batch_real, i)

    def _pool(self) -> ProxySpec:
        return ProxySpec(
            count=self.pool_size,
            epochs=self.pool_epochs,
            batch_size=self.pool_batch,
            lr=self.pool_lr,
            weight_decay=self.pool_weight_decay,
            schedule="steps",
            gamma=0.2,
            milestones=(0.6667, 0.8334),
            augmentation=self.pool_augmentation,
            cutmix=self.pool_cutmix,
            images=self.pool_images,
        )


@hookimpl
def register_methods() -> dict[str, type[Method]]:
    return {"ncfm": NCFM}
