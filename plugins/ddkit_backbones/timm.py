"""Every classifier of timm, as ``timm/<model>``."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddkit import hookimpl
from ddkit.backbone import Backbone, embed
from ddkit.data import DataInfo
from ddkit.errors import DataError, DDKitError, IncompatibleError, PluginError, near
from ddkit.options import Count


def timm_model(
    info: DataInfo,
    model: str,
    pretrained: bool = False,
    patch_size: Count | None = None,
    resize: Count | None = None,
    normalization: Literal["dataset", "model"] | None = None,
) -> nn.Module:
    """Return timm's `model` for the images and classes of a dataset, with timm's initialisation.

    Channels and classes are those of `info`, and so is the image size where the model has one.
    Networks made for 224x224 shrink small images early: patches of 16 see four tokens in 32x32,
    so give a vision transformer a smaller `patch_size`, or bring the images to `resize` pixels a
    side by bilinear interpolation inside the network. `normalization` says with whose mean and
    deviation the network sees the images: the dataset's, or those that timm keeps with the model's
    weights. The preset is ``model`` for `pretrained` weights, which are lost on other ones, and
    ``dataset`` from scratch.

    Models are listed by ``timm.list_models()`` (https://github.com/huggingface/pytorch-image-models).
    Features are [N,C,H,W], [N,H,W,C] or tokens [N,T,C], as `ddkit.backbone.as_maps` understands.

    Raises:
        PluginError: timm has no such model.
        DataError: pretrained weights cannot be had.
        IncompatibleError: the model cannot carry the images or breaks the backbone contract.
    """
    _require_known(model)
    if pretrained:
        _require_within_reach(model)
    height, width = (resize, resize) if resize else (info.height, info.width)
    net = _create(model, info, pretrained, patch_size, (height, width))
    _require_whole_patches(model, net, height, width)
    own = (normalization or ("model" if pretrained else "dataset")) == "model"
    if resize or own or isinstance(cast(Any, net).get_classifier(), tuple | nn.Conv2d):
        net = Adapted(net, resize, info if own else None)
    _require_contract(model, net, info)
    return net


PATIENCE = 5.0  # seconds for a server to answer
_ADVICE = "set resize to the size it was made for, often 224, or choose another model"


class Adapted(nn.Module):
    """A timm model whose images are changed first, or whose head is not one linear module.

    With `info` they are normalised as the model's weights want it instead of as the dataset does.
    """

    def __init__(self, model: nn.Module, resize: int | None = None, info: DataInfo | None = None):
        super().__init__()
        self.model = model
        self.resize = resize
        self.info = info
        self.own = None if info is None else _own_normalization(model, info)
        self.output_fmt = getattr(model, "output_fmt", "NCHW")
        self.num_prefix_tokens = getattr(model, "num_prefix_tokens", 0)

    def forward_features(self, x: Tensor) -> Tensor:
        return cast(Backbone, self.model).forward_features(self._shown(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return cast(Backbone, self.model).forward_head(x, pre_logits=pre_logits)

    def get_classifier(self) -> nn.Module:
        heads = cast(Any, self.model).get_classifier()
        if isinstance(heads, tuple):
            return MeanOfHeads(heads)
        return PointwiseHead(heads) if isinstance(heads, nn.Conv2d) else heads

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self._shown(x))

    def _shown(self, x: Tensor) -> Tensor:
        if self.info is not None and self.own is not None:
            x = self.own.normalize(self.info.denormalize(x))
        if self.resize is None:
            return x
        size = (self.resize, self.resize)
        return functional.interpolate(x, size, mode="bilinear", align_corners=False)


def _own_normalization(model: nn.Module, info: DataInfo) -> DataInfo:
    """Return `info` with the mean and deviation that timm keeps with the weights of `model`.

    Where the images have another number of channels, timm has summed the weights over channels:
    all get the average.
    """
    config = cast(Any, model).pretrained_cfg
    values = [tuple(config[name]) for name in ("mean", "std")]
    if len(values[0]) != info.channels:
        values = [(sum(v) / len(v),) * info.channels for v in values]
    return replace(info, mean=values[0], std=values[1], whitening=None)


class MeanOfHeads(nn.Module):
    """The averaged logits of a classifier and its distillation twin, as timm's forward has them."""

    def __init__(self, heads: tuple[nn.Module | None, ...]):
        super().__init__()
        self.heads = nn.ModuleList(h for h in heads if h is not None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([head(x) for head in self.heads]).mean(0)


class PointwiseHead(nn.Module):
    """A classifier that timm writes as a 1x1 convolution, for embeddings [N,D]."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, :, None, None]).flatten(1)


def _require_known(model: str) -> None:
    import timm

    arch, _, tag = model.partition(".")
    if not timm.is_model(arch):
        hint = near(arch, timm.list_models()) or "; timm.list_models() has their names"
        raise PluginError(f"timm has no model {arch!r}{hint}")
    known = timm.list_pretrained(f"{arch}.*") if tag else []
    if tag and model not in known:
        raise PluginError(f"timm has no weights {model!r}; there are: {', '.join(known) or 'none'}")


def _require_within_reach(model: str) -> None:
    """Refuse at once weights that are neither here nor to be had: the hub's client tries a minute.

    Raises:
        DataError: the server does not answer.
    """
    import huggingface_hub as hub
    from timm.models import get_pretrained_cfg

    config: Any = get_pretrained_cfg(model)
    if not getattr(config, "hf_hub_id", None) or hub.constants.HF_HUB_OFFLINE:
        return  # the client itself looks no further
    repository, _, revision = config.hf_hub_id.partition("@")
    for name in ("model.safetensors", "pytorch_model.bin", config.hf_hub_filename):
        if name and isinstance(
            hub.try_to_load_from_cache(repository, name, revision=revision or None), str
        ):
            return
    server = hub.constants.ENDPOINT
    try:
        request = urllib.request.Request(server, method="HEAD")
        urllib.request.urlopen(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, ValueError) as error:
        reason = f"{server} does not answer: {getattr(error, 'reason', error)}"
        raise DataError(_no_weights(model, reason)) from None


def _no_weights(model: str, reason: str) -> str:
    return (
        f"timm/{model}: no pretrained weights: {reason}\ncheck the connection, fill the "
        f"Hugging Face cache beforehand, or set pretrained = false"
    )


def _create(
    model: str,
    info: DataInfo,
    pretrained: bool,
    patch_size: int | None,
    size: tuple[int, int],
) -> nn.Module:
    import timm

    options: dict[str, Any] = {"num_classes": info.num_classes, "in_chans": info.channels}
    options["img_size"] = size[0] if size[0] == size[1] else size
    if patch_size:
        options["patch_size"] = patch_size
    try:
        try:
            return timm.create_model(model, pretrained=pretrained, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            del options["img_size"]  # a network that takes any size
            return timm.create_model(model, pretrained=pretrained, **options)
    except Exception as error:  # whatever a constructor, a hub or a network may raise
        raise _refusal(error, model, pretrained, patch_size, size) from error


def _refusal(
    error: Exception, model: str, pretrained: bool, patch_size: int | None, size: tuple[int, int]
) -> DDKitError:
    reason = _first_line(error)
    if patch_size and isinstance(error, TypeError) and "patch_size" in reason:
        return IncompatibleError(f"timm/{model} does not take a patch_size; remove the option")
    if pretrained:
        return DataError(_no_weights(model, reason))
    patches = f" with patch_size = {patch_size}" if patch_size else ""
    return IncompatibleError(
        f"timm/{model} cannot be built for images of {size[0]}x{size[1]}{patches}: {reason}; "
        f"{_ADVICE}"
    )


def _require_whole_patches(model: str, net: nn.Module, height: int, width: int) -> None:
    """Refuse patches that do not divide the image: timm would ignore the pixels that are left."""
    from timm.layers import PatchEmbed

    patches = next((m for m in net.modules() if isinstance(m, PatchEmbed)), None)
    if patches is None or patches.dynamic_img_pad:
        return
    rows, columns = patches.patch_size
    if height % rows or width % columns:
        raise IncompatibleError(
            f"timm/{model} cuts patches of {rows}x{columns}, which do not divide {height}x{width} "
            f"images; choose a patch_size that does, or resize"
        )


def _require_contract(model: str, net: nn.Module, info: DataInfo) -> None:
    """Run one image, in evaluation mode, and compare the classifier of its embedding with `net`."""
    device = next(net.parameters()).device
    # Not random: making a network must not advance a generator more than its weights do.
    x = torch.linspace(-1, 1, prod(info.shape), device=device).sin().view(1, *info.shape)
    backbone = cast(Backbone, net)
    net.eval()
    try:
        with torch.no_grad():
            features, logits = backbone.forward_features(x), net(x)
            whole = isinstance(features, Tensor) and isinstance(logits, Tensor)
            same = whole and _close(backbone.get_classifier()(embed(net, x)), logits)
    except Exception as error:  # whatever a stranger's forward may raise
        raise IncompatibleError(
            f"timm/{model} cannot carry the {info.height}x{info.width} images of {info.name}: "
            f"{_first_line(error)}; {_ADVICE}"
        ) from error
    finally:
        net.train()
    if not same:
        what = "logits are not its classifier of one embedding" if whole else "features are several"
        raise IncompatibleError(
            f"timm/{model} cannot serve as a backbone: its {what}; choose another model"
        )


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


@hookimpl
def register_backbones() -> dict[str, Callable[..., nn.Module]]:
    return {"timm/": timm_model}
