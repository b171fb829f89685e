"""The pages under docs/reference say what the components say."""

import importlib.util

import pytest
from conftest import ROOT

from ddkit.plugins import KINDS
from ddkit.recipes import reference

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(script):
    return script.pages()


def test_the_described_components_are_those_of_the_code(script):
    written = script.COMPONENTS.read_text(encoding="utf-8")
    assert written == script.components(), "run: python docs/reference.py"


@pytest.mark.parametrize("kind", [*KINDS, "recipe", "plugin-seam"])
def test_the_page_is_up_to_date(kind, pages):
    path = DOCS / "reference" / f"{kind}.md"
    assert path.read_text(encoding="utf-8") == pages[kind], "run: python docs/reference.py"


def test_the_plugin_seam_says_what_every_field_means(script):
    for one in script.SEAM:
        rows = [line.split(" | ") for line in script._class(one) if line.startswith("| `")]
        named = {row[0].strip("| `") for row in rows if row[-1].strip("| ")}
        if one.__name__ in ("Match", "Run", "Method", "ImageSource"):
            assert len(rows) == len(named) > 0, one
            assert set(getattr(one, "__dataclass_fields__", {})) <= named


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_has_a_sentence_about_it(kind, loaded):
    for name, component in getattr(loaded, kind).items():
        assert reference.summary(component).endswith("."), f"{kind}: {name}"


def test_facts_hold_type_and_default_of_every_option(loaded):
    facts = reference.facts("methods", "dm", loaded.methods["dm"])
    options = {o["name"]: o for o in facts["options"]}
    assert options["iterations"]["default"] == 20000
    assert options["iterations"]["type"] == "an integer, at least 1"
    assert facts["provides"]


def test_what_ddkit_gives_itself_is_no_option(loaded):
    for kind, given in (("datasets", "root"), ("backbones", "info")):
        for name, component in getattr(loaded, kind).items():
            names = [o.name for o in reference.options(kind, component)]
            assert given not in names, f"{kind}: {name}"
