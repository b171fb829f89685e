"""Golden vectors: what the published code gave on fixed inputs.

Read from the folder in ``DDKIT_GOLDEN``, else from the copies beside this file. A missing file
fails the test. Everything is promoted to float64.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ddkit.data import DataInfo
from ddkit.images.groups import Groups

FOLDER = Path(__file__).parent / "vectors"


def read(name: str) -> tuple[dict[str, Tensor], dict[str, dict]]:
    """Return all tensors of a file, floats as float64, and its metadata by case."""
    path = Path(os.environ.get("DDKIT_GOLDEN") or FOLDER) / f"{name}.safetensors"
    assert path.is_file(), f"golden vectors are missing: {path}"
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    wide = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    facts = {k: json.loads(v) for k, v in metadata.items() if v.startswith("{")}
    return wide, facts


def case(name: str, number: int) -> SimpleNamespace:
    """Return one case: its tensors by name without prefix in ``t``, its facts in ``facts``."""
    tensors, facts = read(name)
    prefix = f"case{number}."
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    assert own, f"{name} has no {prefix}*"
    return SimpleNamespace(t=own, facts=facts.get(f"case{number}", {}))


def class_major(num_classes: int, per_class: int) -> Groups:
    """Return the groups of a class-major batch."""
    return Groups.of(torch.arange(num_classes).repeat_interleave(per_class))


def data_info(images: Tensor, num_classes: int) -> DataInfo:
    """Return a description that networks for `images` [N,C,H,W] can be built from."""
    channels, height, width = images.shape[-3:]
    names = tuple(f"class {i}" for i in range(num_classes))
    return DataInfo("golden", channels, height, width, names, (0.0,) * channels, (1.0,) * channels)


def load_by_order(net: nn.Module, tensors: dict[str, Tensor], prefix: str) -> nn.Module:
    """Give `net`, as float64, the weights under `prefix`, layer by layer in order of numbering."""
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    numbered = sorted({k.rpartition(".")[0] for k in own}, key=_position)
    kinds = (nn.Conv2d, nn.GroupNorm, nn.BatchNorm2d, nn.Linear, nn.InstanceNorm2d)
    layers = [m for m in net.modules() if isinstance(m, kinds) or _is_norm(m)]
    for layer, name in zip(layers, numbered, strict=False):
        values = {k.rpartition(".")[2]: v for k, v in own.items() if k.rpartition(".")[0] == name}
        layer.load_state_dict(values, strict=False)
    assert len(layers) >= len(numbered)
    return net.double()


def _is_norm(module: nn.Module) -> bool:
    parameters = dict(module.named_parameters(recurse=False))
    return not list(module.children()) and parameters.keys() == {"weight", "bias"}


def _position(name: str) -> tuple[int, int, str]:
    """Order trunk before classifier, ``features.10`` after ``features.9``, conv before norm."""
    digits = [int(part) for part in name.split(".") if part.isdigit()]
    return ("classifier" in name, digits[0] if digits else 0, "norm" in name, name)  # type: ignore


def gradient_of(loss: Tensor, x: Tensor) -> Tensor:
    """Return the derivative of `loss` by `x`."""
    return torch.autograd.grad(loss, x)[0]


def assert_close_to_largest(got: Tensor, want: Tensor, relative: float) -> None:
    """Compare with a tolerance relative to the largest absolute entry of `want`."""
    scale = want.abs().max().clamp_min(1e-12)
    difference = ((got - want).abs().max() / scale).item()
    assert difference <= relative, f"off by {difference:.2e} of the largest entry"
