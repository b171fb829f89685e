"""Batches of real images: distinct, of the right class, and a function of the step alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddkit.data import DataInfo, Dataset, MemoryImages, statistics
from ddkit.errors import DataError
from ddkit.images.real import RealImages

CPU = torch.device("cpu")


def numbered(labels: list[int], classes: int = 3) -> Dataset:
    """Images of one pixel that holds the image's number; a test split of one image per class."""
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    names = tuple("abcdefgh"[:classes])
    info = DataInfo("numbered", 1, 1, 1, names, (0.0,), (1.0,))
    test = MemoryImages(pixels[:classes], torch.arange(classes))
    return Dataset(info, MemoryImages(pixels, torch.tensor(labels)), test)


RAGGED = [0, 1, 1, 2, 1, 0, 1, 2, 2, 2, 1, 1, 2, 1]  # 2, 7 and 5 images, in no order


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


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3)),
    ],
)
def test_images_of_another_kind_are_refused(images: Tensor, labels: Tensor):
    with pytest.raises(DataError, match="uint8"):
        MemoryImages(images, labels)


def test_statistics_are_those_of_all_pixels_whatever_the_chunks():
    images = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)
    mean, std = statistics(images)
    x = images.double() / 255
    assert mean == pytest.approx(x.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    assert statistics(images, chunk=7) == (mean, std)


def changed(what: str) -> Dataset:
    data = numbered(RAGGED)
    images = data.train.fetch(torch.arange(len(RAGGED)))
    labels = data.train.labels.clone()
    info = data.info
    if what == "pixel":
        images[3] += 1
    elif what == "label":
        labels[3] = 1
    elif what == "mean":
        info = DataInfo.from_dict({**info.to_dict(), "mean": [0.1]})
    elif what == "classes":
        info = DataInfo.from_dict({**info.to_dict(), "classes": ["x", "y", "z"]})
    return Dataset(info, MemoryImages(images, labels), data.test)


def test_the_fingerprint_changes_with_whatever_training_sees():
    assert changed("nothing").fingerprint() == numbered(RAGGED).fingerprint()
    prints: list[Any] = [
        changed(what).fingerprint() for what in ("nothing", "pixel", "label", "mean", "classes")
    ]
    assert len(set(prints)) == 5


def test_info_survives_json():
    info = numbered(RAGGED).info
    assert DataInfo.from_dict(info.to_dict()) == info
    assert info.shape == (1, 1, 1)
    assert info.num_classes == 3


def test_a_constant_channel_can_be_normalised():
    from ddkit.data import statistics

    images = torch.full((4, 2, 3, 3), 7, dtype=torch.uint8)
    images[:2, 1] = 200
    _, std = statistics(images)
    assert std[0] == 1.0
    assert 0 < std[1] < 1
