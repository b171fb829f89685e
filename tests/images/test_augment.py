"""Siamese augmentation: one draw is shared by all that belongs together."""

from __future__ import annotations

from math import pi

import pytest
import torch
from torch import Tensor

from ddkit.images.augment import (
    OPERATIONS,
    Draw,
    Stage,
    crop,
    cutout,
    draw_per_class,
    draw_per_image,
    flip,
    rotate,
    scale,
    shift,
    turn,
)
from ddkit.images.groups import Groups
from ddkit.runtime.randomness import generator

ALL = "color_crop_cutout_flip_scale_rotate"
CHAIN = "chain:color_crop_cutout_flip_scale_rotate"


def images(count: int, size: int = 8, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, size, size, generator=generator(0, "test-images"))


def draws(strategy: str, classes: int = 5, number: int = 8) -> list[Draw]:
    """Draws of several steps, so that every operation comes up."""
    return [draw_per_class(strategy, classes, generator(0, "augment", i)) for i in range(number)]


@pytest.mark.parametrize("strategy", [*OPERATIONS, ALL, CHAIN])
def test_real_and_synthetic_rows_of_a_class_get_the_same_operation_and_parameters(strategy: str):
    x = images(5)  # one image for each class
    real = Groups.of(torch.arange(5).repeat_interleave(3))
    mixed = Groups.of(torch.tensor([4, 1, 0, 3, 2, 2, 1]))
    for draw in draws(strategy):
        alone = draw.siamese(x, Groups.of(torch.arange(5)))
        assert torch.equal(draw.siamese(x[real.labels], real), alone[real.labels])
        assert torch.equal(draw.siamese(x[mixed.labels], mixed), alone[mixed.labels])


@pytest.mark.parametrize("strategy", [ALL, CHAIN])
def test_chunks_of_classes_see_what_they_would_see_in_the_whole(strategy: str):
    labels = torch.arange(6).repeat_interleave(2)
    x = images(12)
    for draw in draws(strategy, classes=6):
        whole = draw.siamese(x, Groups.of(labels))
        for part in (slice(0, 2), slice(2, 8), slice(8, 12)):
            assert torch.equal(draw.siamese(x[part], Groups.of(labels[part])), whole[part])


def test_classes_get_draws_of_their_own():
    draw = draw_per_class("color", 4, generator(0, "augment"))
    x = images(1).expand(4, -1, -1, -1)
    views = draw.siamese(x, Groups.of(torch.arange(4)))
    assert all(not torch.equal(views[0], views[i]) for i in range(1, 4))


def test_equal_generators_draw_equally_and_others_do_not():
    x, groups = images(5), Groups.of(torch.arange(5))
    one, same, other = (draw_per_class(ALL, 5, generator(0, "augment", i)) for i in (1, 1, 2))
    assert torch.equal(one.siamese(x, groups), same.siamese(x, groups))
    assert not torch.equal(one.siamese(x, groups), other.siamese(x, groups))


def test_none_changes_nothing():
    x, groups = images(4), Groups.of(torch.arange(4))
    assert draw_per_class("none", 4, generator(0, "a")).siamese(x, groups) is x
    assert draw_per_image("none", 4, generator(0, "a")).single(x) is x


@pytest.mark.parametrize("strategy", [*OPERATIONS, ALL, CHAIN])
def test_per_image_draws_share_the_operation_and_not_the_parameters(strategy: str):
    for i in range(4):
        draw = draw_per_image(strategy, 6, generator(0, "train-augment", i))
        x = images(6)
        views = draw.single(x)
        assert views.shape == x.shape
        for stage in draw.stages:
            assert len(stage.operations) == 1
            assert len(stage.uniforms) == 6
            assert len(set(stage.uniforms[:, 0].tolist())) == 6


def test_a_strategy_takes_one_operation_and_every_one_comes_up():
    taken = [s.operations for d in draws(ALL, classes=10, number=12) for s in d.stages]
    assert len(taken) == 12  # one stage for each draw
    assert {name for names in taken for name in names} == set(OPERATIONS)


def test_a_chain_takes_flip_then_colour_then_one_of_the_rest_then_cutout():
    for draw in draws(CHAIN):
        first, second, rest, last = (set(stage.operations) for stage in draw.stages)
        assert (first, second, last) == ({"flip"}, {"color"}, {"cutout"})
        assert rest <= {"crop", "scale", "rotate"}
    some = draw_per_class("chain:crop_flip", 3, generator(0, "a"))
    assert [set(s.operations) for s in some.stages] == [{"flip"}, {"crop"}]


def test_a_chain_applies_its_stages_one_after_the_other():
    x, groups = images(3), Groups.of(torch.arange(3))
    draw = draw_per_class("chain:color_cutout", 3, generator(0, "a"))
    by_hand = x
    for stage in draw.stages:
        by_hand = Draw((stage,)).siamese(by_hand, groups)
    assert torch.equal(draw.siamese(x, groups), by_hand)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("extreme", [0.0, 0.5, 1 - 1e-7])
