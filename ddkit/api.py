"""From Python: what the commands do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from ddkit import plugins
from ddkit.data import DataInfo
from ddkit.distillation.loop import Outcome, run_recipe
from ddkit.errors import CheckpointError, Interrupted
from ddkit.evaluation.compose import judged, stored_runtime, stored_spec, test_data
from ddkit.evaluation.verdict import Scope, Verdict
from ddkit.images.synthetic import SyntheticSet
from ddkit.paths import expanded
from ddkit.python import notebook
from ddkit.python.composed import compose_objects
from ddkit.python.dataset import as_dataset
from ddkit.python.network import Given
from ddkit.recipes.recipe import TABLE, Overrides, Recipe, copied, leaves
from ddkit.recipes.sections import RuntimeSpec
from ddkit.reporter import Reporter, Silent
from ddkit.runs.folder import set_file
from ddkit.runtime.device import open_runtime, own_settings
from ddkit.runtime.progress import Guarded

Network = Callable[..., nn.Module]
"""What makes a new network: an `nn.Module` class or a function, of a `DataInfo` or of nothing."""


class TrainingImages(TorchDataset[tuple[Any, Any]]):
    """A set as torch's `DataLoader` wants it: images [C,H,W] and their labels.

    Mosaics are decoded. Labels are class numbers, or class probabilities [K] where the set is soft.

    Attributes:
        targets: the class number of every image, as torchvision's datasets have it.
        transform: what each image is put through when it is taken, as torchvision's.
    """

    def __init__(
        self,
        syn: SyntheticSet,
        pixels: bool = False,
        transform: Callable[[Tensor], Any] | None = None,
    ):
        self.synthetic = syn
        self.images, self.labels = syn.training()
        if pixels:
            self.images = syn.info.denormalize(self.images).clamp(0, 1)
        self.pixels, self.transform = pixels, transform
        self.targets: list[int] = syn.training_classes().tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.images[index], self.labels[index]
        image = image if self.transform is None else self.transform(image)
        return image, (label if label.ndim else int(label))

    def __repr__(self) -> str:
        info = self.info
        shape = "x".join(map(str, info.shape))
        kind = "pixels in [0, 1]" if self.pixels else f"less {info.mean}, over {info.std}"
        white = ", whitened" if info.whitening is not None and not self.pixels else ""
        return (
            f"{type(self).__name__} of {info.name}\n"
            f"    {len(self)} images {shape}, {kind}{white}\n"
            f"    {info.num_classes} classes, labels {'hard' if self.labels.ndim == 1 else 'soft'}"
        )

    @property
    def info(self) -> DataInfo:
        return self.synthetic.info

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in label order."""
        return list(self.info.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.info.classes)}


@own_settings()
def load(
    path: Path | str,
    *,
    pixels: bool = False,
    transform: Callable[[Tensor], Any] | None = None,
) -> TrainingImages:
    """Read a set, from its safetensors file or its run folder, as a torch dataset.

    Images are normalised; with `pixels`, they are in [0, 1]. `transform` is applied to each image
    taken.

    Raises:
        CheckpointError: it is missing, damaged or not a set of ddkit's.
    """
    return TrainingImages(_set(path), pixels, transform)


