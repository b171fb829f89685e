"""Every shipped recipe composes, on stand-in data of the right shape, and opens as it should."""

from pathlib import Path

import pytest
import torch

from ddkit.data import DataInfo, Dataset
from ddkit.distillation.compose import compose
from ddkit.recipes import catalog
from ddkit.recipes.recipe import Recipe
from ddkit.runtime.device import Runtime

SHAPES = {
    "digits": (1, 16, 10),
    "mnist": (1, 28, 10),
    "fashion_mnist": (1, 28, 10),
    "svhn": (3, 32, 10),
    "cifar10": (3, 32, 10),
    "cifar100": (3, 32, 100),
    "tiny_imagenet": (3, 64, 200),
    "folder": (3, 32, 10),  # the shipped ones are for CIFAR-10 as JPEG files
    "imagenet": (3, 224, 1000),
}
SUBSET = (3, 128, 10)
PER_CLASS = {"digits": 140, "cifar100": 500, "tiny_imagenet": 500}


class Hollow:
    """Labels without images."""

    def __init__(self, info, per_class):
        self.info = info
        self.labels = torch.arange(info.num_classes).repeat(per_class)

    def fetch(self, index):
        return torch.zeros(len(index), *self.info.shape, dtype=torch.uint8)

    def to(self, device):
        return self

    def fingerprint(self):
        return f"hollow {self.info.name}"


def stand_in(recipe):
    """Data of the shape that the recipe's dataset has."""
    name = recipe.dataset.name
    channels, side, classes = SHAPES.get(name, SUBSET)
    side = recipe.dataset.options.get("resolution", side)
    names = tuple(f"class {i}" for i in range(classes))
    info = DataInfo(name, channels, side, side, names, (0.5,) * channels, (0.25,) * channels)
    source = Hollow(info, PER_CLASS.get(name, 1300 if name not in SHAPES else 5000))
    return Dataset(info, source, source)


@pytest.mark.parametrize("name", list(catalog.recipes()))
def test_every_shipped_recipe_composes_on_data_of_its_shape(name, loaded):
    recipe = Recipe.load(name)
    compose(recipe, loaded, Runtime(torch.device("cpu")), stand_in(recipe))
    assert Recipe.parse(recipe.table()) == recipe


@pytest.mark.parametrize("path", catalog.recipes().values(), ids=lambda p: Path(p).stem)
def test_every_shipped_recipe_opens_with_paper_setting_accuracy_and_command(path):
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("\nseed")]
    assert all(line.startswith("#") for line in head.splitlines())
    for word in ("# Paper", "Setting: ", "Reported: ", f"Command: ddkit distill {path.stem} "):
        assert word in head, f"{path.name} does not say {word!r}"
