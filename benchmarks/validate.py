"""Run the published-budget recipes, most valuable first, in whatever time an accelerator is lent.

    python benchmarks/validate.py --minutes 25 --data DIR
    python benchmarks/validate.py --quick

Each job distills a shipped recipe and judges the set. A call stops when its minutes are over, with
a checkpoint; the next one goes on from the files in ``--out``, on this machine or another: runs,
pools of networks, and ``results.jsonl``, which has one line for every judge trained (each on the
set and on the random sets beside it). ``--data`` names CIFAR-10 as a folder of images; without it
the dataset is torchvision's. ``--quick`` shortens everything to prove the path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from validate_table import table

from ddkit import __version__, plugins
from ddkit.distillation import loop
from ddkit.errors import DDKitError, Interrupted
from ddkit.evaluation.compose import judged
from ddkit.evaluation.verdict import Scope
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import Part
from ddkit.runtime.device import open_runtime
from ddkit.runtime.memory import keep_freed_memory

FIRST = ("dm", "dm-iid", "ncfm", "ncfm-net", "idm-iid")
JUDGES = ("alexnet", "vgg11", "resnet18")
TESTS = 20  # of each judge, the best of which is best*; NCFM's program makes as many
QUICK: dict[str, Any] = {
    "method.iterations": 6,
    "method.batch_real": 8,
    "backbone.width": 8,
    "eval.archs": '[{ name = "convnet", width = 8 }]',
    "eval.epochs": 2,
    "eval.seeds": 2,
}
QUICK_OWN = {"ncfm": {"method.pool_size": 2, "method.pool_epochs": 1, "method.num_freqs": 64}}
QUICK_POOL = {
    "proxies.backbone": '{ name = "resnet18", width = 4 }',
    "proxies.count": 1,
    "proxies.epochs": 1,
    "proxies.images": 200,
}


@dataclass(frozen=True)
class Job:
    """A recipe, and architectures beyond its own that judge its set."""

    recipe: str
    archs: tuple[str, ...] = ()


class Deadline:
    """A reporter that prints now and then, and interrupts when the time is over."""

    def __init__(self, end: float):
        self.end_time = end
        self._task, self._total, self._done, self._printed = "", 0, 0, 0.0

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self._task, self._total, self._done = task, total, done

    def advance(self, metrics: Any, images: int = 0) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._printed > 30:
            print(f"    {self._task} {self._done}/{self._total}", flush=True)
            self._printed = now
        if now > self.end_time:
            raise Interrupted("the time is over")

    def note(self, text: str) -> None:
        print("   ", text, flush=True)

    def end(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--data", help="CIFAR-10 as a folder of images")
    parser.add_argument("--out", type=Path, help="default: validation, or validation-quick")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--chunk", default='"auto"', help="classes that go through at once")
    parser.add_argument("--quick", action="store_true", help="prove the path in minutes")
    options = parser.parse_args()
    options.out = options.out or Path("validation-quick" if options.quick else "validation")
    os.environ.setdefault("DDKIT_HOME", str(options.out.resolve() / "home"))  # pools go along
    keep_freed_memory()
    reporter = Deadline(time.monotonic() + 60 * options.minutes)
    try:
        for job in jobs(("lenet",) if options.quick else JUDGES):
            try:
                work(job, options, reporter)
            except DDKitError as error:  # of this job; the others may still have their turn
                if isinstance(error, Interrupted):
                    raise
                print(f"    {job.recipe}: {error}", flush=True)
    except Interrupted as stop:
        print(f"stopped: {stop}")
    print(table(lines(options.out)))


def jobs(judges: tuple[str, ...]) -> Iterator[Job]:
    """Yield the jobs in order of value; `judges` are for the table across architectures."""
    for kind in FIRST:
        yield Job(f"{kind}-cifar10-ipc10")
    for ipc in (1, 50):
        for kind in ("dm", "ncfm", "idm"):
            yield Job(f"{kind}-cifar10-ipc{ipc}")
    for kind in FIRST:
        yield Job(f"{kind}-cifar10-ipc10", judges)


def work(job: Job, options: argparse.Namespace, reporter: Deadline) -> None:
    """Distill the set of a job, or go on with it, and train the judges that are missing."""
    recipe = Recipe.load(job.recipe, overrides(job.recipe, options))
    archs = [Part(a) for a in job.archs] or list(recipe.eval.archs)
    done = {(x["recipe"], x["precision"], x["arch"], x["network"]) for x in lines(options.out)}
    missing = [
        (arch, k)
        for arch in archs
        for k in range(recipe.eval.seeds)
        if (job.recipe, options.precision, str(arch), k) not in done
    ]
    if not missing:
        return
    print(job.recipe, flush=True)
    loaded = plugins.load()
    folder = options.out / f"{job.recipe}-{options.precision}"
    outcome = loop.run_recipe(recipe, loaded, reporter, folder, job.recipe)
    runtime = open_runtime(recipe.runtime)
    for arch, k in missing:
        spec = replace(recipe.eval, archs=(arch,))
        every = max(1, spec.training_of(arch).epochs // TESTS)
        scope = Scope(best_every=every, networks=range(k, k + 1))
        verdict = judged(outcome.synthetic, outcome.dataset, spec, loaded, runtime, reporter, scope)
        line = describe(job, recipe, outcome) | {"arch": str(arch), "network": k}
        with (options.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | verdict.to_dict()) + "\n")


def overrides(name: str, options: argparse.Namespace) -> list[str]:
    """Return what the options change of a recipe."""
    changed = [f"runtime.precision={options.precision}", f"runtime.chunk={options.chunk}"]
    if options.data:
        changed.append(f'dataset={{name="folder",path="{options.data}"}}')
    if options.quick:
        quick = QUICK | QUICK_OWN.get(name.partition("-")[0], {})
        quick |= QUICK_POOL if Recipe.load(name).proxies else {}
        changed += [f"{k}={v}" for k, v in quick.items()]
    return changed


def lines(out: Path) -> list[dict[str, Any]]:
    """Return what was measured so far."""
    path = out / "results.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def describe(job: Job, recipe: Recipe, outcome: loop.Outcome) -> dict[str, Any]:
    """Return everything that is needed to judge a result besides the accuracies."""
    status = outcome.folder.status()
    steps = len(outcome.folder.metrics.read_text(encoding="utf-8").splitlines())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "recipe": job.recipe,
        "precision": recipe.runtime.precision,
        "reported": heading(recipe.source.text, "Reported"),
        "reproduced": heading(recipe.source.text, "Reproduced"),
        "resolved": outcome.synthetic.recipe,
        "seconds_per_step": status["seconds"] / max(1, steps),
        "peak_memory": status["peak_memory"],
        "machine": gpu or platform.machine(),
        "torch": str(torch.__version__),
        "ddkit": __version__,
    }


def heading(text: str, word: str) -> str:
    """Return what a recipe's opening comment says after `word`, its further lines included."""
    said: list[str] = []
    for line in text.splitlines():
        if line.startswith(f"# {word}: ") or (said and line.startswith("#   ")):
            said.append(line.removeprefix(f"# {word}:").strip("# "))
        elif said:
            break
    return " ".join(said)


if __name__ == "__main__":
    main()
