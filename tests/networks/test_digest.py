"""By its digest a trained network is found again, and only for what would be trained the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddkit.data import Dataset
from ddkit.networks.digest import build_digest, state_digest
from ddkit.testing import stand_in

Change = Callable[[nn.Module], object]


class Dropping(nn.Module):
    """The classifier behind dropout."""

    def __init__(self, classifier: nn.Module, rate: float):
        super().__init__()
        self.weight = classifier.weight
        self.bias = classifier.bias
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        dropped = nn.functional.dropout(x, self.rate, self.training)
        return nn.functional.linear(dropped, self.weight, self.bias)


def drop(rate: float) -> Change:
    return lambda net: setattr(net, "classifier", Dropping(net.classifier, rate))


def norm(momentum: float) -> Change:
    return lambda net: net.features.insert(1, nn.BatchNorm2d(8, momentum=momentum))


def negate(net: nn.Module) -> None:
    net.features.register_forward_hook(lambda module, args, output: -output)


def stop(net: nn.Module) -> None:
    """Let no gradient reach the first layer, whatever the outputs."""
    net.features[0].register_forward_hook(lambda module, args, output: output.detach())


CHANGES: dict[str, tuple[Change, Change]] = {
    "a layer": (lambda net: None, lambda net: net.features.append(nn.Conv2d(8, 8, 1))),
    "a function": (lambda net: None, negate),
    "a weight": (lambda net: None, lambda net: net.classifier.bias.data.add_(0.001)),
    "a frozen layer": (
        lambda net: None,
        lambda net: net.features[0].requires_grad_(False),
    ),
    "a stopped gradient": (lambda net: None, stop),
    "dropout": (drop(0.1), drop(0.5)),
    "a norm's momentum": (norm(0.1), norm(0.2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_in_a_backbones_code_changes_the_digest(change: str, tiny: Dataset):
    def made(how: Change) -> nn.Module:
        net = stand_in(tiny.info)
        how(net)
        return net

    before, after = CHANGES[change]
    first = build_digest(lambda: made(before), tiny.info)
    assert build_digest(lambda: made(before), tiny.info) == first
    assert build_digest(lambda: made(after), tiny.info) != first


def test_another_content_of_a_file_of_weights_is_another_digest(tiny: Dataset, tmp_path: Path):
    file = tmp_path / "weights.safetensors"
    save_file(stand_in(tiny.info).state_dict(), file)

    def made() -> nn.Module:
        net = stand_in(tiny.info)
        net.load_state_dict(load_file(file))
        return net

    first = build_digest(made, tiny.info)
    assert build_digest(made, tiny.info) == first
    state = {name: value.clone() for name, value in load_file(file).items()}
    state["classifier.weight"][0, 0] += 1e-4
    save_file(state, file)
    assert build_digest(made, tiny.info) != first


def test_the_digest_draws_from_nobodys_generator(tiny: Dataset):
    before = torch.get_rng_state()
    build_digest(lambda: stand_in(tiny.info), tiny.info)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_process_with_more_threads_finds_what_this_one_kept(tiny: Dataset):
    code = (
        "from ddkit.networks.digest import build_digest\n"
        "from ddkit.testing import stand_in, tiny_dataset\n"
        "info = tiny_dataset().info\n"
        "print(build_digest(lambda: stand_in(info), info))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == build_digest(lambda: stand_in(tiny.info), tiny.info)


def test_a_digest_of_weights_knows_names_types_shapes_and_values():
    state = {"a": torch.zeros(4), "b": torch.ones(2, 2)}
    assert state_digest(dict(reversed(state.items()))) == state_digest(state)
    for other in (
        {"c": state["a"], "b": state["b"]},
        {**state, "a": torch.zeros(4, dtype=torch.int32)},
        {**state, "b": torch.ones(4)},
        {**state, "a": torch.tensor([0.0, 0, 0, 1e-30])},
    ):
        assert state_digest(other) != state_digest(state)
