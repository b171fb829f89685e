"""How a tiny run is broken: its disk, data, lock, memory, plugins, reporters, neighbours."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenes import (
    FAILED,
    HOME,
    METHODS,
    RUN,
    Heard,
    ended,
    result,
    started,
    work,
)

from ddkit.plugins import Plugins
from ddkit.reporter import Metrics, Reporter
from ddkit.runtime.lock import try_lock
from ddkit.runtime.storage import LOCK

SIZE = "size=160m"  # of a disk that is mounted; runs want 64 MiB free
KEPT = "kept"
AT = 3  # the step in which things break
GONE = '{"pid": 1, "host": "gone", "since": "2020-01-01 00:00:00+00:00"}'


@dataclass
class Bench:
    """Where faults are tried: the folder of one, and the plugins."""

    place: Path
    loaded: Plugins

    def session(
        self,
        name: str = "dm",
        before: Callable[[], None] = lambda: None,
        reporter: Callable[[], Reporter] = Heard,
    ) -> tuple[int, str]:
        """Run a scene in a child after `before`; return its code and its last words."""
        child = self.child(name, before, reporter)
        return ended(child), self.place.with_name("words").read_text(encoding="utf-8")

    def child(
        self,
        name: str = "dm",
        before: Callable[[], None] = lambda: None,
        reporter: Callable[[], Reporter] = Heard,
        place: Path | None = None,
        said: Path | None = None,
    ) -> int:
        def job() -> None:
            before()
            work(name, place or self.place, self.loaded, reporter())

        return started(job, said or self.place.with_name("words"))


class At(Heard):
    """Does something in the step number `AT`, once it is taken."""

    def __init__(self, act: Callable[[], Any]):
        super().__init__()
        self.act, self.steps = act, 0

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.steps += 1
        if self.steps == AT:
            self.act()


Told = tuple[int, str]


def limited(size: int, name: str) -> Callable[[Bench], Told]:
    """No file may grow beyond so many bytes, as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return lambda bench: bench.session(name, limit)


@contextmanager
def disk(place: Path) -> Iterator[Callable[[str], None]]:
    """Mount a disk at `place`; yield how to mount it otherwise."""

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    subprocess.run(["mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", str(place)], check=True)
    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def filled(room: int, name: str) -> Callable[[Bench], Told]:
    """The disk is filled in the middle of a run, but for `room` bytes."""

    def fill(place: Path) -> None:
        with (place / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)) == 4096:
                pass
        os.truncate(place / "ballast", (place / "ballast").stat().st_size - room)

    def fault(bench: Bench) -> Told:
        with disk(bench.place):
            told = bench.session(name, reporter=lambda: At(lambda: fill(bench.place)))
            (bench.place / "ballast").unlink()
            _kept(bench, name)
        return told

    return fault


def read_only(bench: Bench) -> Told:
    """The disk may only be read when a run that was stopped is to go on."""
    with disk(bench.place) as remount:
        bench.session(reporter=lambda: At(hang_up))
        remount("ro")
        told = bench.session()
        remount("rw")
        _kept(bench, "dm")
    return told


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def vanished(bench: Bench) -> Told:
    """The images are gone when a run that was stopped is to go on."""
    data = Path(METHODS["pictures"]["dataset"]["path"])
    bench.session("pictures", reporter=lambda: At(hang_up))
    data.rename(data.with_name("elsewhere"))
    told = bench.session("pictures")
    data.with_name("elsewhere").rename(data)
    return told


def _kept(bench: Bench, name: str) -> None:
    """Let the run go on, and keep what it made where no disk is mounted."""
    goes_on(bench, name)
    shutil.copytree(bench.place, bench.place.with_name(KEPT))


def goes_on(bench: Bench, name: str) -> None:
    code, words = bench.session(name)
    if code:
        raise SystemExit(f"did not go on: {words}")


def held(bench: Bench) -> Told:
    """A living process holds the folder."""
    (bench.place / RUN).mkdir()
    ready, tell = os.pipe()

    def hold() -> None:
        taken = try_lock(bench.place / RUN / LOCK)
        os.write(tell, b"!")
        signal.pause()
        print(taken)

    holder = started(hold)
    os.read(ready, 1)
    told = bench.session()
    os.kill(holder, signal.SIGKILL)
    ended(holder)
    return told if f"process {holder} " in told[1] else (FAILED, f"does not name it: {told[1]}")


def stale(bench: Bench) -> Told:
    """A dead process left its lock."""
    (bench.place / RUN).mkdir()
    (bench.place / RUN / LOCK).write_text(GONE, encoding="utf-8")
    return bench.session()


def broken(act: Callable[[Any], Any]) -> Callable[[Bench], Told]:
    """`act` is called with the run before step number `AT`."""

    def fault(bench: Bench) -> Told:
        def patch() -> None:
            method: Any = bench.loaded.methods["dm"].factory
            step = method.step

            def breaking(self: Any, run: Any, i: int) -> Any:
                if i == AT:
                    act(run)
                return step(self, run, i)

            method.step = breaking

        return bench.session(before=patch)

    return fault


def not_finite(run: Any) -> None:
    run.synthetic.images.register_hook(lambda gradient: gradient * float("nan"))


def mistaken(run: Any) -> None:
    raise ValueError("a mistake in a step")


def reporter_raises() -> None:
    raise ValueError("a mistake in a reporter")


def at(act: Callable[[Bench], Any]) -> Callable[[Bench], Told]:
    """`act` happens in a step."""
    return lambda bench: bench.session(reporter=lambda: At(lambda: act(bench)))


def two(shared: str) -> Callable[[Bench], Told]:
    """Two processes start at once, in one run folder or with one pool."""

    def fault(bench: Bench) -> Told:
        other = bench.place
        if shared == HOME:
            other = bench.place.with_name("other")
            other.mkdir()
            (bench.place / HOME).mkdir()
            (other / HOME).symlink_to(bench.place / HOME)
        said = [bench.place.with_name(f"words-{k}") for k in range(2)]
        places = zip((bench.place, other), said, strict=True)
        children = [bench.child("dm-iid-cmi", place=p, said=words) for p, words in places]
        codes = sorted(ended(child) for child in children)
        if shared == HOME and result(other) != result(bench.place):
            return FAILED, "two sets"
        return codes[-1], "".join(words.read_text(encoding="utf-8") for words in said)

    return fault
