"""DM: all classes at once are the plain loop over classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from wide import ragged, wide_run

from ddkit.backbone import embed, look
from ddkit.images.augment import draw_per_class
from ddkit.images.groups import Groups
from ddkit.recipes.sections import SyntheticSpec
from ddkit.run import Run
from ddkit.testing import Bench
from ddkit_methods.dm import DM

BENCH = Bench(dataset=ragged(), synthetic=SyntheticSpec(ipc=3))


def plain(run: Run, method: DM, steps: int) -> tuple[list[float], Tensor]:
    """The published loop: losses of the classes one by one, then one step for all images."""
    images = nn.Parameter(run.synthetic.images.detach().clone())
    optimizer = SGD([images], lr=method.lr_images, momentum=method.momentum)
    losses = []
    for i in range(steps):
        net = run.nets.fresh(i)
        draw = draw_per_class(method.augmentation, run.num_classes, run.stream("augment", i))
        optimizer.zero_grad()
        total = 0.0
        for c in range(run.num_classes):
            real, groups = run.real.sample(torch.tensor([c]), method.batch_real, i)
            own = images[run.synthetic.labels == c]
            view = draw.siamese(own, Groups.of(torch.full((len(own),), c)))
            target = embed(net, draw.siamese(real, groups)).mean(0).detach()
            loss = (target - embed(net, view).mean(0)).square().sum()
            loss.backward()
            total += loss.item()
        optimizer.step()
        losses.append(total)
    return losses, images.detach()


def batched(run: Run, method: DM, steps: int) -> tuple[list[float], Tensor]:
    losses = [float(method.step(run, i)["loss"]) for i in range(steps)]
    return losses, run.synthetic.images.detach()


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_batched_equals_per_class_in_float64(chunk: int, tmp_path: Path):
    def make() -> tuple[Run, DM]:
        method = DM(batch_real=6, lr_images=3.0)
        run = wide_run(method, tmp_path, BENCH)
        run.chunk = chunk
        run.look_syn = look  # type: ignore[method-assign]
        method.setup(run)
        return run, method

    want, plain_images = plain(*make(), 6)
    got, images = batched(*make(), 6)
    assert images.dtype == torch.float64
    assert got == pytest.approx(want, rel=1e-9)
    torch.testing.assert_close(images, plain_images, rtol=1e-9, atol=1e-9)


def test_batched_equals_per_class_in_float32(tmp_path: Path):
    method = DM(batch_real=6, lr_images=3.0)
    _, plain_images = plain(BENCH.run(method, tmp_path), method, 5)
    _, images = batched(BENCH.run(method, tmp_path), method, 5)
    near = ((images - plain_images).abs() <= 1e-5).float()
    assert near.mean() >= 0.99
