"""Decoded images of a training and a test split, kept on disk so that a second start is fast."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ddkit.data import MemoryImages, statistics
from ddkit.errors import CheckpointError
from ddkit.runtime.storage import cache, write_atomically
from ddkit_datasets.image_decode import VERSION, Form, decode
from ddkit_datasets.image_files import Files

_log = logging.getLogger(__name__)


class Splits(NamedTuple):
    """Both splits in memory, and the statistics of the training images per channel."""

    train: MemoryImages
    test: MemoryImages
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def load(base: Path, train: Files, test: Files, form: Form) -> Splits:
    """Return the images of both splits in `form`, decoded, or as they were decoded before.

    The cache file is named after `base` and a hash of everything that the result depends on: the
    path of every file and what changes when it does, the form and the decoder's version. A cache
    that cannot be written is reported as a warning, for the images are there all the same.

    Raises:
        DataError: as `decode` does; nothing is cached then.
    """
    name = base.resolve().name[:40]  # of up to four bytes each, and a file's name has 255
    path = cache("images") / f"{name}-{_key(base, train, test, form)}.safetensors"
    found = _read(path)
    if found is None:
        images = decode([*train.paths, *test.paths], form)
        found = images, *statistics(images[: len(train)])
        try:
            write_atomically(path, _writer(*found))
        except CheckpointError as error:
            _log.warning("%s; the images will be decoded again next time", error)
    images, mean, std = found
    return Splits(
        MemoryImages(images[: len(train)], train.classes),
        MemoryImages(images[len(train) :], test.classes),
        mean,
        std,
    )


def _key(base: Path, train: Files, test: Files, form: Form) -> str:
    import PIL

    parts = [str(base.resolve()), train.digest(base), test.digest(base), repr(form)]
    parts += [str(VERSION), PIL.__version__]  # another Pillow may round otherwise
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return blake2b(text, digest_size=12).hexdigest()


def _writer(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[Path], None]:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        try:
            save_file({"images": images}, path, {"ddkit": json.dumps({"mean": mean, "std": std})})
        except SafetensorError as error:  # a full disk, which `write_atomically` knows how to say
            raise OSError(str(error)) from None

    return write


def _read(path: Path) -> tuple[Tensor, tuple[float, ...], tuple[float, ...]] | None:
    """Return what `path` holds, the images mapped from the file; None if it is missing or bad."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads(file.metadata()["ddkit"])
            return file.get_tensor("images"), tuple(said["mean"]), tuple(said["std"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
