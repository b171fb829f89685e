"""The synthetic set: what is learned, how it decodes, and the one file that holds all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ddkit.data import DataInfo
from ddkit.errors import CheckpointError, RecipeError
from ddkit.images.formation import Formation
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.images.whitening import Whitening
from ddkit.recipes.binding import checked
from ddkit.recipes.place import Place, Source
from ddkit.recipes.sections import SyntheticSpec
from ddkit.runtime import randomness
from ddkit.runtime.storage import write_atomically

FORMAT = 1
KEY = "ddkit"
Space = Literal["normalized", "pixel"]


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
        """Return what a network trains on: decoded normalised images, and labels hard or soft."""
        with torch.no_grad():
            images, groups = self.decode()
        images = images.detach()  # without mosaics these are the learned images themselves
        if self.soft is None:
            return images, groups.labels
        return images, self.formation.tile_labels(self.soft, self.labels).to(images.device)

    def training_classes(self) -> Tensor:
        """Return the classes of what a network trains on, whatever its labels: int64 [N]."""
        classes = self.formation.tile_labels(self.labels, self.labels)
        return classes.to(self.images.device)

    def pixels(self) -> Tensor:
        """Return the stored images as pixels, float32 [n,C,H,W] in [0, 1], on the CPU."""
        x = self.images.detach()
        if self.space == "normalized":
            x = self.info.denormalize(x)
        return x.clamp(0, 1).cpu()

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
        tensors = {"images": self.images.detach().cpu().contiguous(), "labels": self.labels}
        if self.soft is not None:
            tensors["soft"] = self.soft.cpu().contiguous()
        if self.info.whitening is not None:
            tensors["zca_mean"] = self.info.whitening.mean.cpu()
            tensors["zca_matrix"] = self.info.whitening.matrix.cpu().contiguous()
        described = {
            "format": FORMAT,
            "info": self.info.to_dict(),
            "formation": asdict(self.formation),
            "space": self.space,
            "recipe": self.recipe,
            "provenance": self.provenance,
        }
        metadata = {KEY: json.dumps(described)}
        write_atomically(path, lambda p: save_file(tensors, p, metadata))

    @classmethod
    def load(cls, path: Path | str) -> SyntheticSet:
        """Read a set.

        Raises:
            CheckpointError: missing, truncated, not safetensors, or not a set of ddkit's.
        """
        path = Path(path)
        if not os.path.isfile(path):  # noqa: PTH113 - raises nothing where it may not be read
            raise CheckpointError(f"{path}: no such file")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None
        return cls._from(path, metadata, tensors)

    @classmethod
    def _from(
        cls, path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]
    ) -> SyntheticSet:
        if KEY not in metadata or not {"images", "labels"} <= tensors.keys():
            raise CheckpointError(f"{path}: a safetensors file, but not a set made by ddkit")
        try:
            described = json.loads(metadata[KEY])
            if described["format"] > FORMAT:
                raise CheckpointError(
                    f"{path}: written in format {described['format']}, newer than this ddkit "
                    f"reads ({FORMAT}); upgrade ddkit"
                )
            whitening = None
            if "zca_matrix" in tensors:
                whitening = Whitening(tensors["zca_mean"], tensors["zca_matrix"])
            made = cls(
                images=nn.Parameter(tensors["images"]),
                labels=tensors["labels"].long(),
                info=DataInfo.from_dict(described["info"], whitening),
                formation=Formation(**described["formation"]),
                space=described["space"],
                soft=tensors.get("soft"),
                recipe=described["recipe"],
                provenance=described["provenance"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: the description in it is damaged: {error}") from None
        except RuntimeError:
            raise CheckpointError(f"{path}: the images in it are no numbers to learn") from None
        problem = made.problem()
        if problem:
            raise CheckpointError(f"{path}: {problem}")
        return made

    def problem(self) -> str | None:
        """Return what does not hold of this set, as a foreign file may bring it, or None."""
        info, formation = self.info, self.formation
        if self.labels.ndim != 1 or self.images.shape != (len(self.labels), *info.shape):
            return "images, labels and description do not agree"
        if len(self) == 0 or self.labels.min() < 0 or self.labels.max() >= info.num_classes:
            return f"labels must be 0 to {info.num_classes - 1}"
        if self.soft is not None and self.soft.shape != (len(self), info.num_classes):
            return f"soft labels must be {len(self)} x {info.num_classes}"
        if len(info.mean) != info.channels or len(info.std) != info.channels:
            return "mean and standard deviation are not one per channel"
        if self.space not in get_args(Space):
            return f"the space {self.space!r} is unknown"
        try:
            checked(Formation, asdict(formation), Place(Source("formation")))
        except RecipeError as error:
            return str(error)
        return None if formation.factor >= 1 else "the formation's factor must be at least 1"


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
    spec: SyntheticSpec, counts: list[int], info: DataInfo, place: Place | None = None
) -> None:
    """Refuse more real images than the smallest class has, and tiles too small for the images.

    Raises:
        RecipeError: naming the class, and `place`, the recipe's section.
    """
    place = place or Place(Source("recipe"), "synthetic")
    for f in spec.factors:
        if any((f - 1) * -(-side // f) >= side for side in info.shape[1:]):
            raise RecipeError(
                f"{place / 'factor'}: {f} x {f} tiles do not fit the {info.height}x{info.width} "
                f"images of {info.name}: the last would be padding alone"
            )
    need = spec.ipc * spec.factor**2
    fewest = min(counts)
    if spec.init != "noise" and need > fewest:
        tiles = f" x {spec.factor**2} tiles" if spec.factor > 1 else ""
        name = info.classes[counts.index(fewest)]
        raise RecipeError(
            f"{place / 'ipc'}: {spec.ipc}{tiles} needs {need} real images per class, but "
            f'{info.name}\'s class {name!r} has {fewest}; lower ipc or use init = "noise"'
        )
