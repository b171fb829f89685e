"""Networks that nothing has trained yet: a backbone's maker, its probe, networks of given draws."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ddkit.backbone import embed, freeze, lacking
from ddkit.data import DataInfo
from ddkit.errors import ContractError, IncompatibleError, shown
from ddkit.plugins import Plugins
from ddkit.recipes.binding import bind
from ddkit.recipes.place import Place
from ddkit.recipes.resolution import resolve, split_backbone
from ddkit.recipes.sections import Part, ProxySpec
from ddkit.runtime import randomness

if TYPE_CHECKING:
    from ddkit.networks.pool import ProxyPool

Build = Callable[[], nn.Module]


def build(make: Build, device: torch.device, seed: int, stream: str, *counters: int) -> nn.Module:
    """Return a network whose initial weights are a function of seed, stream and counters."""
    with randomness.global_generator(seed, stream, *counters):
        net = make()
    return net.to(device)


def backbone_maker(part: Part, plugins: Plugins, place: Place, info: DataInfo) -> Build:
    """Return a function that builds a new network of `part` for `info`, with its own weights.

    Raises:
        IncompatibleError: the file of weights cannot be read; when a network is built, that its
            names and shapes are others.
    """
    part, own = split_backbone(part, place)
    component, options = resolve(plugins.backbones, part, place)
    make: Build = partial(bind, component.factory, options, place, info=info)
    if own.weights is None:
        return make
    return partial(_weighted, make, own.weights, _read(own.weights, place))


def _read(path: Path, place: Place) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        told = (why or str(error)).splitlines()[0]
        raise IncompatibleError(
            f"{place / 'weights'}: {path}: not a readable safetensors file: {shown(told)}"
        ) from None


def _weighted(make: Build, path: Path, state: dict[str, Tensor]) -> nn.Module:
    """Return a network that starts from the weights `state`."""
    net = make()
    wanted = net.state_dict()
    lacking = [name for name in wanted if name not in state]
    needless = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {list(state[name].shape)} there, {list(wanted[name].shape)} here"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = (
        ("it lacks", lacking),
        ("this network has no", needless),
        ("other shapes:", shapes),
    )
    told = "; ".join(f"{what} {_few(names)}" for what, names in problems if names)
    if told:
        raise IncompatibleError(f"weights: {path} does not fit this network: {told}")
    net.load_state_dict(state)
    return net


def _few(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return shown(", ".join(names[:most])) + more


def probe(make: Build, info: DataInfo, place: Place) -> nn.Module:
    """Build a network and pass two blank images through it, to see that the shapes fit.

    Raises:
        IncompatibleError: they do not, or its parts do not follow the backbone contract.
        ContractError: it is no network.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            net = make()
        except IncompatibleError as error:
            raise IncompatibleError(f"{place}: {error}") from error
        if not isinstance(net, nn.Module):
            kind = type(net).__name__
            raise ContractError("backbone", f"must return a torch.nn.Module, not {kind}")
        missing = lacking(net)
        if missing:
            raise IncompatibleError(
                f"{place}: {type(net).__name__} has no {', no '.join(missing)}; wrap it: "
                f"ddkit.backbone.wrap(net, features=LAYER, classifier=LAYER)"
            )
        net.eval()
        images = torch.zeros(2, *info.shape)
        try:
            logits, features = net(images), embed(net, images)
        except IncompatibleError as error:
            raise IncompatibleError(f"{place}: {error}") from error
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            shape = "x".join(map(str, info.shape))
            raise IncompatibleError(
                f"{place}: this network does not take {shape} images: {reason}"
            ) from error
    if logits.shape != (2, info.num_classes) or features.ndim != 2:
        raise IncompatibleError(
            f"{place}: gives {list(logits.shape)} logits and {list(features.shape)} features for "
            f"2 images of {info.num_classes} classes"
        )
    return net


class Networks:
    """Networks of the recipe's backbone: random ones, and pools trained on the real data."""

    def __init__(
        self,
        make: Build,
        seed: int,
        device: torch.device,
        pools: Callable[[ProxySpec], ProxyPool] | None = None,
    ):
        self._make = make
        self._seed = seed
        self._device = device
        self._pools = pools

    def fresh(self, *counters: int) -> nn.Module:
        """Return a new random network, frozen, in training mode."""
        return freeze(build(self._make, self._device, self._seed, "networks", *counters)).train()

    def pool(self, spec: ProxySpec) -> ProxyPool:
        """Return a pool trained as `spec` says, whose backbone is the recipe's, not `spec`'s."""
        if self._pools is None:
            raise RuntimeError("these networks know no data to train a pool on")
        return self._pools(spec)
