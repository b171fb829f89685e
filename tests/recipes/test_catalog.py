"""Every shipped recipe composes, on stand-in data of the right shape, and opens as it should."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT

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


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a wheel built from this checkout and laid out as pip does."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in ddkit[test]")
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target / "site")
    return target / "site"


def test_a_wheel_holds_every_recipe_and_protocol_in_its_folder(installed):
    inside, checkout = installed / "ddkit" / "recipes" / "shipped", ROOT / "recipes"
    held, ours = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.toml")}
        for folder in (inside, checkout)
    )
    assert held == ours


def test_an_installed_package_finds_its_own_recipes_and_protocols(installed):
    script = (
        "import json\n"
        "from ddkit.recipes import catalog\n"
        "found = (catalog.recipes(), catalog.protocols(), {'folder': catalog.folder()})\n"
        "print(json.dumps([{n: str(p) for n, p in files.items()} for files in found]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    recipes, protocols, place = json.loads(done.stdout)
    assert (list(recipes), list(protocols)) == ([*catalog.recipes()], [*catalog.protocols()])
    assert Path(place["folder"]) == installed / "ddkit" / "recipes" / "shipped"
    for path in (*recipes.values(), *protocols.values()):
        assert Path(path).is_relative_to(place["folder"])
