"""The promise of an evaluation: a set and the random images beside it differ in the images alone.

Networks of these tests keep all that they are shown; a hook on every optimizer keeps all that
training does to them. So the rules hold whatever stands between the protocol and the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ddkit.data import DataInfo, Dataset, MemoryImages
from ddkit.evaluation.baselines import baselines
from ddkit.evaluation.judge import evaluate
from ddkit.evaluation.verdict import Scope, Verdict
from ddkit.images.formation import Formation
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet
from ddkit.images.whitening import whitened
from ddkit.networks.teacher import Teacher
from ddkit.recipes.sections import EvalSpec, Part, TeacherSpec, TrainSpec
from ddkit.reporter import Silent
from ddkit.runtime.device import Runtime
from ddkit.testing import stand_in, tiny_dataset

CPU = torch.device("cpu")
ALL = TrainSpec(
    epochs=4,
    batch_size=5,
    lr=0.05,
    schedule="steps",
    gamma=0.5,
    milestones=(0.5,),
    augmentation="color_crop_cutout_flip_scale_rotate",
    cutmix=0.5,
)
"""Training with something of everything."""

DATA = tiny_dataset()


@dataclass
class Training:
    """What one network saw and was made of, batch by batch, from its first weights to its tests."""

    images: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    tested: list[Tensor] = field(default_factory=list)


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Log:
    """All networks that an evaluation made, in order, and a function that makes them."""

    def __init__(self) -> None:
        self.nets: list[Training] = []
        self._owner: dict[int, Training] = {}

    def watch(self, net: nn.Module) -> nn.Module:
        """Keep what `net` is shown, and the targets that its loss pulls its logits to."""
        seen = Training()

        def shown(module: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
            if not module.training:
                seen.tested.append(inputs[0].clone())
                return
            if not torch.is_grad_enabled():  # a probe: it trains nothing
                return
            if not seen.images:
                self.nets.append(seen)
                self._owner[id(next(module.parameters()))] = seen
            seen.images.append(inputs[0].clone())
            guess = logits.detach().float().softmax(1)
            # d loss / d logits = (guess - target) / n
            logits.register_hook(lambda g: seen.targets.append(guess - g.float() * len(g)))

        net.register_forward_hook(shown)
        return net

    def stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        seen = self._owner[id(parameters[0])]
        kept = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
        precision = {"autocast": torch.is_autocast_enabled("cpu"), "state": len(optimizer.state)}
        seen.settings.append({"kind": type(optimizer).__name__, **precision, **kept})
        seen.weights.append(torch.cat([p.detach().flatten() for p in parameters]))


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    handle = register_optimizer_step_pre_hook(made.stepped)
    yield made
    handle.remove()


def judged(
    syn: SyntheticSet,
    training: TrainSpec = ALL,
    log: Log | None = None,
    net: Callable[[], nn.Module] = lambda: stand_in(DATA.info),
    data: Dataset = DATA,
    seeds: int = 1,
    scope: Scope = Scope(),  # noqa: B008 - frozen
    teacher: Teacher | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Verdict:
    """Judge `syn` by networks that `log` watches."""
    spec = EvalSpec((Part("watched"),), seeds, "dm", training, presets or {})

    def make(part: Part) -> Callable[[], nn.Module]:
        return net if log is None else lambda: log.watch(net())

    return evaluate(syn, spec.archs, data, spec, make, Runtime(CPU), Silent(), teacher, scope)


def first_images(ipc: int = 4, formation: Formation | None = None) -> SyntheticSet:
    rows = torch.cat([(DATA.train.labels == c).nonzero()[:ipc, 0] for c in range(3)])
    images = DATA.info.normalize(DATA.train.fetch(rows).float() / 255)
    labels = torch.arange(3).repeat_interleave(ipc)
    return SyntheticSet(nn.Parameter(images), labels, DATA.info, formation or Formation())


def random_draw(like: SyntheticSet, subject: str, k: int) -> SyntheticSet:
    """Return what network `k` of the random images called `subject` trains on."""
    return dict(baselines(like, RealImages(DATA, 0, CPU)))[subject](k)


class Shades(Teacher):
    """A teacher whose labels depend on the image that it sees."""

    accuracy = 0.5

    def __init__(self) -> None:
        self.spec = TeacherSpec(hard_epochs=1)

    def prepare(self, reporter: Any) -> None: ...

    def label(self, images: Tensor, labels: Tensor) -> Tensor:
        return images.flatten(1)[:, :3].softmax(1)


# The promise


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize(
    ("factor", "subject", "teacher"),
    [(1, "random", None), (2, "random 2x2", None), (1, "random", Shades())],
    ids=["images", "mosaics", "taught"],
)
def test_a_set_that_is_the_random_draw_is_trained_on_as_the_random_draw_is(
    factor: int, subject: str, teacher: Teacher | None, k: int, log: Log
):
    """To the bit: batches as augmented and mixed, targets, settings, weights, test and figure."""
    ipc = 4 if factor == 1 else 2
    syn = random_draw(first_images(ipc, Formation(factor)), subject, k)
    verdict = judged(syn, log=log, scope=Scope(networks=range(k, k + 1)), teacher=teacher)
    subjects = [r.subject for r in verdict.results]
    ours, theirs = log.nets[0], log.nets[subjects.index(subject)]
    for what in ("images", "targets", "weights", "tested"):
        assert equal(getattr(ours, what), getattr(theirs, what)), what
    assert ours.settings == theirs.settings
    figures = [r.accuracies for r in verdict.results]
    assert figures[0] == figures[subjects.index(subject)]


@pytest.mark.parametrize(
    "training",
    [
        ALL,
        replace(ALL, schedule="dc", cutmix=0.0),
        replace(ALL, optimizer="adamw", weight_decay=0.1, schedule="constant"),
    ],
    ids=["steps", "dc", "adamw"],
)
def test_a_set_and_the_random_images_beside_it_differ_in_the_images_alone(
    training: TrainSpec, log: Log
):
    judged(first_images(), training, log, seeds=2)
    pairs = list(zip(log.nets[:2], log.nets[2:], strict=True))
    assert len(pairs) == 2
    for ours, theirs in pairs:
        assert torch.equal(ours.weights[0], theirs.weights[0])  # the same network
        assert ours.settings == theirs.settings  # optimizer, rates, decay, momentum: every step
        assert len(ours.images) == len(theirs.images)
        for a, b in zip(ours.targets, theirs.targets, strict=True):  # order of rows; mixing
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        assert equal(ours.tested, theirs.tested)
        assert all(
            x.shape == y.shape and not torch.equal(x, y)
            for x, y in zip(ours.images, theirs.images, strict=True)
        )


def test_networks_of_one_set_differ_in_weights_and_in_draws(log: Log):
    judged(first_images(), log=log, seeds=2, scope=Scope(baseline=False))
    one, other = log.nets
    assert not torch.equal(one.weights[0], other.weights[0])
    assert not torch.equal(one.images[0], other.images[0])


def test_the_optimizer_is_the_one_of_the_protocol_at_every_step(log: Log):
    training = replace(ALL, optimizer="adamw", weight_decay=0.1)
    judged(first_images(), training, log)
    for seen in log.nets:
        assert {s["kind"] for s in seen.settings} == {"AdamW"}
        assert {s["weight_decay"] for s in seen.settings} == {0.1}
        assert [s["lr"] for s in seen.settings] == [0.05] * 6 + [0.025] * 6  # 12 images by 5
    log.nets.clear()
    judged(first_images(), replace(ALL, momentum=0.8, weight_decay=0.2), log)
    for seen in log.nets:
        known = {(s["kind"], s["momentum"], s["weight_decay"]) for s in seen.settings}
        assert known == {("SGD", 0.8, 0.2)}


def test_a_preset_for_an_architecture_is_what_all_its_judges_train_by(log: Log):
    presets = {"watch*": {"lr": 0.2, "optimizer": "adamw"}, "other": {"lr": 0.3}}
    judged(first_images(), ALL, log, presets=presets)
    for seen in log.nets:
        assert {s["kind"] for s in seen.settings} == {"AdamW"}
        assert {s["lr"] for s in seen.settings} == {0.2, 0.1}


@pytest.mark.parametrize("subject", [0, 1], ids=["set", "random"])
def test_judges_are_shown_augmented_images(subject: int, log: Log):
    """Mirrored or not, and nothing else, where the protocol says flip."""
    syn = first_images()
    training = replace(ALL, augmentation="flip", cutmix=0.0, batch_size=12)
    judged(syn, training, log)
    known = syn.images if subject == 0 else random_draw(syn, "random", 0).images
    shown = torch.cat(log.nets[subject].images).flatten(1)
    as_is, mirrored = known.detach().flatten(1), known.detach().flip(3).flatten(1)
    same = (shown[:, None] == as_is).all(2).any(1)
    flipped = (shown[:, None] == mirrored).all(2).any(1)
    assert bool((same ^ flipped).all())
    assert 10 < int(flipped.sum()) < 38  # of 48


def test_every_batch_has_draws_and_every_epoch_an_order_of_its_own(log: Log):
    training = replace(ALL, augmentation="none", cutmix=0.0, batch_size=12)
    judged(first_images(), training, log)
    orders = [[int(t.argmax()) for t in batch] for batch in log.nets[0].targets]
    assert len({tuple(order) for order in orders}) == len(orders) == 4
    known = first_images().images.detach().flatten(1)
    for half in (12, 6):  # draws of whole epochs, then of batches within one
        log.nets.clear()
        judged(first_images(), replace(training, augmentation="flip", batch_size=half), log)
        drawn = [
            tuple((batch.flatten(1)[:, None] == known).all(2).any(1).tolist())
            for batch in log.nets[0].images
        ]
        assert len(set(drawn)) > 48 // half - 3  # 4 of 12 or 8 of 6, two of which may agree


@pytest.mark.parametrize("subject", [0, 1], ids=["set", "random"])
def test_judges_are_shown_mixed_images_and_the_targets_of_both(subject: int, log: Log):
    """The share of an image's own pixels is the share of its own class."""
    syn = first_images()
    judged(syn, replace(ALL, augmentation="none", cutmix=1.0, batch_size=12), log)
    known = (syn if subject == 0 else random_draw(syn, "random", 0)).images.detach()
    seen = log.nets[subject]
    mixed = 0
    for images, targets in zip(seen.images, seen.targets, strict=True):
        own = torch.stack([(images == x).all(1).float().mean((1, 2)) for x in known], 1)
        by_class = own.view(12, 3, 4).sum(2)  # the known images are sorted by class
        torch.testing.assert_close(targets, by_class, atol=1e-5, rtol=0)
        mixed += int(((targets > 0.01) & (targets < 0.99)).any())
    assert mixed >= 2


