"""Plugins come through entry points, one at a time, and a broken one costs only itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that installs a distribution of one module, as pip would leave it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("DDKIT_LOAD_PLUGINS")

    def install(distribution: str, source: str | None, entry: str = "it") -> None:
        name = distribution.replace("-", "_")
        if source is not None:
            (site / f"{name}.py").write_text(textwrap.dedent(source))
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        (info / "METADATA").write_text(text)
        (info / "entry_points.txt").write_text(f"[ddkit]\n{entry} = {name}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install


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


def test_two_plugins_with_one_name_are_both_named(install: Callable[..., None]):
    install("aaa-mine", GOOD)
    install("bbb-yours", GOOD)
    with pytest.raises(PluginError, match=r"'good' .*aaa-mine:it and bbb-yours:it"):
        plugins.load()


def test_a_third_party_cannot_replace_a_built_in_unseen(install: Callable[..., None]):
    install("aaa-mine", GOOD.replace('"good"', '"covariance"'))
    with pytest.raises(PluginError, match=r"'covariance' .*aaa-mine:it and ddkit:iid"):
        plugins.load()


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
