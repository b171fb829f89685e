"""Take the power from runs, which kills do not show: the page cache survives them, not this.

    python benchmarks/trust/power.py [--states 2000] [--seed 0] [--workers 2] [--lying]

The writes of a run are recorded, down to what was synced when (`disk.py`). Of the states in which a
disk may be after power was lost at any moment, so many different ones are drawn: content that was
not synced is dropped, cut, zeroed or torn; names that were given, moved or removed in a folder that
was not synced are there or not, in any choice; old locks lie about. Each is laid out in a new
folder, and the run is started again. It must come to the same set, metrics and verdict, or be
refused in words (`DDKitError`); anything else is a failure. Some of the continued runs are recorded
in turn, and lose power again. Scenes: DM, IDM with its networks as parts, a pool for CMI,
NCFM's pool, and DM without a checkpoint, each with a verdict at its end.

With `--lying` nothing that was synced is taken to be on the disk: that shows what syncing is for.
Prints states, resumes, refusals by reason, failures; the exit code is 1 where one fails.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from disk import Recorder, Recording, crashed, laid_out
from scenes import RUN, Heard, ended, prepare, result, started, work

from ddkit.errors import DDKitError
from ddkit.plugins import Plugins

SCENES = ("dm", "idm", "dm-seldom", "dm-iid-cmi", "ncfm")
AGAIN = 0.1  # share of the continued runs that are recorded in turn
LOCKS = ['{"pid": 1, "host": "gone", "since": "2020-01-01 00:00:00+00:00"}', "", '{"pid": 4']


@dataclass
class Tally:
    """What came of it."""

    states: int = 0
    same: int = 0
    """Ended with the bytes of a run that nothing disturbed."""
    resumed: int = 0
    """Of those, runs that went on from a checkpoint."""
    noted: Counter[str] = field(default_factory=Counter)
    """Of those, what was said of files that were not as they should be."""
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: dict[str, Any]) -> None:
        self.states += other["states"]
        self.same += other["same"]
        self.resumed += other["resumed"]
        self.noted.update(other["noted"])
        self.refused.update(other["refused"])
        self.failures += other["failures"]


@dataclass
class Scene:
    """One method's run, its recordings, and the states that were tried."""

    name: str
    loaded: Plugins
    root: Path
    recorder: Recorder
    tally: Tally
    syncs: bool = True
    recordings: list[Recording] = field(default_factory=list)
    known: set[bytes] = field(default_factory=set)
    expected: dict[str, Any] = field(default_factory=dict)

    def record(self) -> None:
        """Record a run that nothing disturbs."""
        place = self.root / f"{self.name}-whole"
        place.mkdir()
        self.recordings.append(self.recorder.begin(place, {}))
        work(self.name, place, self.loaded, Heard())
        self.expected = result(place)

    def drawn(self, rng: random.Random) -> dict[Path, bytes]:
        """Return a state that was not tried yet."""
        while True:
            files = crashed(rng.choice(self.recordings), rng, self.syncs)
            if any(path.parent == Path(RUN) for path in files) and rng.random() < 0.3:
                files[Path(RUN, ".lock")] = rng.choice(LOCKS).encode()
            made = blake2b()
            for path, raw in sorted(files.items()):
                made.update(f"{_named(path)} {len(raw)} ".encode() + raw)
            if made.digest() not in self.known:
                self.known.add(made.digest())
                return files

    def tried(self, number: int, rng: random.Random) -> None:
        """Lay out a state, start the run in it, and judge what comes of that."""
        place, heard = self.root / f"{self.name}-{number:05d}", Heard()
        files = self.drawn(rng)
        laid_out(files, place)
        made = self.recorder.begin(place, files)
        self.tally.states += 1
        try:
            work(self.name, place, self.loaded, heard)
            got = result(place)
        except DDKitError as error:
            self.tally.refused[_reason(str(error), place)] += 1
        except Exception as error:
            self.fail(place, f"{type(error).__name__}: {error}")
            return
        else:
            wrong = [what for what in got if got[what] != self.expected[what]]
            if wrong:
                self.fail(place, f"other {', '.join(wrong)}")
                return
            self.tally.same += 1
            self.tally.resumed += heard.resumed > 0
            told = (n for n in heard.notes if "damaged" in n or "is gone" in n)
            self.tally.noted.update(_reason(note, place) for note in told)
            if rng.random() < AGAIN:
                self.recordings.append(made)
        shutil.rmtree(place)

    def fail(self, place: Path, words: str) -> None:
        self.tally.failures.append(f"{place.name}: {words}")
        shutil.rmtree(place)


def _named(path: Path) -> str:
    """Return a path without what is random in the names of temporary folders."""
    return re.sub(r"\.\w+\.partial", ".partial", path.as_posix())


def _reason(text: str, place: Path) -> str:
    """Return a message without what differs from state to state."""
    text = text.replace(f"{place}/", "").replace(str(place), "").splitlines()[0]
    return re.sub(r"part-[0-9a-f]+", "part-…", re.sub(r"\d+", "n", text))[:160]


def replayed(
    names: list[str], states: int, seed: int, syncs: bool, loaded: Plugins, root: Path
) -> Tally:
    """Try so many states of each of these scenes, in this process."""
    tally, recorder = Tally(), Recorder()
    for name in names:
        scene, rng = Scene(name, loaded, root, recorder, tally, syncs), random.Random(seed)
        scene.record()
        for number in range(states):
            scene.tried(number, rng)
    return tally


def campaign(
    states: int, seed: int, workers: int, syncs: bool, loaded: Plugins, root: Path
) -> Tally:
    """Try so many states, shared among children of this process."""
    tally, children = Tally(), []
    for k in range(workers):
        names, each = list(SCENES[k::workers]), -(-states // len(SCENES))
        report = root / f"report-{k}.json"

        def job(names: list[str] = names, each: int = each, report: Path = report) -> None:
            made = replayed(names, each, seed, syncs, loaded, root)
            report.write_text(json.dumps(vars(made)), encoding="utf-8")

        children.append((started(job), report))
    for child, report in children:
        if ended(child):
            tally.failures.append("a worker failed")
        else:
            tally.add(json.loads(report.read_text(encoding="utf-8")))
    return tally


def told(tally: Tally) -> str:
    """Return the tally in words."""
    lines = [
        f"states {tally.states}, ended with the same bytes {tally.same}, of them from a checkpoint "
        f"{tally.resumed}, with a word on damage {tally.noted.total()}; "
        f"refused {tally.refused.total()}, failures {len(tally.failures)}"
    ]
    lines += [f"  said {n} times: {text}" for text, n in tally.noted.most_common(5)]
    lines += [f"  refused {n} times: {text}" for text, n in tally.refused.most_common()]
    return "\n".join([*lines, *tally.failures])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, choices=range(1, len(SCENES) + 1), default=2)
    parser.add_argument("--lying", action="store_true", help="a disk that syncs nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="power-") as place:
        how = (given.states, given.seed, given.workers, not given.lying)
        tally = campaign(*how, prepare(), Path(place))
    print(told(tally))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
