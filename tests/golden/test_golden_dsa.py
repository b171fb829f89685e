"""Every operation of the Siamese augmentation gives what the published code gave."""

import pytest
import torch
from vectors import case, gradient_of

from ddkit.images import augment

CASES = [0, 1]
TOLERANCE = 1e-5


def parameter(c, name):
    """One parameter for each image; in the siamese case the first counts for all."""
    values = c.t[name]
    return values[:1].expand(len(c.t["x"])) if c.facts["siamese"] else values


def check(c, function, prefix=""):
    x = c.t["x"].clone().requires_grad_()
    y = function(x)
    assert (y - c.t[f"{prefix}y"]).abs().max() <= TOLERANCE
    gradient = gradient_of((c.t["cotangent"] * y).sum(), x)
    assert (gradient - c.t[f"{prefix}grad_x"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize("name", ["brightness", "saturation", "contrast"])
def test_color_parts(number, name):
    c = case("dsa_color", number)
    check(c, lambda x: getattr(augment, name)(x, parameter(c, f"u_{name}")), f"{name}.")


@pytest.mark.parametrize("number", CASES)
def test_color_is_brightness_then_saturation_then_contrast(number):
    c = case("dsa_color", number)
    names = ("u_brightness", "u_saturation", "u_contrast")
    u = torch.stack([parameter(c, name) for name in names], 1)
    check(c, lambda x: augment.color(x, u), "color.")


@pytest.mark.parametrize("number", CASES)
def test_crop_shifts_rows_and_columns(number):
    c = case("dsa_crop", number)
    rows, cols = parameter(c, "shift_rows").long(), parameter(c, "shift_cols").long()
    check(c, lambda x: augment.shift(x, rows, cols))


@pytest.mark.parametrize("number", CASES)
def test_cutout_erases_a_clipped_square(number):
    c = case("dsa_cutout", number)
    rows, cols = parameter(c, "offset_rows").long(), parameter(c, "offset_cols").long()
    check(c, lambda x: augment.erase(x, rows, cols))


@pytest.mark.parametrize("number", CASES)
def test_flip_mirrors_below_one_half(number):
    c = case("dsa_flip", number)
    check(c, lambda x: augment.flip(x, parameter(c, "u")[:, None]))


@pytest.mark.parametrize("number", CASES)
def test_scale_by_factors_and_by_draws(number):
    c = case("dsa_scale", number)
    check(c, lambda x: augment.zoom(x, parameter(c, "sx"), parameter(c, "sy")))
    u = torch.stack([parameter(c, "u_sx"), parameter(c, "u_sy")], 1)
    check(c, lambda x: augment.scale(x, u))


def sheared(x, theta):
    """Turn the grid, whose sides are both from -1 to 1, as the published program does."""
    cos, sin, zero = theta.cos(), theta.sin(), torch.zeros_like(theta)
    return augment._affine(x, torch.stack([cos, -sin, zero, sin, cos, zero], 1))


@pytest.mark.parametrize("number", CASES)
def test_rotate_by_angles_and_by_draws(number):
    c = case("dsa_rotate", number)
    theta, square = parameter(c, "theta_rad"), c.t["x"].shape[2] == c.t["x"].shape[3]
    check(c, lambda x: sheared(x, theta))
    if square:
        check(c, lambda x: augment.turn(x, theta))
        check(c, lambda x: augment.rotate(x, parameter(c, "u")[:, None]))
    else:  # where the sides differ the published turn is a shear, and ours is none
        turned = augment.turn(c.t["x"], theta)
        assert (turned - c.t["y"]).abs().max() > TOLERANCE
