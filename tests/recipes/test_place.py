"""Where in a recipe something was said."""

from __future__ import annotations

import pytest

from ddkit.recipes.place import Place, Source

TEXT = """\
# method = "in a comment"
seed = 1
dataset = { name = "digits", resolution = 8 }
backbone.name = "convnet"
backbone.depth = 2
synthetic = { ipc = 1 }  # resolution = 9

[method]
name = "dm"
seed = 5
"iterations" = 3

[[regularizers]]
name = "a"
weight = 1.0

[[regularizers]]
name = "b"
weight = 2.0

[proxies.backbone]
width = 16

[eval]
archs = [
  "convnet",
  { name = "resnet18", width = 8 },
]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("seed", 2),
        ("dataset", 3),
        ("dataset.resolution", 3),
        ("backbone.depth", 5),
        ("synthetic.ipc", 6),
        ("method", 8),
        ("method.name", 9),
        ("method.seed", 10),
        ("method.iterations", 11),
        ("proxies.backbone.width", 22),
        ("eval.archs", 25),
        ("eval.archs.1.width", 27),
        ("synthetic.resolution", 6),  # not there: its parent
        ("nothing", None),
    ],
)
def test_a_path_leads_to_its_line(path: str, line: int | None):
    assert Source("mine.toml", TEXT).line(path) == line


@pytest.mark.parametrize(
    ("path", "line"), [("regularizers.0.weight", 15), ("regularizers.1.weight", 19)]
)
def test_an_item_of_an_array_of_tables_has_its_own_line(path: str, line: int):
    assert Source("mine.toml", TEXT).line(path) == line


def test_a_key_that_is_missing_is_not_sought_in_other_tables():
    assert Source("mine.toml", TEXT).line("method.width") == 8


def test_a_place_names_file_line_and_path():
    top = Place(Source("mine.toml", TEXT))
    assert str(top) == "mine.toml"
    assert str(top / "method" / "name") == "mine.toml:9: method.name"
    assert str(top / "nothing") == "mine.toml: nothing"


def test_what_was_overridden_is_placed_on_the_command_line():
    source = Source("mine.toml", TEXT, {"method.name": "dsa", "eval": "{}"})
    assert str(Place(source, "method.name")) == "--set method.name"
    assert str(Place(source, "eval.archs.0")) == "--set eval.archs.0"
    assert str(Place(source, "method.iterations")) == "mine.toml:11: method.iterations"
