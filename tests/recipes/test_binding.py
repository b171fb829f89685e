"""A signature is a schema: what is bound to it, and every problem on its line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from ddkit.errors import RecipeError
from ddkit.options import Count, Momentum, Positive
from ddkit.recipes.binding import Described, bind, checked, defaults, json_schema, schema
from ddkit.recipes.place import Place, Source

HERE = Place(Source("mine.toml"), "part")


def make(info: str, width: Count, rate: Positive = 0.5, path: Path | None = None) -> Any:
    return info, width, rate, path


@dataclass
class Made:
    size: Count = 3
    names: list[str] = field(default_factory=lambda: ["a"])


def test_a_function_and_a_dataclass_are_schemas():
    assert list(schema(make)) == ["info", "width", "rate", "path"]
    assert schema(make)["width"].required
    assert not schema(make)["rate"].required
    assert defaults(make) == {"rate": 0.5, "path": None}
    assert defaults(Made) == {"size": 3, "names": ["a"]}


def test_bind_calls_with_what_the_user_gave_and_what_is_given():
    assert bind(make, {"width": 4, "path": "x"}, HERE, info="i") == ("i", 4, 0.5, Path("x"))
    assert bind(Made, {"size": 5}, HERE) == Made(5)


def test_a_tilde_in_a_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "/home/mine")
    assert bind(make, {"width": 4, "path": "~/x"}, HERE, info="i")[3] == Path("/home/mine/x")


@pytest.mark.parametrize(
    "path, said",
    [("~nosuchuser/x", "no user 'nosuchuser'"), ("a\0b", "NUL"), ("caf\udce9", "is not text")],
)
def test_a_path_that_cannot_be_is_named_with_its_place(path: str, said: str):
    with pytest.raises(RecipeError, match=rf"^mine.toml: part.path: .*{said}"):
        checked(make, {"width": 4, "path": path}, HERE, {"info": ""})


def test_what_is_given_is_no_option():
    with pytest.raises(RecipeError, match=r"part\.info: unknown option"):
        bind(make, {"width": 4, "info": "mine"}, HERE, info="i")


def test_every_problem_is_named_on_its_line():
    with pytest.raises(RecipeError) as refusal:
        checked(make, {"widht": 4, "rate": -1}, HERE, {"info": ""})
    lines = str(refusal.value).splitlines()
    assert lines == [
        "mine.toml: part.widht: unknown option (did you mean 'width'?)",
        "mine.toml: part.rate: must be above 0, not -1",
        "mine.toml: part.width: missing; give an integer, at least 1",
    ]


def test_options_for_anything_are_not_taken():
    def loose(width: int = 1, **rest: Any) -> int:
        return width

    assert list(schema(loose)) == ["width"]
    with pytest.raises(RecipeError, match="unknown option"):
        bind(loose, {"height": 2}, HERE)


def test_options_are_written_as_a_json_schema():
    assert json_schema(make, given=1) == {
        "type": "object",
        "properties": {
            "width": {"type": "integer", "minimum": 1},
            "rate": {"type": "number", "exclusiveMinimum": 0, "default": 0.5},
            "path": {"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}
            | {"default": None},
        },
        "required": ["width"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "hint",
    [
        *(int, float, str, bool, Path, Any, Count, Momentum, Literal["a", 3]),
        *(list[Momentum], Literal["auto"] | bool, Path | None, Count | None),
    ],
)
def test_a_type_comes_back_from_its_json_schema(hint: Any):
    def factory(option: Any) -> None: ...

    factory.__annotations__ = {"option": hint}
    again = schema(Described(json.loads(json.dumps(json_schema(factory)))))
    assert again["option"].hint == hint
    assert again["option"].required
