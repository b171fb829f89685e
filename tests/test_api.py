"""From Python: the same as the commands, whatever the caller's process is set to."""

from __future__ import annotations

import os
import runpy
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
from conftest import PAUSING, ROOT, recipe_table
from torch import nn

import ddkit
from ddkit.backbone import wrap
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


# The public names


def test_the_public_names_stand_in_dir_and_loading_ddkit_loads_no_torch():
    script = "import sys, ddkit; print('torch' in sys.modules, *dir(ddkit))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    heavy, *names = said.stdout.split()
    assert heavy == "False"
    children = {c.__name__ for c in (ddkit.DDKitError, *ddkit.DDKitError.__subclasses__())}
    public = {"distill", "evaluate", "load", "hookimpl", "SyntheticSet", "Recipe", "Dataset"}
    assert public | children | {"Reporter"} <= {*names} & {*ddkit.__all__}
    assert all(getattr(ddkit, name) is not None for name in ddkit.__all__)
    assert (Path(ddkit.__file__).parent / "py.typed").is_file()


@pytest.mark.slow  # the type checker reads torch
def test_a_program_of_the_public_names_is_typed_strictly():
    client = ROOT / "tests" / "client.py"
    command = ["mypy", "--strict", "--config-file", os.devnull, "--follow-imports=silent"]
    environment = os.environ | {"MYPYPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
    said = subprocess.run(
        [sys.executable, "-m", *command, "--ignore-missing-imports", str(client)],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout


# A loaded set, as others' programs use it


def test_a_loaded_set_serves_the_idioms_of_torchvision_and_avalanche(run_folder: Path):
    images = ddkit.load(run_folder)
    threes = [i for i, target in enumerate(images.targets) if target == 3]
    part = torch.utils.data.Subset(images, threes)
    assert [label for _, label in part] == [3, 3]
    assert images.classes[images.class_to_idx["3"]] == "3"
    assert torch.as_tensor(images.targets).bincount().tolist() == [2] * 10
    ours = torch.utils.data.TensorDataset(torch.zeros(2, 1, 8, 8), torch.tensor([1, 2]))
    both = torch.utils.data.ConcatDataset([images, [(x, int(y)) for x, y in ours]])
    batch, labels = next(iter(torch.utils.data.DataLoader(both, batch_size=22)))
    assert batch.shape == (22, 1, 8, 8) and labels.dtype == torch.int64
    experiences = [[i for i, t in enumerate(images.targets) if t in own] for own in ([0, 1], [2])]
    assert [len(e) for e in experiences] == [4, 2]
    assert repr(images).splitlines()[0] == "TrainingImages of digits"
    assert "20 images 1x8x8" in repr(images) and "10 classes, labels hard" in repr(images)


def test_images_come_normalised_as_pixels_or_transformed(run_folder: Path):
    images, pixels = ddkit.load(run_folder), ddkit.load(run_folder, pixels=True)
    assert 0 <= float(pixels.images.min()) < float(pixels.images.max()) <= 1
    inside = images.info.denormalize(images.images).clamp(0, 1)
    assert torch.equal(pixels.images, inside)
    flipped = ddkit.load(run_folder, transform=lambda x: x.flip(2))
    assert torch.equal(flipped[0][0], images[0][0].flip(2))


# Recipes, data and networks of one's own

TABLE = recipe_table(dataset=None, backbone=None, eval={"seeds": 1, "epochs": 1})
IMAGES = torch.rand(60, 12, 12, generator=torch.Generator().manual_seed(0))
DATA = (IMAGES, torch.arange(60) % 3)


def own(num_classes: int) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(5))
    return wrap(nn.Sequential(body, nn.Flatten(), nn.Linear(16, num_classes)), "0", "2")


def wider(num_classes: int) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AvgPool2d(5))
    return wrap(nn.Sequential(body, nn.Flatten(), nn.Linear(32, num_classes)), "0", "2")


