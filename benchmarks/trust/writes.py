"""The writes of a run, watched as they happen: listed, or used to die in the middle of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenes import Heard, ended, kind_of, started, work

from ddkit.plugins import Plugins
from ddkit.runtime import storage


@dataclass(frozen=True)
class Write:
    """A call that changes the disk: its number in the run, its function, the kind of its file."""

    number: int
    call: str
    kind: str


class Watch:
    """Calls `at` at every phase of every write of this process, as ``(write, moment, target)``."""

    def __init__(self, at: Callable[[Write, str, Path, str], None]):
        self.at, self.count, self.kind = at, 0, "other"
        for name in ("sync", "move", "sync_folder", "append", "remove"):
            setattr(storage, name, self.watched(name, getattr(storage, name)))
        filled = storage._temporary

        def temporary(path: Path) -> Any:
            self.kind = kind_of(path)
            return filled(path)

        storage._temporary = temporary

    def watched(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def wrapped(path: Path, *given: Any) -> None:
            kind = self.kind if path.name in ("new", path.parent.name) else kind_of(path)
            kind = self.kind if name == "sync_folder" else kind
            write = Write(self.count, name, kind)
            self.count += 1
            text = given[0] if name == "append" else ""
            self.at(write, "before", path, text)
            self.at(write, "half", path, text)
            call(path, *given)
            self.at(write, "after", path, text)

        return wrapped


def listed(name: str, place: Path, loaded: Plugins) -> list[Write]:
    """Return the writes of an undisturbed run of a method in the new folder `place`."""
    place.mkdir()
    found = place / "writes"

    def job() -> None:
        with found.open("w", encoding="utf-8") as file:

            def at(write: Write, moment: str, *_: Any) -> None:
                if moment == "before":
                    print(write.number, write.call, write.kind, sep="\t", file=file)

            Watch(at)
            work(name, place, loaded, Heard())

    if ended(started(job)):
        raise SystemExit(f"{name}: the undisturbed run failed")
    lines = (line.split("\t") for line in found.read_text(encoding="utf-8").splitlines())
    return [Write(int(number), call, kind) for number, call, kind in lines]


def deadly(aim: Write, moment: str, note: Path) -> None:
    """Let this process kill itself at a write, and leave the kind of the file in `note`."""

    def at(write: Write, now: str, path: Path, text: str) -> None:
        if write.number != aim.number or now != moment:
            return
        if now == "half" and write.call == "sync" and path.name == "new":  # being filled
            os.truncate(path, path.stat().st_size // 2)
        if now == "half" and write.call == "append":
            with path.open("ab") as file:
                file.write(text.encode()[: len(text) // 2])
        note.write_text(write.kind, encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)

    Watch(at)
