"""A dataset looked at: its labels, classes, values, statistics, and images in both splits."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import torch
from torch import Tensor

from ddkit.data import DataInfo, Dataset, ImageSource, MemoryImages, statistics
from ddkit.errors import DataError
from ddkit.findings import Finding, looked

SAMPLE = 2048  # images whose values are looked at
COMPARED = 2 << 30  # bytes of images in memory that are compared whole, in a few seconds
SHIFT, STRETCH = 0.25, 4 / 3  # of normalised images; published constants stay within


def inspect(data: Dataset) -> list[Finding]:
    """Look at everything above; reads up to a few gigabytes of images."""
    found = looked("data", lambda: [*whole(data), *values(data)])
    if any(f.level == "FAIL" for f in found):
        return found
    return found + looked("splits", lambda: [shared(data)])


def whole(data: Dataset) -> Iterator[Finding]:
    """Yield whether images can be read and are as the dataset describes them.

    Raises:
        DataError: one cannot be read, or is of another shape or type.
    """
    for split, source in (("training", data.train), ("test", data.test)):
        images = source.fetch(_spread(source, SAMPLE if split == "test" else 1))
        if images.dtype != torch.uint8 or images.shape[1:] != data.info.shape:
            raise DataError(
                f"{data.info.name}: {split} images are {images.dtype} {list(images.shape[1:])}, "
                f"not uint8 {list(data.info.shape)} as the dataset says"
            )
    looked_at = "all in memory" if _resident(data) else f"up to {SAMPLE:,} of a split were read"
    yield Finding("ok", "data", f"images are readable ({looked_at})")


def values(data: Dataset) -> Iterator[Finding]:
    """Yield the range and the statistics of a sample of training images, and constant images."""
    images = data.train.fetch(_spread(data.train, SAMPLE))
    flat = images.flatten(1)
    low, high = int(flat.min()), int(flat.max())
    if high - low < 32:
        scaled = "pixels must be 0 to 255; were these stored as 0 to 1?"
        advice = scaled if high <= 1 else "there is hardly any contrast; look at them"
        yield Finding("note", "values", f"{low} to {high} of 0 to 255: {advice}")
    else:
        yield Finding("ok", "values", f"{low} to {high} of 0 to 255")
    yield measured(data.info, images)
    constant = int((flat == flat[:, :1]).all(1).sum())
    if constant:
        text = f"{constant} of {len(flat):,} images looked at are of one colour; nothing is in them"
        yield Finding("note", "constant", text)


def measured(info: DataInfo, images: Tensor) -> Finding:
    """Return how far `info`'s mean and deviation are from those of `images`, uint8 [N,C,H,W]."""
    mean, std = statistics(images)
    shift = [abs(m - given) / s for m, given, s in zip(mean, info.mean, info.std, strict=True)]
    ratio = [s / given for s, given in zip(std, info.std, strict=True)]
    text = f"mean {_listed(mean)}, deviation {_listed(std)} measured"
    if mean == info.mean and std == info.std:
        return Finding("ok", "statistics", text)
    text += f"; {_listed(info.mean)} and {_listed(info.std)} given"
    if max(shift) > SHIFT or not all(1 / STRETCH < r < STRETCH for r in ratio):
        advice = "normalised images will be far from mean 0 and deviation 1: are these the data's?"
        return Finding("note", "statistics", f"{text}; {advice}")
    return Finding("ok", "statistics", text)


def shared(data: Dataset) -> Finding:
    """Return how many test images are training images too, by a hash of their pixels.

    Of data that is large or on disk, a sample of each split is compared.
    """
    limit = None if _resident(data) and _size(data) <= COMPARED else SAMPLE
    train, test = (list(_hashes(s, limit)) for s in (data.train, data.test))
    known = set(train)
    twice, again = sum(h in known for h in test), len(train) - len(known)
    of = "" if limit is None else f" (of {len(test):,} and {len(train):,} that were compared)"
    repeated = f"; {again:,} training images repeat another" if again else ""
    if twice:
        return Finding(
            "note",
            "splits",
            f"{twice:,} test images are training images as well{of}: the accuracy on them says "
            f"little; take them out of one split{repeated}",
        )
    return Finding("ok", "splits", f"no test image is a training image{of}{repeated}")


def _hashes(source: ImageSource, limit: int | None) -> Iterator[bytes]:
    rows = _spread(source, limit or len(source.labels))
    for part in rows.split(1024):
        for image in source.fetch(part).cpu().contiguous().numpy():
            yield blake2b(image.data, digest_size=16).digest()


def _spread(source: ImageSource, most: int) -> Tensor:
    """Return the numbers of at most `most` images, evenly spread over the source."""
    total = len(source.labels)
    count = min(most, total)
    return torch.arange(count) * total // count


def _resident(data: Dataset) -> bool:
    return isinstance(data.train, MemoryImages) and isinstance(data.test, MemoryImages)


def _size(data: Dataset) -> int:
    channels, height, width = data.info.shape
    return (len(data.train.labels) + len(data.test.labels)) * channels * height * width


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{n:.3f}" for n in numbers)
