"""Files made of what the fuzzer drew: sets, pictures, trees of them, and plugins."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import nn

from ddkit.data import DataInfo
from ddkit.images.formation import Formation
from ddkit.images.synthetic import SyntheticSet
from ddkit.images.whitening import Whitening

SIDE = 4


@cache
def good_set(kind: str) -> bytes:
    """Return the bytes of a small set: plain, soft, whitened or of mosaics."""
    made = torch.Generator().manual_seed(0)
    whitening = None
    if kind == "zca":
        whitening = Whitening(torch.zeros(SIDE**2), torch.eye(SIDE**2))
    names = ("Ä b", "a/b")
    info = DataInfo("two", 1, SIDE, SIDE, names, (0.5,), (0.2,), whitening)
    syn = SyntheticSet(
        nn.Parameter(torch.randn(4, 1, SIDE, SIDE, generator=made)),
        torch.tensor([0, 0, 1, 1]),
        info,
        formation=Formation(2 if kind == "mosaic" else 1),
        soft=torch.full((4, 2), 0.5) if kind == "soft" else None,
        recipe={"seed": 1, "dataset": {"name": "digits"}, "eval": {"archs": ["mlp"], "lr": 0.1}},
        provenance={"seed": 1, "data": "hash"},
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "set.safetensors"
        syn.save(path)
        return path.read_bytes()


def forged_set(case: dict[str, Any], good: bytes) -> bytes:
    """Return the bytes of a `good` set after what the case says was done to them."""
    size = struct.unpack("<Q", good[:8])[0]
    header, body = json.loads(good[8 : 8 + size]), bytearray(good[8 + size :])
    described = json.loads(header["__metadata__"]["ddkit"])
    for (first, *rest), value in case.get("described", ()):
        inner = described
        if rest:
            inner = described[first] if isinstance(described.get(first), dict) else {}
        inner[rest[0] if rest else first] = value
    header["__metadata__"]["ddkit"] = case.get("text", json.dumps(described))
    for name, field, value in case.get("header", ()):
        if field and isinstance(header.get(name), dict):
            header[name] = {**header[name], field: value}
        else:
            header[name] = value
    for at, byte in case.get("values", ()):
        body[at * len(body) // 1000] = byte
    text = json.dumps(header).encode()
    content = struct.pack("<Q", case.get("length", len(text))) + text + body + case.get("tail", b"")
    content = flipped(content, case.get("flips", ()))
    return content[: case["cut"] * len(content) // 1000] if "cut" in case else content


def flipped(content: bytes, flips: Any) -> bytes:
    """Return `content` with some bytes changed; places are in thousandths."""
    changed = bytearray(content)
    for at, byte in flips:
        if changed:
            changed[at * len(changed) // 1000] ^= byte
    return bytes(changed)


def picture(kind: str, *rest: Any) -> bytes:
    """Return the bytes of an image file, damaged where the case says so, or other bytes."""
    if kind == "bytes":
        return rest[0]
    if kind != "image":
        return _special(kind, rest[0])
    form, mode, size, damage = rest
    content = _encoded(Image.new(mode, size, (0 if mode != "RGB" else (200, 90, 30))), form)
    if damage is None:
        return content
    if damage[0] == "cut":
        return content[: damage[1] * len(content) // 1000]
    return content + damage[1] if damage[0] == "tail" else flipped(content, [damage[1:]])


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return `image` in a format; as RGB where the format does not take its mode."""
    for candidate in (image, Image.new("RGB", image.size, (200, 90, 30))):
        file = io.BytesIO()
        with contextlib.suppress(OSError, KeyError, ValueError, TypeError, SystemError):
            candidate.save(file, form, **options)
            return file.getvalue()
    return b""


def _special(kind: str, form: str) -> bytes:
    image = Image.new("RGB", (6, 6), (200, 90, 30))
    if kind == "frames":
        more = [Image.new("RGB", (6, 6), (i, 0, 9)) for i in (50, 100)]
        return _encoded(image, form, save_all=True, append_images=more)
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        return _encoded(Image.new("RGB", (6, 6)), form, exif=exif)
    if kind == "bomb":  # a header that promises far more pixels than there are
        size = struct.pack(">II", 60000, 60000)
        return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\2\0\0\0" + b"\0" * 40
    image.putalpha(255 if kind == "opaque" else 90)
    return _encoded(image, form)


def plant(base: Path, case: dict[str, Any]) -> None:
    """Make the folder of images that a case describes."""
    splits = {"flat": [""], "split": ["train", "test"], "Split": ["Train", "VALID"], "none": []}
    base.mkdir()
    for split in splits[case["layout"]]:
        for name in case["classes"]:
            for number, drawn in enumerate(case["files"]):
                _plant_one(base, (split, name, f"{number}.png"), drawn)
    for (folder, name), drawn in case["entries"]:
        _plant_one(base, (*folder.split("/"), name), drawn)


def _plant_one(base: Path, pieces: tuple[str, ...], drawn: tuple[Any, ...]) -> None:
    """Make one entry, inside of `base` alone; what the disk refuses is left out."""
    held = [p.replace("/", "_").replace("\0", "_") for p in pieces if p not in ("", ".", "..")]
    path = base.joinpath(*held)
    with contextlib.suppress(OSError, UnicodeError):
        if path == base or path.is_symlink() or base not in path.resolve().parents:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        match drawn[0]:
            case "link":
                path.symlink_to(drawn[1])
            case "fifo":
                os.mkfifo(path)
            case "socket":
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(str(path))
            case "folder":
                path.mkdir()
            case _ if path.is_file() or not path.exists():  # a pipe would wait for a reader
                path.write_bytes(picture(*drawn))


PLUGIN = """
import dataclasses, functools, sys
from collections.abc import Mapping
from ddkit import hookimpl
{line}
class StrangeError(Exception):
    def __str__(self): raise ValueError("cannot say itself")
KeyboardInterruptLike = StrangeError
class Breaks(Mapping):
    def __getitem__(self, key): raise StrangeError
    def __iter__(self): yield "x"; raise StrangeError
    def __len__(self): return 10 ** 9
class Odd:
    provides = requires = 3
    __signature__ = "none"
    def __init__(self, *given, **options): raise StrangeError
    def __call__(self): raise StrangeError
@dataclasses.dataclass
class dataclass_:
    x: list = dataclasses.field(default_factory=list)
def make(given=None, x: int = object()): pass
def wrong(given: "Nope", x: "3 +" = 1): pass
def untyped(a, /, b, *c, d=float("nan"), **e): pass
def mean(given, x: "int | None | str" = None, y: tuple[int, ...] = (1,)): pass
partial = functools.partial(untyped, 1)
make.__doc__ = {said!r}
def recurse(): return recurse()
@hookimpl
def register_{kind}():
    return {hook}
"""
"""The module of a stranger's plugin."""
