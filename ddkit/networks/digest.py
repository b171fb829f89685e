"""What a network is, as a hash: by it trained networks are found again in the cache.

The name of a backbone and its options do not tell: a plugin's code or its file of weights may
change under them.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddkit.backbone import embed
from ddkit.data import DataInfo
from ddkit.networks.fresh import Build, build
from ddkit.runtime import randomness

CPU = torch.device("cpu")


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and values, in any order."""
    digest = blake2b(digest_size=16)
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        values = value.detach().cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def build_digest(make: Build, info: DataInfo) -> str:
    """Return a hash of what `make` builds for the images of `info`.

    It covers what a network of one given draw starts from, bit by bit (names, shapes, weights that
    were drawn or read from a file, which of them learn), and what it does, as far as numbers that
    are rounded tell. Equal in every process on a machine, whatever its number of threads.
    """
    net = build(make, CPU, 0, "digest")
    start = state_digest(net.state_dict())
    learns = [name for name, p in net.named_parameters() if p.requires_grad]
    text = repr((start, learns, _behaviour(net, info)))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _behaviour(net: nn.Module, info: DataInfo) -> list[str]:
    """Return what `net` makes of two images in training, of a loss, and in evaluation, rounded.

    Training comes first: it shows dropout, and leaves in the running statistics how fast they move.
    """
    rng = randomness.generator(0, "digest-images")
    images = 4 * torch.rand(2, *info.shape, generator=rng) - 2
    with randomness.global_generator(0, "digest-layers"):
        trained = net.train()(images)
        cross_entropy(trained, torch.tensor([0, info.num_classes - 1])).backward()
    with torch.no_grad():
        features = embed(net.eval(), images)
    slopes = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
    return [_rounded(x) for x in (trained, torch.cat(slopes), features)]


def _rounded(x: Tensor) -> str:
    """Return two numbers of `x`, in which no two values may change places, of three digits each.

    The bytes would not do: the order of sums, and with it their last bits, changes with machines
    and numbers of threads, and what is in the cache would not be found. Few digits of few numbers,
    each beside the size of what was added up, hardly ever fall on two sides of a rounding; where
    they do, a network is trained once more.
    """
    values = x.detach().double().flatten()
    size = float(values.abs().mean())
    weights = torch.linspace(1, 2, len(values), dtype=torch.float64)
    signed = float((values * weights).mean()) / size if size else 0.0
    return f"{size:.2e} {signed:.3f}"
