"""What would make two runs differ behind the back: dropout, the order of options, of patterns."""

import pytest
import torch
from torch import nn

from ddkit.distillation.loop import run_recipe
from ddkit.errors import RecipeError
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.training import fit
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import plain
from ddkit.recipes.sections import EvalSpec, Part, TrainSpec
from ddkit.reporter import Silent
from ddkit.runtime.device import Runtime

CPU = torch.device("cpu")


def test_dropout_follows_the_seed_of_the_training_and_not_the_global_one():
    images, labels = torch.randn(8, 4), torch.arange(8) % 2

    def trained(global_seed):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 2))
        torch.manual_seed(global_seed)
        spec = TrainSpec(epochs=3, batch_size=4)
        fit(net, lambda rows: (images[rows], labels[rows]), 8, spec, 1, Runtime(CPU), Silent())
        return net[0].weight

    assert torch.equal(trained(1), trained(2))


def test_dropout_in_a_step_follows_the_seed_of_the_run(tiny_recipe, tiny, loaded, tmp_path):
    dm = loaded.methods["dm"].factory
    original, seen = dm.step, []

    def step(self, run, i):
        seen.append(nn.functional.dropout(torch.ones(8), 0.5))
        return original(self, run, i)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dm, "step", step)
        for seed in (1, 2):
            torch.manual_seed(seed)
            method = {"name": "dm", "iterations": 2, "batch_real": 4}
            recipe = tiny_recipe(method=method)
            run_recipe(recipe, loaded, Silent(), tmp_path / str(seed), dataset=tiny)
    assert torch.equal(torch.stack(seen[:2]), torch.stack(seen[2:]))
    assert not torch.equal(seen[0], seen[1])


def test_an_architecture_has_one_name_in_whatever_order_its_options_stand(loaded):
    parts = [
        Part("convnet", {"width": 8, "norm": "batch"}),
        Part("convnet", {"norm": "batch", "width": 8, "depth": 3}),
    ]
    assert len({str(plain(p, loaded.backbones)) for p in parts}) == 1


@pytest.mark.parametrize("patterns", [("timm/*", "timm/resnet*"), ("timm/resnet*", "timm/*")])
def test_the_longest_pattern_of_a_preset_goes_in_whatever_order(patterns):
    presets = {p: {"lr": 0.1 * len(p)} for p in patterns}
    spec = EvalSpec((Part("convnet"),), 1, "dm", TrainSpec(), presets)
    assert spec.preset(Part("timm/resnet18")) == presets["timm/resnet*"]


def test_a_set_says_the_same_protocol_after_its_file(tiny, tmp_path):
    recipe = Recipe.load("dm-digits-ipc1", ["eval.protocol=cross"])
    images = nn.Parameter(torch.zeros(3, *tiny.info.shape))
    syn = SyntheticSet(images, torch.arange(3), tiny.info, recipe=recipe.table())
    syn.save(tmp_path / "set.safetensors")
    assert Recipe.parse(SyntheticSet.load(tmp_path / "set.safetensors").recipe) == recipe


@pytest.mark.parametrize("name", ["random", "herding", "kmeans"])
def test_a_coreset_of_more_images_than_there_are_is_refused(
    name, tiny_recipe, tiny, loaded, tmp_path
):
    recipe = tiny_recipe(method={"name": name}, synthetic={"ipc": 13, "init": "noise"})
    with pytest.raises(RecipeError, match="has 12"):
        run_recipe(recipe, loaded, Silent(), tmp_path / "out", dataset=tiny)


def test_herding_picks_what_the_plain_form_picks(tiny):
    from ddkit.images.groups import Groups
    from ddkit_methods.coresets import herd

    real = RealImages(tiny, 0, CPU)
    order = tiny.train.labels.argsort(stable=True)
    features = real.fetch(order).flatten(1).double()
    groups = Groups.of(tiny.train.labels[order])
    picked = herd(features, groups, 5)
    for c, rows in enumerate(features.split(list(groups.counts))):
        taken = []
        for _ in range(5):
            total = rows[taken].sum(0)
            k = len(taken) + 1
            distance = ((total + rows) / k - rows.mean(0)).square().sum(1)
            distance[taken] = torch.inf
            taken.append(int(distance.argmin()))
        assert picked[c].tolist() == taken


def test_a_run_taken_up_again_counts_all_its_seconds_and_images(
    tiny_recipe, tiny, loaded, tmp_path
):
    from ddkit.errors import Interrupted

    class Stop(Silent):
        steps = 0

        def advance(self, metrics, images=0):
            self.steps += 1
            if self.steps == 2:
                raise Interrupted("now")

    recipe = tiny_recipe(method={"name": "dm", "iterations": 4, "batch_real": 4})
    with pytest.raises(Interrupted):
        run_recipe(recipe, loaded, Stop(), tmp_path / "out", dataset=tiny)
    outcome = run_recipe(recipe, loaded, Silent(), tmp_path / "out", dataset=tiny)
    whole = run_recipe(recipe, loaded, Silent(), tmp_path / "whole", dataset=tiny)
    statuses = [o.folder.status() for o in (outcome, whole)]
    assert statuses[0]["images"] >= statuses[1]["images"] > 0
    assert statuses[0]["seconds"] >= 0
