"""Plugins come through entry points, one at a time, and a broken one costs only itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from conftest import ROOT, TINY_POOL, ddkit, recipe_table

from ddkit import plugins
from ddkit.errors import PluginError

GOOD = """
from ddkit import hookimpl

@hookimpl
def register_regularizers():
    return {"good": dict}
"""


def test_built_ins_come_by_the_same_route_as_third_parties(install: Callable[..., None]):
    install("mine-good", GOOD)
    loaded = plugins.load()
    assert loaded.failures == []
    assert loaded.regularizers["good"].distribution == "mine-good"
    assert loaded.regularizers["good"].plugin == "mine-good:it"
    assert loaded.methods["dm"].distribution == "ddkit"
    assert {"digits", "folder", "cifar10", "cifar100"} <= set(loaded.datasets)
    assert {"convnet", "resnet18", "timm/"} <= set(loaded.backbones)
    assert {"random", "herding", "kmeans", "dm"} <= set(loaded.methods)
    assert {"centralize", "covariance"} <= set(loaded.regularizers)


BROKEN = {
    "it does not exist": None,
    "it does not parse": "def def",
    "its import fails": "import no_such_library",
    "it raises at import": "raise RuntimeError('sad\\nvery sad')",
    "it exits at import": "import sys; sys.exit('sad')",
    "it misspells a hook": GOOD.replace("register_regularizers", "register_regularisers"),
    "its hook raises": GOOD.replace("return", "raise KeyError('x'); return"),
    "its hook exits": GOOD.replace("return", "raise SystemExit(3); return"),
    "its hook returns nothing": GOOD.replace('return {"good": dict}', "pass"),
    "its hook takes what no hook has": GOOD.replace("regularizers()", "regularizers(config)"),
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_plugin_costs_one_failure_and_the_rest_loads(
    source: str | None, install: Callable[..., None]
):
    install("aaa-broken", source)
    install("zzz-good", GOOD)
    loaded = plugins.load()
    assert [f.plugin for f in loaded.failures] == ["aaa-broken:it"]
    assert loaded.failures[0].reason
    assert "\n" not in loaded.failures[0].reason
    assert loaded.regularizers["good"].distribution == "zzz-good"
    assert "dm" in loaded.methods


@pytest.mark.parametrize("source", BROKEN.values(), ids=list(BROKEN))
def test_strict_loading_makes_any_failure_an_error(
    source: str | None, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    install("aaa-broken", source)
    monkeypatch.setenv("DDKIT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="aaa-broken:it"):
        plugins.load()


def test_a_misspelt_hook_is_named(install: Callable[..., None]):
    install("aaa-broken", BROKEN["it misspells a hook"])
    assert "register_regularisers" in plugins.load().failures[0].reason


def test_a_name_that_two_plugins_provide_is_refused_where_it_is_used_and_nowhere_else(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    install("aaa-mine", GOOD)
    install("bbb-yours", GOOD.replace('{"good"', '{"alone": dict, "good"'))
    loaded = plugins.load()
    assert loaded.failures == []
    assert "good" not in loaded.regularizers
    assert {"alone", "covariance"} <= set(loaded.regularizers)
    with pytest.raises(PluginError) as refusal:
        loaded.regularizers.resolve("good")
    assert "'good' is provided by both aaa-mine:it and bbb-yours:it" in str(refusal.value)
    assert "DDKIT_LOAD_PLUGINS" in str(refusal.value)
    said = ddkit("plugins", "--json")
    assert said.code == 0
    assert "'good' is provided by both aaa-mine:it and bbb-yours:it" in said.err
    rows = {row["plugin"]: row for row in json.loads(said.out)}
    assert rows["aaa-mine:it"]["provides"] == {}
    assert rows["bbb-yours:it"]["provides"] == {"regularizers": ["alone"]}
    monkeypatch.setenv("DDKIT_LOAD_PLUGINS", "bbb-yours")
    assert plugins.load().regularizers.resolve("good")[0].distribution == "bbb-yours"
    monkeypatch.delenv("DDKIT_LOAD_PLUGINS")
    monkeypatch.setenv("DDKIT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="aaa-mine:it and bbb-yours:it"):
        plugins.load()


def test_a_third_party_cannot_replace_a_built_in_or_a_family_unseen(install: Callable[..., None]):
    source = GOOD.replace('"good"', '"covariance"')
    source += """
@hookimpl
def register_backbones():
    return {"timm/": dict}