@own_settings()
def distill(
    recipe: Recipe | Path | str | Mapping[str, Any],
    overrides: Overrides = (),
    out: Path | str | None = None,
    reporter: Reporter | None = None,
    *,
    dataset: Any = None,
    backbone: Network | None = None,
    proxies: Network | None = None,
    progress: bool | None = None,
) -> Outcome:
    """Distill a recipe, given by shipped name, by path, as a table or as itself.

    Args:
        recipe: what to distill; of a table, the sections that objects stand for may be left out.
        overrides: ``["method.iterations=5"]``, or a table: ``{"method": {"iterations": 5}}``,
            ``{"method.iterations": 5}``.
        out: the run folder; the same call with the same `out` goes on.
        reporter: what is told of progress.
        dataset: data in place of the recipe's: a `Dataset`; or images with labels, alone, as
            ``(train, test)`` or as ``{"train": …, "test": …}``, where either is a pair of arrays
            or tensors, a torch dataset or one of Hugging Face's. All is read into memory.
            Without test images one in ten is held out.
        backbone: the network to look through, in place of the recipe's: an `nn.Module` class of
            one's own, or a function that returns one. Parameters `info` (a `DataInfo`) and
            `num_classes` are given, as is the only one without a default.
        proxies: the network of the pool, as `backbone`.
        progress: whether to show progress where there is no `reporter`: in a notebook yes, in a
            script no, unless this says so.

    Raises:
        DDKitError: see `distillation.loop.run_recipe`.
        KeyboardInterrupt: at Ctrl-C, SIGTERM or SIGHUP, with the state saved.
    """
    named = isinstance(recipe, str | Path)
    folder = None if out is None else expanded(out, CheckpointError)
    told = Guarded(_reporter(reporter, progress))
    found = compose_objects(
        *(recipe, overrides, plugins.load(), told.note, dataset, backbone, proxies)
    )
    name = Path(str(recipe)).stem if named else "run"
    try:
        return run_recipe(found.recipe, found.plugins, told, folder, name, found.dataset)
    except Interrupted as stop:
        raise KeyboardInterrupt(str(stop)) from None


@own_settings()
def evaluate(
    syn: SyntheticSet | Path | str,
    archs: str | Network | Sequence[str | Network] | None = None,
    seeds: int | None = None,
    *,
    protocol: Path | str | None = None,
    settings: Overrides = (),
    baseline: bool = True,
    dataset: Any = None,
    best_every: int | None = None,
    runtime: RuntimeSpec | None = None,
    reporter: Reporter | None = None,
    progress: bool | None = None,
) -> Verdict:
    """Judge a set, given as itself, by file or by run folder, as ``ddkit eval``.

    Args:
        syn: the set.
        archs: who judges: a name, an `nn.Module` class or a function that makes networks (as
            `distill` takes them), or several; default those stored in the set.
        seeds: networks of each.
        protocol: an evaluation protocol by name or path; default the one stored in the set.
        settings: what overrides it, as in ``["epochs=300"]`` or ``{"epochs": 300}``.
        baseline: whether random real images are judged beside it.
        dataset: data in place of what the set names, as `distill` takes it.
        best_every: test every so many epochs too, and tell the best of these tests.
        runtime: device and precision.
        reporter: what is told of progress.
        progress: as in `distill`.

    Raises:
        DDKitError: see `judge.evaluate`.
    """
    made = syn if isinstance(syn, SyntheticSet) else _set(syn)
    told, given = Guarded(_reporter(reporter, progress)), Given()
    several = [archs] if isinstance(archs, str) or callable(archs) else archs or ()
    names = [a if isinstance(a, str) else given.network(a, "archs") for a in several]
    spec = stored_spec(made, names, seeds, _texts(settings, protocol))
    loaded = plugins.load()
    data = test_data(made, loaded) if dataset is None else as_dataset(dataset, told.note)
    loaded = given.plugins(loaded, made.info) if given.networks else loaded
    opened = open_runtime(runtime or stored_runtime(made))
    return judged(made, data, spec, loaded, opened, told, Scope(baseline, best_every))


def _set(path: Path | str) -> SyntheticSet:
    return SyntheticSet.load(set_file(expanded(path, CheckpointError)))


def _reporter(reporter: Reporter | None, progress: bool | None) -> Reporter:
    return reporter or notebook.suited(progress) or Silent()


def _texts(settings: Overrides, protocol: Path | str | None) -> list[str]:
    """Return settings as ``key=value``, of which `stored_spec` reads the value as TOML."""
    if isinstance(settings, Mapping):
        table = leaves(copied(settings, TABLE), TABLE)
        settings = [f"{path}={json.dumps(value)}" for path, value in table]
    named = [] if protocol is None else [f"protocol={json.dumps(str(protocol))}"]
    return [*settings, *named]
