"""Real images: what a dataset says of itself, and where its images come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ddkit.errors import DataError

if TYPE_CHECKING:
    from ddkit.images.whitening import Whitening


@dataclass(frozen=True)
class DataInfo:
    """What must be known of a dataset to make networks for it and to show its images.

    `mean` and `std` are per channel, for pixels in [0, 1]. `classes` are names in label order.
    `whitening` comes after mean and standard deviation, where the recipe asks for ZCA.
    """

    name: str
    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: Whitening | None = field(default=None, compare=False, repr=False)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    def normalize(self, x: Tensor) -> Tensor:
        """Return pixels in [0, 1], [N,C,H,W], less the mean, over the standard deviation."""
        mean, std = self._statistics(x)
        x = (x - mean) / std
        return x if self.whitening is None else self.whitening.apply(x)

    def denormalize(self, x: Tensor) -> Tensor:
        """Return normalised images [N,C,H,W] as pixels; they may leave [0, 1]."""
        mean, std = self._statistics(x)
        x = x if self.whitening is None else self.whitening.undo(x)
        return x * std + mean

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device)
        std = torch.tensor(self.std, dtype=x.dtype, device=x.device)
        return mean[:, None, None], std[:, None, None]

    def to(self, device: torch.device) -> DataInfo:
        """Return the same with its whitening, if any, on `device`."""
        return (
            self if self.whitening is None else replace(self, whitening=self.whitening.to(device))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the whitening, which is tensors."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "whitening"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], whitening: Whitening | None = None) -> DataInfo:
        lists = {k: tuple(values[k]) for k in ("classes", "mean", "std")}
        return cls(**{**values, **lists}, whitening=whitening)


class ImageSource(Protocol):
    """Labelled images, in memory or on disk."""

    @property
    def labels(self) -> Tensor:
        """int64 [N], on the CPU."""
        ...

    def fetch(self, index: Tensor) -> Tensor:
        """Return uint8 [n,C,H,W] for int64 `index` [n], on the device of the source."""
        ...

    def to(self, device: torch.device) -> ImageSource:
        """Return a source whose batches are on `device`."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of the content."""
        ...


class MemoryImages:
    """Images resident as one uint8 tensor."""

    def __init__(self, images: Tensor, labels: Tensor):
        """Take `images` uint8 [N,C,H,W] and `labels` [N], of any integer type; strides are free.

        Raises:
            DataError: shapes or types are others, or a label is negative.
        """
        if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
            kinds = f"{type(images).__name__} and {type(labels).__name__}"
            raise DataError(f"images and labels must be tensors, not {kinds}; see torch.as_tensor")
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise DataError(
                f"images must be uint8 [N,C,H,W] with a label each, not "
                f"{images.dtype} {list(images.shape)} with {len(labels)} labels"
            )
        self.images = images
        self.labels = _labels(labels)
        self._fingerprint: str | None = None

    def fetch(self, index: Tensor) -> Tensor:
        return self.images[index.to(self.images.device)]

    def to(self, device: torch.device) -> MemoryImages:
        moved = MemoryImages(self.images.to(device), self.labels)
        moved._fingerprint = self._fingerprint
        return moved

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = self._hash()
        return self._fingerprint

    def _hash(self) -> str:
        digest = blake2b(digest_size=16)
        digest.update(repr(tuple(self.images.shape)).encode())
        digest.update(self.images.cpu().contiguous().numpy().data)
        digest.update(self.labels.numpy().data)
        return digest.hexdigest()


def _labels(labels: Tensor) -> Tensor:
    """Return class numbers as int64 [N] on the CPU, in one piece.

    Raises:
        DataError: they are not one integer per image, or negative.
    """
    whole = not (labels.dtype.is_floating_point or labels.dtype.is_complex)
    if labels.ndim != 1 or not whole or labels.dtype == torch.bool:
        raise DataError(
            f"labels must be class numbers, integers [N], not {labels.dtype} {list(labels.shape)}"
            + ("; of one-hot rows they are labels.argmax(1)" if labels.ndim == 2 else "")
        )
    numbers = labels.long().cpu().contiguous()
    if len(numbers) and int(numbers.min()) < 0:
        raise DataError(f"labels must be class numbers from 0, not {int(numbers.min())}")
    return numbers


@dataclass(frozen=True)
class Dataset:
    """A training and a test split of the same classes.

    `tested` says in words what the test images are, where they are not the dataset's own.

    Raises:
        DataError: a split is empty, or labels are not int64 [N] numbers of its classes.
    """

    info: DataInfo
    train: ImageSource
    test: ImageSource
    tested: str = ""

    def __post_init__(self) -> None:
        for split, source in (("training", self.train), ("test", self.test)):
            labels = source.labels
            if labels.ndim != 1 or labels.dtype != torch.int64:
                raise DataError(
                    f"{self.info.name}: the labels of the {split} split must be int64 [N], not "
                    f"{labels.dtype} {list(labels.shape)}"
                )
            if not len(labels):
                raise DataError(f"{self.info.name}: the {split} split holds no images")
            if int(labels.max()) >= self.info.num_classes or int(labels.min()) < 0:
                wrong = labels[(labels < 0) | (labels >= self.info.num_classes)]
                raise DataError(
                    f"{self.info.name}: the {split} split has the label {int(wrong[0])}, but there "
                    f"are {self.info.num_classes} classes, from 0"
                )

    def to(self, device: torch.device) -> Dataset:
        train, test = self.train.to(device), self.test.to(device)
        return Dataset(self.info.to(device), train, test, self.tested)

    def fingerprint(self) -> str:
        """Return a hash of the training images and of how they are normalised."""
        whitening = self.info.whitening and self.info.whitening.fingerprint
        statistics = repr((self.info.mean, self.info.std, self.info.classes, whitening)).encode()
        return blake2b(self.train.fingerprint().encode() + statistics, digest_size=16).hexdigest()


def statistics(images: Tensor, chunk: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, over all pixels, of uint8 [N,C,H,W].

    A constant channel, which has no deviation to divide by, gets 1.
    """
    total = torch.zeros(images.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in images.split(chunk):
        x = part.double() / 255
        total += x.sum((0, 2, 3)).cpu()
        squares += x.square().sum((0, 2, 3)).cpu()
    count = images.shape[0] * images.shape[2] * images.shape[3]
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
    return _rounded(mean), tuple(s or 1.0 for s in _rounded(std))


def _rounded(x: Tensor) -> tuple[float, ...]:
    return tuple(round(v, 4) for v in x.tolist())


DatasetFactory = Callable[..., Dataset]
