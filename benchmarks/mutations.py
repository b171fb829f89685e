"""Break ddkit on purpose, a hundred small ways, and see that a test notices each.

    python benchmarks/mutations.py [--only NAME ...] [--start NAME]

`mutations.toml` beside this file lists them: a file, a text in it, what is put in its place, what
that breaks, and the test that is to catch it. Each is put into a copy of the tree, never into the
checkout, and the one test is run there. Caught: the test fails, by an assertion or by what it
checks, and not because the changed line no longer runs. Before anything is changed, all these tests
must pass in the copy. Prints a table; the exit code is 1 where one survives that the list does not
explain. A second or two for each mutation; --start goes on where a run was stopped.

Needs `os.fork`: tests run in children of this process, which has imported torch for all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".toml")
COPIED = ("ddkit", "plugins", "recipes", "tests", "pyproject.toml")
LIMIT = 300  # seconds for the test of one mutation; where it hangs, that is noticed too
BROKEN = {"SyntaxError", "IndentationError", "NameError", "UnboundLocalError", "ImportError"}


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
    """What became of a mutation: caught, survived, or broken (it does not run); and words on it."""

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
    """Run `tests` in `tree`, in a child, up to the first failure; return exit code and words."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        child = os.fork()
        if child == 0:
            _run(tests, tree, said.fileno())
        _, status = os.waitpid(child, 0)
        said.seek(0)
        words = said.read()
    if os.WIFSIGNALED(status):
        return 1, f"FAILED {tests[0]} - stopped after {LIMIT} s"
    return os.waitstatus_to_exitcode(status), words


def _run(tests: Sequence[str], tree: Path, said: int) -> None:
    """The child's part of `tested`; does not return."""
    code = 3  # pytest's own for a mistake inside it
    try:
        signal.alarm(LIMIT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = sys.stderr = os.fdopen(said, "w", encoding="utf-8")
        os.chdir(tree)
        own = [str(tree), str(tree / "plugins")]
        sys.path[:0] = own
        os.environ["PYTHONPATH"] = os.pathsep.join(own)  # of commands that tests start
        os.environ["COLUMNS"] = "200"
        sys.dont_write_bytecode = True  # a changed file may have the time and size of the whole one
        import pytest

        words = ["-x", "-rf", "--tb=short", "-p", "no:cacheprovider", *tests]
        code = int(pytest.main(words))
        sys.stdout.flush()
    finally:
        os._exit(code)


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
    errors = set(re.findall(r"^E   (\w+Error)\b", said, re.MULTILINE))
    if code != 1 or failed is None or errors & BROKEN:
        last = said.strip().splitlines() or [""]
        return Outcome(mutation, "broken", last[-1])
    return Outcome(mutation, "caught", failed[1])


def main() -> int:
    """Try the chosen mutations one after another; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of these alone")
    parser.add_argument("--start", metavar="NAME", help="go on with this one")
    options = parser.parse_args()
    names = [m.name for m in mutations()]
    unknown = {*options.only, options.start or names[0]} - set(names)
    if unknown:
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    first = names.index(options.start) if options.start else 0
    chosen = [m for m in mutations()[first:] if not options.only or m.name in options.only]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch  # noqa: F401 - once, for all children

    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        tree = copy(Path(place))
        code, said = tested(sorted({m.test for m in chosen}), tree)
        if code:
            print(said, "these tests fail as the tree is; mend that first", sep="\n")
            return 2
        outcomes = []
        for mutation in chosen:
            outcomes.append(tried(mutation, tree))
            state, words = outcomes[-1].state, outcomes[-1].words
            print(f"{state:8}  {mutation.name:26}  {words[:140]}", flush=True)
    found = [o.state for o in outcomes]
    counts = ", ".join(
        f"{found.count(state)} {state}" for state in ("caught", "survived", "broken")
    )
    print(f"{len(found)} mutations: {counts}")
    unexplained = [o for o in outcomes if o.state == "survived" and not o.mutation.survives]
    return 1 if unexplained or "broken" in found else 0


if __name__ == "__main__":
    sys.exit(main())
