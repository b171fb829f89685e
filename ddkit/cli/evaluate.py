"""``ddkit eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddkit.cli import options, screen
from ddkit.errors import shown

if TYPE_CHECKING:
    from ddkit.evaluation.verdict import Verdict


@click.command("eval")
@click.argument("set_", metavar="[SET]", required=False, type=options.PATH)
@click.option(
    "--archs",
    help="Backbones, comma-separated, with options as in convnet:depth=4,width=64; default: those "
    "of the recipe.",
)
@click.option("--seeds", type=click.IntRange(min=1), help="Networks of each architecture.")
@click.option("--protocol", help="An evaluation protocol by name, or a .toml file.")
@options.settings("epochs=300")
@click.option(
    "--data",
    metavar="DIR|NAME",
    help="Judge on these images: where the set's folder is now, another folder, or a dataset by "
    "name, as in digits:resolution=8.",
)
@click.option("--no-baseline", is_flag=True, help="Leave out the random sets beside it.")
@click.option(
    "--best-every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Test every N epochs too, and print the best: selected on the test data.",
)
@click.option("--out", type=options.PATH, help="Default: eval.json beside the set.")
@click.option("--judge-seed", type=click.IntRange(min=0), default=0, help="Of the networks.")
@click.option("--data-seed", type=click.IntRange(min=0), default=0, help="Of the random sets.")
@options.device
@options.precision
@options.threads
@options.as_json
@options.quiet
def evaluate(
    set_: Path | None,
    archs: str | None,
    seeds: int | None,
    protocol: str | None,
    settings: tuple[str, ...],
    data: str | None,
    no_baseline: bool,
    best_every: int | None,
    out: Path | None,
    judge_seed: int,
    data_seed: int,
    device: str | None,
    precision: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train networks from scratch on SET and test them on real images.

    SET defaults to the newest under runs/. The accuracy is that of the last epoch; random real
    images of the same number go through the same protocol with the same seeds.

    \b
    Example:
      ddkit eval --archs convnet,resnet18,timm/vit_tiny_patch16_224 --seeds 5
    """
    from ddkit.cli.table import print_verdict
    from ddkit.evaluation.compose import judged, stored_runtime, stored_spec, test_data
    from ddkit.evaluation.verdict import Scope
    from ddkit.images.synthetic import SyntheticSet
    from ddkit.runs.folder import VERDICT, newest_set, set_file
    from ddkit.runtime.device import open_runtime
    from ddkit.runtime.storage import check_writable

    path = set_file(set_) if set_ else newest_set(Path("runs"))
    syn = SyntheticSet.load(path)
    target = out or path.parent / VERDICT
    check_writable(target)
    reporter = options.open_reporter(quiet)
    reporter.note(f"judging {path}")
    if protocol is not None:
        settings = (*settings, f'protocol="{protocol}"')
    loaded = options.load_plugins()
    names = split_archs(archs) if archs else None
    verdict = judged(
        syn,
        test_data(syn, loaded, data),
        stored_spec(syn, names, seeds, settings),
        loaded,
        open_runtime(stored_runtime(syn, device, precision)),
        reporter,
        Scope(not no_baseline, best_every, None, judge_seed, data_seed),
        journal(target),
    )
    write_verdict(verdict, path, target)
    if as_json:
        screen.data({"set": str(path)} | verdict.to_dict())
    else:
        screen.result(f"{shown(str(path))}, made from {shown(syn.info.name)}")
        print_verdict(verdict)


def split_archs(text: str) -> list[str]:
    """Return the architectures of a list: an item with ``=`` belongs to the one before it."""
    names: list[str] = []
    for item in (piece.strip() for piece in text.split(",")):
        if names and "=" in item and ":" not in item.partition("=")[0]:
            names[-1] += f",{item}"
        elif item:
            names.append(item)
    return names


def write_verdict(verdict: Verdict, path: Path, target: Path) -> None:
    """Write the verdict on the set at `path` as JSON to `target`."""
    from ddkit.runtime.storage import remove, write_text

    text = json.dumps({"set": path.name} | verdict.to_dict(), indent=2) + "\n"
    write_text(target, text)
    remove(journal(target))


def journal(target: Path) -> Path:
    """Return where networks are kept that are judged while the verdict in `target` is not there."""
    return target.with_name(f"{target.name}.judges")
