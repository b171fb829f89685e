"""``ddkit distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddkit.cli import options, screen
from ddkit.errors import CheckpointError
from ddkit.paths import is_file

if TYPE_CHECKING:
    from ddkit.distillation.loop import Outcome
    from ddkit.plugins import Plugins
    from ddkit.recipes.recipe import Recipe
    from ddkit.reporter import Reporter


@click.command()
@click.argument("recipe", required=False)
@options.settings("method.iterations=500")
@click.option("--out", type=options.PATH, help="Run folder; default: runs/RECIPE.")
@click.option("--resume", type=options.PATH, help="Continue the run in this folder.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the resolved recipe, stop.")
@click.option("--eval", "judge", is_flag=True, help="Evaluate afterwards, as the recipe says.")
@options.seed
@options.device
@options.precision
@options.threads
@options.quiet
def distill(
    recipe: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    dry_run: bool,
    judge: bool,
    seed: int | None,
    device: str | None,
    precision: str | None,
    quiet: bool,
) -> None:
    """Learn a synthetic set from RECIPE, a path or the name of a shipped recipe.

    The run folder holds the set, the resolved recipe, every step's metrics and a picture. The same
    command with the same --out continues an unfinished run. --resume RUN with more iterations goes
    on in a new folder beside it.

    \b
    Example:
      ddkit distill dm-digits-ipc10 --set method.iterations=100 --out runs/mine --eval
    """
    name, path, out = _which(recipe, out, resume)
    given = {"seed": seed, "runtime.device": device, "runtime.precision": precision}
    quoted = {k: v if isinstance(v, int) else f'"{v}"' for k, v in given.items() if v is not None}
    settings = (*settings, *(f"{k}={v}" for k, v in quoted.items()))

    from ddkit.recipes.recipe import Recipe
    from ddkit.recipes.resolution import check_early

    parsed = Recipe.load(path, settings)
    check_early(parsed)
    loaded = options.load_plugins()

    from ddkit.distillation.loop import run_recipe
    from ddkit.distillation.start import extend, extends, extension
    from ddkit.runs.folder import RunFolder

    longer = resume is not None and extends(parsed, Recipe.load(path))
    if dry_run:
        if resume is not None and longer:
            out = extension(RunFolder(resume), parsed).path
        _dry_run(parsed, loaded, out, name)
        return
    reporter = options.open_reporter(quiet)
    if resume is not None and longer:
        out = extend(parsed, loaded, reporter, RunFolder(resume)).path
    outcome = run_recipe(parsed, loaded, reporter, out, name)
    if outcome.already:
        reporter.note(f"{outcome.folder.path}: this run is already finished")
    screen.result(outcome.folder.set)
    if judge:
        _judge(parsed, outcome, loaded, reporter)


def _which(
    recipe: str | None, out: Path | None, resume: Path | None
) -> tuple[str, Path, Path | None]:
    """Return the run's name, the recipe and the folder that the arguments mean."""
    if resume is None:
        if recipe is None:
            raise click.UsageError("name a RECIPE, or --resume RUN; see `ddkit recipes list`")
        return Path(recipe).stem, Path(recipe), out
    if recipe is not None or out is not None:
        raise click.UsageError("--resume takes the recipe and the folder from the run itself")
    if not is_file(resume / "recipe.toml", CheckpointError):
        raise CheckpointError(f"{resume}: no run to continue: it holds no recipe.toml")
    return resume.name, resume / "recipe.toml", resume


def _dry_run(recipe: Recipe, loaded: Plugins, out: Path | None, name: str) -> None:
    import tomli_w

    from ddkit.diagnosis.inspection import inspect
    from ddkit.distillation.preflight import plan
    from ddkit.findings import refuse

    planned = plan(recipe, loaded, out, name)
    refuse(planned.found)
    inspected = inspect(planned.parts.dataset)
    refuse(inspected)
    for finding in (*planned.found, *inspected):
        screen.note(str(finding))
    screen.result(tomli_w.dumps(planned.parts.recipe.table()), end="")


def _judge(recipe: Recipe, outcome: Outcome, loaded: Plugins, reporter: Reporter) -> None:
    from ddkit.cli.evaluate import journal, write_verdict
    from ddkit.cli.table import print_verdict
    from ddkit.evaluation.baselines import no_baseline
    from ddkit.evaluation.compose import judged
    from ddkit.evaluation.verdict import Scope
    from ddkit.runs.folder import VERDICT
    from ddkit.runtime.device import open_runtime

    runtime = open_runtime(recipe.runtime)
    lacking = no_baseline(outcome.synthetic, outcome.dataset.train.labels.bincount().tolist())
    if lacking:
        reporter.note(lacking)
    target = outcome.folder.path / VERDICT
    verdict = judged(
        *(outcome.synthetic, outcome.dataset, recipe.eval, loaded, runtime, reporter),
        *(Scope(baseline=lacking is None), journal(target)),
    )
    write_verdict(verdict, outcome.folder.set, target)
    print_verdict(verdict)
