"""Flip bits of every file of run folders and of the cache, and see that no other set comes of it.

    python benchmarks/trust/flips.py [--each 4] [--seed 0]

An unfinished run (IDM with parts, DM with a pool for CMI), a finished one, and the pool's networks
in the cache are copied; in one file one bit is flipped, in the header, the first quarter, the
middle or at the end, `--each` times in each; and the run is started again. It must end with the set
that it would have made, or be refused in words (`DDKitError`) that name the file. Metrics must be
the right ones too, or a note says that they are damaged. Prints by file how often a run was
refused, went on with a note, or needed nothing of what was damaged; the exit code is 1 where
anything else came.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenes import HOME, RUN, Heard, ended, prepare, result, started, work

from ddkit.errors import DDKitError, Interrupted
from ddkit.plugins import Plugins
from ddkit.reporter import Metrics
from ddkit.runtime.storage import LOCK

PLACES = {"header": (0.0, 0.02), "first quarter": (0.2, 0.3), "middle": (0.45, 0.55)}
PLACES |= {"end": (0.98, 1.0)}
STATES = (("idm", 5), ("dm-iid-cmi", 5), ("dm-iid-cmi", None))
"""Runs, and after which step they were stopped; None is finished."""
HELD = b'{"pid": 1, "host": "gone", "since": "2020-01-01 00:00:00+00:00"}'


class Stopping(Heard):
    """Interrupts after so many steps."""

    def __init__(self, step: int | None):
        super().__init__()
        self.left = step or -1

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.left -= 1
        if not self.left:
            raise Interrupted("stopped")


@dataclass
class Tally:
    """By file: what came of its flips."""

    cases: int = 0
    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failures: list[str] = field(default_factory=list)


def flipped(path: Path, part: tuple[float, float], rng: random.Random) -> str:
    """Flip one bit of a file within a part of it; return which, in words."""
    raw = bytearray(path.read_bytes())
    last = len(raw) - 1
    at = rng.randint(int(part[0] * last), int(part[1] * last))
    bit = rng.randrange(8)
    raw[at] ^= 1 << bit
    path.write_bytes(raw)
    return f"bit {bit} of byte {at}"


def outcome(name: str, place: Path, changed: Path, loaded: Plugins, want: dict[str, Any]) -> str:
    """Start the run in `place` again; return what came of it, or what is wrong after ``!``."""
    heard, finished = Heard(), (place / RUN / "synthetic.safetensors").exists()
    try:
        work(name, place, loaded, heard)
    except DDKitError as error:
        told = str(error)
        plain = changed.name in told and len(told.splitlines()) == 1
        return "refused" if plain else f"! refused without the file's name: {told}"
    except Exception as error:
        return f"! {type(error).__name__}: {error}"
    got = result(place)
    said = any(changed.name in note for note in heard.notes)
    if got["set"] != want["set"] or got["accuracies"] != want["accuracies"]:
        return "! another set or verdict"
    if got["metrics"] != want["metrics"] and not finished and not said:
        return "! other metrics, and nothing said"
    return "went on, said aloud" if said else "not needed"


def cases(name: str, step: int | None, root: Path, loaded: Plugins) -> tuple[Path, dict[str, Any]]:
    """Make the run that is to be damaged; return its folder, and the result of a whole one."""
    place, whole = root / f"{name}-{step}", root / f"{name}-whole-{step}"
    whole.mkdir()
    work(name, whole, loaded, Heard())
    place.mkdir()
    try:
        work(name, place, loaded, Stopping(step))
    except Interrupted:
        (place / RUN / LOCK).write_bytes(HELD)
    return place, result(whole)


def tried(each: int, seed: int, loaded: Plugins, root: Path, parts: Collection[str]) -> Tally:
    """Flip bits in every file of every state, in this process."""
    tally, rng = Tally(), random.Random(seed)
    for name, step in STATES:
        whole, want = cases(name, step, root, loaded)
        files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
        for file in files:
            for part in parts:
                for _ in range(each):
                    place = root / "case"
                    shutil.copytree(whole, place)
                    what = flipped(place / file, PLACES[part], rng)
                    found = outcome(name, place, file, loaded, want)
                    shutil.rmtree(place)
                    tally.cases += 1
                    state = "finished" if step is None else "unfinished"
                    state = "cache" if file.parts[0] == HOME else state
                    label = "part-*.pt" if file.name.startswith("part-") else file.name
                    if found.startswith("!"):
                        words = f"{name}, {state} {file.name}, {what} ({part})"
                        tally.failures.append(f"{words}: {found[2:]}")
                    tally.outcomes[f"{state} {label}"][found.partition(":")[0]] += 1
    return tally


def campaign(
    each: int, seed: int, loaded: Plugins, root: Path, parts: Collection[str] = PLACES.keys()
) -> Tally:
    """As `tried`, in a child of this process."""
    report = root / "report.json"

    def job() -> None:
        made = tried(each, seed, loaded, root, sorted(parts))
        report.write_text(json.dumps(vars(made)), encoding="utf-8")

    if ended(started(job)):
        return Tally(failures=["the campaign failed"])
    return Tally(**json.loads(report.read_text(encoding="utf-8")))


def told(tally: Tally) -> str:
    """Return the tally in words."""
    total: Counter[str] = Counter()
    lines = []
    for file, outcomes in tally.outcomes.items():
        lines.append(f"  {file}: " + ", ".join(f"{what} {n}" for what, n in outcomes.items()))
        total.update(outcomes)
    counts = ", ".join(f"{what} {n}" for what, n in total.items())
    head = f"flips {tally.cases}: {counts}; failures {len(tally.failures)}"
    return "\n".join([head, *lines, *tally.failures])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=4, help="flips in each part of each file")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flips-") as place:
        tally = campaign(given.each, given.seed, prepare(), Path(place))
    print(told(tally))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
