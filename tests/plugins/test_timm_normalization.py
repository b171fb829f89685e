"""With whose mean and deviation a timm model sees the images."""

import pytest
import torch

from ddkit.backbone import embed
from ddkit.data import DataInfo
from ddkit_backbones.timm import Adapted, timm_model


def info(channels):
    names = ("a", "b", "c")
    return DataInfo("test", channels, 32, 32, names, (0.3,) * channels, (0.2,) * channels)


def built(channels, **options):
    torch.manual_seed(0)
    return timm_model(info(channels), "mobilenetv3_small_100", **options).eval()


def test_from_scratch_the_datasets_normalisation_is_the_preset():
    assert not isinstance(built(3), Adapted)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_models_own_normalisation_replaces_the_datasets(channels):
    plain, own = built(channels), built(channels, normalization="model")
    pixels = torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(plain.pretrained_cfg[k]) for k in ("mean", "std"))
    if channels != 3:
        mean, std = mean.mean().expand(channels), std.mean().expand(channels)
    wanted = (pixels - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        seen = own(info(channels).normalize(pixels))
        assert torch.allclose(seen, plain(wanted), atol=1e-5)
        features = embed(own, info(channels).normalize(pixels))
        assert torch.allclose(own.get_classifier()(features), seen, atol=1e-5)


def test_pretrained_weights_get_their_own_normalisation(monkeypatch):
    import timm

    real = timm.create_model
    monkeypatch.setattr("ddkit_backbones.timm._require_within_reach", lambda model: None)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **o: real(name, **o))
    assert isinstance(built(3, pretrained=True), Adapted)
    assert not isinstance(built(3, pretrained=True, normalization="dataset"), Adapted)