def test_a_recipe_of_objects_records_what_they_are_and_is_judged_with_them_again(tmp_path: Path):
    notes: list[str] = []

    class Noting(ddkit.Reporter):
        def note(self, text: str) -> None:
            notes.append(text)

    table = TABLE | {"proxies": {"count": 1, "epochs": 1}}
    table["regularizers"] = [{"name": "cmi", "weight": 0.1}]
    call = {"dataset": DATA, "backbone": own, "proxies": own, "out": tmp_path / "out"}
    outcome = ddkit.distill(table, reporter=Noting(), **call)
    assert "6 of 60 images" in notes[0]
    recipe = ddkit.Recipe.load(tmp_path / "out" / "recipe.toml")
    assert recipe.backbone.name == recipe.eval.archs[0].name
    assert recipe.backbone.name == f"python:{own.__module__}.own"
    assert recipe.backbone == recipe.proxies.backbone
    assert set(recipe.backbone.options) == {"digest"}
    assert set(recipe.dataset.options) >= {"fingerprint"}
    assert ddkit.distill(table, **call).already
    assert ddkit.distill(recipe, **call).already
    with pytest.raises(ddkit.CheckpointError, match=r"backbone\.name is .*own\".*wider\" here"):
        ddkit.distill(table, **call | {"backbone": wider})
    judge = {"baseline": False, "seeds": 1, "settings": {"epochs": 1}}
    verdict = ddkit.evaluate(tmp_path / "out", [own, "convnet"], dataset=DATA, **judge)
    assert [r.arch for r in verdict.results] == [recipe.backbone.name, "convnet"]
    with pytest.raises(ddkit.PluginError, match=r"given from Python; give it again.*archs="):
        ddkit.evaluate(outcome.synthetic, dataset=DATA, **judge)
    with pytest.raises(ddkit.PluginError, match=r"given from Python; give it again.*dataset="):
        ddkit.evaluate(outcome.synthetic, own, **judge)


def test_a_network_of_the_same_name_that_computes_something_else_makes_another_run(
    tmp_path: Path,
):
    width = 4

    def net(num_classes: int) -> nn.Module:
        return (own if width == 4 else wider)(num_classes)

    ddkit.distill(TABLE, dataset=DATA, backbone=net, out=tmp_path / "out")
    width = 8
    with pytest.raises(ddkit.CheckpointError, match=r"backbone\.digest is"):
        ddkit.distill(TABLE, dataset=DATA, backbone=net, out=tmp_path / "out")


def test_a_table_is_told_of_in_the_words_of_a_file(recipe_file: Callable[..., Path]):
    for wrong, words in (
        ({"metod": {"name": "dm"}}, r"metod: unknown section \(did you mean 'method'\?\)"),
        ({"synthetic.ip": 3}, r"^overrides synthetic\.ip: unknown option \(did you mean 'ipc'"),
        ({"synthetic": {"ipc": "3"}}, r"^overrides synthetic\.ipc: must be an integer, not '3'"),
        ({"synthetic..ipc": 3}, "a name is empty between the dots of 'synthetic..ipc'"),
        ({"seed": {"a": 1}}, "overrides seed.a: 'seed' is not a table"),
        ("seed=1", "must be a list or a table, not the string 'seed=1'"),
    ):
        with pytest.raises(ddkit.RecipeError, match=words):
            ddkit.distill(recipe_file(), wrong)
    with pytest.raises(ddkit.RecipeError, match=r"^recipe: .*unknown option.*did you mean 'ipc'"):
        ddkit.distill(recipe_table(synthetic={"ip": 3}))
    with pytest.raises(ddkit.RecipeError, match=r"a table or a ddkit\.Recipe, not 7"):
        ddkit.distill(7)  # type: ignore[arg-type]


def test_overrides_nested_dotted_or_as_texts_are_the_same(recipe_file: Callable[..., Path]):
    path = recipe_file()
    texts = ["method.iterations=9", "eval.archs=['mlp']", "backbone.width=4"]
    nested = {"method": {"iterations": 9}, "eval": {"archs": ("mlp",)}, "backbone.width": 4}
    assert ddkit.Recipe.load(path, texts) == ddkit.Recipe.load(path, nested)


def test_a_protocol_settings_and_one_architecture_are_given_as_they_are(run_folder: Path):
    verdict = ddkit.evaluate(
        run_folder, "mlp", 1, protocol="dc", settings={"epochs": 1, "lr": 0.02}, baseline=False
    )
    assert [r.arch for r in verdict.results] == ["mlp"]
    assert verdict.protocol == "dc with epochs = 1, lr = 0.02"


def test_the_example_of_own_data_and_an_own_network_runs_and_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = ROOT / "examples" / "own_data_own_network.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "1"])
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert ["small" in line for line in lines] == [True, True, False, False]
    assert "timm/resnet10t" in lines[3]
