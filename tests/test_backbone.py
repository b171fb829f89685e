"""The backbone contract, from every layout of features that there is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddkit.backbone import as_maps, embed, freeze, has_batch_statistics, look, maps
from ddkit.testing import stand_in, tiny_dataset


class Layout(nn.Module):
    def __init__(self, **facts: object):
        super().__init__()
        for name, value in facts.items():
            setattr(self, name, value)


def channels_first() -> Tensor:
    return torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)


def test_maps_of_nchw():
    f = channels_first()
    assert torch.equal(as_maps(Layout(), f), f.flatten(2))
    assert torch.equal(as_maps(Layout(output_fmt="NCHW"), f), f.flatten(2))


def test_maps_of_nhwc_are_those_of_nchw():
    f = channels_first()
    for name in ("NHWC", "nhwc"):
        net = Layout(output_fmt=name)
        assert torch.equal(as_maps(net, f.permute(0, 2, 3, 1)), f.flatten(2))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_maps_of_tokens_leave_class_and_register_tokens_out(prefix: int):
    tokens = channels_first().flatten(2).transpose(1, 2)
    extra = torch.full((2, prefix, 3), -1.0)
    net = Layout(num_prefix_tokens=prefix)
    expected = channels_first().flatten(2)
    assert torch.equal(as_maps(net, torch.cat([extra, tokens], 1)), expected)


def test_maps_of_a_vector_have_one_position():
    assert as_maps(Layout(), torch.rand(2, 7)).shape == (2, 7, 1)


def test_look_is_maps_and_embed_in_one_pass():
    info = tiny_dataset().info
    net, x = stand_in(info), torch.randn(3, *info.shape)
    calls = []
    net.features.register_forward_hook(lambda *_: calls.append(1))
    local, vector = look(net, x)
    assert len(calls) == 1
    assert torch.equal(local, maps(net, x))
    assert torch.equal(vector, embed(net, x))
    torch.testing.assert_close(net.get_classifier()(vector), net(x))


def test_batch_statistics_are_those_of_batch_norm_alone():
    assert has_batch_statistics(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
    assert not has_batch_statistics(nn.Sequential(nn.InstanceNorm2d(1), nn.GroupNorm(1, 1)))


def test_a_frozen_network_passes_gradients_on_and_keeps_none():
    info = tiny_dataset().info
    net, x = freeze(stand_in(info)), torch.randn(2, *info.shape, requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in net.parameters())
