"""A dataset looked at: wrong statistics, images in both splits, images in which nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ddkit.data import Dataset, MemoryImages
from ddkit.diagnosis import inspection
from ddkit.diagnosis.inspection import inspect
from ddkit.errors import DataError
from ddkit.findings import Finding


def levels(found: list[Finding]) -> dict[str, str]:
    return {f.subject: f.level for f in found}


def text(found: list[Finding], subject: str) -> str:
    return "\n".join(f.text for f in found if f.subject == subject)


def test_sound_data_has_nothing_to_note(tiny: Dataset):
    found = inspect(tiny)
    assert set(levels(found).values()) == {"ok"}
    assert "no test image is a training image" in text(found, "splits")


@pytest.mark.parametrize(
    ("mean", "std", "level"),
    [(0.0, 1.0, "ok"), (0.5, 1.0, "note"), (0.0, 1.6, "note"), (0.0, 0.5, "note")],
)
def test_statistics_far_from_those_of_the_images_are_noted(
    mean: float, std: float, level: str, tiny: Dataset
):
    info = tiny.info
    shifted = replace(
        info,
        mean=tuple(m + mean for m in info.mean),
        std=tuple(s * std for s in info.std),
    )
    found = inspect(replace(tiny, info=shifted))
    assert levels(found)["statistics"] == level
    assert f"{info.mean[0]:.3f}" in text(found, "statistics")


def test_the_deviation_published_for_cifar10_is_within_what_is_usual(tiny: Dataset):
    images = torch.full((2, 3, 4, 4), 126, dtype=torch.uint8)
    images[..., :2], images[..., 2:] = 63, 189  # mean 0.494, deviation 0.247, as CIFAR-10's
    info = replace(tiny.info, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
    assert inspection.measured(info, images).level == "ok"


@pytest.mark.parametrize("sampled", [False, True])
def test_test_images_among_the_training_images_are_counted(
    sampled: bool, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    if sampled:
        monkeypatch.setattr(inspection, "COMPARED", 0)
    test = torch.cat([tiny.train.fetch(torch.arange(4)), tiny.test.fetch(torch.arange(5))])
    data = replace(tiny, test=MemoryImages(test, torch.arange(9) % 3))
    found = inspect(data)
    assert levels(found)["splits"] == "note"
    assert "4 test images are training images as well" in text(found, "splits")
    assert ("that were compared" in text(found, "splits")) == sampled


def test_a_large_dataset_is_sampled_over_its_whole_length(tiny: Dataset):
    rows = inspection._spread(tiny.train, 4)
    assert rows.tolist() == [0, 9, 18, 27]


def test_images_of_one_colour_are_counted(tiny: Dataset):
    images = tiny.train.fetch(torch.arange(36)).clone()
    images[:2] = 7
    found = inspect(replace(tiny, train=MemoryImages(images, tiny.train.labels)))
    assert text(found, "constant").startswith("2 of 36 images")
    assert "1 training images repeat another" in text(found, "splits")


def test_pixels_that_were_stored_as_fractions_are_noted(tiny: Dataset):
    images = (tiny.train.fetch(torch.arange(36)) > 127).to(torch.uint8)
    found = inspect(replace(tiny, train=MemoryImages(images, tiny.train.labels)))
    assert "stored as 0 to 1?" in text(found, "values")


def test_images_of_another_shape_than_the_dataset_says_are_refused(tiny: Dataset):
    found = inspect(replace(tiny, info=replace(tiny.info, width=17)))
    assert levels(found) == {"data": "FAIL"}
    assert "not uint8 [3, 16, 17]" in text(found, "data")


def test_an_image_that_cannot_be_read_is_a_refusal(tiny: Dataset):
    class Damaged(MemoryImages):
        def fetch(self, index: torch.Tensor) -> torch.Tensor:
            raise DataError("x.png: is damaged")

    broken = Damaged(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), torch.arange(3))
    found = inspect(replace(tiny, test=broken))
    assert (levels(found), text(found, "data")) == ({"data": "FAIL"}, "x.png: is damaged")
