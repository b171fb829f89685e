"""Words for what goes wrong: names from outside are shown, not sent."""

from __future__ import annotations

import pytest

from ddkit.errors import DataError, shown

ACTS = ["\x1b", "\x00", "\n", "\r", "\t", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ufeff"]


@pytest.mark.parametrize("character", [*ACTS, "\ud800", "\U000e0041"], ids=ascii)
def test_a_character_that_acts_hides_or_is_half_is_shown_as_its_escape(character: str):
    text = shown(f"a{character}b")
    assert text == f"a{character.encode('unicode_escape').decode()}b"
    assert text.isprintable()


@pytest.mark.parametrize("text", ["", "cat", "Käse 猫 \U0001f408", r"C:\new", "e\u0301", "a b"])
def test_text_without_such_characters_is_shown_as_it_is(text: str):
    assert shown(text) == text


def test_an_error_that_quotes_a_name_from_outside_sends_nothing_to_a_terminal():
    assert str(DataError("\x1b[2J: no such file\nmend it")) == "\\x1b[2J: no such file\nmend it"
