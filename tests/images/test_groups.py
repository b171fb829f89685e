"""Statistics per class equal those of a loop over classes, whatever the order and sizes."""

from __future__ import annotations

import pytest
import torch

from ddkit.images.groups import Groups

LABELS = {
    "equal and sorted": [0, 0, 1, 1, 2, 2],
    "equal and shuffled": [2, 0, 1, 1, 2, 0],
    "ragged and sorted": [0, 1, 1, 1, 4, 4],
    "ragged and shuffled": [4, 1, 0, 1, 4, 1],
    "one class": [3, 3, 3],
    "one row each": [2, 1, 0],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("shape", [(), (5,), (3, 2)])
def test_statistics_equal_those_of_a_loop_over_classes(labels: list[int], shape: tuple[int, ...]):
    host = torch.tensor(labels)
    x = torch.rand(len(labels), *shape, dtype=torch.float64)
    groups = Groups.of(host)
    assert list(groups.classes) == sorted(set(labels))
    rows = [x[host == c] for c in groups.classes]
    assert list(groups.counts) == [len(r) for r in rows]
    assert len(groups) == len(rows)
    torch.testing.assert_close(groups.mean(x), torch.stack([r.mean(0) for r in rows]))
    padded = groups.pad(x)
    assert padded.shape[:2] == (len(rows), max(groups.counts))
    for group, r in enumerate(rows):
        torch.testing.assert_close(padded[group, : len(r)], r)
        assert not padded[group, len(r) :].any()
    spread = groups.spread(groups.mean(x))
    torch.testing.assert_close(spread, torch.stack([x[host == c].mean(0) for c in labels]))
    assert groups.sizes(x).tolist() == [len(r) for r in rows]
    assert groups.sizes(x).dtype == x.dtype


def test_gradients_flow_through_all_statistics():
    x = torch.rand(6, 3, dtype=torch.float64, requires_grad=True)
    groups = Groups.of(torch.tensor(LABELS["ragged and shuffled"]))
    assert torch.autograd.gradcheck(lambda v: groups.spread(groups.mean(v)) - v, x)
    assert torch.autograd.gradcheck(groups.pad, x)


def test_equal_is_whether_all_classes_are_of_one_size():
    assert Groups.of(torch.tensor([0, 1, 0, 1])).equal
    assert not Groups.of(torch.tensor([0, 1, 1])).equal
