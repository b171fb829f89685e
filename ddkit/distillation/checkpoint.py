"""A run's state, saved and restored: what the next step depends on, and nothing else."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch

from ddkit.errors import CheckpointError
from ddkit.method import Method
from ddkit.run import Run
from ddkit.runtime.storage import write_atomically


def save(path: Path, run: Run, method: Method, step: int, run_identity: str) -> None:
    """Write to `path` the state after `step` steps."""
    state = {
        "identity": run_identity,
        "step": step,
        "chunk": run.chunk,
        "seconds": run.seconds,
        "drawn": run.real.drawn,
        "images": run.synthetic.images.detach(),
        "soft": run.synthetic.soft,
        "optimizers": [o.state_dict() for o in run.optimizers],
        "method": method.state_dict(),
    }
    write_atomically(path, lambda place: torch.save(state, place))


def restore(path: Path, run: Run, method: Method, run_identity: str) -> int:
    """Load the state at `path` into `run` and `method`; return the steps taken, 0 if there is none.

    Raises:
        CheckpointError: the checkpoint is damaged or of another run.
    """
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location=run.runtime.device, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("not a checkpoint")
        step = int(state["step"])
        if state["identity"] != run_identity:
            raise CheckpointError(f"{path}: belongs to another run; remove it")
        with torch.no_grad():
            run.synthetic.images.copy_(state["images"])
        run.synthetic.soft = state["soft"]
        run.chunk, run.seconds = state["chunk"], float(state["seconds"])
        run.real.drawn = int(state["drawn"])
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        method.load_state_dict(state["method"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
        raise _damaged(path, error) from None
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from None
    return step


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{path}: damaged ({reason}); remove it to start over")
