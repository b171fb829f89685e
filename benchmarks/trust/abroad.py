"""The command line on streams of other encodings, full or closed, and under other locales."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from typing import Any

from fence import Fault, Sandbox, check_plain
from forge import good_set

CODES = (0, 1, 2, 130)
SECONDS = 60


class Sink(io.RawIOBase):
    """Takes `room` bytes, then raises."""

    def __init__(self, room: int, error: int):
        self.room, self.error, self.held = room, error, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if len(data) > self.room:
            raise OSError(self.error, os.strerror(self.error))
        self.room -= len(data)
        self.held += data
        return len(data)


class Bare:
    """Has what a stream must have, as notebooks' do, and no more."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


def _opened(kind: str, coding: str, room: int) -> tuple[Any, Sink]:
    """Return a stream and what its bytes come to."""
    sink = Sink(room if kind in ("full", "gone") else 10**9, errno.EPIPE if kind == "gone" else 28)
    if kind == "none":
        return None, sink
    if kind == "bare":
        return Bare(), sink
    stream = io.TextIOWrapper(io.BufferedWriter(sink), encoding=coding, newline="")
    if kind == "closed":
        stream.close()
    return stream, sink


def words(given: list[str], box: Sandbox) -> list[str]:
    """Return a command's words with the case's own files, and places to write to inside of it."""
    for name in ("@set", "@bad"):
        content = good_set("plain")
        (box.given / name[1:]).write_bytes(content if name == "@set" else content[:300])
    own = {"@set": "set", "@bad": "bad", "@folder": ""}
    result = []
    for word in given:
        if word in own:
            word = str(box.given / own[word])
        elif word.startswith("@out:"):
            word = f"{box.given}/out-" + word.removeprefix("@out:").replace("..", "__")
        result.append(word)
    return result


def streams(case: dict[str, Any], box: Sandbox) -> None:
    """Run the command line in this process on the case's streams."""
    from ddkit.cli import main

    out, held = _opened(*case["out"])
    err, told = _opened(*case["err"])
    kept = sys.stdout, sys.stderr, sys.argv
    sys.stdout, sys.stderr, sys.argv = out, err, ["ddkit", *words(case["words"], box)]
    try:
        main()
        code: Any = None
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout, sys.stderr, sys.argv = kept
    if code not in CODES:
        raise Fault(f"ends with {code!r}")
    for stream, sink, coding in ((out, held, case["out"][1]), (err, told, case["err"][1])):
        text = stream.text if isinstance(stream, Bare) else bytes(sink.held).decode(coding)
        check_plain(text.removeprefix("\ufeff"))


def locales(case: dict[str, Any], box: Sandbox) -> None:
    """Run the command line in a process of its own, in the case's environment."""
    given = [w.replace("\0", "") for w in words(case["words"], box)]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    env |= case["env"]
    command = [
        sys.executable,
        "-m",
        "ddkit",
        *(os.fsencode(w.encode(errors="replace")) for w in given),
    ]
    try:
        done = subprocess.run(command, capture_output=True, env=env, cwd=box.given, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Fault(f"not done after {SECONDS} s") from None
    said = done.stderr.decode("latin-1")
    bug = "Traceback" in said and case["words"][:1] != ["-v"]  # which asks for one
    if done.returncode not in CODES or bug:
        raise Fault(f"ends with {done.returncode}: {said[-1500:]}")
