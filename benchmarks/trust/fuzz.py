"""Give ddkit what careless and malicious people would, and count what it does with it.

    python benchmarks/trust/fuzz.py [--cases 50000] [--seed 0] [--target NAME ...]
    python benchmarks/trust/fuzz.py --target NAME --case 'LITERAL'

Every case is refused in a few lines of plain text or taken: no other exception, no hang, no memory
beyond a bound, nothing written outside of the folder that is its own (see `fence.py`). Cases are
drawn by hypothesis from `strategies.py` and `strangers.py`, and shared out to the targets by their
cost. Prints a line for each target, and for each case that broke the rule what it takes to repeat
it; the exit code is 1 if there is one. Ten minutes or so on one core for 50,000 cases.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import math
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from fence import Fault, Sandbox, judged, sandbox
from hypothesis import HealthCheck, given, settings
from targets import TARGETS, Target

BATCH = 250  # cases of one seed: enough for hypothesis to vary, few enough to be repeated
SPACE = 6 << 30  # bytes of addresses beyond those that the process has when it starts
TOLD = 12  # faults of a target that are printed in full


@dataclass
class Tally:
    """What became of the cases of one target."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    faults: list[tuple[str, Any, str]] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.outcomes.total()

    def take(self, target: Target, case: Any, box: Sandbox) -> None:
        """Run a case and count it."""
        try:
            kind, seconds = judged(target.run, case, box)
        except Fault as fault:
            self.outcomes["fault"] += 1
            self.faults.append((str(fault), case, _trace(fault)))
            return
        self.outcomes[kind] += 1
        self.slowest = max(self.slowest, seconds)


def _trace(fault: Fault) -> str:
    cause = fault.__cause__
    return "" if cause is None else "".join(traceback.format_exception(cause, limit=-6))


def fuzz(target: Target, count: int, seed: int, box: Sandbox) -> Tally:
    """Run `count` cases of a target, which `seed` decides."""
    tally = Tally()
    for batch in range(math.ceil(count / BATCH)):

        @hypothesis.seed(seed * 1_000_003 + batch)
        @settings(
            max_examples=min(BATCH, count - batch * BATCH),
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(target.draw())
        def run(case: Any) -> None:
            tally.take(target, case, box)

        run()
    return tally


def show(name: str, tally: Tally, seconds: float) -> None:
    """Print a target's counts, and each kind of fault once, with how to repeat it."""
    counts = ", ".join(f"{n:,} {kind}" for kind, n in sorted(tally.outcomes.items()))
    print(
        f"{name:<10} {tally.cases:>7,} cases in {seconds:5.0f} s: {counts}; slowest "
        f"{tally.slowest:.2f} s",
        flush=True,
    )
    seen: set[str] = set()
    for words, case, trace in sorted(tally.faults, key=lambda f: len(repr(f[1]))):
        kind = trace.splitlines()[-2] + words[:40] if trace else words[:60]
        if kind in seen or len(seen) >= TOLD:
            continue
        seen.add(kind)
        print(f"\n{words}\n{trace}  repeat: --target {name} --case {json.dumps(repr(case))}\n")


def bound() -> None:
    """Let the process have so much memory, that asking for more is an exception."""
    if sys.platform == "linux":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + SPACE, resource.RLIM_INFINITY))


def main(given: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--case", type=ast.literal_eval, help="run one, as it was printed")
    asked = parser.parse_args(given)
    chosen = {name: TARGETS[name] for name in asked.target or TARGETS}
    faults, total, whole = 0, 0, sum(t.share for t in chosen.values())
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name) / "box") as box:
        for key, target in chosen.items():
            start, tally = time.perf_counter(), Tally()
            if asked.case is not None:
                tally.take(target, asked.case, box)
            else:
                tally = fuzz(target, round(asked.cases * target.share / whole), asked.seed, box)
            show(key, tally, time.perf_counter() - start)
            faults, total = faults + len(tally.faults), total + tally.cases
    print(f"{total:,} cases, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    bound()
    logging.disable(logging.WARNING)  # which folders of litter give thousands of
    sys.exit(main())
