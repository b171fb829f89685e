"""Evaluation: the same seeds for everything that is compared, and no figure without its n."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ddkit
from ddkit.data import Dataset, MemoryImages
from ddkit.errors import (
    CheckpointError,
    DataError,
    DDKitError,
    DivergedError,
    IncompatibleError,
    RecipeError,
)
from ddkit.evaluation import compose
from ddkit.evaluation import judge as judging
from ddkit.evaluation.baselines import fitted
from ddkit.evaluation.compose import judge_maker, stored_spec
from ddkit.evaluation.judge import evaluate
from ddkit.evaluation.verdict import Result, Scope, Verdict
from ddkit.images.formation import Formation
from ddkit.images.synthetic import SyntheticSet
from ddkit.images.whitening import whitened
from ddkit.networks.pool import ProxyPool
from ddkit.networks.teacher import Teacher
from ddkit.recipes.sections import EvalSpec, Part, TeacherSpec, TrainSpec
from ddkit.reporter import Metrics, Silent
from ddkit.runtime.device import Runtime
from ddkit.testing import tiny_dataset

RUNTIME = Runtime(torch.device("cpu"))
NET = Part("convnet", {"width": 8, "depth": 2})
QUICK = EvalSpec((NET,), 2, "dm", TrainSpec(epochs=3, batch_size=8))


class Counting(Silent):
    epochs = total = 0

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self.total = total

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.epochs += 1


@pytest.fixture
def judge(loaded: Any, tiny: Dataset) -> Callable[..., Verdict]:
    """A function that judges a set on the tiny dataset."""

    def judge(syn: SyntheticSet, spec: EvalSpec = QUICK, **changes: Any) -> Verdict:
        make = partial(judge_maker, plugins=loaded, info=changes.pop("info", tiny.info))
        facts = {"data": tiny, "reporter": Silent(), "teacher": None, **changes}
        data, reporter, teacher = (facts.pop(k) for k in ("data", "reporter", "teacher"))
        scope = Scope(**facts)
        return evaluate(syn, spec.archs, data, spec, make, RUNTIME, reporter, teacher, scope)

    return judge


def real_set(data: Dataset, ipc: int = 2, **changes: Any) -> SyntheticSet:
    """The first images of each class."""
    rows = torch.cat([(data.train.labels == c).nonzero()[:ipc, 0] for c in range(3)])
    images = data.info.normalize(data.train.fetch(rows).float() / 255)
    labels = torch.arange(3).repeat_interleave(ipc)
    return SyntheticSet(nn.Parameter(images), labels, data.info, **changes)


def test_the_same_evaluation_twice_gives_the_same_figures(judge: Any, tiny: Dataset):
    syn = real_set(tiny)
    first = judge(syn)
    torch.rand(9)
    assert [r.accuracies for r in judge(syn).results] == [r.accuracies for r in first.results]


def test_a_set_is_judged_beside_random_images_of_the_same_number(judge: Any, tiny: Dataset):
    verdict = judge(real_set(tiny))
    assert [r.subject for r in verdict.results] == ["set", "random"]
    assert all(r.n == 2 and r.arch == str(NET) for r in verdict.results)
    assert [r.subject for r in judge(real_set(tiny), baseline=False).results] == ["set"]


def test_a_mosaic_is_judged_beside_full_images_and_beside_mosaics(judge: Any, tiny: Dataset):
    verdict = judge(real_set(tiny, formation=Formation(2)))
    assert [r.subject for r in verdict.results] == ["set", "random", "random 2x2"]


def test_networks_of_the_set_and_of_the_baseline_are_pairs(
    judge: Any, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[Tensor, int, Tensor]] = []

    def spy(
        net: nn.Module, fetch: Any, count: int, spec: Any, seed: int, *_: Any, after: Any
    ) -> None:
        weights = torch.cat([p.detach().flatten() for p in net.parameters()])
        seen.append((weights, seed, fetch(torch.arange(count))[0]))
        after(spec.epochs)

    monkeypatch.setattr(judging, "fit", spy)
    judge(real_set(tiny))
    ours, theirs = seen[:2], seen[2:]
    for (net, seed, _), (other_net, other_seed, _) in zip(ours, theirs, strict=True):
        assert torch.equal(net, other_net)
        assert seed == other_seed
    assert not torch.equal(ours[0][0], ours[1][0])
    assert ours[0][1] != ours[1][1]
    assert torch.equal(ours[0][2], ours[1][2])  # one set
    assert not torch.equal(theirs[0][2], theirs[1][2])  # a random draw for each network


def test_random_images_are_of_the_right_class_and_distinct(tiny: Dataset):
    from ddkit.images.real import RealImages

    real = RealImages(tiny, 0, torch.device("cpu"))
    ((_, draw),) = judging.baselines(real_set(tiny, ipc=4), real)
    images, labels = draw(0).training()
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    origin = torch.cdist(images.flatten(1), real.fetch(torch.arange(36)).flatten(1)).argmin(1)
    assert len(set(origin.tolist())) == 12
    assert torch.equal(tiny.train.labels[origin], labels)


def test_networks_learn_from_the_set(judge: Any, tiny: Dataset):
    spec = replace(QUICK, training=TrainSpec(epochs=20, batch_size=8, lr=0.05))
    result = judge(real_set(tiny, ipc=4), spec, baseline=False).results[0]
    assert result.mean > 0.7


def test_soft_labels_are_what_networks_train_on(judge: Any, tiny: Dataset):
    syn, spec = real_set(tiny, ipc=4), replace(QUICK, training=TrainSpec(epochs=20, lr=0.05))
    certain = nn.functional.one_hot(syn.labels, 3).float()
    hard = judge(syn, spec, baseline=False).results[0]
    soft = judge(replace(syn, soft=certain), spec, baseline=False).results[0]
    assert soft.accuracies == hard.accuracies
    wrong = judge(replace(syn, soft=certain.roll(1, 1)), spec, baseline=False).results[0]
    assert wrong.mean < 0.3


def test_the_best_test_is_told_on_request_and_changes_no_result(judge: Any, tiny: Dataset):
    net = Part("convnet", {**NET.options, "norm": "batch"})  # which a test must not disturb
    spec = replace(QUICK, archs=(net,), training=TrainSpec(epochs=12, batch_size=8, lr=0.3))
    plain, told = judge(real_set(tiny), spec), judge(real_set(tiny), spec, best_every=1)
    assert [r.accuracies for r in told.results] == [r.accuracies for r in plain.results]
    assert [r.best for r in plain.results] == [(), ()]
    pairs = [p for r in told.results for p in zip(r.best, r.accuracies, strict=True)]
    assert all(best >= last for best, last in pairs)
    assert any(best > last for best, last in pairs)
    rarely = judge(real_set(tiny), spec, best_every=12)  # after the last alone
    assert [r.best for r in rarely.results] == [r.accuracies for r in plain.results]


def test_single_networks_of_an_evaluation_are_those_of_the_whole(judge: Any, tiny: Dataset):
    whole = judge(real_set(tiny)).results
    second = judge(real_set(tiny), networks=range(1, 2)).results
    assert [r.accuracies for r in second] == [r.accuracies[1:] for r in whole]


class Says(Teacher):
    """A teacher that gives every image the class after its own, or its own."""

    def __init__(self, spec: TeacherSpec, shift: int):
        self.spec, self.shift = spec, shift
        self.labelled: list[int] = []

    accuracy = 0.5

    def prepare(self, reporter: Any) -> None: ...

    def label(self, images: Tensor, labels: Tensor) -> Tensor:
        self.labelled.append(len(images))
        return nn.functional.one_hot((labels + self.shift) % 3, 3).float()


def test_a_teacher_labels_the_set_and_the_random_images_beside_it(judge: Any, tiny: Dataset):
    spec = replace(QUICK, training=TrainSpec(epochs=20, batch_size=8, lr=0.05))
    hard = judge(real_set(tiny, ipc=4), spec)
    right, wrong = Says(TeacherSpec(), 0), Says(TeacherSpec(), 1)
    taught = judge(real_set(tiny, ipc=4), spec, teacher=right)
    assert [r.accuracies for r in taught.results] == [r.accuracies for r in hard.results]
    assert right.labelled == [12, 12, 12, 12]
    for ours, theirs in zip(
        judge(real_set(tiny, ipc=4), spec, teacher=wrong).results, hard.results, strict=True
    ):
        assert ours.mean < 0.4 < theirs.mean


@pytest.mark.parametrize(("schedule", "epochs"), [("constant", 5), ("dc", 6)])
def test_the_last_epochs_train_on_the_classes(
    schedule: Any, epochs: int, judge: Any, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    soft: list[bool] = []

    def spy(net: Any, fetch: Any, count: int, *_: Any, after: Any) -> None:
        for epoch in range(epochs):
            soft.append(fetch(torch.arange(count))[1].ndim == 2)
            after(epoch + 1)

    monkeypatch.setattr(judging, "fit", spy)
    spec = replace(QUICK, seeds=1, training=TrainSpec(epochs=5, schedule=schedule))
    teacher = Says(TeacherSpec(hard_epochs=2), 1)
    judge(real_set(tiny), spec, baseline=False, teacher=teacher)
    assert soft == [True] * (epochs - 2) + [False] * 2


def test_a_teacher_goes_before_the_soft_labels_of_a_set(judge: Any, tiny: Dataset):
    spec = replace(QUICK, training=TrainSpec(epochs=20, batch_size=8, lr=0.05))
    syn = real_set(tiny, ipc=4)
    wrong = replace(syn, soft=nn.functional.one_hot((syn.labels + 1) % 3, 3).float())
    taught = judge(wrong, spec, baseline=False, teacher=Says(TeacherSpec(), 0))
    assert taught.results[0].accuracies == judge(syn, spec, baseline=False).results[0].accuracies


def test_a_teacher_sees_images_as_the_sets_are(loaded: Any, tiny: Dataset):
    data = whitened(tiny)
    made = compose._teacher(fitted(real_set(data), tiny, print), TeacherSpec(NET), loaded, RUNTIME)
    assert made._pool.info.whitening is data.info.whitening
    plain = ProxyPool(made._pool.spec, made._pool._make, tiny, RUNTIME, 0)
    assert made._pool.folder != plain.folder


def test_a_teacher_of_the_recipe_is_trained_once_and_serves_from_the_cache(
    set_file: Path, own_home: Path
):
    settings = [
        *("protocol=ncfm-soft", "epochs=3"),
        *("teacher.epochs=1", "teacher.hard_epochs=1", 'teacher.backbone={name="mlp",width=8}'),
    ]

    class Notes(Silent):
        def __init__(self) -> None:
            self.said: list[str] = []

        def note(self, text: str) -> None:
            self.said.append(text)

    first, second = Notes(), Notes()
    verdicts = [
        ddkit.evaluate(set_file, ["mlp"], 1, settings=settings, reporter=r) for r in (first, second)
    ]
    assert sum("to train" in s for s in first.said) == 1
    assert [s.partition(":")[0] for s in second.said] == ["teacher"]
    assert verdicts[1].to_dict()["teacher_accuracy"] > 0
    assert verdicts[0].results[0].accuracies == verdicts[1].results[0].accuracies
    assert verdicts[0].protocol == (
        "ncfm-soft (labels of mlp(width=8)) "
        "with epochs = 3, teacher.epochs = 1, teacher.hard_epochs = 1"
    )
    described = verdicts[0].to_dict()["teacher"]
    assert (described["backbone"]["name"], described["wrong"]) == ("mlp", "label")


def test_a_teacher_without_epochs_of_its_own_is_refused():
    from ddkit.recipes.place import Place, Source
    from ddkit.recipes.protocol import eval_spec

    place = Place(Source("test"), "eval")
    with pytest.raises(RecipeError, match="hard_epochs: 100 leaves none of 50 epochs"):
        eval_spec({"protocol": "ncfm-soft", "epochs": 50}, place)
    presets = {"vit*": {"epochs": 50}}
    eval_spec({"protocol": "ncfm-soft", "presets": presets}, place)  # nobody's
    with pytest.raises(RecipeError, match="lower it or raise epochs"):
        eval_spec({"protocol": "ncfm-soft", "presets": presets, "archs": ["vit_x"]}, place)


@pytest.mark.parametrize(
    "other",
    [
        tiny_dataset(size=8),
        tiny_dataset(channels=1),
        tiny_dataset(num_classes=4),
    ],
    ids=["size", "channels", "classes"],
)
def test_data_that_the_set_was_not_made_for_is_refused(other: Dataset, judge: Any, tiny: Dataset):
    with pytest.raises(IncompatibleError, match="the set was made for tiny with"):
        judge(real_set(tiny), data=other)


@pytest.mark.parametrize("statistics", [{"mean": (0.1, 0.2, 0.3)}, {"std": (0.9, 0.1, 2.0)}])
def test_other_images_are_normalised_by_the_statistics_of_the_set(
    statistics: Any, loaded: Any, tiny: Dataset
):
    class Noting(Silent):
        def note(self, text: str) -> None:
            if "normalised" in text:
                notes.append(text)

    def judged(data: Dataset) -> Verdict:
        spec = replace(QUICK, teacher=TeacherSpec(NET, epochs=1, batch_size=8))
        return compose.judged(real_set(tiny), data, spec, loaded, RUNTIME, Noting())

    notes: list[str] = []
    own = judged(tiny)
    assert not notes
    other = judged(
        Dataset(replace(tiny.info, name="elsewhere", **statistics), tiny.train, tiny.test)
    )
    assert [r.accuracies for r in other.results] == [r.accuracies for r in own.results]
    assert other.teacher_accuracy == own.teacher_accuracy
    (said,) = notes
    assert next(iter(statistics)) in said and "normalised by the set's" in said


def test_a_set_that_remembers_a_relative_path_says_how_to_name_the_folder(
    loaded: Any, tiny: Dataset
):
    syn = real_set(tiny)
    syn.recipe = {"dataset": {"name": "folder", "path": "nowhere"}}
    with pytest.raises(DataError, match=r"nowhere: there is no such folder.*\n.*--data DIR"):
        compose.test_data(syn, loaded)
    with pytest.raises(DataError) as said:
        compose.test_data(syn, loaded, "nor/here")
    assert "--data" not in str(said.value)


@pytest.mark.parametrize(
    "archs",
    [
        (NET, Part("convnett")),
        (NET, Part("convnet", {"widht": 3})),
        (NET, Part("convnet", {"depth": 9})),
    ],
    ids=["name", "option", "shape"],
)
def test_an_architecture_that_cannot_be_is_refused_before_any_is_trained(
    archs: tuple[Part, ...], judge: Any, tiny: Dataset
):
    counting = Counting()
    with pytest.raises(DDKitError):
        judge(real_set(tiny), replace(QUICK, archs=archs), reporter=counting)
    assert counting.epochs == 0


def test_a_baseline_that_cannot_be_is_refused_before_anything_is_trained(judge: Any, tiny: Dataset):
    labels = torch.arange(3).repeat_interleave(13)
    syn = SyntheticSet(nn.Parameter(torch.randn(39, 3, 16, 16)), labels, tiny.info)
    counting = Counting()
    with pytest.raises(IncompatibleError, match="no-baseline"):
        judge(syn, reporter=counting)
    assert counting.epochs == 0
    assert judge(syn, baseline=False).results


def test_the_reporter_is_told_as_many_epochs_as_are_trained(judge: Any, tiny: Dataset):
    for schedule in ("constant", "dc"):
        counting = Counting()
        training = TrainSpec(epochs=3, schedule=schedule)  # type: ignore[arg-type]
        judge(real_set(tiny), replace(QUICK, training=training), reporter=counting)
        assert counting.epochs == counting.total == (3 + (schedule == "dc")) * 2 * 2


def test_a_set_of_unequal_classes_is_judged(judge: Any, tiny: Dataset):
    rows = torch.tensor([0, 3, 6, 1, 2])
    images = tiny.info.normalize(tiny.train.fetch(rows).float() / 255)
    syn = SyntheticSet(nn.Parameter(images), tiny.train.labels[rows], tiny.info)
    assert len(judge(syn).results) == 2


def unequal(data: Dataset, **changes: Any) -> SyntheticSet:
    """Five real images: three, two and none of the classes."""
    rows = torch.tensor([0, 3, 6, 1, 4])
    images = data.info.normalize(data.train.fetch(rows).float() / 255)
    return SyntheticSet(nn.Parameter(images), data.train.labels[rows], data.info, **changes)


@pytest.mark.parametrize("factor", [1, 2])
def test_random_images_are_as_many_of_each_class_as_the_set_has(factor: int, tiny: Dataset):
    from ddkit.images.real import RealImages

    real = RealImages(tiny, 0, torch.device("cpu"))
    syn = unequal(tiny, formation=Formation(factor, init_resize="nearest"))
    drawn = list(judging.baselines(syn, real))
    assert len(drawn) == factor
    known = real.fetch(torch.arange(36))
    for _, draw in drawn:
        made = draw(0)
        assert made.labels.tolist() == [0, 0, 0, 1, 1]
        pieces = made.formation.pieces
        side = 16 // made.formation.factor
        tiles = made.images.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)
        small = nn.functional.interpolate(known, (side, side), mode="nearest").flatten(1)
        origin = torch.cdist(tiles.transpose(1, 2).flatten(0, 1).flatten(1), small).argmin(1)
        assert len(set(origin.tolist())) == 5 * pieces  # no image twice
        assert torch.equal(tiny.train.labels[origin], made.labels.repeat_interleave(pieces))


def test_a_class_may_have_fewer_real_images_than_another_class_of_the_set_needs(tiny: Dataset):
    from ddkit.evaluation.baselines import no_baseline

    assert no_baseline(unequal(tiny), [3, 2, 1]) is None
    assert "needs 3 images of class 'class 0', but tiny has 2" in str(
        no_baseline(unequal(tiny), [2, 9, 9])
    )


# Networks that diverge


def lose(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Let the judges of these numbers start from weights that are no numbers."""
    build = judging.build

    def spoiled(make: Any, device: Any, seed: int, stream: str, *counters: int) -> nn.Module:
        net = build(make, device, seed, stream, *counters)
        if counters and counters[0] in numbers:
            next(net.parameters()).data[0] = float("nan")
        return net

    monkeypatch.setattr(judging, "build", spoiled)


