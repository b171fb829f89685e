"""What parts ask of each other: refused in words, and not where it comes along anyway."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ddkit.distillation.requirements import check_requirements
from ddkit.errors import IncompatibleError
from ddkit.regularizer import Regularizer, Term


def asked(tiny_recipe: Any, provides: set[str], requires: set[str]) -> None:
    class Wanting(Regularizer):
        def loss(self, m: Any) -> Any:
            raise AssertionError("nothing is computed here")

    Wanting.requires = frozenset(requires)
    method: Any = SimpleNamespace(provides=frozenset(provides), reads_proxies=False)
    check_requirements(tiny_recipe(), method, (Term("wanting", 1.0, Wanting()),))


@pytest.mark.parametrize(
    ("provides", "requires"),
    [
        ({"syn", "labels"}, {"groups"}),  # as a method of 0.1.0 says it
        ({"real_labels"}, {"real_groups"}),
        ({"real_groups"}, {"real_labels"}),
    ],
)
def test_what_a_match_always_has_may_be_required(
    tiny_recipe: Any, provides: set[str], requires: set[str]
):
    asked(tiny_recipe, provides, requires)


@pytest.mark.parametrize("name", ["real_groups", "syn_view", "real_maps"])
def test_what_a_method_does_not_fill_is_refused_in_words(tiny_recipe: Any, name: str):
    with pytest.raises(IncompatibleError, match=f"'wanting' needs {name}; method 'dm' provides"):
        asked(tiny_recipe, {"syn", "labels"}, {name})


def test_a_method_that_selects_images_carries_no_regularizer(tiny_recipe: Any):
    with pytest.raises(IncompatibleError, match="provides nothing"):
        asked(tiny_recipe, set(), {"syn"})
