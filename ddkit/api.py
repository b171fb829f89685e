"""From Python: what the commands do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ddkit import plugins
from ddkit.data import DataInfo, Dataset
from ddkit.distillation.loop import Outcome, run_recipe
from ddkit.errors import CheckpointError, Interrupted
from ddkit.evaluation.compose import judged, stored_runtime, stored_spec, test_data
from ddkit.evaluation.verdict import Scope, Verdict
from ddkit.images.synthetic import SyntheticSet
from ddkit.paths import expanded
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import RuntimeSpec
from ddkit.reporter import Reporter, Silent
from ddkit.runtime.device import open_runtime, own_settings


class TrainingImages(TorchDataset[tuple[Tensor, Tensor]]):
    """A set as torch's `DataLoader` wants it: normalised images [C,H,W] and their labels.

    Mosaics are decoded. Labels are class numbers, or class probabilities where the set is soft.
    """

    def __init__(self, syn: SyntheticSet):
        self.synthetic = syn
        self.images, self.labels = syn.training()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    @property
    def info(self) -> DataInfo:
        return self.synthetic.info

    @property
    def classes(self) -> tuple[str, ...]:
        return self.synthetic.info.classes


@own_settings()
def load(path: Path | str) -> TrainingImages:
    """Read a set from its safetensors file as a torch dataset.

    Raises:
        CheckpointError: it is missing, damaged or not a set of ddkit's.
    """
    return TrainingImages(SyntheticSet.load(path))


def distill(
    recipe: Recipe | Path | str,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Distill a recipe, given as itself, by path or by shipped name; as ``ddkit distill``.

    Raises:
        DDKitError: see `distillation.loop.run_recipe`.
        KeyboardInterrupt: at Ctrl-C, SIGTERM or SIGHUP, with the state saved; the same call with
            the same `out` goes on.
    """
    name = "run" if isinstance(recipe, Recipe) else Path(recipe).stem
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe, overrides)
    elif overrides:
        recipe = Recipe.parse(recipe.table(), overrides, recipe.source)
    folder = None if out is None else expanded(out, CheckpointError)
    try:
        return run_recipe(recipe, plugins.load(), reporter or Silent(), folder, name)
    except Interrupted as stop:
        raise KeyboardInterrupt(str(stop)) from None


@own_settings()
def evaluate(
    syn: SyntheticSet | Path | str,
    archs: Sequence[str] | None = None,
    seeds: int | None = None,
    *,
    settings: Sequence[str] = (),
    baseline: bool = True,
    dataset: Dataset | None = None,
    best_every: int | None = None,
    runtime: RuntimeSpec | None = None,
    reporter: Reporter | None = None,
) -> Verdict:
    """Judge a set by the protocol stored in it, as ``ddkit eval``.

    `settings` override the stored protocol, as in ``["epochs=300", "protocol=dc"]``. `dataset`
    replaces the data that the set names. With `best_every`, judges are tested every so many epochs
    too, and the best of these tests is told.

    Raises:
        DDKitError: see `judge.evaluate`.
    """
    made = syn if isinstance(syn, SyntheticSet) else SyntheticSet.load(syn)
    loaded = plugins.load()
    spec = stored_spec(made, archs, seeds, settings)
    data = dataset or test_data(made, loaded)
    opened = open_runtime(runtime or stored_runtime(made))
    return judged(
        made, data, spec, loaded, opened, reporter or Silent(), Scope(baseline, best_every)
    )
