"""Mosaics: what is composed decodes to the same pictures, in the same order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ddkit.images.formation import Formation

KINDS: list[dict[str, Any]] = [
    {"factor": 1},
    {"factor": 2},
    {"factor": 3},
    {"factor": 2, "order": "column"},
    {"factor": 3, "order": "column", "init_resize": "nearest"},
]


def flat(count: int, height: int, width: int) -> Tensor:
    """Images of one value each, which survive any resizing."""
    return torch.arange(1.0, count + 1)[:, None, None, None].expand(-1, 2, height, width)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_composed_decodes_in_the_same_order(kind: dict[str, Any]):
    formation = Formation(**kind)
    x = flat(formation.pieces * 3, 12, 12)
    stored = formation.compose(x)
    assert stored.shape == (3, 2, 12, 12)
    torch.testing.assert_close(formation.decode(stored), x)


def test_tiles_are_read_by_rows_or_by_columns():
    stored = torch.zeros(1, 1, 4, 4)
    stored[..., :2, 2:] = 5.0  # the upper right tile
    rows, columns = (Formation(2, order).decode(stored) for order in ("row", "column"))
    assert [float(t.mean()) for t in rows] == [0, 5, 0, 0]
    assert [float(t.mean()) for t in columns] == [0, 0, 5, 0]


@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 8), (9, 6)])
def test_sizes_that_two_does_not_divide_are_padded_with_the_fill(height: int, width: int):
    formation = Formation(2)
    stored = formation.compose(flat(4, height, width))
    decoded = formation.decode(stored, fill=-9.0)
    assert decoded.shape == (4, 2, height, width)
    assert float(decoded[0].min()) == pytest.approx(1)  # the first tile lies wholly inside
    torch.testing.assert_close(decoded[3, :, 0, 0], torch.tensor([4.0, 4.0]))
    assert (float(decoded[3].min()) < 0) == (height % 2 == 1 or width % 2 == 1)


def test_decoding_enlarges_bilinearly():
    stored = torch.rand(2, 3, 8, 8)
    tile = interpolate(stored[..., :4, :4], size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Formation(2).decode(stored)[:2], tile)


def test_a_factor_of_one_stores_images_as_they_are():
    x = torch.rand(3, 1, 5, 5)
    assert Formation().decode(x) is x
    assert Formation().compose(x) is x


def test_labels_are_repeated_tile_by_tile():
    formation = Formation(2)
    assert formation.tile_labels(torch.tensor([3, 1])).tolist() == [3, 1] * 4
    soft = torch.rand(2, 5)
    assert torch.equal(formation.tile_labels(soft), torch.cat([soft] * 4))


def test_gradients_reach_every_stored_pixel():
    x = torch.rand(2, 1, 7, 7, requires_grad=True)
    Formation(2).decode(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.all()


def test_multi_reads_a_set_with_every_factor():
    formation = Formation(2, kind="multi")
    stored = torch.rand(3, 1, 8, 8)
    decoded = formation.decode(stored)
    assert len(decoded) == 3 * formation.most == 15
    assert torch.equal(decoded[:3], stored)
    assert torch.equal(decoded[3:], Formation(2).decode(stored))
    labels = torch.tensor([0, 1, 2])
    assert formation.tile_labels(labels, labels).tolist() == [0, 1, 2] * 5


@pytest.mark.parametrize("bound", [1, 4, 7, 16, 40])
def test_bound_gives_no_class_more_images_than_the_bound_or_than_it_stores(bound: int):
    formation = Formation(2, kind="bound", bound=bound)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    decoded = formation.decode(torch.rand(7, 1, 8, 8), labels=labels)
    tiles = formation.tile_labels(labels, labels)
    assert len(decoded) == len(tiles)
    stored = torch.bincount(labels)
    made = torch.bincount(tiles)
    assert (made >= stored).all()
    assert (made <= stored.clamp_min(bound)).all()


def test_a_bound_that_binds_nothing_is_refused():
    from ddkit.distillation.requirements import check_synthetic
    from ddkit.errors import IncompatibleError
    from ddkit.recipes.recipe import Recipe

    def recipe(*changes: str) -> Recipe:
        return Recipe.load("idc-digits-ipc10", ["synthetic.bound=9", *changes])

    check_synthetic(recipe('synthetic.kind="bound"'))
    with pytest.raises(IncompatibleError, match=r"synthetic.bound: belongs to kind = \"bound\""):
        check_synthetic(recipe('synthetic.kind="single"'))


@pytest.mark.parametrize("order", ["row", "column"])
def test_mosaics_treat_a_side_as_in_a_square_of_that_side(order: Any):
    formation = Formation(2, order)
    profile = torch.rand(128, generator=torch.Generator().manual_seed(0))
    for made in (formation.decode, formation.compose):
        wide, square = (
            made(profile.expand(4, 1, height, 128).contiguous()) for height in (64, 128)
        )
        torch.testing.assert_close(wide[:, 0, 32], square[:, 0, 64])
        low = profile[:64, None]
        wide, square = (made(low.expand(4, 1, 64, width).contiguous()) for width in (128, 64))
        torch.testing.assert_close(wide[..., 64], square[..., 32])
