"""From Python: the same as the commands, whatever the caller's process is set to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PAUSING

import ddkit
from ddkit.reporter import Metrics, Silent


@contextmanager
def default(get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> Iterator[None]:
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


SETTINGS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "default device": lambda: default(lambda: None, torch.set_default_device, torch.device("meta")),
    "device": lambda: torch.device("meta"),
    "matmul": lambda: default(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "deterministic": lambda: default(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
}


def switches() -> list[Any]:
    """Return what a caller may have set, as it is now."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    return [
        *(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
        *(torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision()),
        *(torch.empty(0).device, torch.backends.cudnn.allow_tf32, torch.get_num_threads()),
        *(torch.are_deterministic_algorithms_enabled(), torch.initial_seed(), *handlers),
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_distill_and_evaluate_are_the_same_whatever_the_caller_has_set_and_leave_it_so(
    name: str, recipe_file: Callable[..., Path], set_file: Path, tmp_path: Path
):
    with SETTINGS[name]():
        before = switches()
        ddkit.distill(recipe_file(), out=tmp_path / "out")
        made = ddkit.load(tmp_path / "out" / "synthetic.safetensors")
        verdict = ddkit.evaluate(made.synthetic, seeds=1, baseline=False)
        assert switches() == before
    ours = (tmp_path / "out" / "synthetic.safetensors").read_bytes()
    assert ours == set_file.read_bytes()
    plain = ddkit.evaluate(set_file, seeds=1, baseline=False)
    assert verdict.results[0].accuracies == plain.results[0].accuracies


def test_what_fails_leaves_the_callers_settings_too(tmp_path: Path):
    with SETTINGS["float64"]():
        before = switches()
        with pytest.raises(ddkit.errors.DDKitError):
            ddkit.distill(tmp_path / "no recipe")
        with pytest.raises(ddkit.errors.DDKitError):
            ddkit.load(tmp_path / "no set")
        assert switches() == before


def test_distill_works_in_a_thread_that_may_set_no_signals(
    recipe_file: Callable[..., Path], tmp_path: Path
):
    done: list[Any] = []
    work = threading.Thread(
        target=lambda: done.append(ddkit.distill(recipe_file(), out=tmp_path / "out"))
    )
    work.start()
    work.join()
    assert done[0].folder.set.is_file()


class Raising(Silent):
    """Raises at whatever it is told."""

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    def note(self, text: str) -> None:
        raise ValueError("I/O operation on closed file")

    def begin(self, task: str, total: int, done: int = 0) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.filterwarnings("ignore:the reporter")
def test_a_reporter_that_raises_costs_one_warning_and_no_work(
    recipe_file: Callable[..., Path], tmp_path: Path
):
    with pytest.warns(UserWarning, match="Raising is dropped.*closed file") as warned:
        outcome = ddkit.distill(recipe_file(), out=tmp_path / "out", reporter=Raising())
    assert len([w for w in warned if "dropped" in str(w.message)]) == 1
    with pytest.warns(UserWarning, match="dropped"):
        verdict = ddkit.evaluate(outcome.synthetic, seeds=1, baseline=False, reporter=Raising())
    assert len(verdict.results) == 1


SCRIPT = """
import ddkit
from ddkit.reporter import Silent
class Telling(Silent):
    def note(self, text):
        print(text, flush=True)
before = signal.getsignal(number)
try:
    ddkit.distill(sys.argv[1], out="out", reporter=Telling())
except KeyboardInterrupt as stop:
    print("caught:", stop, flush=True)
print("given back:", signal.getsignal(number) == before)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_from_python_saves_the_state_after_the_step_and_is_given_back(
    number: signal.Signals, recipe_file: Callable[..., Path], tmp_path: Path
):
    path = recipe_file(method={"name": "dm", "iterations": 6, "batch_real": 8})
    head = f"import signal, sys\nnumber = {int(number)}\n"
    command = [sys.executable, "-c", head + PAUSING + SCRIPT, "2", str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:  # type: ignore[call-overload]
        assert "images to learn" in process.stdout.readline()
        assert process.stdout.readline() == "in step 2\n"
        process.send_signal(number)
        assert any("stopping after this step" in line for line in process.stdout)
        out, _ = process.communicate("\n")
    assert "caught: stopped after step 3 of 6, state saved" in out
    assert "given back: True" in out
    state = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    ddkit.distill(path, out=tmp_path / "out")
    ddkit.distill(path, out=tmp_path / "whole")
    one, two = (tmp_path / n / "synthetic.safetensors" for n in ("out", "whole"))
    assert one.read_bytes() == two.read_bytes()
