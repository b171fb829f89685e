"""The synthetic set: what is learned, how it decodes, and how it starts; see `set_file`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddkit.data import DataInfo
from ddkit.errors import CheckpointError, RecipeError, shown
from ddkit.images import set_file
from ddkit.images.formation import Formation
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.images.set_file import Description, Space
from ddkit.images.whitening import Whitening
from ddkit.paths import expanded
from ddkit.recipes.place import Place, Source
from ddkit.recipes.sections import SyntheticSpec
from ddkit.runtime import memory, randomness


@dataclass
class SyntheticSet:
    """Learned images with everything needed to use them.

    Attributes:
        images: float32 [n,C,H,W], class-major, in `space`: normalised, or pixels in [0, 1].
        labels: int64 [n], on the CPU.
        soft: class probabilities [n,K] where labels are soft, else None.
        recipe: the resolved recipe that made it, as a table; empty for a foreign set.
        provenance: seed, versions, hash of the data.
    """

    images: nn.Parameter
    labels: Tensor
    info: DataInfo
    formation: Formation = field(default_factory=Formation)
    space: Space = "normalized"
    soft: Tensor | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups: dict[tuple[int, ...] | None, tuple[Tensor, Tensor, Groups]] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def per_class(self) -> tuple[int, ...]:
        """Stored images of each class, in label order; classes may have unequal numbers."""
        return tuple(torch.bincount(self.labels, minlength=self.info.num_classes).tolist())

    @property
    def ipc(self) -> int:
        """Stored images of the largest class."""
        return max(self.per_class)

    def decode(self, classes: Tensor | None = None) -> tuple[Tensor, Groups]:
        """Return training images of `classes` (int64 CPU; default all), normalised, with groups.

        Gradients flow back to `images`.
        """
        key = None if classes is None else tuple(classes.tolist())
        device = self.images.device
        if key not in self._groups:
            chosen = torch.ones_like(self.labels, dtype=torch.bool)
            if classes is not None:
                chosen = torch.isin(self.labels, classes)
            labels = self.labels[chosen]
            groups = Groups.of(self.formation.tile_labels(labels, labels), device)
            self._groups[key] = (chosen.nonzero()[:, 0].to(device), labels, groups)
        rows, labels, groups = self._groups[key]
        stored = self.images if len(rows) == len(self) else self.images[rows]
        fill = 0.5 if self.space == "pixel" else 0.0
        decoded = self.formation.decode(stored, fill, labels)
        return (self.info.normalize(decoded) if self.space == "pixel" else decoded), groups

    @torch.no_grad()
    def fill(self, real: Tensor) -> None:
        """Start from normalised `real` images, class-major, as many per class as decode gives.

        With a mosaic, every tile shows an image of its own.
        """
        if self.space == "pixel":
            real = self.info.denormalize(real)
        tiles = real.unflatten(0, (self.info.num_classes, self.formation.pieces, -1))
        self.images.copy_(self.formation.compose(tiles.transpose(0, 1).flatten(0, 2)))

    def training(self) -> tuple[Tensor, Tensor]:
        """Return what a network trains on: decoded normalised images, and labels hard or soft.

        Raises:
            CheckpointError: they are more than there is memory.
        """
        self._check_memory()
        with torch.no_grad():
            images, groups = self.decode()
        images = images.detach()  # without mosaics these are the learned images themselves
        if self.soft is None:
            return images, groups.labels
        return images, self.formation.tile_labels(self.soft, self.labels).to(images.device)

    def _check_memory(self) -> None:
        count, most = len(self.training_classes()), memory.physical(self.images.device)
        need = count * math.prod(self.info.shape) * self.images.element_size()
        if most and need > most:  # 0: not known
            raise CheckpointError(
                f"{len(self)} stored images give {count} training images of {need / 2**30:,.1f} "
                f"GiB, more than the {most / 2**30:,.1f} GiB of memory"
            )

    def training_classes(self) -> Tensor:
        """Return the classes of what a network trains on, whatever its labels: int64 [N]."""
        classes = self.formation.tile_labels(self.labels, self.labels)
        return classes.to(self.images.device)

    def pixels(self, rows: Tensor | None = None) -> Tensor:
        """Return stored images as pixels, float32 [n,C,H,W] in [0, 1], on the CPU.

        `rows`, int64 [n], chooses images; default all.
        """
        return self.raw_pixels(rows).clamp(0, 1)

    def raw_pixels(self, rows: Tensor | None = None) -> Tensor:
        """Return `pixels` as learned, which may leave [0, 1]."""
        x = self.images.detach()
        x = x if rows is None else x[rows.to(x.device)]
        return (self.info.denormalize(x) if self.space == "normalized" else x).cpu()

    def to(self, device: torch.device) -> SyntheticSet:
        images = nn.Parameter(self.images.detach().to(device))
        return SyntheticSet(**{**self._fields(), "images": images, "info": self.info.to(device)})

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def stored_bytes(self) -> int:
        """Bytes of images and labels as stored."""
        tensors = [self.images, self.labels, *([] if self.soft is None else [self.soft])]
        return sum(t.numel() * t.element_size() for t in tensors)

    def save(self, path: Path) -> None:
        """Write one safetensors file; the same set gives the same bytes.

        Raises:
            CheckpointError: the place cannot be written to.
        """
        described = Description(self.info, self.formation, self.space, self.recipe, self.provenance)
        set_file.write(path, described, self._tensors())

    @classmethod
    def load(cls, path: Path | str) -> SyntheticSet:
        """Read a set; nothing that the file says of itself is believed.

        Raises:
            CheckpointError: missing, truncated, not safetensors, or not a set of ddkit's.
        """
        described, tensors = set_file.read(expanded(path, CheckpointError))
        info = described.info
        if "zca_matrix" in tensors:
            whitening = Whitening(tensors["zca_mean"], tensors["zca_matrix"])
            info = replace(info, whitening=whitening)
        images = nn.Parameter(tensors["images"])
        return cls(
            images, tensors["labels"], soft=tensors.get("soft"), **{**vars(described), "info": info}
        )

    def problem(self) -> str | None:
        """Return what no network can learn from in this set, or None.

        Values that are not finite, labels of no class, soft labels that are no probabilities.
        """
        return set_file.problem(self._tensors(), self.info)

    def _tensors(self) -> dict[str, Tensor]:
        """Return what the file holds, by name."""
        tensors = {"images": self.images, "labels": self.labels}
        if self.soft is not None:
            tensors["soft"] = self.soft
        if self.info.whitening is not None:
            tensors["zca_mean"] = self.info.whitening.mean
            tensors["zca_matrix"] = self.info.whitening.matrix
        return tensors


def initial(spec: SyntheticSpec, real: RealImages, seed: int) -> SyntheticSet:
    """Return a new set of `spec.ipc` images per class, from real images or noise.

    With a mosaic, every tile starts from an image of its own. Noise is N(0, 1) in normalised
    space, and N(0, 1) / 4 + 0.5 clamped to [0, 1] in pixel space.

    Raises:
        RecipeError: a class has too few images.
    """
    info = real.info
    bound = spec.bound or Formation.bound
    formation = Formation(spec.factor, spec.order, spec.init_resize, spec.kind, bound)
    labels = torch.arange(info.num_classes).repeat_interleave(spec.ipc)
    if spec.init == "noise":
        rng = randomness.generator(seed, "noise")
        images = torch.randn(len(labels), *info.shape, generator=rng)
        if spec.space == "pixel":
            images = (images / 4 + 0.5).clamp(0, 1)
    else:
        images = torch.empty(len(labels), *info.shape)
    made = SyntheticSet(nn.Parameter(images.to(real.device)), labels, info, formation, spec.space)
    if spec.init != "noise":
        check_ipc(spec, real.counts, info)
        classes, need = torch.arange(info.num_classes), spec.ipc * formation.pieces
        if spec.init == "first":
            made.fill(real.first(classes, need)[0])
        else:
            made.fill(real.sample(classes, need, 0, stream="initial")[0])
    return made


def check_ipc(
    spec: SyntheticSpec,
    counts: list[int],
    info: DataInfo,
    place: Place | None = None,
    chosen: bool = False,
) -> None:
    """Refuse more real images than the smallest class has, and tiles too small for the images.

    With `chosen` the method takes real images whatever `init` says.

    Raises:
        RecipeError: naming the class, and `place`, the recipe's section.
    """
    place = place or Place(Source("recipe"), "synthetic")
    unfit = Formation(spec.factor, kind=spec.kind).unfit(info.height, info.width)
    if unfit:
        raise RecipeError(f"{place / 'factor'}: {shown(info.name)}: {unfit}")
    need = spec.ipc * spec.factor**2
    fewest = min(counts)
    if (chosen or spec.init in ("real", "first")) and need > fewest:
        tiles = f" x {spec.factor**2} tiles" if spec.factor > 1 else ""
        name = info.classes[counts.index(fewest)]
        other = "" if chosen else ' or use init = "noise"'
        raise RecipeError(
            f"{place / 'ipc'}: {spec.ipc}{tiles} needs {need} real images per class, but "
            f"{shown(info.name)}'s class {name!r} has {fewest}; lower ipc{other}"
        )
