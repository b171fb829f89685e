"""Batches of real images: distinct, of the right class, and a function of the step alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import RAGGED, numbered
from torch import Tensor

from ddkit.data import Dataset
from ddkit.errors import DataError, RecipeError
from ddkit.images.real import Chosen, RealImages, choose, make_dataset
from ddkit.recipes.place import Place, Source
from ddkit.recipes.sections import Part

CPU = torch.device("cpu")
HERE = Place(Source("recipe"), "dataset")


def numbers(images: Tensor) -> list[int]:
    return (images.flatten() * 255).round().long().tolist()


def sampler(seed: int = 0) -> RealImages:
    return RealImages(numbered(RAGGED), seed, CPU)


def test_a_sample_is_distinct_images_of_the_right_classes():
    real = sampler()
    for step in range(20):
        images, groups = real.sample(torch.arange(3), 4, step)
        taken = numbers(images)
        assert len(set(taken)) == len(taken)
        assert [RAGGED[i] for i in taken] == groups.labels.tolist()


def test_a_small_class_gives_all_it_has():
    images, groups = sampler().sample(torch.arange(3), 6, 0)
    assert groups.counts == (2, 6, 5)
    assert set(numbers(images)) >= {i for i, c in enumerate(RAGGED) if c in (0, 2)}


def test_a_sample_depends_on_seed_stream_and_step_alone():
    classes = torch.arange(3)
    fresh = numbers(sampler().sample(classes, 3, 7)[0])
    used = sampler()
    for step in (3, 7, 1):
        used.sample(classes, 3, step)
    assert numbers(used.sample(classes, 3, 7)[0]) == fresh
    others = [
        numbers(sampler(seed=1).sample(classes, 3, 7)[0]),
        numbers(sampler().sample(classes, 3, 8)[0]),
        numbers(sampler().sample(classes, 3, 7, stream="other")[0]),
    ]
    assert all(other != fresh for other in others)


@pytest.mark.parametrize("per_class", [1, 3, 6])
def test_chunks_of_classes_draw_what_the_whole_draws(per_class: int):
    whole, groups = sampler().sample(torch.arange(3), per_class, 5)
    real = sampler()
    parts = [
        real.sample(torch.tensor(c), per_class, 5) for c in ([2], [0, 1])
    ]  # in another order, too
    assert torch.equal(torch.cat([parts[1][0], parts[0][0]]), whole)
    assert parts[1][1].counts + parts[0][1].counts == groups.counts


def test_every_image_comes_up():
    real = sampler()
    seen = {i for step in range(40) for i in numbers(real.sample(torch.arange(3), 2, step)[0])}
    assert seen == set(range(len(RAGGED)))


def test_chosen_numbers_are_those_of_distinct_images_class_by_class():
    chosen = sampler().choose(4, 0, "coreset").tolist()
    assert len(set(chosen)) == len(chosen)
    assert [RAGGED[i] for i in chosen] == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_the_first_images_are_those_of_the_dataset_order():
    images, groups = sampler().first(torch.tensor([0, 2]), 3)
    assert numbers(images) == [0, 5, 3, 7, 8]
    assert groups.labels.tolist() == [0, 0, 2, 2, 2]


def test_fetched_images_are_normalised_and_counted(tiny: Dataset):
    real = RealImages(tiny, 0, CPU)
    images = real.fetch(torch.tensor([3, 1]))
    raw = tiny.train.fetch(torch.tensor([3, 1])).float() / 255
    torch.testing.assert_close(images, tiny.info.normalize(raw))
    torch.testing.assert_close(tiny.info.denormalize(images), raw)
    assert real.drawn == 2


def test_a_class_without_images_is_refused_by_name():
    with pytest.raises(DataError, match="'c' has no training images"):
        RealImages(numbered([0, 1, 0, 1]), 0, CPU)


@pytest.mark.parametrize("chosen", [["2", "0"], [2, 0]], ids=["names", "numbers"])
def test_a_subset_of_classes_is_labelled_in_the_order_given(loaded: Any, chosen: list[Any]):
    data = make_dataset(Part("digits", {"classes": chosen}), loaded, HERE)
    every = make_dataset(Part("digits"), loaded, HERE)
    assert data.info == replace(every.info, classes=("2", "0"))
    for split in ("train", "test"):
        ours, theirs = getattr(data, split), getattr(every, split)
        rows = ((theirs.labels == 0) | (theirs.labels == 2)).nonzero()[:, 0]
        assert ours.labels.tolist() == (theirs.labels[rows] == 0).long().tolist()
        assert torch.equal(ours.fetch(torch.arange(len(rows))), theirs.fetch(rows))
    assert data.fingerprint() != every.fingerprint()


@pytest.mark.parametrize(
    "chosen, said",
    [
        (["0", "eleven"], "dataset.classes.1: digits has no class called 'eleven'"),
        ([0, 10], "dataset.classes.1: digits has the classes 0 to 9, not 10"),
        ([0, 1, "0"], "dataset.classes.2: the class '0' is named twice"),
        (["3"], "dataset.classes: names 1; two classes are needed"),
        ("3", "dataset.classes: must be a list of: a string or an integer"),
    ],
)
def test_classes_that_cannot_be_chosen_are_refused_with_their_place(
    loaded: Any, chosen: Any, said: str
):
    with pytest.raises(RecipeError) as refused:
        make_dataset(Part("digits", {"classes": chosen}), loaded, HERE)
    assert said in str(refused.value)


def test_held_out_images_are_a_share_of_each_class_and_no_longer_trained_on(loaded: Any):
    every = make_dataset(Part("digits"), loaded, HERE)
    data = make_dataset(Part("digits", {"hold_out": 0.25}), loaded, HERE)
    before = every.train.labels.bincount()
    assert (before * 0.25 - data.test.labels.bincount()).abs().max() <= 0.5
    assert torch.equal(data.train.labels.bincount() + data.test.labels.bincount(), before)
    images = [s.fetch(torch.arange(len(s.labels))).flatten(1) for s in (data.train, data.test)]
    known = every.train.fetch(torch.arange(len(every.train.labels))).flatten(1)
    assert sorted(torch.cat(images).tolist()) == sorted(known.tolist())
    assert data.tested == "25 % of the training images, held out"
    assert data.fingerprint() != every.fingerprint()
    again = make_dataset(Part("digits", {"hold_out": 0.25}), loaded, HERE)
    assert again.test.fingerprint() == data.test.fingerprint() != every.test.fingerprint()


def test_whitening_is_fitted_on_the_images_that_are_left(loaded: Any):
    options = {"resolution": 8, "zca": True}
    whole, left = (
        make_dataset(Part("digits", {**options, **more}), loaded, HERE)
        for more in ({}, {"hold_out": 0.5, "classes": [0, 1]})
    )
    assert whole.info.whitening is not None and left.info.whitening is not None
    assert whole.info.whitening.fingerprint != left.info.whitening.fingerprint


@pytest.mark.parametrize("share", [0, 1, 1.5, True])
def test_a_share_that_leaves_no_images_on_either_side_is_refused(loaded: Any, share: Any):
    with pytest.raises(RecipeError, match=r"dataset\.hold_out: must be"):
        make_dataset(Part("digits", {"hold_out": share}), loaded, HERE)


def test_chosen_images_of_any_source_are_those_of_a_source_in_memory(tiny: Dataset):
    rows = torch.tensor([5, 0, 7])
    labels = torch.tensor([1, 0, 1])
    kept, lazy = choose(tiny.train, rows, labels), Chosen(tiny.train, rows, labels).to(CPU)
    index = torch.tensor([2, 0])
    assert torch.equal(kept.fetch(index), lazy.fetch(index))
    assert torch.equal(kept.labels, lazy.labels)
    other = Chosen(tiny.train, rows.flip(0), labels)
    assert len({s.fingerprint() for s in (lazy, other, tiny.train)}) == 3