"""
    install("aaa-mine", source)
    loaded = plugins.load()
    with pytest.raises(PluginError, match=r"'covariance' .*aaa-mine:it and ddkit:iid"):
        loaded.regularizers.resolve("covariance")
    with pytest.raises(PluginError, match=r"'timm/' .*aaa-mine:it and ddkit:timm"):
        loaded.backbones.resolve("timm/resnet18")


def records(install: Any, folder: str) -> Path:
    """Return a folder of records beside those that `install` makes."""
    info = install.site / folder
    info.mkdir()
    return info


def test_what_an_interrupted_upgrade_left_costs_no_plugin(install: Any):
    whole = plugins.load()
    for name, metadata in (("~dkit", "Name: ddkit\nVersion: 0.1.0\n"), ("~-dkit", "")):
        info = records(install, f"{name}-0.1.0.dist-info")
        (info / "METADATA").write_text(metadata)
        lines = [f"{e.name} = {e.value}" for e in entry_points(group="ddkit")]
        (info / "entry_points.txt").write_text("\n".join(["[ddkit]", *dict.fromkeys(lines)]))
    loaded = plugins.load()
    assert loaded.failures == []
    assert all(getattr(loaded, k) == getattr(whole, k) for k in plugins.KINDS)
    assert ddkit("plugins").code == 0


METADATA = {
    "no name": (b"Version: 1.0\n", b"[ddkit]\nit = some_module\n"),
    "no metadata": (None, b"[ddkit]\nit = some_module\n"),
    "metadata that is no text": (b"\xff\xfe\x00", b"[ddkit]\nit = some_module\n"),
    "no version": (b"Name: sad\n", b"[ddkit]\nit = some_module\n"),
    "entry points without an equals sign": (b"Name: sad\nVersion: 1\n", b"[ddkit]\nit\n"),
    "entry points that are no text": (b"Name: sad\nVersion: 1\n", b"\xff[ddkit]\n"),
    "an entry point of no form": (b"Name: sad\nVersion: 1\n", b"[ddkit]\nit = : : [\n"),
}


@pytest.mark.parametrize(("metadata", "entries"), METADATA.values(), ids=list(METADATA))
def test_records_that_cannot_be_read_cost_one_line(
    metadata: bytes | None, entries: bytes, install: Any, monkeypatch: pytest.MonkeyPatch
):
    info = records(install, "sad-1.0.dist-info")
    (info / "entry_points.txt").write_bytes(entries)
    if metadata is not None:
        (info / "METADATA").write_bytes(metadata)
    install("zzz-good", GOOD)
    loaded = plugins.load()
    assert len(loaded.failures) == 1
    assert "\n" not in loaded.failures[0].reason
    assert "good" in loaded.regularizers and "dm" in loaded.methods
    for words in (["plugins"], ["plugins", "--json"], ["list", "methods"]):
        said = ddkit(*words)
        assert said.code == 0
        assert len(said.lines) == 1
    monkeypatch.setenv("DDKIT_LOAD_PLUGINS", "zzz-good")
    assert plugins.load().failures == []


HOOKS = {  # what a hook returns, and the word for it
    "None": "NoneType",
    "['good']": "list",
    "[('good', dict)]": "list",
    "5": "int",
    "{'good': 5}": "int",
    "{'good': None}": "NoneType",
    "{5: dict}": "5",
    "{'': dict}": "''",
}


@pytest.mark.parametrize(("value", "word"), HOOKS.items())
def test_a_hook_that_returns_something_else_is_one_failure_in_words(
    value: str, word: str, install: Callable[..., None]
):
    install("aaa-broken", GOOD.replace('{"good": dict}', value))
    (failure,) = plugins.load().failures
    assert failure.plugin == "aaa-broken:it"
    assert "register_regularizers must return a dict of names to factories" in failure.reason
    assert word in failure.reason
    assert ddkit("list", "regularizers").code == 0


def test_what_plugins_print_goes_to_standard_error(install: Callable[..., None]):
    install("aaa-loud", "print('loading')\n" + GOOD.replace("return", "print('asked'); return"))
    said = ddkit("list", "methods", "--json")
    assert [row["name"] for row in json.loads(said.out)]
    assert said.err == "loading\nasked\n"


@pytest.mark.parametrize("where", ["import", "hook"])
def test_an_interrupt_while_plugins_load_stops_and_is_no_failure(
    where: str, install: Callable[..., None]
):
    stop = "raise KeyboardInterrupt"
    install("aaa-mine", stop if where == "import" else GOOD.replace("return", f"{stop}; return"))
    with pytest.raises(KeyboardInterrupt):
        plugins.load()
    assert ddkit("list", "methods").code == 130


def test_an_error_that_cannot_say_itself_is_told_by_its_kind(install: Callable[..., None]):
    install("aaa-broken", "class Odd(Exception):\n    __str__ = None\nraise Odd")
    assert [f.reason for f in plugins.load().failures] == ["Odd"]


def test_load_plugins_names_the_third_parties_that_load(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    install("aaa-broken", "raise RuntimeError")
    install("zzz-good", GOOD)
    monkeypatch.setenv("DDKIT_LOAD_PLUGINS", "zzz-good, other")
    assert plugins.load().failures == []
    assert "good" in plugins.load().regularizers
    monkeypatch.setenv("DDKIT_LOAD_PLUGINS", "")
    assert plugins.load().failures == []
    assert "good" not in plugins.load().regularizers
    assert "dm" in plugins.load().methods


def test_a_miss_brings_near_names_and_the_plugins_that_failed(install: Callable[..., None]):
    install("aaa-broken", "raise RuntimeError('sad')")
    loaded = plugins.load()
    with pytest.raises(PluginError) as refusal:
        loaded.regularizers.resolve("covarianse")
    assert "no regularizer is called 'covarianse'" in str(refusal.value)
    assert "'covariance'" in str(refusal.value)
    assert "aaa-broken:it did not load: RuntimeError: sad" in str(refusal.value)
    with pytest.raises(PluginError, match=r"there are: .*dm"):
        loaded.methods.resolve("qqqq")


def test_a_family_carries_what_follows_its_slash(loaded: plugins.Plugins):
    component, options = loaded.backbones.resolve("timm/resnet18")
    assert component is loaded.backbones["timm/"]
    assert options == {"model": "resnet18"}
    assert loaded.backbones.resolve("convnet") == (loaded.backbones["convnet"], {})
    with pytest.raises(PluginError, match="'resnet18'"):
        loaded.backbones.resolve("tim/resnet18")


def test_a_third_party_factory_with_types_of_no_use_is_named_and_not_a_traceback(
    install: Callable[..., None], tmp_path: Path
):
    install(
        "mine-typed",
        """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        from ddkit import hookimpl
        if TYPE_CHECKING:
            from ddkit.data import DataInfo

        def net(info: DataInfo, width: int = 3):
            raise RuntimeError

        @hookimpl
        def register_backbones():
            return {"typed": net}
        """,
    )
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps(recipe_table(backbone={"name": "typed", "widht": 4})))
    said = ddkit("distill", path, "--out", tmp_path / "out", "-q")
    assert said.code == 2
    assert "typed" in said.err or "width" in said.err


# The example in examples/, really installed


@pytest.fixture(scope="session")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed examples/ddkit-spread into; nothing is downloaded."""
    pytest.importorskip("hatchling", reason="hatchling builds the example; it is in ddkit[test]")
    target = tmp_path_factory.mktemp("site")
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    done = subprocess.run(
        [*pip, *words, str(ROOT / "examples" / "ddkit-spread")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def test_the_example_plugin_installs_and_takes_part_in_a_run(spread: Path, tmp_path: Path):
    recipe = tmp_path / "mine.toml"
    table = recipe_table(
        regularizers=[{"name": "spread", "weight": 2.0, "margin": 0.1}], proxies=TINY_POOL
    )
    recipe.write_text(tomli_w.dumps(table))
    path = os.pathsep.join([str(spread), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
    del environment["DDKIT_LOAD_PLUGINS"]
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "ddkit", "distill", str(recipe), "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert all(line["spread"] > 0 for line in lines)


def test_the_example_plugin_keeps_the_rules(spread: Path, monkeypatch: pytest.MonkeyPatch):
    from ddkit.testing import check_regularizer

    monkeypatch.syspath_prepend(str(spread))
    monkeypatch.delenv("DDKIT_LOAD_PLUGINS")
    component = plugins.load().regularizers["spread"]
    assert component.distribution == "ddkit-spread"
    check_regularizer(component.factory, margin=0.0)


@pytest.mark.parametrize("factory", ["str", "max", "wrong", "Odd"])
def test_a_factory_whose_options_cannot_be_read_costs_itself_alone(
    factory: str, install: Callable[..., None]
):
    install(
        "mine-odd",
        f"""
        from ddkit import hookimpl

        def wrong(x: "3 +" = 1): ...

        class Odd:
            __signature__ = "none"

        @hookimpl
        def register_methods():
            return {{"odd": {factory}}}
        """,
    )
    said = ddkit("list", "methods")
    assert said.code == 0 and "ncfm" in said.out and "odd" not in said.out
    (line,) = said.lines
    assert line.startswith("warning: 'odd' of plugin mine-odd:") and "cannot be read" in line
    said = ddkit("list", "methods", "odd")
    assert said.code == 2 and "cannot be read" in said.err
