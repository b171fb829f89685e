"""CMI equals the plain form, class by class, whatever the sizes; degenerate cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ddkit.images.groups import Groups
from ddkit.testing import check_regularizer
from ddkit_regularizers.cmi import CMI, conditional_information, log_centroids

LABELS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 2, 5])  # ragged, unordered, one class of one image


def features(rows: int = 9) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return (3 * torch.randn(rows, 6, generator=rng, dtype=torch.float64)).requires_grad_()


def plain(z: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """The definition, with the centroid in the graph."""
    total = z.new_zeros(())
    for c in labels.unique():
        p = (z[labels == c] / temperature).softmax(1)
        q = p.mean(0)
        total = total + (p * (p / q).log()).sum(1).mean()
    return total


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("labels", [LABELS, torch.arange(9) // 3])
def test_equals_the_definition(labels, temperature):
    """Value and gradient: that the centroid is out of the graph changes nothing."""
    z = features()
    want = plain(z, labels, temperature)
    got = conditional_information(z, Groups.of(labels), temperature=temperature)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(loss, z)[0] for loss in (got, want)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)


def test_centroids_are_means_of_probabilities():
    z = features()
    got = log_centroids(z, Groups.of(LABELS)).exp()
    want = torch.stack([z[c == LABELS].softmax(1).mean(0) for c in LABELS.unique()])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_bounds():
    """Zero for a single image and for equal ones; never more than ln n."""
    z = features()
    alone = conditional_information(z, Groups.of(torch.arange(9)))
    assert abs(alone.item()) < 1e-12
    equal = conditional_information(z[:1].expand(4, -1), Groups.of(torch.zeros(4).long()))
    assert abs(equal.item()) < 1e-12
    apart = conditional_information(1e3 * torch.eye(4), Groups.of(torch.zeros(4).long()))
    assert apart.item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_term_is_float32_whatever_the_features(dtype, monkeypatch):
    from ddkit.regularizer import Match

    z = features().detach().to(dtype)
    monkeypatch.setattr("ddkit_regularizers.cmi.embed", lambda net, x: x)
    proxy = torch.nn.Identity()
    loss = CMI().loss(Match(syn=z, groups=Groups.of(LABELS), proxy=proxy))
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_keeps_the_rules_of_regularizers():
    check_regularizer(CMI)
    check_regularizer(CMI, temperature=0.5)