CHANGES: list[tuple[str, dict[str, Any], Any]] = [
    ("epochs", {}, 5),
    ("batch_size", {}, 4),
    ("optimizer", {}, "adamw"),
    ("lr", {}, 0.04),
    ("momentum", {}, 0.5),
    ("weight_decay", {}, 0.0),
    ("weight_decay", {"optimizer": "adamw"}, 0.0),
    ("schedule", {}, "constant"),
    ("schedule", {}, "dc"),
    ("gamma", {}, 0.2),
    ("gamma", {"schedule": "dc"}, 0.2),
    ("milestones", {}, (0.25,)),
    ("augmentation", {}, "none"),
    ("augmentation", {}, "chain:color_crop"),
    ("cutmix", {}, 0.0),
]


@pytest.mark.parametrize(("option", "base", "value"), CHANGES)
def test_every_option_of_a_protocol_reaches_the_weights_of_all_judges(
    option: str, base: dict[str, Any], value: Any
):
    training = replace(ALL, **base)
    ends = [final_weights(t) for t in (training, replace(training, **{option: value}))]
    for before, after in zip(*ends, strict=True):
        assert not torch.equal(before, after)


def test_no_option_of_a_protocol_is_without_its_test():
    assert {option for option, *_ in CHANGES} == {f.name for f in fields(TrainSpec)}


