"""Networks given as classes and factories: their names, what they are given, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ddkit.backbone import wrap
from ddkit.data import DataInfo
from ddkit.errors import IncompatibleError, RecipeError
from ddkit.plugins import Plugins
from ddkit.python.network import Given
from ddkit.testing import tiny_dataset

INFO = tiny_dataset().info


class Own(nn.Module):
    """A network with a body and a head."""

    def __init__(self, num_classes: int, width: int = 4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).flatten(1))


def of_classes(num_classes: int) -> nn.Module:
    return wrap(Own(num_classes), "body", "head")


def of_info(data: DataInfo) -> nn.Module:
    return of_classes(data.num_classes)


def of_nothing() -> nn.Module:
    return of_classes(3)


def of_others(width: int, depth: int) -> nn.Module:
    return of_classes(3)


class Full(Own):
    """The same, with the three methods; without parameters."""

    def __init__(self) -> None:
        super().__init__(3)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x.flatten(1) if pre_logits else self.head(x.flatten(1))

    def get_classifier(self) -> nn.Module:
        return self.head


@pytest.mark.parametrize("factory", [of_classes, of_info, of_nothing, Full])
def test_a_factory_is_given_what_it_takes_and_known_by_what_it_builds(
    factory: Any, loaded: Plugins
):
    given = Given()
    name = given.network(factory, "backbone")
    assert name.startswith("python:") and name.endswith(factory.__qualname__)
    make = given.plugins(loaded, INFO).backbones[name].factory
    assert make(INFO)(torch.zeros(2, *INFO.shape)).shape == (2, 3)
    with pytest.raises(IncompatibleError, match=r"another network than the one recorded"):
        make(INFO, digest="0")


def test_two_networks_of_one_name_are_told_apart_and_one_given_twice_is_one():
    given = Given()
    factories = [lambda: nn.Identity(), lambda: nn.Identity()]
    names = [given.network(f, "archs") for f in (*factories, factories[0])]
    assert names[1] == f"{names[0]}#2"
    assert names[2] == names[0]


def test_what_makes_no_networks_is_refused(loaded: Plugins):
    with pytest.raises(RecipeError, match=r"backbone: is one network.*Full itself or a function"):
        Given().network(Full(), "backbone")
    with pytest.raises(RecipeError, match=r"proxies: must be a name, a class or a function.*7"):
        Given().network(7, "proxies")
    for factory, words in (
        (of_others, "its parameters width, depth have no default"),
        (lambda: 7, "returned 7, which is no nn.Module"),
        (lambda: Own(3), "Own has no forward_features.*wrap it: ddkit.backbone.wrap"),
        (lambda: wrap(Own(3), "bodi", "head"), "Own has no layer 'bodi'.*did you mean 'body'"),
    ):
        given = Given()
        given.network(factory, "backbone")
        with pytest.raises((RecipeError, IncompatibleError), match=words):
            given.plugins(loaded, INFO)
