"""Break ddkit on purpose, a hundred small ways, and see that a test notices each.

    python benchmarks/mutations.py [--only NAME ...] [--jobs N]

`mutations.toml` beside this file lists them: a file, a text in it, what is put in its place, what
that breaks, and the test that is to catch it. Each is put into a copy of the tree, never into the
checkout, and the one test is run there. Caught: the test fails, by an assertion or by what it
checks, and not because the changed line no longer runs. Before anything is changed, all these tests
must pass in the copy. Prints a table; the exit code is 1 where one survives that the list does not
explain. Some seconds for each mutation; nothing is kept, and --only takes up single ones.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".toml")
COPIED = ("ddkit", "plugins", "recipes", "tests", "pyproject.toml")
LIMIT = 300  # seconds for the tests of one mutation; one that hangs is caught
BROKEN = ("SyntaxError", "IndentationError", "NameError", "UnboundLocalError", "ImportError")


@dataclass(frozen=True)
class Mutation:
    """A change of one text in one file, what it breaks, and the test that is to catch it.

    `issue` says where it comes from; `survives` why no test can tell, where none can.
    """

    name: str
    file: str
    before: str
    after: str
    breaks: str
    test: str
    issue: str = ""
    survives: str = ""

    def applied(self, text: str) -> str:
        """Return the file's `text` with the change.

        Raises:
            ValueError: the text to change is not in it exactly once.
        """
        if text.count(self.before) != 1:
            raise ValueError(f"{self.name}: {self.before!r} is in {self.file} not exactly once")
        return text.replace(self.before, self.after)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation: caught or survived, or broken; and the words of the test."""

    mutation: Mutation
    state: str
    words: str


def mutations() -> list[Mutation]:
    """Return the list."""
    table = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return [Mutation(**item) for item in table["mutations"]]


def copy(place: Path) -> Path:
    """Copy what tests need into the empty folder `place`, without what is compiled or cached."""
    leave = shutil.ignore_patterns("__pycache__", "*.pyc", ".pytest_cache")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=leave)
        else:
            shutil.copy2(ROOT / name, place / name)
    return place


def tested(tests: Sequence[str], tree: Path) -> tuple[int, str]:
    """Run `tests` in `tree`, up to the first failure; return pytest's exit code and words."""
    path = os.pathsep.join((str(tree), str(tree / "plugins")))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-rf", "--tb=short", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *tests], cwd=tree, env=env, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return 1, f"FAILED {tests[0]} - no end after {LIMIT} s"
    return done.returncode, done.stdout + done.stderr


def tried(mutation: Mutation, tree: Path) -> Outcome:
    """Apply `mutation` in the copy `tree`, run its test, and take the change back."""
    file = tree / mutation.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(mutation.applied(whole), encoding="utf-8")
    try:
        code, said = tested([mutation.test], tree)
    finally:
        file.write_text(whole, encoding="utf-8")
    if code == 0:
        return Outcome(mutation, "survived", mutation.survives or "NOT EXPLAINED")
    failed = re.search(r"^FAILED \S+::(.*)$", said, re.MULTILINE)
    errors = re.findall(r"^E   (\w+Error)\b", said, re.MULTILINE)
    if code != 1 or failed is None or set(errors) & set(BROKEN):
        return Outcome(mutation, "broken", said.strip().splitlines()[-1])
    return Outcome(mutation, "caught", failed[1])


def each(chosen: Sequence[Mutation], trees: Sequence[Path]) -> Iterator[Outcome]:
    """Try the mutations, as many at a time as there are copies; yield outcomes in order."""
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def one(mutation: Mutation) -> Outcome:
        tree = free.get()
        try:
            return tried(mutation, tree)
        finally:
            free.put(tree)

    with ThreadPoolExecutor(len(trees)) as workers:
        yield from workers.map(one, chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these alone")
    parser.add_argument("--jobs", type=int, default=1, help="copies that are tried side by side")
    options = parser.parse_args()
    chosen = [m for m in mutations() if not options.only or m.name in options.only]
    if not chosen:
        parser.error(
            f"no mutation is called so; there are: {', '.join(m.name for m in mutations())}"
        )
    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        trees = [copy(Path(place, str(i))) for i in range(options.jobs)]
        code, said = tested(sorted({m.test for m in chosen}), trees[0])
        if code:
            print(said, "the tests fail as the tree is; mend that first", sep="\n")
            return 2
        outcomes = []
        for outcome in each(chosen, trees):
            outcomes.append(outcome)
            print(
                f"{outcome.state:8}  {outcome.mutation.name:26}  {outcome.words[:110]}", flush=True
            )
    counts = {
        state: sum(o.state == state for o in outcomes) for state in ("caught", "survived", "broken")
    }
    print(f"{len(outcomes)} mutations:", ", ".join(f"{n} {state}" for state, n in counts.items()))
    unexplained = [o for o in outcomes if o.state == "survived" and not o.mutation.survives]
    return 1 if unexplained or counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
