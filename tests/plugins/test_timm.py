"""timm's models behind ddkit's contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from ddkit.backbone import embed, maps
from ddkit.data import DataInfo
from ddkit.errors import DataError, IncompatibleError, PluginError
from ddkit.plugins import Component, Registry
from ddkit_backbones.timm import register_backbones, timm_model

QUICK = (
    "resnet18",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",  # NHWC
    "dla34",  # a convolution for a classifier
    "levit_128s",  # two heads
    "convnext_atto",
)
SLOW = [
    "resnet26d",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "seresnext26d_32x4d",
    "densenet121",
    "vgg11_bn",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "regnety_002",
    "convnextv2_atto",
    "deit_tiny_patch16_224",
    "mixer_s32_224",
    "resmlp_12_224",
    "poolformer_s12",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "ghostnet_100",
    "rexnet_100",
    "repvgg_a0",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "pvt_v2_b0",
    "fastvit_t8",
    "efficientformerv2_s0",
]


def info(channels: int, height: int, width: int | None = None) -> DataInfo:
    names = tuple(map(str, range(7)))
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return DataInfo("shapes", channels, height, width or height, names, zeros, ones)


def check_contract(net: nn.Module, of: DataInfo) -> None:
    """Features, logits and gradients of `net` are what a method relies on."""
    x = torch.randn(2, *of.shape, requires_grad=True)
    loss = functional.cross_entropy(net.train()(x), torch.tensor([0, 1]))
    gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    net.eval()
    features, e, logits = maps(net, x), embed(net, x), net(x)
    assert features.ndim == 3 and len(features) == 2
    assert e.ndim == 2 and logits.shape == (2, 7)
    classifier = net.get_classifier()  # type: ignore[operator]
    torch.testing.assert_close(classifier(e), logits, rtol=1e-4, atol=1e-5)
    (of_features,) = torch.autograd.grad((features * torch.randn_like(features)).sum(), x)
    (of_embedding,) = torch.autograd.grad((e * torch.randn_like(e)).sum(), x)
    assert of_features.abs().sum() > 0 and of_embedding.abs().sum() > 0


@pytest.mark.parametrize("model", QUICK)
def test_a_model_of_timm_is_a_backbone_at_32(model: str) -> None:
    torch.manual_seed(0)
    check_contract(timm_model(info(3, 32), model), info(3, 32))


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("model", [*QUICK, *SLOW])
def test_every_listed_model_is_a_backbone(model: str, side: int) -> None:
    torch.manual_seed(0)
    check_contract(timm_model(info(3, side), model), info(3, side))


@pytest.mark.parametrize(
    ("model", "of", "options", "positions"),
    [
        ("vit_tiny_patch16_224", info(3, 32), {}, 4),
        ("vit_tiny_patch16_224", info(3, 32), {"patch_size": 4}, 64),
        ("vit_tiny_patch16_224", info(1, 28), {"patch_size": 7}, 16),
        ("vit_tiny_patch16_224", info(3, 32, 64), {}, 8),
        ("vit_tiny_patch16_224", info(3, 32), {"resize": 64}, 16),
        ("swin_tiny_patch4_window7_224", info(3, 64), {}, 4),
        ("resnet18", info(1, 16), {}, 1),
        ("resnet18", info(3, 32), {"resize": 96}, 9),
    ],
)
def test_a_model_takes_channels_and_sizes_of_the_dataset(
    model: str, of: DataInfo, options: dict[str, Any], positions: int
) -> None:
    net = timm_model(of, model, **options)
    assert maps(net, torch.randn(2, *of.shape)).shape[2] == positions
    check_contract(net, of)


def test_a_seed_makes_a_network_and_checking_it_draws_nothing() -> None:
    nets = []
    for of in (info(3, 32), info(3, 32)):
        torch.manual_seed(3)
        nets.append(timm_model(of, "resnet18"))
    assert all(map(torch.equal, nets[0].state_dict().values(), nets[1].state_dict().values()))
    after = torch.rand(1)
    torch.manual_seed(3)
    import timm

    timm.create_model("resnet18", num_classes=7)
    assert torch.equal(after, torch.rand(1))


def test_a_network_comes_in_training_mode_with_fresh_statistics() -> None:
    net = timm_model(info(3, 32), "resnet18")
    assert all(m.training for m in net.modules())
    assert all(m.num_batches_tracked == 0 for m in net.modules() if hasattr(m, "running_mean"))


def test_the_family_name_carries_the_model() -> None:
    (family, factory), *others = register_backbones().items()
    assert family == "timm/" and not others
    registry = Registry("backbones", {family: Component(factory, "ddkit:timm", "ddkit")}, [])
    component, options = registry.resolve("timm/resnet18")
    assert isinstance(component.factory(info(3, 32), **options), nn.Module)


@pytest.mark.parametrize(
    ("model", "of", "options", "words"),
    [
        ("inception_v3", info(3, 32), {}, "cannot carry the 32x32 .*Kernel size.*set resize"),
        ("vit_tiny_patch16_224", info(1, 28), {}, "patches of 16x16, which do not divide 28x28"),
        ("resmlp_12_224", info(1, 28), {}, "patches of 16x16, which do not divide 28x28"),
        ("resnet18", info(3, 32), {"patch_size": 4}, "does not take a patch_size"),
        ("xcit_nano_12_p16_224", info(1, 28), {}, "should divide image dimensions evenly"),
        ("deit_tiny_distilled_patch16_224", info(3, 32), {}, "not its classifier of one embedding"),
        ("coat_tiny", info(3, 32), {}, "its features are several"),
    ],
)
def test_a_model_that_cannot_serve_is_refused_with_the_reason_in_one_line(
    model: str, of: DataInfo, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(IncompatibleError, match=words) as caught:
        timm_model(of, model, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_is_answered_with_near_names() -> None:
    with pytest.raises(PluginError, match=r"no model 'resnet81' .*did you mean.*resnet18"):
        timm_model(info(3, 32), "resnet81")
    with pytest.raises(
        PluginError, match=r"no weights 'resnet18\.x'; there are: resnet18\.a1_in1k"
    ):
        timm_model(info(3, 32), "resnet18.x")


def test_pretrained_weights_out_of_reach_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    import timm

    def asked(*args: Any, **options: Any) -> nn.Module:
        raise AssertionError("the hub's client tries for a minute")

    monkeypatch.setattr(timm, "create_model", asked)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9 does not answer.*\n.*pretrained = false"):
        timm_model(info(3, 32), "resnet18", pretrained=True)


def test_pretrained_weights_without_a_network_are_a_data_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import timm

    def offline(*args: Any, **options: Any) -> nn.Module:
        raise FileNotFoundError("cannot find the files in the local cache.\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="no pretrained weights: cannot find the files"):
        timm_model(info(3, 32), "resnet18", pretrained=True)
