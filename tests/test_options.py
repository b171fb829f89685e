"""Types of options: what a value may be, and what is said where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from ddkit.errors import RecipeError
from ddkit.options import (
    Count,
    Fraction,
    Momentum,
    NonNegative,
    Positive,
    Range,
    Strategy,
    Whole,
)
from ddkit.recipes.binding import convert, describe
from ddkit.recipes.place import Place, Source, told

HERE = Place(Source("mine.toml"), "part")


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, -3], [1.0, "1", True, None]),
        (float, [0.5, 2], ["0.5", True, None]),
        (str, ["", "a"], [1, None]),
        (bool, [True, False], [0, 1, "true"]),
        (Path, ["a/b"], [1]),
        (Count, [1, 10**9], [0, -1, 1.5, True]),
        (Whole, [0, 5], [-1]),
        (Positive, [1e-9, 3], [0, -1, float("inf"), float("nan")]),
        (NonNegative, [0, 0.5], [-1e-9, float("nan")]),
        (Fraction, [0, 1, 0.5], [1.01, -0.1]),
        (Momentum, [0, 0.99], [1, 1.0, -0.1]),
        (Literal["a", "b"], ["a"], ["c", 1, None]),
        (Literal[1, 3], [1, 3], [True, 2, "1", 1.0]),
        (Literal["auto"] | Count, ["auto", 4], ["none", 0, 2.5]),
        (Count | None, [4, None], [0, "4"]),
        (list[Fraction], [[], [0, 1]], [[2], 0.5, "ab", ["a"]]),
        (tuple[int, ...], [[1, 2]], [[1.5]]),
        (Annotated[int, Range(min=2, max=4)], [2, 4], [1, 5]),
        (Annotated[float, Range(above=0, below=1)], [0.5], [0, 1]),
        (Strategy, ["none", "color", "color_crop", "chain:flip_color"], ["", "blur", "chain:", 3]),
        (Strategy, ["flip_cutout"], ["color_color", "none_crop", "chain:none", "color_"]),
        (Any, [1, "a", None, [1]], []),
    ],
)
def test_a_value_fits_its_type_and_range_or_is_refused(hint: Any, good: list[Any], bad: list[Any]):
    for value in good:
        result = convert(value, hint, HERE)
        wanted = Path(value) if hint is Path else value
        assert result == wanted or tuple(value) == result
    for value in bad:
        with pytest.raises(RecipeError, match=r"^mine\.toml: part(\.\d+)?: must be"):
            convert(value, hint, HERE)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300, -1e300, 10**39, 10**400])
@pytest.mark.parametrize("hint", [float, Positive, Positive | None])
def test_what_no_float_holds_is_refused_in_words_that_are_true(hint: Any, value: float):
    with pytest.raises(RecipeError) as refusal:
        convert(value, hint, HERE)
    words = f"must be a finite number, at most 3.4e+38, not {told(value)}"
    assert str(refusal.value) == f"mine.toml: part: {words}"


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
@pytest.mark.parametrize("hint", [int, Count, Whole | None])
def test_what_no_integer_of_a_tensor_holds_is_refused_in_words_that_are_true(hint: Any, value: int):
    assert convert(2**63 - 1, hint, HERE) == 2**63 - 1
    with pytest.raises(RecipeError) as refusal:
        convert(value, hint, HERE)
    words = f"must be an integer that 64 bits hold, at most 9.22337e+18, not {told(value)}"
    assert str(refusal.value) == f"mine.toml: part: {words}"


def test_a_number_too_large_for_every_type_of_a_choice_is_refused():
    for value in (10**20, 10**400, float("inf"), 1e300):
        with pytest.raises(RecipeError, match=r"^mine\.toml: part: must be"):
            convert(value, Literal["auto"] | Count, HERE)


def test_integers_become_floats_and_lists_tuples_where_wanted():
    assert type(convert(2, Positive, HERE)) is float
    assert convert([1, 2], tuple[float, ...], HERE) == (1.0, 2.0)


def test_an_item_of_a_list_is_named_by_its_position():
    with pytest.raises(RecipeError, match=r"part\.1: must be at most 1|part\.1: must be at least"):
        convert([0.5, 2.0], list[Fraction], HERE)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Count, "an integer, at least 1"),
        (Literal["a", "b"], "'a' or 'b'"),
        (Literal["auto"] | Count, "'auto' or an integer, at least 1"),
        (Positive | None, "a number, above 0"),
        (list[str], "a list of: a string"),
        (Annotated[int, Range(min=1, below=9)], "an integer, at least 1 and below 9"),
    ],
)
def test_types_are_described_in_words(hint: Any, words: str):
    assert describe(hint) == words


def test_a_recipe_is_read_without_torch():
    code = "import sys, ddkit.recipes.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