def test_every_operation_keeps_the_shape_and_has_a_finite_gradient(name: str, extreme: float):
    x = images(2, size=7).requires_grad_()  # an odd size
    view = OPERATIONS[name](x, torch.full((2, 3), extreme))
    assert view.shape == x.shape
    view.square().sum().backward()
    assert torch.isfinite(view).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.any()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_treats_rows_apart_and_takes_any_size(name: str):
    x = torch.randn(3, 1, 5, 9, generator=generator(0, "test"))
    u = torch.rand(3, 3, generator=generator(1, "test"))
    together = OPERATIONS[name](x, u)
    apart = torch.cat([OPERATIONS[name](x[i : i + 1], u[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart)


def test_crop_shifts_by_an_eighth_at_most_and_fills_with_zero():
    x = torch.ones(1, 1, 16, 16)
    for u, rows in ((0.0, slice(0, 2)), (1 - 1e-7, slice(14, 16))):
        view = crop(x, torch.full((1, 3), u))
        assert not view[..., rows, :].any()
        assert int(view.sum()) == 14 * 14
    assert torch.equal(crop(x, torch.full((1, 3), 0.5)), x)


def test_shift_reads_from_the_given_offset():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    view = shift(x, torch.tensor([1]), torch.tensor([-1]))
    assert torch.equal(view[0, 0, :7, 1:], x[0, 0, 1:, :7])
    assert not view[0, 0, 7].any()
    assert not view[0, 0, :, 0].any()


def test_cutout_zeroes_a_square_of_half_the_size():
    view = cutout(torch.ones(1, 1, 8, 8), torch.full((1, 3), 0.5))
    assert int((view == 0).sum()) == 16


def test_flip_mirrors_or_does_not():
    x = images(2)
    view = flip(x, torch.tensor([[0.1, 0, 0], [0.9, 0, 0]]))
    assert torch.equal(view[0], x[0].flip(2))
    assert torch.equal(view[1], x[1])


def test_the_middle_of_rotation_and_the_unit_of_scale_change_nothing():
    x = images(1)
    torch.testing.assert_close(rotate(x, torch.full((1, 3), 0.5)), x, rtol=1e-4, atol=1e-5)
    unit = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)
    torch.testing.assert_close(scale(x, torch.full((1, 3), unit)), x, rtol=1e-4, atol=1e-5)


def test_one_operation_for_all_classes_needs_no_sorting():
    stage = Stage(("color",) * 3, torch.rand(3, 3, generator=generator(0, "u")))
    x = images(4)
    labels = torch.tensor([2, 0, 1, 2])
    expected = OPERATIONS["color"](x, stage.uniforms[labels])
    assert torch.equal(stage.siamese(x, Groups.of(labels)), expected)


def direction(image: Tensor) -> float:
    """Return the direction of the long axis of what is bright in `image` [H,W], in degrees."""
    places, weights = image.nonzero().double(), image[image > 0].double()[:, None]
    places = places - (places * weights).sum(0) / weights.sum()
    axis = torch.linalg.eigh((places * weights).T @ places)[1][:, -1]
    return float(torch.atan2(axis[0], axis[1])) * 180 / pi


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (192, 64), (48, 64)], ids=str)
def test_rotation_turns_both_axes_of_an_image_of_any_shape_by_the_same_angle(
    size: tuple[int, int],
):
    row, col = size[0] // 2, size[1] // 2
    bars = torch.zeros(2, 1, *size)
    bars[0, 0, row - 1 : row + 1, col - 20 : col + 20] = 1
    bars[1, 0, row - 20 : row + 20, col - 1 : col + 1] = 1
    for asked in (15, -15, 6):
        view = turn(bars, torch.full((2,), asked * pi / 180))
        for before, after in zip(bars, view, strict=True):
            turned = (direction(before[0]) - direction(after[0]) + 90) % 180 - 90
            assert turned == pytest.approx(asked, abs=0.5)


@pytest.mark.parametrize("name", ["color", "crop", "cutout", "flip", "scale"])
def test_every_other_operation_treats_a_side_as_in_a_square_of_that_side(name: str):
    # A pattern along one axis alone: the middle row (column) of the long image must be that of the
    # square of its width (height), whatever the other side is.
    apply, profile = OPERATIONS[name], torch.rand(128, generator=generator(0, "profile"))
    low = profile[:64]
    for number in range(6):
        u = 0.4 + 0.2 * torch.rand(1, 3, generator=generator(0, "u", number))  # near the middle
        across = apply(profile.expand(1, 1, 64, 128), u)[0, 0, 32]
        torch.testing.assert_close(across, apply(profile.expand(1, 1, 128, 128), u)[0, 0, 64])
        down = apply(low[:, None].expand(1, 1, 64, 128), u)[0, 0, :, 64]
        torch.testing.assert_close(down, apply(low[:, None].expand(1, 1, 64, 64), u)[0, 0, :, 32])


def test_a_box_is_cut_from_half_of_either_side():
    view = cutout(torch.ones(1, 1, 64, 128), torch.full((1, 3), 0.5))
    assert int((view == 0).sum()) == 32 * 64
    assert int((view[0, 0, 32] == 0).sum()) == 64
