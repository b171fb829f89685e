"""IDM: the batched form is the plain per-class program; the queue behaves and resumes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.optim import SGD
from wide import Mirror, Wide

from ddkit.backbone import embed, maps
from ddkit.distillation.bench import CPU, stand_in
from ddkit.errors import DivergedError, RecipeError
from ddkit.images.augment import draw_per_class
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.images.synthetic import initial
from ddkit.networks.fresh import Networks
from ddkit.recipes.sections import SyntheticSpec
from ddkit.regularizer import Term
from ddkit.reporter import Silent
from ddkit.run import Run
from ddkit.runtime.device import Runtime
from ddkit.testing import Bench, check_method, tiny_dataset
from ddkit_methods.idm import IDM
from ddkit_methods.idm_queue import Member, Training

MOSAIC = SyntheticSpec(ipc=2, factor=2, order="column")
SMALL = {"batch_real": 5, "pool_size": 4, "pool_interval": 2, "train_steps": 2, "train_batch": 8}


def make_run(dtype: torch.dtype, chunk: int = 3) -> Run:
    dataset = tiny_dataset(per_class=16)
    runtime = Runtime(CPU, chunk=chunk)
    real = _real(dataset, dtype)
    nets = Networks(lambda: stand_in(dataset.info).to(dtype), 0, CPU)
    syn = initial(MOSAIC, real, 0)
    syn.images = nn.Parameter(syn.images.detach().to(dtype))
    kind = Wide if dtype == torch.float64 else Run
    return kind(real, syn, nets, runtime, Silent(), 0, (Term("mirror", 0.3, Mirror()),))


def _real(dataset, dtype):
    class Real(RealImages):
        def fetch(self, index: Tensor) -> Tensor:
            return super().fetch(index).to(dtype)

    return Real(dataset, 0, CPU)


def plain(run: Run, method: IDM, steps: int) -> tuple[list[float], Tensor]:
    """The published loop, class by class, with torch's SGD; the queue itself is the method's."""
    images = nn.Parameter(run.synthetic.images.detach().clone())
    optimizer = SGD([images], lr=method.lr_images, momentum=method.momentum)
    method.setup(run)
    losses = []
    for i in range(steps):
        if i and i % method.accuracy_window == 0:
            method._queue.reset()
        method._queue.renew(i)
        member = method._queue.pick(run.stream("idm-pick", i))
        net, percent = member.still(), float(member.percent())
        draw = draw_per_class(method.augmentation, run.num_classes, run.stream("augment", i))
        total = 0.0
        for c in range(run.num_classes):
            loss = class_loss(run, method, net, percent, draw, images, c, i)
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total)
        method._queue.train(run, i, method.train_networks)
    return losses, images.detach()


def class_loss(run, method, net, percent, draw, images, c, i):
    real, real_groups = run.real.sample(torch.tensor([c]), method.batch_real, i)
    canvas = images[run.synthetic.labels == c]
    height, width = canvas.shape[-2] // 2, canvas.shape[-1] // 2
    quarters = [
        canvas[..., top : top + height, left : left + width]
        for left in (0, width)
        for top in (0, height)
    ]
    syn = interpolate(torch.cat(quarters), scale_factor=2, mode="bilinear", align_corners=False)
    labels = torch.full((len(syn),), c)
    syn_view = draw.siamese(syn, Groups.of(labels))
    real_view = draw.siamese(real, real_groups)
    features = embed(net, syn_view)
    loss = (embed(net, real_view).detach().mean(0) - features.mean(0)).square().sum()
    loss = loss + method.ce_weight * percent * cross_entropy(net(syn_view), labels)
    other = maps(net, real_view).detach().mean(0)
    return loss + 0.3 * (maps(net, syn_view).mean(0) - other).pow(4).sum()


def batched(run: Run, method: IDM, steps: int) -> tuple[list[float], Tensor]:
    method.setup(run)
    taken = [method.step(run, i) for i in range(steps)]
    losses = [float(m["loss"] + m["mirror"]) for m in taken]
    return losses, run.synthetic.images.detach()


METHOD = partial(IDM, **SMALL, accuracy_window=3, lr_images=5.0)


def test_batched_equals_per_class_in_float64():
    want, plain_images = plain(make_run(torch.float64), METHOD(), 5)
    got, images = batched(make_run(torch.float64), METHOD(), 5)
    assert got == pytest.approx(want, rel=1e-9)
    torch.testing.assert_close(images, plain_images, rtol=1e-9, atol=1e-9)


def test_batched_equals_per_class_in_float32():
    _, plain_images = plain(make_run(torch.float32), METHOD(), 5)
    _, images = batched(make_run(torch.float32), METHOD(), 5)
    near = ((images - plain_images).abs() <= 1e-5).float()
    assert near.mean() >= 0.99


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_change_nothing(chunk):
    whole = batched(make_run(torch.float64), METHOD(), 3)
    parts = batched(make_run(torch.float64, chunk), METHOD(), 3)
    assert parts[0] == pytest.approx(whole[0], rel=1e-9)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-9, atol=1e-9)


def test_rules_of_a_method():
    check_method(IDM, Bench(synthetic=MOSAIC), **SMALL, accuracy_window=3)


def test_the_queue_fills_then_drops_the_oldest():
    run, method = make_run(torch.float32), METHOD()
    method.setup(run)
    oldest = method._queue.members[0]
    assert len(method._queue.members) == 3
    method.step(run, 0)
    assert len(method._queue.members) == 4 and method._queue.members[0] is oldest
    method.step(run, 1)
    assert method._queue.members[0] is oldest
    method.step(run, 2)
    assert len(method._queue.members) == 4 and oldest not in method._queue.members


def test_meters_are_in_percent_and_count_anew():
    run, method = make_run(torch.float32), METHOD(train_networks=9)
    method.setup(run)
    for i in range(3):
        method.step(run, i)
    percents = [float(m.percent()) for m in method._queue.members]
    seen = [m.seen for m in method._queue.members]
    assert max(percents) > 1 and max(percents) <= 100 and max(seen) == 3 * 2 * 8
    method.step(run, 3)  # the window: counted anew before this step's training
    assert {m.seen for m in method._queue.members} == {2 * 8}


def test_listed_windows():
    method = METHOD(accuracy_window=(2, 7))
    assert [i for i in range(20) if method._counts_anew(i)] == [2, 7]
    every = METHOD(accuracy_window=6)
    assert [i for i in range(20) if every._counts_anew(i)] == [6, 12, 18]


def test_an_untrained_network_turns_classification_off():
    run, method = make_run(torch.float32), METHOD()
    method.setup(run)
    assert float(method.step(run, 0)["accuracy"]) == 0


def test_the_networks_learn():
    run, method = (
        make_run(torch.float32),
        METHOD(train_networks=9, lr_networks=0.1, pool_interval=99),
    )
    method.setup(run)
    for i in range(12):
        if i == 9:
            method._queue.reset()
        method.step(run, i)
    assert float(method._queue.members[0].percent()) > 60


def test_more_networks_trained_than_there_are_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="pool_size is 1; raise it"):
        Bench(synthetic=MOSAIC).run(IDM(pool_size=1, train_networks=2), tmp_path)


def test_a_network_of_the_queue_that_diverged_is_not_blamed_on_the_images(tmp_path: Path):
    method = IDM(iterations=9, pool_size=3, train_networks=3, train_steps=2, lr_networks=1e30)
    run = Bench().run(method, tmp_path)
    with pytest.raises(DivergedError, match=r"lower method\.lr_networks"):
        for run.at in range(9):
            method.step(run, run.at)
    assert run.at <= 2


def test_answers_that_are_no_numbers_count_for_no_class(tmp_path: Path):
    run = Bench().run(IDM(), tmp_path)
    net = stand_in(run.real.info)
    member = Member(net, Training(1, 4, 0.01, 0.9, 0.0), CPU)
    net.classifier.weight.data.fill_(float("nan"))  # of which the largest would be that of class 0
    member.train(torch.rand(4, *run.real.info.shape), torch.zeros(4, dtype=torch.int64), run)
    assert float(member.percent()) == 0
