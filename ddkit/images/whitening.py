"""ZCA whitening: one affine map after normalisation that makes pixels uncorrelated.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Fitted on the
normalised training images; trajectory methods publish with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddkit.data import Dataset
from ddkit.errors import CheckpointError, DataError
from ddkit.runtime import storage

_log = logging.getLogger(__name__)

LARGEST = 12288  # values per image, 64 x 64 x 3: beyond it the matrix is over half a gigabyte


@dataclass(frozen=True, eq=False)
class Whitening:
    """The map ``(x - mean) @ matrix`` of flattened normalised images.

    Attributes:
        mean: float32 [D], D values per image.
        matrix: float32 [D,D], symmetric.
    """

    mean: Tensor
    matrix: Tensor

    @cached_property
    def inverse(self) -> Tensor:
        try:
            return torch.linalg.inv(self.matrix.double()).float()
        except torch.linalg.LinAlgError:  # a stranger's: ours are of full rank
            raise DataError("the whitening's matrix has no inverse: no pixels to show") from None

    @cached_property
    def fingerprint(self) -> str:
        digest = blake2b(self.mean.cpu().numpy().tobytes(), digest_size=16)
        digest.update(self.matrix.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> Whitening:
        return Whitening(self.mean.to(device), self.matrix.to(device))

    def apply(self, x: Tensor) -> Tensor:
        """Whiten normalised images [N,C,H,W]."""
        flat = x.flatten(1) - self.mean.to(x)
        return (flat @ self.matrix.to(x)).view_as(x)

    def undo(self, x: Tensor) -> Tensor:
        """Return whitened images [N,C,H,W] as they were."""
        flat = x.flatten(1) @ self.inverse.to(x)
        return (flat + self.mean.to(x)).view_as(x)


def fit(images: Tensor, epsilon: float = 0.1) -> Whitening:
    """Return the whitening of normalised images [N,C,H,W]; `epsilon` is added to the variances."""
    flat = images.flatten(1)
    mean = flat.mean(0, dtype=torch.float64)
    covariance = torch.zeros(flat.shape[1], flat.shape[1], dtype=torch.float64)
    for part in flat.split(8192):
        centred = part.double() - mean
        covariance += centred.T @ centred
    values, vectors = torch.linalg.eigh(covariance / len(flat))
    matrix = vectors @ torch.diag((values.clamp_min(0) + epsilon).rsqrt()) @ vectors.T
    return Whitening(mean.float(), matrix.float())


def cached_fit(key: str, images: Callable[[], Tensor]) -> Whitening:
    """Return the whitening of `images` (), kept under `key`, which must stand for their content.

    A cache that cannot be written is reported as a warning: it is fitted all the same.
    """
    path = storage.cache("whitening") / f"{key}.safetensors"
    try:
        kept = load_file(path)
        return Whitening(kept["mean"], kept["matrix"])
    except (OSError, SafetensorError, KeyError):  # not there, or damaged: make it again
        made = fit(images())
    tensors = {"mean": made.mean, "matrix": made.matrix.contiguous()}
    try:
        storage.write_atomically(path, lambda p: save_file(tensors, p))
    except CheckpointError as error:
        _log.warning("%s; the whitening will be fitted again next time", error)
    return made


def whitened(dataset: Dataset) -> Dataset:
    """Return `dataset` with ZCA whitening, fitted on its training images.

    Raises:
        DataError: the images are too large.
    """
    info, train = dataset.info, dataset.train
    values = info.channels * info.height * info.width
    if values > LARGEST:
        raise DataError(
            f"{info.name}: ZCA of {values} values per image needs a matrix of "
            f"{4 * values**2 >> 30} GiB; it goes up to {LARGEST}: lower the resolution"
        )

    def images() -> Tensor:
        rows = torch.arange(len(train.labels)).split(4096)
        return torch.cat([info.normalize(train.fetch(r).cpu().float().div_(255)) for r in rows])

    whitening = cached_fit(dataset.fingerprint(), images)
    return replace(dataset, info=replace(info, whitening=whitening))
