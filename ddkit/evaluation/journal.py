"""Judges that are finished, kept beside the verdict to come: an interrupted evaluation goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from ddkit.data import Dataset
from ddkit.evaluation.verdict import Scope
from ddkit.images.synthetic import SyntheticSet
from ddkit.recipes.sections import EvalSpec
from ddkit.runtime import storage
from ddkit.runtime.device import Runtime


@dataclass(frozen=True)
class Judged:
    """What came of one network: its test accuracies, or why it gives none, and the seconds."""

    tests: tuple[float, ...]
    seconds: float
    failure: str = ""


class Journal:
    """One line for each finished network, which only the same evaluation reads back.

    A line stands behind the hash of itself and of what determines the evaluation, so that one of
    another evaluation, or a damaged one, is passed over: that network is trained again.
    """

    def __init__(self, path: Path, key: str):
        """Take what the file at `path` holds of the evaluation whose `evaluation_key` is `key`."""
        self.path = path
        self._key = key
        self._kept = dict(self._read())

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, judge: Sequence[Any]) -> Judged | None:
        """Return what came of the network that `judge` names, if it is known."""
        return self._kept.get(json.dumps(judge))

    def keep(self, judge: Sequence[Any], judged: Judged) -> None:
        """Note what came of a network.

        Raises:
            CheckpointError: the file cannot be written.
        """
        if not self._kept:  # nothing of this evaluation is there: what is, is of another
            storage.write_text(self.path, "")
        name = json.dumps(judge)
        text = json.dumps([name, asdict(judged)])
        storage.append(self.path, f"{self._hash(text)} {text}\n")
        self._kept[name] = judged

    def close(self) -> None:
        """Remove the file: the verdict is written."""
        storage.remove(self.path)

    def _read(self) -> Iterator[tuple[str, Judged]]:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            told, _, text = line.partition(" ")
            if told == self._hash(text):
                name, judged = json.loads(text)
                yield name, Judged(**judged | {"tests": tuple(judged["tests"])})

    def _hash(self, text: str) -> str:
        return blake2b(f"{self._key} {text}".encode(), digest_size=16).hexdigest()


def evaluation_key(
    syn: SyntheticSet,
    data: Dataset,
    spec: EvalSpec,
    runtime: Runtime,
    scope: Scope,
    taught: str = "",
) -> str:
    """Return the hash of what determines the figures of each single network.

    `taught` is by whom, if by a teacher. How many networks there are, and of which architectures,
    is left out: an evaluation of more of them goes on from one of fewer.
    """
    made = blake2b(digest_size=16)
    for tensor in (syn.images, syn.labels, syn.soft):
        if tensor is not None:
            made.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    described = [syn.info.to_dict(), asdict(syn.formation), syn.space]
    protocol = asdict(spec) | {"archs": None, "seeds": None}
    images = [data.fingerprint(), data.test.fingerprint(), syn.info.whitening is not None]
    machine = [str(runtime.device.type), runtime.precision, str(torch.__version__)]
    asked = [scope.best_every, scope.judge_seed, scope.data_seed]
    facts = [described, protocol, images, machine, asked, taught]
    made.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return made.hexdigest()