def test_a_judge_that_diverged_gives_no_figure(
    judge: Any, tiny: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from ddkit.cli.table import print_verdict

    class Notes(Silent):
        said: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.said.append(text)

    spec = replace(QUICK, seeds=3)
    whole = judge(real_set(tiny), spec, best_every=1).results
    lose(monkeypatch, 1)
    verdict = judge(real_set(tiny), spec, best_every=1, reporter=Notes())
    for result, before in zip(verdict.results, whole, strict=True):
        others = before.accuracies[0], before.accuracies[2]
        assert (result.accuracies, result.n, result.mean) == (others, 2, mean(others))
        assert result.best == (before.best[0], before.best[2])
        (failure,) = result.failures
        assert failure.startswith("network 1 diverged at lr 0.01: ")
        assert result.to_dict()["failures"] == (failure,)
    assert len(verdict.failures) == len(Notes.said) == 2
    assert "convnet(width=8, depth=2) on set, network 1 diverged at lr 0.01" in Notes.said[0]
    print_verdict(verdict)
    printed = capsys.readouterr().out
    assert printed.count("2 of 3") == 2
    assert "no figure: convnet(width=8, depth=2) on set, network 1 diverged" in printed


def test_an_architecture_of_which_all_diverged_has_no_mean_and_the_others_theirs(
    judge: Any, tiny: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from ddkit.cli.table import print_verdict

    presets = {"mlp": {"lr": 1e30}}
    spec = replace(QUICK, archs=(Part("mlp"), NET), presets=presets)
    lost, kept = judge(real_set(tiny), spec, baseline=False).results
    assert (lost.n, lost.mean, lost.std, lost.accuracies) == (0, None, None, ())
    assert all("diverged at lr 1e+30" in f for f in lost.failures)
    assert kept.n == 2
    print_verdict(Verdict(spec, [lost, kept]))
    assert "none" in capsys.readouterr().out


def test_an_evaluation_of_which_every_network_diverged_fails_in_words(
    judge: Any, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    lose(monkeypatch, 0, 1)
    with pytest.raises(DivergedError, match=r"no network gives a figure: .*lower the prot"):
        judge(real_set(tiny))


# Batch norm


def test_judges_with_batch_norm_take_a_last_batch_of_one_with_the_one_before(
    judge: Any, tiny: Dataset
):
    net = Part("resnet18", {"width": 8, "norm": "batch"})
    spec = replace(QUICK, archs=(net,), seeds=1, training=TrainSpec(epochs=1, batch_size=8))
    rows = torch.arange(9)
    images = tiny.info.normalize(tiny.train.fetch(rows).float() / 255)[..., :8, :8]
    info = replace(tiny.info, height=8, width=8)
    train, test = (
        MemoryImages(split.images[..., :8, :8], split.labels) for split in (tiny.train, tiny.test)
    )
    data = Dataset(info, train, test)
    syn = SyntheticSet(nn.Parameter(images), tiny.train.labels[rows], info)
    assert judge(syn, spec, data=data, info=info).results[0].n == 1
    counting, single = Counting(), replace(spec, training=TrainSpec(epochs=1, batch_size=1))
    with pytest.raises(IncompatibleError, match=r"resnet18\(.*batch_size is 1; raise it"):
        judge(syn, single, data=data, info=info, reporter=counting)
    assert counting.epochs == 0


def test_the_spread_is_the_sample_standard_deviation():
    values = (0.5, 0.6, 0.9)
    result = Result("convnet", "set", values, 1.0)
    assert (result.n, result.mean) == (3, mean(values))
    assert result.std == stdev(values)
    assert Result("convnet", "set", (0.5,), 1.0).std is None


def test_the_verdict_names_what_departs_from_its_protocol():
    from ddkit.recipes.place import Place, Source
    from ddkit.recipes.protocol import eval_spec

    place = Place(Source("test"))
    assert Verdict(eval_spec({"protocol": "dm"}, place)).protocol == "dm"
    departing = Verdict(eval_spec({"protocol": "dm", "epochs": 3, "lr": 0.5}, place)).protocol
    assert departing == "dm with epochs = 3, lr = 0.5"


# From Python


def test_a_set_loads_as_a_torch_dataset(set_file: Path):
    data = ddkit.load(set_file)
    assert len(data) == 20
    image, label = data[19]
    assert image.shape == (1, 8, 8)
    assert int(label) == 9
    assert data.classes == list(map(str, range(10)))
    assert data.info.name == "digits"
    batch, labels = next(iter(torch.utils.data.DataLoader(data, batch_size=5)))
    assert batch.shape == (5, 1, 8, 8)
    assert not batch.requires_grad
    assert labels.tolist() == [0, 0, 1, 1, 2]
    with pytest.raises(CheckpointError):
        ddkit.load(set_file.parent / "absent")


def test_python_does_what_the_commands_do(
    tiny_recipe: Callable[..., Any],
    recipe_file: Callable[..., Path],
    tmp_path: Path,
    set_file: Path,
):
    outcome = ddkit.distill(tiny_recipe(), out=tmp_path / "a")
    assert outcome.folder.set.read_bytes() == set_file.read_bytes()
    other = ddkit.distill(recipe_file(), ["seed=1"], tmp_path / "b")
    assert other.synthetic.provenance["seed"] == 1
    assert ddkit.distill(tiny_recipe(), ["seed=1"], tmp_path / "b").already
    verdict = ddkit.evaluate(set_file, ["mlp"], 1, settings=["epochs=1"])
    assert [(r.arch, r.subject, r.n) for r in verdict.results] == [
        ("mlp", "set", 1),
        ("mlp", "random", 1),
    ]


def test_the_stored_protocol_goes_and_the_caller_overrides_it(set_file: Path):
    syn = SyntheticSet.load(set_file)
    stored = stored_spec(syn)
    assert (stored.protocol, stored.seeds, stored.training.epochs) == ("dm-digits", 2, 2)
    assert [a.name for a in stored.archs] == ["convnet"]
    assert NET.options.items() <= stored.archs[0].options.items()
    changed = stored_spec(syn, ["lenet"], 7, ["epochs=9", "lr = 0.5", "augmentation=none"])
    assert changed.archs == (Part("lenet"),)
    assert (changed.seeds, changed.training.epochs, changed.training.lr) == (7, 9, 0.5)
    assert changed.training.augmentation == "none"
    named = stored_spec(syn, settings=["protocol=dc"])
    assert (named.protocol, named.training.epochs) == ("dc", 300)  # not the stored two
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        stored_spec(syn, settings=["epoch=3"])
    with pytest.raises(RecipeError, match="must look like"):
        stored_spec(syn, settings=["epochs"])


def test_a_foreign_set_asks_for_its_data(tiny: Dataset, loaded: Any):
    with pytest.raises(RecipeError, match="does not say which dataset"):
        compose.test_data(real_set(tiny), loaded)
    verdict = ddkit.evaluate(
        real_set(tiny), ["mlp"], 1, settings=["epochs=1"], dataset=tiny, baseline=False
    )
    assert verdict.results[0].n == 1
