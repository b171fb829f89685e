"""Batches of real images: distinct, of the right class, and a function of the step alone."""

from __future__ import annotations

import pytest
import torch
from conftest import RAGGED, numbered
from torch import Tensor

from ddkit.data import Dataset
from ddkit.errors import DataError
from ddkit.images.real import RealImages

CPU = torch.device("cpu")


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
