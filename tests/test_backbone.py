"""The backbone contract, from every layout of features that there is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ddkit.backbone import (
    as_maps,
    embed,
    freeze,
    has_batch_statistics,
    lacking,
    look,
    maps,
    wrap,
)
from ddkit.errors import IncompatibleError
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


class Plain(nn.Module):
    """As networks are that know nothing of ddkit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.fc = nn.Linear(5, 3)
        self.unused = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stem(x).mean((2, 3)))


def test_a_wrapped_module_is_a_backbone_of_one_pass():
    info = tiny_dataset().info
    plain = Plain()
    net, x = wrap(plain, "stem", "fc"), torch.randn(4, *info.shape, requires_grad=True)
    assert lacking(plain) == ["forward_features", "forward_head", "get_classifier"]
    assert not lacking(net)
    calls = []
    plain.stem.register_forward_hook(lambda *_: calls.append(1))
    local, vector = look(net, x)
    assert len(calls) == 1
    assert local.shape == (4, 5, 14 * 14) and vector.shape == (4, 5)
    torch.testing.assert_close(net.get_classifier()(vector), net(x))  # type: ignore[operator]
    torch.testing.assert_close(vector, local.mean(2))
    (slope,) = torch.autograd.grad(vector.sum(), x)
    assert bool(slope.any())
    twin = copy.deepcopy(net)
    twin.load_state_dict(net.state_dict())
    torch.testing.assert_close(embed(twin.eval(), x), embed(net.eval(), x))


def test_a_layer_that_is_not_there_or_not_called_is_named_with_near_names():
    with pytest.raises(IncompatibleError, match=r"Plain has no layer 'stm' \(did you mean 'stem'"):
        wrap(Plain(), "stm", "fc")
    with pytest.raises(IncompatibleError, match=r"no layer 'zzzz'; there are: stem, stem.0"):
        wrap(Plain(), "stem", "zzzz")
    idle = wrap(Plain(), "unused", "fc")
    with pytest.raises(IncompatibleError, match="'unused' is not called in Plain's forward pass"):
        embed(idle, torch.randn(2, 3, 16, 16))


def test_a_wrapped_module_takes_no_features_of_another_pass():
    net = wrap(Plain(), "stem", "fc")
    f = net.forward_features(torch.randn(2, 3, 16, 16))  # type: ignore[operator]
    assert net.forward_head(f).shape == (2, 3)  # type: ignore[operator]
    with pytest.raises(IncompatibleError, match="but those that its forward_features returned"):
        net.forward_head(f + 0)  # type: ignore[operator]