@cache
def final_weights(training: TrainSpec) -> list[Tensor]:
    """Return the weights of the set's judge and of the random images' one, as trained."""
    kept: list[nn.Module] = []

    def net() -> nn.Module:
        kept.append(stand_in(DATA.info))
        return kept[-1]

    judged(first_images(), training, net=net)
    trained = kept[-2:]
    return [torch.cat([p.detach().flatten() for p in n.parameters()]) for n in trained]


# What is tested


def test_test_images_are_normalised_with_the_statistics_of_the_set(log: Log):
    judged(first_images(), log=log)
    pixels = DATA.test.fetch(torch.arange(18)).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (DATA.info.mean, DATA.info.std))
    want = (pixels - mean[:, None, None]) / std[:, None, None]
    for seen in log.nets:
        torch.testing.assert_close(torch.cat(seen.tested).double(), want, atol=1e-5, rtol=0)


def test_test_images_are_whitened_as_the_set_was(log: Log):
    data = whitened(DATA)
    syn = first_images()
    syn = replace(syn, info=data.info)
    judged(syn, log=log)  # the data itself comes unwhitened
    assert data.info.whitening is not None
    plain = DATA.info.normalize(DATA.test.fetch(torch.arange(18)).float() / 255)
    for seen in log.nets:
        torch.testing.assert_close(torch.cat(seen.tested), data.info.whitening.apply(plain))


