"""Data as a set is judged on it: found by class names, normalised by the set's own statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ddkit.data import Dataset
from ddkit.errors import IncompatibleError
from ddkit.evaluation.baselines import fitted
from ddkit.evaluation.compose import judged, stored_spec
from ddkit.evaluation.verdict import Verdict
from ddkit.images.real import of_classes
from ddkit.images.synthetic import SyntheticSet
from ddkit.reporter import Reporter, Silent
from ddkit.runtime.device import Runtime

RUNTIME = Runtime(torch.device("cpu"))


def whole(data: Dataset) -> SyntheticSet:
    """Return every training image of `data` as a set."""
    images = data.info.normalize(data.train.fetch(torch.arange(len(data.train.labels))) / 255)
    order = data.train.labels.argsort(stable=True)
    return SyntheticSet(nn.Parameter(images[order]), data.train.labels[order], data.info)


def accuracies(syn: SyntheticSet, data: Dataset, loaded: Any, reporter: Reporter) -> list[Any]:
    spec = stored_spec(syn, ["mlp"], 2, ["epochs=3", "augmentation=none"])
    verdict = judged(syn, data, spec, loaded, RUNTIME, reporter)
    return [(r.subject, r.accuracies) for r in verdict.results]


class Noted(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_data_of_other_statistics_is_normalised_by_those_of_the_set_and_that_is_said(
    tiny: Dataset, loaded: Any
):
    syn, noted = whole(tiny), Noted()
    other = replace(tiny, info=replace(tiny.info, mean=(0.1, 0.2, 0.3)))
    assert accuracies(syn, other, loaded, noted) == accuracies(syn, tiny, loaded, Silent())
    assert "normalised by the set's mean" in noted.notes[0]
    assert "(0.1, 0.2, 0.3)" in noted.notes[0]
    assert not any("std" in note for note in noted.notes)


def test_a_verdict_says_on_what_images_it_was_found_where_they_are_not_the_datasets_own(
    tiny: Dataset,
):
    syn = whole(tiny)
    other = replace(tiny, info=replace(tiny.info, name="e"))
    assert fitted(syn, tiny, print).tested == ""
    assert fitted(syn, other, print).tested == "the test images of e"
    held = replace(tiny, tested="10 % of the training images, held out")
    verdict = Verdict(stored_spec(syn), tested=fitted(syn, held, print).tested)
    assert verdict.protocol == "dm; tested on 10 % of the training images, held out"
    assert verdict.to_dict()["tested"] == "10 % of the training images, held out"


def test_data_whose_classes_come_in_another_order_is_mapped_by_name_and_that_is_said(
    tiny: Dataset, loaded: Any
):
    syn, noted = whole(tiny), Noted()
    turned = of_classes(tiny, [2, 0, 1])
    assert turned.info.classes == ("class 2", "class 0", "class 1")
    back = fitted(syn, turned, noted.note)
    assert back.test.labels.tolist() == tiny.test.labels.tolist()
    assert back.info.classes == syn.info.classes
    assert "number 0 is 'class 2' there, 'class 0' in the set" in noted.notes[0]
    assert accuracies(syn, turned, loaded, Silent()) == accuracies(syn, tiny, loaded, Silent())


def test_of_data_with_more_classes_those_of_the_set_are_taken(tiny: Dataset):
    syn, noted = whole(of_classes(tiny, [2, 0])), Noted()
    data = fitted(syn, tiny, noted.note)
    assert data.info.classes == ("class 2", "class 0")
    assert len(data.test.labels) == 2 * len(tiny.test.labels) // 3
    assert "the set's 2 of its 3 classes are taken" in noted.notes[0]


def test_data_that_lacks_a_class_of_the_set_is_refused_by_name(tiny: Dataset):
    info = replace(tiny.info, classes=("class 0", "clas 1", "class 2"))
    with pytest.raises(IncompatibleError) as refused:
        fitted(whole(tiny), replace(tiny, info=info), print)
    assert "lacks, the first 'class 1' (did you mean 'clas 1'" in str(refused.value)
    assert "\n" not in str(refused.value)
