"""Kill runs with SIGKILL at any moment, continue them, and compare every byte of what they make.

    python benchmarks/trust/kills.py [--kills 300] [--seed 0] [--methods dm idm ...]

Each scene is a tiny run of one method on the digits, with a home of its own, that is killed up to
three times: after a random time, or while a checkpoint, a part of one, a set, a network of a pool,
a verdict or another file is being written. For the latter, the writes of an undisturbed run are
listed first, and one is chosen among those of a kind: the process kills itself before it, after
it, or with half of the file written. Then the run is started a last time, and its set, metrics,
verdict and the names of its files are compared with those of the run that nothing disturbed.

Prints kills, resumes and mismatches; the exit code is 1 where there are any. Needs `os.fork`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenes import METHODS, Heard, ended, prepare, result, started, work
from writes import Write, deadly, listed

from ddkit.plugins import Plugins

ASKED = ("checkpoint", "part", "set", "pool network", "verdict")  # kinds that come first
AIMED = 0.7  # share of the kills that wait for a write
MOMENTS = ("before", "half", "after")


@dataclass
class Tally:
    """What came of it."""

    kills: int = 0
    inside: Counter[str] = field(default_factory=Counter)
    """By kind of file: kills while one was being written."""
    methods: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    anew: int = 0
    """Starts after a kill that found nothing to go on from."""
    late: int = 0
    """Sessions that ended before their kill came."""
    mismatches: list[str] = field(default_factory=list)


def chosen(rng: random.Random, writes: list[Write]) -> Write:
    """Return one of the writes: of a kind drawn first, for some kinds are written once in a run."""
    kinds = sorted({w.kind for w in writes})
    asked = [k for k in kinds if k in ASKED]
    kind = rng.choice(asked if rng.random() < 0.75 else kinds)
    return rng.choice([w for w in writes if w.kind == kind])


@dataclass
class Campaign:
    """Kills over several methods, and what came of them."""

    loaded: Plugins
    root: Path
    tally: Tally = field(default_factory=Tally)
    writes: dict[str, list[Write]] = field(default_factory=dict)
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def learn(self, name: str) -> None:
        """Run a method undisturbed."""
        start, place = time.monotonic(), self.root / name
        self.writes[name] = listed(name, place, self.loaded)
        self.seconds[name] = time.monotonic() - start
        self.expected[name] = result(place) | {"files": self.files(place)}

    def files(self, place: Path) -> list[str]:
        return sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())

    def scene(self, name: str, number: int) -> None:
        """Kill a run up to three times, let it finish, and compare."""
        rng, place = random.Random(number), self.root / f"{number:06d}-{name}"
        place.mkdir()
        for session in range(rng.randint(1, 3)):
            if not self.killed(name, place, rng, first=session == 0):
                self.tally.late += 1
                break
        code = ended(started(self.session(name, place, None), place / "words"))
        self.continued(place, first=False)
        if code:
            words = (place / "words").read_text(encoding="utf-8")
            self.tally.mismatches.append(f"{place.name}: did not go on: {words}")
            return
        (place / "words").unlink()
        (place / "note").unlink(missing_ok=True)
        (place / "writes").touch()
        got = result(place) | {"files": self.files(place)}
        wrong = [what for what in got if got[what] != self.expected[name][what]]
        if wrong:
            more = sorted({*got["files"]} ^ {*self.expected[name]["files"]})
            self.tally.mismatches.append(f"{place.name}: other {', '.join([*wrong, *more])}")
            return
        shutil.rmtree(place)

    def session(self, name: str, place: Path, aim: tuple[Write, str] | None) -> Callable[[], None]:
        def job() -> None:
            if aim is not None:
                deadly(*aim, place / "note")
            work(name, place, self.loaded, Mark(place / "taken-up"))

        return job

    def killed(self, name: str, place: Path, rng: random.Random, first: bool) -> bool:
        """Start a run and have it killed; return whether it was, before it came to its end."""
        inside = rng.random() < AIMED
        aim = (chosen(rng, self.writes[name]), rng.choice(MOMENTS)) if inside else None
        child = started(self.session(name, place, aim), place / "words")
        if not inside:
            time.sleep(rng.uniform(0, self.seconds[name]))
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        self.continued(place, first)
        if code > 0:
            words = (place / "words").read_text(encoding="utf-8")
            self.tally.mismatches.append(f"{place.name}: did not go on: {words}")
        if code != -signal.SIGKILL:
            return False
        self.tally.kills += 1
        self.tally.methods[name] += 1
        if inside:
            self.tally.inside[(place / "note").read_text(encoding="utf-8")] += 1
        return True

    def continued(self, place: Path, first: bool) -> None:
        taken_up = (place / "taken-up").exists()
        self.tally.resumes += taken_up
        self.tally.anew += not taken_up and not first
        (place / "taken-up").unlink(missing_ok=True)


class Mark(Heard):
    """Leaves a file where a run is taken up from a checkpoint, or found finished."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def begin(self, task: str, total: int, done: int = 0) -> None:
        if task == "distill" and done:
            self.path.touch()


def campaign(kills: int, seed: int, names: list[str], loaded: Plugins, root: Path) -> Tally:
    """Go round the methods until so many kills have come."""
    made, number = Campaign(loaded, root), seed * 100_000
    for name in names:
        made.learn(name)
    while made.tally.kills < kills:
        made.scene(names[number % len(names)], number)
        number += 1
    return made.tally


def told(tally: Tally) -> str:
    """Return the tally in words."""
    inside = ", ".join(f"{kind} {n}" for kind, n in tally.inside.most_common())
    asked = sum(tally.inside[kind] for kind in ASKED)
    methods = ", ".join(f"{name} {n}" for name, n in sorted(tally.methods.items()))
    lines = [
        f"kills {tally.kills} ({methods})",
        f"inside of writing {tally.inside.total()} ({inside}); of what was asked for {asked}",
        f"resumes from a checkpoint {tally.resumes}, starts with nothing saved or all finished "
        f"{tally.anew}, sessions that ended before their kill {tally.late}",
        f"mismatches {len(tally.mismatches)}",
    ]
    return "\n".join([*lines, *tally.mismatches])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        tally = campaign(given.kills, given.seed, given.methods, prepare(), Path(place))
    print(told(tally))
    return 1 if tally.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
