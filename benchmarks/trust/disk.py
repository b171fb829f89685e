"""A disk that loses power: what writes left on it for certain, and what may be there or not.

A recording holds every change that ddkit made, in order (`ddkit.runtime.storage` is the only place
that makes any). After any of them the power may fail. Then the disk has what was synced; of content
that was not, any part; of names that were given, moved or removed in folders that were not synced,
any choice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddkit.runtime import storage

BLOCK = 512  # bytes that a disk writes at once
CALLS = ("make_folder", "sync", "move", "sync_folder", "append", "remove")


@dataclass(frozen=True)
class Change:
    """One call: of what, with which content or new name; paths are relative to the scene."""

    call: str
    path: Path
    content: bytes = b""
    to: Path | None = None


@dataclass
class Recording:
    """The files that were there, and what was done to them."""

    before: dict[Path, bytes]
    changes: list[Change] = field(default_factory=list)


class Recorder:
    """Watches the writes of this process in the folder `place`, from `begin` on."""

    def __init__(self) -> None:
        self.place = Path()
        self.made: Recording | None = None
        for name in CALLS:
            setattr(storage, name, self.watched(name, getattr(storage, name)))

    def begin(self, place: Path, before: dict[Path, bytes]) -> Recording:
        self.place, self.made = place, Recording(before)
        return self.made

    def watched(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        note = getattr(self, f"noted_{name}", self.noted)

        def wrapped(path: Path, *given: Any) -> None:
            if name in ("move", "append", "remove"):  # the change first, then what syncs it
                call(path, *given)
                note(name, path, *given)
            else:
                note(name, path, *given)
                call(path, *given)

        return wrapped

    def add(self, change: str, path: Path, content: bytes = b"", to: Path | None = None) -> None:
        if self.made is not None and path.is_relative_to(self.place):
            to = to and to.relative_to(self.place)
            self.made.changes.append(Change(change, path.relative_to(self.place), content, to))

    def noted(self, name: str, path: Path) -> None:
        self.add(name, path)

    def noted_make_folder(self, name: str, path: Path) -> None:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                self.add(name, folder)

    def noted_sync(self, name: str, path: Path) -> None:
        self.add(name, path, path.read_bytes() if path.exists() else b"")

    def noted_move(self, name: str, path: Path, to: Path) -> None:
        self.add(name, path, to=to)

    def noted_append(self, name: str, path: Path, text: str) -> None:
        self.add(name, path, text.encode())


@dataclass
class Content:
    """A file's bytes: on the disk for certain, and as the process last saw them."""

    kept: bytes
    seen: bytes

    def after(self, rng: random.Random) -> bytes:
        """Return what is there after power was lost."""
        if self.kept == self.seen or rng.random() < 0.2:
            return self.kept
        start = len(self.kept) if self.seen.startswith(self.kept) else 0
        cut = rng.randint(start, len(self.seen))
        zeros = bytes(len(self.seen) - cut)
        lost = rng.randint(start, len(self.seen)) // BLOCK * BLOCK
        lost = max(lost, start)
        hole = bytes(len(self.seen[lost : lost + BLOCK]))
        return rng.choice(
            [
                self.seen,
                self.seen[:cut],  # torn
                self.seen[:cut] + zeros,  # its size was written, its content was not
                self.seen[:lost] + hole + self.seen[lost + BLOCK :],
            ]
        )


Step = tuple[str, Path, Any]  # what happens to the names of a folder


class Disk:
    """What is on the disk, and which changes of names may or may not be."""

    def __init__(self, before: dict[Path, bytes], syncs: bool = True):
        self.names = {path: Content(raw, raw) for path, raw in before.items()}
        self.filled: dict[Path, Content] = {}  # files that have no name of their own yet
        self.folders = {parent for path in before for parent in path.parents}
        self.open: list[Step] = []
        self.syncs = syncs

    def take(self, change: Change) -> None:
        """Let a change happen."""
        path = change.path
        if change.call == "make_folder":
            self.open.append(("folder", path, None))
        elif change.call == "sync":
            content = self.seen().get(path) or self.filled.setdefault(path, Content(b"", b""))
            content.seen = change.content
            content.kept = change.content if self.syncs else content.kept
        elif change.call == "move" and path in self.filled:
            self.open.append(("name", change.to or path, self.filled.pop(path)))
        elif change.call == "move":
            self.open.append(("move", path, change.to))
        elif change.call == "append":
            self.seen()[path].seen += change.content
        elif change.call == "remove":
            self.open.append(("remove", path, None))
        elif change.call == "sync_folder" and self.syncs:
            done = [s for s in self.open if s[1].parent == path]
            self.open = [s for s in self.open if s[1].parent != path]
            self.names, self.folders = self.with_steps(done)

    def seen(self) -> dict[Path, Content]:
        """Return the files by name, as the process sees them."""
        return self.with_steps(self.open)[0]

    def with_steps(self, steps: list[Step]) -> tuple[dict[Path, Content], set[Path]]:
        names, folders = dict(self.names), set(self.folders)
        for kind, path, more in steps:
            if kind == "folder":
                folders.add(path)
            elif kind == "name":
                names[path] = more
            elif path in names:
                content = names.pop(path)
                if kind == "move":
                    names[more] = content
        return names, folders

    def after(self, rng: random.Random) -> dict[Path, bytes]:
        """Return the files that are there after power was lost."""
        share = rng.choice([0.0, 0.5, 0.5, 0.5, 1.0])
        names, folders = self.with_steps([s for s in self.open if rng.random() < share])
        folders.add(Path())
        files = {
            path: content.after(rng)
            for path, content in sorted(names.items())
            if all(parent in folders for parent in path.parents)
        }
        for path, content in self.filled.items():  # what was being written
            if path.parent.parent in folders and rng.random() < 0.5:
                files[path] = Content(b"", content.seen).after(rng)
        return files


def crashed(made: Recording, rng: random.Random, syncs: bool = True) -> dict[Path, bytes]:
    """Return the files after power was lost at some moment of a recording."""
    disk = Disk(made.before, syncs)
    for change in made.changes[: rng.randint(0, len(made.changes))]:
        disk.take(change)
    return disk.after(rng)


def laid_out(files: dict[Path, bytes], place: Path) -> None:
    """Write the files of a state into the new folder `place`."""
    place.mkdir(parents=True)
    for path, raw in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(raw)
