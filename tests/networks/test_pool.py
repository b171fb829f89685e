"""Networks: fresh ones from their stream, trained ones from the cache."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ddkit.data import DataInfo, Dataset, MemoryImages
from ddkit.distillation.bench import StandIn
from ddkit.errors import CheckpointError, DivergedError, IncompatibleError, Interrupted
from ddkit.networks import pool as pooling
from ddkit.networks.fresh import Networks, build
from ddkit.networks.pool import ProxyPool, RawInput
from ddkit.networks.training import accuracy
from ddkit.recipes.sections import Part, ProxySpec
from ddkit.reporter import Metrics, Silent
from ddkit.runtime import lock, storage
from ddkit.runtime.device import Runtime
from ddkit.testing import stand_in

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU)


class Counting(Silent):
    """Counts epochs and keeps notes; stops at a given epoch."""

    def __init__(self, stop: int | None = None):
        self.epochs = 0
        self.notes: list[str] = []
        self.stop = stop

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.epochs += 1
        if self.epochs == self.stop:
            raise Interrupted("stopped")

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path))
    return tmp_path


def pool(data: Dataset, runtime: Runtime = RUNTIME, run_seed: int = 0, **changes: Any) -> ProxyPool:
    facts = {"backbone": Part("stand-in"), "count": 2, "epochs": 2, "batch_size": 12, **changes}
    return ProxyPool(ProxySpec(**facts), lambda: stand_in(data.info), data, runtime, run_seed)


def prepared(data: Dataset, run_seed: int = 0, **changes: Any) -> tuple[ProxyPool, Counting]:
    made, reporter = pool(data, run_seed=run_seed, **changes), Counting()
    made.prepare(reporter)
    return made, reporter


def weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_fresh_networks_depend_on_seed_and_counters_alone(tiny: Dataset):
    nets = Networks(lambda: stand_in(tiny.info), 0, CPU)
    first = weights(nets.fresh(3))
    nets.fresh(1), torch.rand(9)
    assert torch.equal(weights(nets.fresh(3)), first)
    assert not torch.equal(weights(nets.fresh(4)), first)
    other = Networks(lambda: stand_in(tiny.info), 1, CPU)
    assert not torch.equal(weights(other.fresh(3)), first)
    assert nets.fresh(0).training
    assert not any(p.requires_grad for p in nets.fresh(0).parameters())


def test_building_a_network_leaves_the_global_generator_alone(tiny: Dataset):
    before = torch.get_rng_state()
    build(lambda: stand_in(tiny.info), CPU, 0, "test")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_preparation_trains_nothing_and_draws_the_same(tiny: Dataset):
    first, cold = prepared(tiny)
    second, warm = prepared(tiny)
    assert (cold.epochs, warm.epochs) == (4, 0)
    for i in range(6):
        assert torch.equal(weights(first.draw(i)), weights(second.draw(i)))


def test_the_price_is_said_before_it_is_paid(tiny: Dataset):
    _, cold = prepared(tiny)
    assert "2 of 2 x stand-in to train, 2 epochs each on 36 images" in cold.notes[0]
    assert "about" in cold.notes[0]
    assert "% of the test images right" in cold.notes[1]
    _, warm = prepared(tiny)
    assert warm.notes == []


def test_a_larger_pool_trains_only_what_is_missing(tiny: Dataset):
    small, _ = prepared(tiny)
    assert pool(tiny, count=5).missing() == [2, 3, 4]
    _, reporter = prepared(tiny, count=5)
    assert reporter.epochs == 6
    assert prepared(tiny, count=1)[1].epochs == 0
    assert pool(tiny, count=3).folder == small.folder


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 1e-3},
        {"epochs": 3},
        {"lr": 0.02},
        {"momentum": 0.5},
        {"batch_size": 6},
        {"augmentation": "color"},
        {"images": 12},
        {"input": "raw"},
        {"seed": 1},
        {"backbone": Part("stand-in", {"width": 4})},
        {"schedule": "steps", "milestones": (0.5,)},
        {"cutmix": 0.5},
    ],
    ids=lambda c: next(iter(c)),
)
def test_whatever_changes_a_network_is_part_of_the_key(changes: dict[str, Any], tiny: Dataset):
    assert pool(tiny, **changes).folder != pool(tiny).folder


@pytest.mark.parametrize("changes", [{"count": 7}, {"mode": "train"}], ids=str)
def test_what_changes_no_network_is_not_part_of_the_key(changes: dict[str, Any], tiny: Dataset):
    assert pool(tiny, **changes).folder == pool(tiny).folder


def test_the_key_keeps_its_words():
    # Other words, or the same ones in another order, would leave every cached network unfound.
    assert repr(ProxySpec(epochs=7, schedule="steps", milestones=(0.5,)).training()) == (
        "TrainSpec(epochs=7, batch_size=256, optimizer='sgd', lr=0.01, momentum=0.9, "
        "weight_decay=0.0005, schedule='steps', gamma=0.1, milestones=(0.5,), "
        "augmentation='none', cutmix=0.0)"
    )


def test_other_images_make_another_pool(tiny: Dataset):
    images = tiny.train.fetch(torch.arange(36))
    images[0, 0, 0, 0] += 1
    other = Dataset(tiny.info, MemoryImages(images, tiny.train.labels), tiny.test)
    assert pool(other).folder != pool(tiny).folder


def test_other_code_under_the_same_name_and_options_makes_another_pool(tiny: Dataset):
    spec = ProxySpec(Part("stand-in"), count=1, epochs=1, batch_size=12)

    def prepared(width: int) -> Counting:
        reporter = Counting()
        ProxyPool(spec, lambda: StandIn(tiny.info, width), tiny, RUNTIME, 0).prepare(reporter)
        return reporter

    assert [prepared(w).epochs for w in (8, 8, 12, 8)] == [1, 0, 1, 0]


def test_the_accuracy_told_is_that_on_the_test_images_that_are_here(tiny: Dataset):
    first, _ = prepared(tiny, epochs=25, lr=0.05, count=1)
    turned = MemoryImages(tiny.test.fetch(torch.arange(18)), (tiny.test.labels + 1) % 3)
    other = Dataset(tiny.info, tiny.train, turned)
    second, reporter = prepared(other, epochs=25, lr=0.05, count=1)
    assert (second.folder, reporter.epochs) == (first.folder, 0)
    assert first.accuracies[0] > 0.7 > 0.3 > second.accuracies[0]
    assert second.accuracies[0] == accuracy(second.draw(0), turned, tiny.info, RUNTIME)
    third, _ = prepared(tiny, epochs=25, lr=0.05, count=1)
    assert third.accuracies == first.accuracies


def test_an_accuracy_is_measured_once_for_the_same_test_images(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    images = tiny.test.fetch(torch.arange(18))
    other = Dataset(tiny.info, tiny.train, MemoryImages(images, (tiny.test.labels + 1) % 3))
    prepared(tiny)
    told = prepared(other)[0].accuracies
    monkeypatch.setattr(pooling, "accuracy", None)  # not called again
    assert prepared(other)[0].accuracies == told


def test_networks_trained_in_another_precision_are_others(tiny: Dataset):
    half = Runtime(CPU, precision="bfloat16")
    assert pool(tiny, runtime=half).folder != pool(tiny).folder


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:place] + bytes([whole[place] ^ 1]) + whole[place:][1:]


DAMAGES = {
    "empty": lambda whole: b"",
    "nonsense": lambda whole: b"nonsense",
    "truncated": lambda whole: whole[:-50],
    "a bit of the weights": flipped(-1000),
    "a bit of the last weight": lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
    "the accuracy": lambda whole: re.sub(rb": 0\.\d", b": 0.9", whole, count=1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again_to_the_same_weights(damage: str, tiny: Dataset):
    made, _ = prepared(tiny)
    file = sorted(made.folder.iterdir())[1]
    whole = file.read_bytes()
    before = {name: x.clone() for name, x in load_file(file).items()}  # else they share the file
    file.write_bytes(DAMAGES[damage](whole))
    assert file.read_bytes() != whole
    assert prepared(tiny)[0].accuracies == made.accuracies
    after = load_file(file)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(list(made.folder.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_refused_before_the_price_is_paid(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "file"))
    reporter = Counting()
    with pytest.raises(CheckpointError, match="cannot be written"):
        pool(tiny).prepare(reporter)
    assert reporter.epochs == 0


def test_an_interrupted_pool_keeps_what_is_finished(tiny: Dataset):
    with pytest.raises(Interrupted):
        pool(tiny, count=3).prepare(Counting(stop=3))
    assert pool(tiny, count=3).missing() == [1, 2]


@pytest.mark.parametrize("finishes", [True, False])
def test_two_processes_at_one_pool_share_the_work_and_finish_what_the_other_left(
    finishes: bool, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    whole, _ = prepared(tiny)
    first = whole.folder / "0000.safetensors"
    kept = first.read_bytes()
    for path in whole.folder.iterdir():
        path.unlink()
    monkeypatch.setattr(lock, "WAIT", 0.01)
    other = lock.try_lock(whole.folder / ".0000.lock")
    assert other is not None

    class Meanwhile(Counting):
        def note(self, text: str) -> None:
            super().note(text)
            if "waiting" in text:  # here the other process comes to its end
                if finishes:
                    first.write_bytes(kept)
                other.release()

    made, reporter = pool(tiny), Meanwhile()
    made.prepare(reporter)
    assert reporter.epochs == (2 if finishes else 4)
    assert any(f"waiting for proxy 0, which process {os.getpid()}" in n for n in reporter.notes)
    for i in range(2):
        assert all(torch.equal(whole.trained(i)[k], v) for k, v in made.trained(i).items())
    assert sorted(p.name for p in made.folder.iterdir()) == [
        "0000.safetensors",
        "0001.safetensors",
    ]


def test_what_a_process_killed_as_it_kept_the_last_network_left_is_removed(tiny: Dataset):
    whole, _ = prepared(tiny)
    (whole.folder / ".0001.lock").write_text("{}", encoding="utf-8")
    (whole.folder / ".0001.safetensors.abc.partial").mkdir()
    prepared(tiny)
    assert sorted(p.name for p in whole.folder.iterdir()) == [
        "0000.safetensors",
        "0001.safetensors",
    ]


def test_draws_depend_on_seed_and_counters_and_reach_every_member(tiny: Dataset):
    made, _ = prepared(tiny)
    drawn = [weights(made.draw(i)) for i in range(12)]
    assert len({json.dumps(w[:3].tolist()) for w in drawn}) == 2
    for i in (5, 0, 11):
        assert torch.equal(weights(made.draw(i)), drawn[i])
    other, _ = prepared(tiny, run_seed=1)
    assert any(not torch.equal(weights(other.draw(i)), drawn[i]) for i in range(12))


def test_drawn_networks_are_frozen_and_in_the_mode_asked_for(tiny: Dataset):
    for mode in ("eval", "train"):
        net = prepared(tiny, mode=mode)[0].draw(0)
        assert net.training == (mode == "train")
        assert not any(p.requires_grad for p in net.parameters())


def test_drawing_before_preparing_is_a_mistake_of_the_program(tiny: Dataset):
    with pytest.raises(RuntimeError, match="prepare"):
        pool(tiny).draw(0)


def test_proxies_learn(tiny: Dataset):
    made, _ = prepared(tiny, epochs=25, lr=0.05, count=1)
    assert accuracy(made.draw(0), tiny.test, tiny.info, RUNTIME) > 0.7


def test_a_raw_network_sees_pixels_and_is_shown_normalised_images(tiny: Dataset):
    net = stand_in(tiny.info)
    raw = RawInput(net, tiny.info)
    pixels = tiny.train.fetch(torch.arange(4)).float() / 255
    normalised = tiny.info.normalize(pixels)
    torch.testing.assert_close(raw(normalised), net(pixels))
    torch.testing.assert_close(
        raw.get_classifier()(raw.forward_head(raw.forward_features(normalised), pre_logits=True)),
        raw(normalised),
    )
    made, _ = prepared(tiny, input="raw", epochs=25, lr=0.05, count=1)
    assert accuracy(made.draw(0), tiny.test, tiny.info, RUNTIME) > 0.7


@pytest.mark.parametrize("images", [3, 6, 12, 20])
def test_a_pool_limited_to_so_many_images_trains_on_no_more(images: int, tiny: Dataset):
    seen: set[int] = set()
    data = Dataset(tiny.info, Watched(tiny.train, seen), tiny.test)
    prepared(data, images=images, count=1)
    assert len(seen) <= images
    counts = torch.bincount(tiny.train.labels[sorted(seen)], minlength=3)
    assert int(counts.max() - counts.min()) <= 1


class Watched:
    """Images that remember which of them were fetched."""

    def __init__(self, source: Any, seen: set[int]):
        self.source, self.seen = source, seen

    @property
    def labels(self) -> torch.Tensor:
        return self.source.labels

    def fetch(self, index: torch.Tensor) -> torch.Tensor:
        self.seen.update(index.tolist())
        return self.source.fetch(index)

    def to(self, device: torch.device) -> Watched:
        return self

    def fingerprint(self) -> str:
        return self.source.fingerprint()


def test_the_information_of_a_dataset_reaches_the_networks(tiny: Dataset):
    assert isinstance(pool(tiny).info, DataInfo)


def test_a_network_that_diverged_is_not_kept(tmp_path: Path, tiny: Dataset):
    spec = ProxySpec(Part("stand-in"), count=1, epochs=2, batch_size=8, lr=1e30)
    made = ProxyPool(spec, lambda: stand_in(tiny.info), tiny, RUNTIME, 0)
    made.folder = tmp_path / "pool"
    with pytest.raises(DivergedError, match="Lower that pool's lr"):
        made.prepare(Silent())
    assert not list(tmp_path.glob("pool/*.safetensors"))


@pytest.mark.parametrize("name", ["../../out", "/out", "..", "a" * 400, "\ud800\x1b"], ids=ascii)
def test_a_pool_stays_in_the_cache_whatever_a_set_calls_its_data(name: str, tiny: Dataset):
    data = replace(tiny, info=replace(tiny.info, name=name))
    spec = ProxySpec(backbone=Part("mlp"), count=1)
    folder = ProxyPool(spec, partial(stand_in, data.info), data, RUNTIME, 0).folder
    assert folder.parent == storage.cache("networks")
    assert len(folder.name) <= 80
    assert folder.name.isprintable()


def test_a_pool_that_would_train_on_single_images_says_so_before_it_does(tiny: Dataset):
    def made() -> nn.Module:
        net = StandIn(tiny.info)
        net.pool.append(nn.BatchNorm1d(32))
        return net

    spec = ProxySpec(Part("stand-in"), count=1, epochs=1, batch_size=1)
    reporter = Counting()
    with pytest.raises(IncompatibleError, match=r"a pool of stand-in: .*batch_size is 1"):
        ProxyPool(spec, made, tiny, RUNTIME, 0).prepare(reporter)
    assert reporter.epochs == 0
    ProxyPool(replace(spec, batch_size=7), made, tiny, RUNTIME, 0).prepare(reporter)  # 36 = 5*7+1
    assert reporter.epochs == 1
