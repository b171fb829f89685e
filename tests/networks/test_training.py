"""The one loop that trains classifiers: its schedules, its randomness, its mixing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddkit.data import Dataset
from ddkit.errors import DataError, DivergedError, IncompatibleError
from ddkit.networks.training import (
    accuracy,
    batches,
    cutmix,
    epochs,
    finite,
    fit,
    joins,
    make_optimizer,
    mixed_loss,
    rates,
)
from ddkit.recipes.sections import TrainSpec
from ddkit.reporter import Metrics, Silent
from ddkit.runtime.device import Runtime
from ddkit.runtime.randomness import generator, global_generator
from ddkit.testing import stand_in

RUNTIME = Runtime(torch.device("cpu"))


class Losses(Silent):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.seen.append(float(metrics["loss"]))


def trained(data: Dataset, seed: int = 0, **changes: Any) -> tuple[nn.Module, list[float]]:
    with global_generator(0, "test-net"):
        net = stand_in(data.info)
    images = data.info.normalize(data.train.fetch(torch.arange(36)).float() / 255)
    settings = {"epochs": 3, "batch_size": 10, "lr": 0.05, **changes}
    losses = Losses()

    def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
        return images[rows], data.train.labels[rows]

    fit(net, fetch, 36, TrainSpec(**settings), seed, RUNTIME, losses)
    return net, losses.seen


def test_the_published_loop_runs_1001_epochs_of_which_502_at_the_full_rate():
    spec = TrainSpec(epochs=1000, schedule="dc", lr=0.01, gamma=0.1)
    assert epochs(spec) == 1001
    listed = rates(spec)
    assert len(listed) == 1001
    assert listed.count(0.01) == 502
    assert listed[:502] == [0.01] * 502
    assert listed[502:] == pytest.approx([0.001] * 499)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 301])
def test_every_schedule_has_a_rate_for_every_epoch(count: int):
    for schedule in ("constant", "dc", "steps"):
        spec = TrainSpec(epochs=count, schedule=schedule, milestones=(0.5,))
        assert len(rates(spec)) == epochs(spec) == count + (schedule == "dc")


def test_steps_fall_at_the_milestones_and_constant_never():
    spec = TrainSpec(epochs=9, schedule="steps", lr=1.0, gamma=0.5, milestones=(1 / 3, 0.67))
    assert rates(spec) == [1.0] * 3 + [0.5] * 3 + [0.25] * 3
    assert set(rates(TrainSpec(epochs=9, lr=1.0))) == {1.0}


def test_the_published_loop_starts_its_optimizer_anew_and_steps_go_on(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    from ddkit.networks import training

    made: list[float] = []

    def counted(net: nn.Module, spec: TrainSpec, lr: float) -> Any:
        made.append(lr)
        return make_optimizer(net, spec, lr)

    monkeypatch.setattr(training, "make_optimizer", counted)
    trained(tiny, epochs=4, schedule="dc")
    assert made == [0.05, pytest.approx(0.005)]
    made.clear()
    trained(tiny, epochs=4, schedule="steps", milestones=(0.5,))
    assert made == [0.05]


@pytest.mark.parametrize("changes", [{}, {"augmentation": "color_crop_flip", "cutmix": 0.5}])
def test_training_is_a_function_of_the_seed(changes: dict[str, Any], tiny: Dataset):
    torch.rand(7)  # the global generator has no say
    first, losses = trained(tiny, 3, **changes)
    torch.rand(5)
    same, again = trained(tiny, 3, **changes)
    other, _ = trained(tiny, 4, **changes)
    assert losses == again
    for a, b in zip(first.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_network_learns_an_easy_dataset(optimizer: str, tiny: Dataset):
    net, losses = trained(tiny, epochs=25, optimizer=optimizer)
    assert losses[-1] < losses[0] / 2
    assert accuracy(net, tiny.test, tiny.info, RUNTIME) > 0.7


def test_accuracy_is_the_share_of_right_answers(tiny: Dataset):
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0, 0.0]).expand(len(x), 3)

    assert accuracy(Always(), tiny.test, tiny.info, RUNTIME) == pytest.approx(1 / 3)


def test_soft_targets_that_are_certain_equal_hard_ones():
    logits, hard = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    soft = nn.functional.one_hot(hard, 3).float()
    for other, share in ((None, 1.0), (torch.tensor([1, 0, 4, 2, 3]), 0.3)):
        torch.testing.assert_close(
            mixed_loss(logits, hard, other, share), mixed_loss(logits, soft, other, share)
        )


def test_batches_are_a_shuffle_with_the_last_short_one():
    taken = list(batches(10, 4, 0, 1))
    assert [len(b) for b in taken] == [4, 4, 2]
    assert sorted(torch.cat(taken).tolist()) == list(range(10))
    assert torch.equal(torch.cat(taken), torch.cat(list(batches(10, 4, 0, 1))))
    assert not torch.equal(torch.cat(taken), torch.cat(list(batches(10, 4, 0, 2))))


def test_cutmix_reports_the_share_that_is_an_images_own():
    numbers = torch.arange(1.0, 7)[:, None, None, None].expand(-1, 1, 8, 8)
    shares = []
    for step in range(100):
        mixed, other, share = cutmix(numbers, 1.0, generator(0, "cutmix", step))
        assert other is not None
        assert sorted(other.tolist()) == list(range(6))
        for row in range(6):
            pasted = mixed[row] != numbers[row]
            if int(other[row]) != row:
                assert float(pasted.float().mean()) == pytest.approx(1 - share)
            assert set(mixed[row].unique().tolist()) <= {row + 1.0, float(other[row]) + 1}
        shares.append(share)
    assert 0 <= min(shares) < 0.5
    assert 0.9 < max(shares) <= 1


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 30, 70), (1, 99, 100)])
def test_cutmix_happens_as_often_as_asked(probability: float, low: int, high: int):
    x = torch.rand(4, 1, 8, 8)
    mixed = [cutmix(x, probability, generator(0, "c", i))[1] is not None for i in range(100)]
    assert low <= sum(mixed) <= high


def test_frozen_parameters_are_left_alone(tiny: Dataset):
    net = stand_in(tiny.info)
    net.features[0].requires_grad_(False)
    held = {id(p) for g in make_optimizer(net, TrainSpec(), 0.1).param_groups for p in g["params"]}
    assert id(net.features[0].weight) not in held
    assert id(net.classifier.weight) in held


def test_a_network_that_diverged_is_told_wherever_it_was_trained(tiny: Dataset):
    with pytest.raises(DivergedError, match="weights are no longer finite"):
        trained(tiny, lr=1e30)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_is_finite_as_all_its_parameters_and_buffers_are(value: float):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert finite(net)
    assert finite(nn.Identity())
    for tensor in (net[0].bias, net[1].running_var):
        kept = tensor.detach().clone()
        tensor.data[1] = value
        assert not finite(net)
        tensor.data.copy_(kept)


def test_answers_that_are_no_numbers_count_for_no_class(tiny: Dataset):
    class Lost(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), float("nan"))

    with pytest.raises(DivergedError, match="18 of 18 images are no numbers"):
        accuracy(Lost(), tiny.test, tiny.info, RUNTIME)


def test_a_last_batch_of_one_joins_the_one_before_it_only_when_asked_to():
    alone, joined = list(batches(9, 4, 0, 1)), list(batches(9, 4, 0, 1, join=True))
    assert [len(b) for b in alone] == [4, 4, 1]
    assert [len(b) for b in joined] == [4, 5]
    assert torch.equal(torch.cat(joined), torch.cat(alone))
    for count, size in ((10, 4), (8, 4), (1, 4)):
        split = [b.tolist() for b in batches(count, size, 0, 1)]
        assert [b.tolist() for b in batches(count, size, 0, 1, join=True)] == split


class Sizes(nn.Module):
    """A linear network that notes the sizes of its batches; with batch norm on maps of 1x1."""

    def __init__(self, norm: bool):
        super().__init__()
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.linear = nn.Linear(4, 2)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(self.norm(x.flatten(1)))
        self.seen.append(len(x))
        return out


def sizes(norm: bool, count: int, size: int, targets: Tensor | None = None) -> list[int]:
    """Train one epoch; return the sizes of the batches."""
    net, images = Sizes(norm), torch.rand(count, 1, 2, 2, generator=generator(0, "sizes"))
    labels = torch.arange(count) % 2 if targets is None else targets

    def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
        return images[rows], labels[rows]

    fit(net, fetch, count, TrainSpec(epochs=1, batch_size=size), 0, RUNTIME, Silent())
    return net.seen


def test_batch_norm_gets_no_batch_of_one_and_all_others_keep_theirs():
    assert sizes(True, 9, 4) == [4, 5]
    assert sizes(True, 10, 4) == [4, 4, 2]
    assert sizes(False, 9, 4) == [4, 4, 1]


@pytest.mark.parametrize(("count", "size", "why"), [(4, 1, "batch_size is 1"), (1, 4, "one image")])
def test_batch_norm_on_single_images_is_refused_in_words(count: int, size: int, why: str):
    with pytest.raises(IncompatibleError, match=why):
        sizes(True, count, size)
    assert sizes(False, count, size) == [1] * count


def test_looking_whether_one_image_is_taken_changes_no_weight_and_no_draw():
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4, 2))
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in net.state_dict().items()}
    image = torch.rand(1, 1, 2, 2, generator=generator(0, "image"))
    assert not joins(net, 9, 4, lambda: image, RUNTIME)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("row", [[4.0, -3.0], [0.5, 0.6], [float("nan"), 1.0]])
def test_soft_targets_that_are_no_probabilities_are_refused(row: list[float]):
    wrong = torch.tensor([[0.25, 0.75]] * 3 + [row])
    with pytest.raises(DataError, match="perhaps logits"):
        sizes(False, 4, 2, wrong)


def test_soft_targets_stored_in_sixteen_bits_are_taken():
    probabilities = torch.rand(4, 2, generator=generator(0, "soft")).softmax(1)
    assert sizes(False, 4, 2, probabilities.bfloat16().float()) == [2, 2]


def test_a_mixed_batch_counts_either_label_by_its_share():
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    own, other = torch.tensor([0, 1]), torch.tensor([1, 0])  # right, and swapped: all wrong
    right, wrong = (float(nn.functional.cross_entropy(logits, t)) for t in (own, own[other]))
    assert float(mixed_loss(logits, own, other, 0.9)) == pytest.approx(0.9 * right + 0.1 * wrong)
