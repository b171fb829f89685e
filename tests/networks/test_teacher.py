"""Teachers: networks trained on the real data, whose answers are labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddkit.data import Dataset
from ddkit.distillation.bench import CPU, stand_in
from ddkit.evaluation.compose import stored_spec
from ddkit.images.synthetic import SyntheticSet
from ddkit.networks.pool import ProxyPool
from ddkit.networks.teacher import Teacher, corrected
from ddkit.recipes.place import Place, Source
from ddkit.recipes.protocol import eval_spec, eval_table
from ddkit.recipes.resolution import full
from ddkit.recipes.sections import Part, TeacherSpec
from ddkit.reporter import Silent
from ddkit.runtime.device import Runtime
from ddkit_methods.ncfm import NCFM

PLACE = Place(Source("test"), "eval")


@pytest.fixture
def teacher(tiny: Dataset, tmp_path: Path) -> Callable[[int], Teacher]:
    def make(count: int = 1) -> Teacher:
        spec = TeacherSpec(Part("stand-in"), count=count, epochs=2, batch_size=8)
        runtime = Runtime(CPU, micro_batch=5)
        pool = ProxyPool(spec.pool(), partial(stand_in, tiny.info), tiny, runtime, 0)
        pool.folder = tmp_path / "pool"
        made = Teacher(pool, spec, runtime)
        made.prepare(Silent())
        return made

    return make


@pytest.fixture
def images(tiny: Dataset) -> Tensor:
    return tiny.info.normalize(tiny.test.fetch(torch.arange(18)).float() / 255)


def answers(teacher: Teacher, images: Tensor) -> Tensor:
    """The mean probabilities, computed plainly."""
    with torch.no_grad():
        each = [teacher._pool.member(i)(images).softmax(1) for i in range(teacher.spec.count)]
    return torch.stack(each).mean(0)


@pytest.mark.parametrize("count", [1, 3])
def test_labels_are_the_mean_probabilities_of_the_networks(
    count: int, teacher: Callable[..., Teacher], images: Tensor
):
    made = teacher(count)
    expected = answers(made, images)
    assert not torch.allclose(expected, expected[:1])
    torch.testing.assert_close(made.label(images, expected.argmax(1)), expected)


def test_where_the_teacher_fails_an_image_gets_its_class(
    teacher: Callable[..., Teacher], images: Tensor
):
    made = teacher()
    classes = (answers(made, images).argmax(1) + 1) % 3
    assert torch.equal(made.label(images, classes), one_hot(classes, 3).float())


def test_an_answer_that_is_not_the_class_is_replaced():
    rows, labels = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]), torch.tensor([0, 2])
    assert torch.equal(corrected(rows, labels)[0], rows[0])
    assert corrected(rows, labels)[1].tolist() == [0.0, 0.0, 1.0]
    released = corrected(rows, labels, logit=True)
    assert torch.equal(released[0], rows[0])
    torch.testing.assert_close(released[1], torch.tensor([0.0, 0.0, 1.0]).softmax(0))


def test_a_protocol_leaves_the_backbone_to_the_recipe():
    spec = eval_spec({"protocol": "ncfm-soft"}, PLACE, {"name": "convnet", "depth": 4})
    assert spec.teacher is not None
    assert spec.teacher.backbone == Part("convnet", {"depth": 4})
    assert (spec.teacher.epochs, spec.teacher.hard_epochs, spec.teacher.count) == (60, 100, 1)


def test_a_recipe_changes_single_settings_of_its_protocols_teacher():
    plain = eval_spec({"protocol": "ncfm-soft"}, PLACE)
    spec = eval_spec({"protocol": "ncfm-soft", "teacher": {"wrong": "logit"}}, PLACE)
    assert plain.teacher is not None
    assert spec.teacher == replace(plain.teacher, wrong="logit")
    assert eval_spec(eval_table(spec), PLACE) == spec


def test_a_protocol_without_a_teacher_may_be_given_one():
    spec = eval_spec({"protocol": "dm", "teacher": {"epochs": 3}}, PLACE, "lenet")
    assert spec.teacher == TeacherSpec(Part("lenet"), epochs=3)


def test_a_set_remembers_its_teacher(set_file: Path):
    syn = SyntheticSet.load(set_file)
    assert stored_spec(syn).teacher is None
    syn.recipe["eval"]["teacher"] = {"backbone": {"name": "lenet"}, "epochs": 2}
    stored = TeacherSpec(Part("lenet"), epochs=2)
    assert stored_spec(syn).teacher == stored
    assert stored_spec(syn, settings=["teacher.count=2"]).teacher == replace(stored, count=2)
    assert stored_spec(syn, settings=["protocol=dm"]).teacher is None


def test_the_pool_of_ncfm_serves_as_the_published_teacher(loaded: Any, tiny: Dataset):
    backbone = full(Part("convnet"), loaded.backbones)
    published = eval_spec({"protocol": "ncfm-soft"}, PLACE).teacher
    assert published is not None
    kinds = [replace(spec, backbone=backbone) for spec in (NCFM()._pool(), published.pool())]
    make = partial(stand_in, tiny.info)
    own, teachers = (ProxyPool(spec, make, tiny, Runtime(CPU), 0).folder for spec in kinds)
    assert own == teachers
