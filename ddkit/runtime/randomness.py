"""Randomness as a pure function of (seed, stream name, counters).

Nothing here remembers anything: what step 700 draws does not depend on whether steps 0 to 699 were
run in this process, so that resume, chunking and prefetch change no result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch


def derive(seed: int, stream: str, *counters: int) -> int:
    """Return a 63-bit seed for the named stream at the given counters."""
    text = ":".join([str(seed), stream, *map(str, counters)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(
    seed: int, stream: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator for the named stream at the given counters.

    Draws on the CPU are the same for every device; only what is too large to be moved there at each
    step should be drawn on another.
    """
    return torch.Generator(device).manual_seed(derive(seed, stream, *counters))


@contextmanager
def global_generator(
    seed: int, stream: str, *counters: int, device: torch.device | None = None
) -> Iterator[None]:
    """Seed torch's global generators (CPU, and `device`'s) inside the block; restore them after.

    Layers draw initial weights and dropout from the global generator and take no other.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.random.default_generator.manual_seed(derive(seed, stream, *counters))
        for own in cuda:
            with torch.cuda.device(own):
                torch.cuda.manual_seed(derive(seed, stream, *counters))
        yield