class Bright(nn.Module):
    """Tells bright images, above the mean, from dark ones; training at no rate changes nothing."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.sign = nn.Parameter(torch.tensor([-1.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean((1, 2, 3))[:, None]) * self.sign


def levels(*shares: float) -> tuple[Tensor, Tensor]:
    """Return even 4x4 images of these brightnesses, and whether each is above a half."""
    x = torch.tensor([round(255 * s) for s in shares], dtype=torch.uint8)
    return x[:, None, None, None].expand(-1, 1, 4, 4).clone(), (x > 127).long()


INFO = DataInfo("levels", 1, 4, 4, ("dark", "bright"), (0.5,), (0.25,))
MOSTLY_BRIGHT = 0.6, 0.7, 0.8, 0.9, 0.95, 0.1  # the mean of the batch is bright


@pytest.mark.parametrize("swapped", [0, 2])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.BatchNorm1d(1, affine=False, momentum=0.0),
        lambda: nn.Dropout(0.9),
        lambda: nn.Identity(),
    ],
    ids=["batch norm", "dropout", "plain"],
)
def test_the_test_accuracy_of_judges_is_exact(layer: Callable[[], nn.Module], swapped: int):
    """With batch norm by its running statistics, without dropout, on images as normalised."""
    x, labels = levels(0.2, 0.3, 0.7, 0.8)
    test, right = levels(*MOSTLY_BRIGHT)
    told = torch.cat([1 - right[:swapped], right[swapped:]])
    data = Dataset(INFO, MemoryImages(x, labels), MemoryImages(test, told))
    images = INFO.normalize(x[1:3].float() / 255)
    syn = SyntheticSet(nn.Parameter(images), labels[1:3], INFO)
    training = TrainSpec(epochs=2, batch_size=2, lr=1e-9)
    verdict = judged(syn, training, net=lambda: Bright(layer()), data=data, seeds=2)
    for result in verdict.results:
        assert result.accuracies == ((6 - swapped) / 6,) * 2


def test_testing_between_epochs_leaves_training_as_it_is(log: Log):
    """Batch norm goes on with its batches after a test, and the draws are those of no test."""

    def net() -> nn.Module:
        base = stand_in(DATA.info)
        return nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.3), base)

    for every in (None, 1):
        judged(first_images(), log=log, net=net, scope=Scope(False, every))
    plain, often = log.nets
    assert len(often.tested) == 4 * len(plain.tested)
    assert equal(plain.images, often.images)
    assert equal(plain.weights, often.weights)


def test_every_step_of_the_published_loop_has_its_rate_and_one_new_optimizer(log: Log):
    judged(first_images(), replace(ALL, epochs=3, schedule="dc", batch_size=12), log)
    for seen in log.nets:
        assert [s["lr"] for s in seen.settings] == [0.05] * 3 + [0.025]
        fresh = [s["state"] == 0 for s in seen.settings]
        assert fresh == [True, False, False, True]
    assert all(not torch.equal(a, b) for a, b in pairwise(log.nets[0].weights))
