"""``ddkit doctor``: whether this machine, and a recipe on it, will work, and at what cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddkit.cli import options, screen

if TYPE_CHECKING:
    from ddkit.findings import Finding
    from ddkit.plugins import Plugins


@click.command()
@click.argument("recipe", required=False)
@options.settings("synthetic.ipc=1")
@click.option("--out", type=options.PATH, help="Run folder; default: runs/RECIPE.")
@click.option("--no-probe", is_flag=True, help="Take no steps: no estimate of time and memory.")
@options.device
@options.as_json
@click.pass_context
def doctor(
    context: click.Context,
    recipe: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    no_probe: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Look at this machine, and with RECIPE at its data, pool and folder and at what it will cost.

    Every line says ok, note or FAIL, and what to do. A few real steps are tried, and nothing of
    them is kept. Exits with 0 unless something cannot work: 2 where the recipe is to be changed,
    else 1.

    \b
    Example:
      ddkit doctor dm-digits-ipc10 --set method.iterations=100
    """
    from ddkit.diagnosis.environment import environment

    found, loaded = environment()
    if not as_json:
        _print(found)
    code = max(f.exit_code for f in found)
    if recipe is not None and loaded is not None:
        if device is not None:
            settings = (*settings, f'runtime.device="{device}"')
        of_recipe = examine(Path(recipe), settings, loaded, out, not no_probe)
        if not as_json:
            _print(of_recipe)
        found += of_recipe
        code = next((f.exit_code for f in of_recipe if f.exit_code), code)
    if as_json:
        rows = [{"level": f.level, "subject": f.subject, "text": f.text} for f in found]
        screen.result(json.dumps({"works": code == 0, "findings": rows}, indent=2))
    context.exit(code)


def examine(
    recipe: Path, settings: tuple[str, ...], loaded: Plugins, out: Path | None, probe: bool
) -> list[Finding]:
    """Return what is found of a recipe; what is refused ends it."""
    from ddkit.errors import DDKitError
    from ddkit.findings import failed
    from ddkit.recipes.recipe import Recipe

    try:
        parsed = Recipe.load(recipe, settings)
        from ddkit.diagnosis.inspection import inspect
        from ddkit.distillation.preflight import plan

        planned = plan(parsed, loaded, out, recipe.stem)
    except DDKitError as error:
        return [failed("recipe", error)]
    found = planned.found + inspect(planned.parts.dataset)
    if probe and not any(f.level == "FAIL" for f in found):
        from ddkit.diagnosis.probe import probe_run

        found += probe_run(planned.parts, loaded, planned.runtime, planned.folder.path)
    return found


def _print(found: list[Finding]) -> None:
    for finding in found:
        screen.result(str(finding))
