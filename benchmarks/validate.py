"""Run the published-budget recipes, most valuable first, in whatever time an accelerator is lent.

    python benchmarks/validate.py --minutes 25 --data DIR --out validation
    python benchmarks/validate.py --quick

Each job distills a shipped recipe and judges the set. A call stops when its minutes are over, with
a checkpoint; the next one goes on from the files in ``--out``, on this machine or another. Every
finished judgement is one line of ``results.jsonl`` there. ``--data`` names CIFAR-10 as a folder of
images; without it the dataset is torchvision's. ``--quick`` shortens everything to prove the path.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddkit import __version__, api, distillation, plugins
from ddkit.errors import Interrupted
from ddkit.recipe import Recipe
from ddkit.runtime import open_runtime
from ddkit.specs import Part

FIRST = ("dm", "dm-iid", "ncfm", "ncfm-net", "idm-iid")
JUDGES = ("alexnet", "vgg11", "resnet18")
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
    parser.add_argument("--out", type=Path, default=Path("validation"))
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--chunk", default='"auto"', help="classes that go through at once")
    parser.add_argument("--quick", action="store_true", help="prove the path in minutes")
    options = parser.parse_args()
    reporter = Deadline(time.monotonic() + 60 * options.minutes)
    try:
        for job in jobs(("lenet",) if options.quick else JUDGES):
            work(job, options, reporter)
    except Interrupted as stop:
        print(f"stopped: {stop}")


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
    """Distill the set of a job, or go on with it, and judge it by what has not judged it yet."""
    recipe = Recipe.load(job.recipe, overrides(job.recipe, options))
    archs = [Part(a) for a in job.archs] or list(recipe.eval.archs)
    missing = [a for a in archs if (job.recipe, str(a)) not in finished(options.out)]
    if not missing:
        return
    print(job.recipe, flush=True)
    loaded = plugins.load()
    folder = options.out / job.recipe
    outcome = distillation.run_recipe(recipe, loaded, reporter, folder, job.recipe)
    runtime = open_runtime(recipe.runtime)
    for arch in missing:
        spec = type(recipe.eval)(**{**vars(recipe.eval), "archs": (arch,)})
        verdict = api.judged(
            *(outcome.synthetic, outcome.dataset, spec, loaded, runtime, reporter), best=True
        )
        line = describe(job, recipe, outcome) | verdict.to_dict() | {"arch": str(arch)}
        with (options.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for result in verdict.results:
            best = 100 * sum(result.best) / result.n
            print(
                f"    {arch}, {result.subject}: {100 * result.mean:.1f}, best* {best:.1f}",
                flush=True,
            )


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


def finished(out: Path) -> set[tuple[str, str]]:
    """Return which recipes were judged by which architectures."""
    path = out / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(line["recipe"], line["arch"]) for line in map(json.loads, lines)}


def describe(job: Job, recipe: Recipe, outcome: distillation.Outcome) -> dict[str, Any]:
    """Return everything that is needed to judge a result besides the accuracies."""
    status = outcome.folder.status()
    steps = len(outcome.folder.metrics.read_text(encoding="utf-8").splitlines())
    text = recipe.source.text
    reported = next((x for x in text.splitlines() if "Reported:" in x), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "recipe": job.recipe,
        "reported": reported.partition("Reported:")[2].strip(),
        "resolved": outcome.synthetic.recipe,
        "seconds_per_step": status["seconds"] / max(1, steps),
        "peak_memory": status["peak_memory"],
        "machine": gpu or platform.machine(),
        "torch": str(torch.__version__),
        "ddkit": __version__,
    }


if __name__ == "__main__":
    main()
