"""The set: how it starts, decodes, and lives in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tree
from torch import nn

from ddkit.data import Dataset
from ddkit.errors import CheckpointError, RecipeError
from ddkit.images.formation import Formation
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet, initial
from ddkit.recipes.sections import SyntheticSpec
from ddkit.runtime import memory

CPU = torch.device("cpu")


def made(tiny: Dataset, **changes: Any) -> SyntheticSet:
    images = torch.randn(6, *tiny.info.shape)
    facts: dict[str, Any] = {
        "images": nn.Parameter(images),
        "labels": torch.arange(3).repeat_interleave(2),
        "info": tiny.info,
        "recipe": {"seed": 1, "dataset": {"name": "tiny"}},
        "provenance": {"seed": 1, "data": "hash"},
    }
    return SyntheticSet(**{**facts, **changes})


# The file

VARIANTS: list[dict[str, Any]] = [
    {},
    {"soft": torch.rand(6, 3).softmax(1)},
    {"formation": Formation(2, "column", "nearest")},
    {"space": "pixel", "images": nn.Parameter(torch.rand(6, 3, 16, 16))},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=["hard", "soft", "mosaic", "pixel"])
def test_a_set_survives_its_file(changes: dict[str, Any], tiny: Dataset, tmp_path: Path):
    before = made(tiny, **changes)
    before.save(tmp_path / "set.safetensors")
    after = SyntheticSet.load(tmp_path / "set.safetensors")
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.labels, after.labels)
    if before.soft is None:
        assert after.soft is None
    else:
        assert after.soft is not None
        assert torch.equal(before.soft, after.soft)
    for fact in ("info", "formation", "space", "recipe", "provenance", "ipc", "stored_bytes"):
        assert getattr(before, fact) == getattr(after, fact)
    for ours, theirs in zip(before.training(), after.training(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_same_set_gives_the_same_bytes(tiny: Dataset, tmp_path: Path):
    syn = made(tiny, soft=torch.rand(6, 3).softmax(1))
    syn.save(tmp_path / "a")
    syn.save(tmp_path / "b")
    SyntheticSet.load(tmp_path / "a").save(tmp_path / "c")
    a, b, c = tree(tmp_path).values()
    assert a == b == c


def test_saving_replaces_the_file_whole_and_leaves_nothing_beside_it(tiny: Dataset, tmp_path: Path):
    made(tiny).save(tmp_path / "set")
    made(tiny).save(tmp_path / "set")
    assert list(tree(tmp_path)) == ["set"]


def test_a_set_on_a_place_that_cannot_be_written_is_refused(tiny: Dataset, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        made(tiny).save(tmp_path / "file" / "set")


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such file"):
        SyntheticSet.load(tmp_path / "absent")


def test_a_set_knows_how_many_images_each_class_has(tiny: Dataset):
    assert made(tiny).per_class == (2, 2, 2)
    unequal = made(tiny, labels=torch.tensor([0, 0, 0, 1, 1, 0]))
    assert unequal.per_class == (4, 2, 0)
    assert unequal.ipc == 4


# Decoding


def test_classes_decode_to_their_own_images_with_gradients(tiny: Dataset):
    syn = made(tiny)
    images, groups = syn.decode(torch.tensor([0, 2]))
    assert torch.equal(images, syn.images[[0, 1, 4, 5]])
    assert groups.labels.tolist() == [0, 0, 2, 2]
    images.sum().backward()
    assert syn.images.grad is not None
    assert syn.images.grad[[0, 1, 4, 5]].eq(1).all()
    assert not syn.images.grad[[2, 3]].any()


def test_pixels_are_normalised_on_the_way_out(tiny: Dataset):
    pixel = made(tiny, space="pixel", images=nn.Parameter(torch.rand(6, 3, 16, 16)))
    images, _ = pixel.decode()
    torch.testing.assert_close(images, tiny.info.normalize(pixel.images))
    torch.testing.assert_close(pixel.pixels(), pixel.images.detach())


def test_stored_pixels_of_a_normalised_set_are_clamped(tiny: Dataset):
    pixels = made(tiny, images=nn.Parameter(torch.full((6, 3, 16, 16), 99.0))).pixels()
    assert float(pixels.max()) == 1.0


def test_the_padding_of_a_mosaic_in_pixel_space_is_grey(tiny: Dataset):
    from ddkit.data import DataInfo

    info = DataInfo("odd", 1, 3, 3, ("a",), (0.0,), (1.0,))
    black = nn.Parameter(torch.zeros(1, 1, 3, 3))
    for space, fill in (("pixel", 0.5), ("normalized", 0.0)):
        syn = SyntheticSet(black, torch.tensor([0]), info, Formation(2), space)  # type: ignore[arg-type]
        assert float(syn.decode()[0].detach().max()) == pytest.approx(fill, abs=0.2 * fill)


def test_a_set_with_soft_labels_trains_on_them(tiny: Dataset):
    soft = torch.rand(6, 3).softmax(1)
    images, targets = made(tiny, soft=soft, formation=Formation(2)).training()
    assert len(images) == len(targets) == 24
    assert torch.equal(targets, torch.cat([soft] * 4))


def test_more_training_images_than_memory_are_refused_before_any_is_made(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "physical", lambda device: 6 * 4 * 3 * 16 * 16 * 4)
    assert len(made(tiny, formation=Formation(2)).training()[0]) == 24
    with pytest.raises(CheckpointError, match=r"54 training images of 0\.0 GiB, more than"):
        made(tiny, formation=Formation(3)).training()


# The beginning


@pytest.mark.parametrize("space", ["normalized", "pixel"])
@pytest.mark.parametrize("factor", [1, 2])
def test_a_set_starts_from_distinct_real_images_of_each_class(
    space: str, factor: int, tiny: Dataset
):
    spec = SyntheticSpec(ipc=2, factor=factor, space=space)  # type: ignore[arg-type]
    real = RealImages(tiny, 0, CPU)
    syn = initial(spec, real, 0)
    assert syn.images.shape == (6, 3, 16, 16)
    assert syn.labels.tolist() == [0, 0, 1, 1, 2, 2]
    images, groups = syn.decode()
    assert len(images) == 6 * factor**2
    if factor == 1:
        everything = real.fetch(torch.arange(36))
        origin = torch.cdist(images.flatten(1), everything.flatten(1)).min(1)
        torch.testing.assert_close(origin.values, torch.zeros(6), atol=5e-2, rtol=0)
        assert len(set(origin.indices.tolist())) == 6
        assert torch.equal(tiny.train.labels[origin.indices], groups.labels)


def test_every_tile_of_a_mosaic_shows_an_image_of_its_own_class(tiny: Dataset):
    spec = SyntheticSpec(ipc=2, factor=2)
    images, groups = initial(spec, RealImages(tiny, 0, CPU), 0).decode()
    real = RealImages(tiny, 0, CPU).fetch(torch.arange(36))
    small = torch.nn.functional.interpolate(real, size=(8, 8), mode="bilinear")
    large = torch.nn.functional.interpolate(small, size=(16, 16), mode="bilinear")
    origin = torch.cdist(images.flatten(1), large.flatten(1)).min(1)
    torch.testing.assert_close(origin.values, torch.zeros(24), atol=5e-2, rtol=0)
    assert len(set(origin.indices.tolist())) == 24
    assert torch.equal(tiny.train.labels[origin.indices], groups.labels)


def test_noise_is_drawn_from_the_seed_and_stays_in_its_space(tiny: Dataset):
    real = RealImages(tiny, 0, CPU)
    spec = SyntheticSpec(ipc=20, init="noise")
    first, same, other = (initial(spec, real, seed).images for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert abs(float(first.std()) - 1) < 0.05
    pixel = initial(SyntheticSpec(ipc=20, init="noise", space="pixel"), real, 0).images
    assert float(pixel.min()) >= 0
    assert float(pixel.max()) <= 1


@pytest.mark.parametrize(("ipc", "factor"), [(13, 1), (4, 2)])
def test_more_real_images_than_the_smallest_class_has_are_refused(
    ipc: int, factor: int, tiny: Dataset
):
    with pytest.raises(RecipeError, match=r"synthetic\.ipc.*'class 0' has 12"):
        initial(SyntheticSpec(ipc=ipc, factor=factor), RealImages(tiny, 0, CPU), 0)
    initial(SyntheticSpec(ipc=ipc, factor=factor, init="noise"), RealImages(tiny, 0, CPU), 0)
