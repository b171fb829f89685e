"""Break what a run stands on: disk, data, lock, memory, plugins, reporters, other processes.

    python benchmarks/trust/faults.py [--only NAME ...]

Each fault is put into a tiny run, in a child of its own: the run must stop with words (or go on,
where the fault is none of its business); then the fault is mended and the run started again, which
must end with the bytes of a run that nothing disturbed. Prints a line for each; the exit code is 1
where one does otherwise. Disks of a fixed size are mounted (tmpfs), which needs root; where that
cannot be, it is said, and those faults are left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from breaking import (
    KEPT,
    Bench,
    Told,
    at,
    broken,
    disk,
    filled,
    goes_on,
    hang_up,
    held,
    limited,
    mistaken,
    not_finite,
    read_only,
    reporter_raises,
    stale,
    two,
    vanished,
)
from PIL import Image
from scenes import FAILED, HOME, METHODS, REFUSED, RUN, prepare, result, undisturbed

from ddkit.plugins import Plugins


def pictures(place: Path) -> dict[str, Any]:
    """Return a scene of DM on a folder of images, which are made in `place`."""
    for k, name in enumerate(["train/a", "train/b", "test/a", "test/b"]):
        (place / name).mkdir(parents=True)
        for i in range(10):
            Image.effect_noise((8, 8), 10 + 9 * i + k).save(place / name / f"{i}.png")
    dataset = {"name": "folder", "path": str(place), "resolution": 8}
    return METHODS["dm"] | {"dataset": dataset}


Fault = tuple[str, str, Callable[[Bench], Told], set[int]]
FAULTS: list[Fault] = [
    *((f"file size limit {n}", "dm", limited(n, "dm"), {REFUSED}) for n in (100, 2000, 6000)),
    ("file size limit, parts", "idm", limited(9000, "idm"), {REFUSED}),
    ("file size limit, pool", "dm-iid-cmi", limited(2000, "dm-iid-cmi"), {REFUSED}),
    *((f"full disk, {n} bytes left", "dm", filled(n, "dm"), {REFUSED}) for n in (0, 4096, 12288)),
    ("full disk, parts", "idm", filled(16384, "idm"), {REFUSED}),
    ("read-only disk", "dm", read_only, {REFUSED}),
    ("data gone", "pictures", vanished, {REFUSED}),
    ("folder gone", "dm", at(lambda b: shutil.rmtree(b.place / RUN)), {REFUSED}),
    ("held by a living process", "dm", held, {REFUSED}),
    ("lock of a dead process", "dm", stale, {0}),
    ("gradient not finite", "dm", broken(not_finite), {REFUSED}),
    ("step raises", "dm", broken(mistaken), {FAILED}),
    ("allocator fails", "dm", broken(lambda run: torch.empty(1 << 60)), {REFUSED}),
    ("reporter raises", "dm", at(lambda b: reporter_raises()), {0}),
    ("hang-up", "dm", at(lambda b: hang_up()), {REFUSED}),
    ("two processes, one folder", "dm-iid-cmi", two(RUN), {0, REFUSED}),
    ("two processes, one pool", "dm-iid-cmi", two(HOME), {0}),
]


def mounts() -> bool:
    """Whether disks can be mounted here."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with disk(Path(place)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def tried(fault: Fault, want: dict[str, Any], loaded: Plugins, root: Path) -> tuple[bool, str]:
    """Try a fault; return whether all was well, and what was said."""
    name, scene, act, codes = fault
    bench = Bench(root / name / "scene", loaded)
    bench.place.mkdir(parents=True)
    code, words = act(bench)
    if code not in codes or (code == REFUSED and len(words.splitlines()) != 1):
        return False, f"ended with {code}: {words}"
    kept = bench.place.with_name(KEPT)
    if kept.exists():
        shutil.copytree(kept, bench.place, dirs_exist_ok=True)
    goes_on(bench, scene)
    wrong = [what for what, got in result(bench.place).items() if got != want[what]]
    words = words.replace(f"{bench.place}/", "").replace(str(bench.place), "")
    return not wrong, f"afterwards other {', '.join(wrong)}" if wrong else words or "goes on"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[f[0] for f in FAULTS], metavar="NAME")
    given = parser.parse_args()
    loaded, bad, can_mount = prepare(), 0, mounts()
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        root, want = Path(place), dict[str, dict[str, Any]]()
        METHODS["pictures"] = pictures(root / "images")
        for fault in FAULTS:
            if given.only and fault[0] not in given.only:
                continue
            if not can_mount and "disk" in fault[0]:
                print(f"left out  {fault[0]}: no disk can be mounted here")
                continue
            if fault[1] not in want:
                want[fault[1]] = undisturbed(fault[1], root / fault[1], loaded)
            well, words = tried(fault, want[fault[1]], loaded, root)
            bad += not well
            print(f"{'well' if well else 'FAULT':8}  {fault[0]}: {words}", flush=True)
    print(f"faults {len(FAULTS)}, not borne well {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
