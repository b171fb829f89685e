"""Short forms of the campaigns under benchmarks/trust: kills, power lost, bits flipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT

SCRIPTS = ROOT / "benchmarks" / "trust"
SHORT = """
import json, sys
from pathlib import Path
import flips, kills, power
from scenes import prepare

loaded, root = prepare(), Path(sys.argv[1])
flips.STATES = (("idm", 5), ("dm-seldom", None))
power.SCENES = ("idm", "dm-seldom", "dm-iid-cmi", "dm")
made = {}
for name, campaign in {
    "kills": lambda place: kills.campaign(6, 0, ["dm-iid-cmi", "idm"], loaded, place),
    "power": lambda place: power.campaign(40, 0, 2, True, loaded, place),
    "flips": lambda place: flips.campaign(1, 0, loaded, place, {"header", "middle"}),
    "lying": lambda place: power.campaign(8, 0, 1, False, loaded, place),
}.items():
    power.SCENES = power.SCENES if name != "lying" else ("dm-seldom",)
    (root / name).mkdir()
    made[name] = vars(campaign(root / name))
print(json.dumps(made))
"""


@pytest.fixture(scope="module")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each campaign; in a process of their own, for children of this one could run
    no backward pass."""
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    path = os.pathsep.join([str(SCRIPTS), *sys.path])
    command = [sys.executable, "-c", SHORT, str(tmp_path_factory.mktemp("campaigns"))]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_runs_killed_at_any_moment_end_as_undisturbed_ones(tallies: dict[str, Any]):
    tally = tallies["kills"]
    assert tally["mismatches"] == []
    assert tally["kills"] >= 6 and sum(tally["inside"].values()) >= 2


def test_runs_that_lose_power_end_as_undisturbed_ones(tallies: dict[str, Any]):
    tally = tallies["power"]
    assert tally["failures"] == [] and tally["refused"] == {}
    assert tally["states"] == tally["same"] == 40 and tally["resumed"] > 10


def test_on_a_disk_that_keeps_nothing_the_campaign_sees_that_power_was_lost(
    tallies: dict[str, Any],
):
    tally = tallies["lying"]
    assert tally["same"] < tally["states"] == 8  # refused, or torn metrics: it is not blind


def test_bits_flipped_in_any_file_give_no_other_set_in_silence(tallies: dict[str, Any]):
    tally = tallies["flips"]
    assert tally["failures"] == [] and tally["cases"] >= 30
    assert set(tally["outcomes"]["unfinished checkpoint.pt"]) == {"went on, said aloud"}
    assert set(tally["outcomes"]["finished synthetic.safetensors"]) == {"refused"}
