"""NCFM: the batched form is the plain per-class program; the frequencies ascend; it resumes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from wide import Mirror, Wide

from ddkit.backbone import embed, maps
from ddkit.distillation.bench import CPU, stand_in
from ddkit.errors import DataError
from ddkit.images.augment import draw_per_class
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.images.synthetic import initial
from ddkit.networks.fresh import Networks
from ddkit.networks.pool import ProxyPool
from ddkit.recipes.sections import Part, SyntheticSpec
from ddkit.regularizer import Term
from ddkit.reporter import Silent
from ddkit.run import Run
from ddkit.runtime.device import Runtime
from ddkit.testing import Bench, check_method, tiny_dataset
from ddkit_methods.ncfm import NCFM

MOSAIC = SyntheticSpec(ipc=2, init="first", factor=2, init_resize="nearest", space="pixel")
SMALL = {"batch_real": 5, "num_freqs": 32, "pool_size": 2, "pool_epochs": 3, "pool_batch": 16}
METHOD = partial(NCFM, **SMALL)
MODES = [{}, {"frequency": "net"}, {"frequency": "scale_mixture"}, {"optimizer": "sgd"}]


@pytest.fixture
def make_run(tmp_path):
    def make(dtype: torch.dtype, chunk: int = 3) -> Run:
        dataset = tiny_dataset(per_class=16)
        runtime = Runtime(CPU, chunk=chunk)

        class Real(RealImages):
            def fetch(self, index: Tensor) -> Tensor:
                return super().fetch(index).to(dtype)

        def pools(spec):  # trained in float32, used in `dtype`
            spec = replace(spec, backbone=Part("stand-in"))
            pool = ProxyPool(spec, lambda: stand_in(dataset.info), dataset, runtime, 0)
            pool.folder = tmp_path / pool.folder.name
            pool.prepare(Silent())
            for i in range(spec.count):
                pool._states[i] = {k: v.to(dtype) for k, v in pool._states[i].items()}
            pool._net = pool._net.to(dtype)
            initials = [{k: v.to(dtype) for k, v in pool.initial(i).items()} for i in range(2)]
            pool.initial = initials.__getitem__
            pool.prepare = lambda reporter: None
            return pool

        real = Real(dataset, 0, CPU)
        nets = Networks(lambda: stand_in(dataset.info).to(dtype), 0, CPU, pools)
        syn = initial(MOSAIC, real, 0)
        syn.images = nn.Parameter(syn.images.detach().to(dtype))
        kind = Wide if dtype == torch.float64 else Run
        return kind(real, syn, nets, runtime, Silent(), 0, (Term("mirror", 3.0, Mirror()),))

    return make


def plain(run: Run, method: NCFM, steps: int) -> tuple[list[float], Tensor]:
    """The published loop, class by class, with torch's optimizers and scheduler."""
    images = nn.Parameter(run.synthetic.images.detach().clone())
    method.setup(run)
    network = method._frequencies.network
    if method.optimizer == "adamw":
        optimizer = AdamW([images], lr=method.lr_images or 1e-3, weight_decay=5e-4)
    else:
        optimizer = SGD([images], lr=method.lr_images or 0.01, momentum=0.5)
    plateau = ReduceLROnPlateau(optimizer, factor=method.fall, patience=method.patience)
    ascent = network and SGD(network.parameters(), lr=1e-3, momentum=0.5, maximize=True)
    losses = []
    for i in range(steps):
        with torch.no_grad():
            images.clamp_(0, 1)
        extractor, judge = method._nets.draw(run.stream("interpolation", i))
        t = method._frequencies.draw(run, i)
        if network:  # each class's backward pass goes through it, and gradients add up there
            t = method._frequencies._drawn
        draw = draw_per_class(method.augmentation, run.num_classes, run.stream("augment", i))
        own = 0.0
        for c in range(run.num_classes):
            loss, extra = matching(run, method, extractor, draw, images, t, c, i)
            own += loss.item()
            descend(optimizer, loss + extra)
        if ascent:
            for parameter in network.parameters():
                parameter.grad /= run.num_classes
            ascent.step()
            ascent.zero_grad()
        rng = run.stream("calibration", i, 0)
        draw = draw_per_class(method.augmentation, run.num_classes, rng)
        for c in range(run.num_classes):
            syn = expand(images[run.synthetic.labels == c], run)
            labels = torch.full((len(syn),), c)
            loss = cross_entropy(judge(draw.siamese(syn, Groups.of(labels))), labels)
            own += loss.item()
            descend(optimizer, loss)
        plateau.step(own / run.num_classes)
        losses.append(own)
    return losses, images.detach()


def descend(optimizer, loss):
    optimizer.zero_grad(set_to_none=False)
    loss.backward(retain_graph=True)  # all classes share the frequencies' graph
    optimizer.step()


def expand(canvas, run):
    height, width = canvas.shape[-2] // 2, canvas.shape[-1] // 2
    quarters = [
        canvas[..., top : top + height, left : left + width]
        for top in (0, height)
        for left in (0, width)
    ]
    whole = interpolate(torch.cat(quarters), scale_factor=2, mode="bilinear", align_corners=False)
    return run.synthetic.info.normalize(whole)


def matching(run, method, net, draw, images, t, c, i):
    real, real_groups = run.real.sample(torch.tensor([c]), method.batch_real, i)
    syn = expand(images[run.synthetic.labels == c], run)
    syn_view = draw.siamese(syn, Groups.of(torch.full((len(syn),), c)))
    real_view = draw.siamese(real, real_groups)
    units = [normalize(embed(net, real_view)).detach(), normalize(embed(net, syn_view))]
    functions = [torch.exp(1j * (unit @ t.T)).mean(0) for unit in units]
    loss = 300 * 0.5**0.5 * (functions[0] - functions[1]).abs().mean()
    other = maps(net, real_view).detach().mean(0)
    return loss, 3.0 * (maps(net, syn_view).mean(0) - other).pow(4).sum()


def batched(run: Run, method: NCFM, steps: int) -> tuple[list[float], Tensor]:
    method.setup(run)
    taken = [method.step(run, i) for i in range(steps)]
    return [float(m["loss"] + m["calibration"]) for m in taken], run.synthetic.images.detach()


@pytest.mark.parametrize("mode", MODES)
def test_batched_equals_per_class_in_float64(make_run, mode):
    make = partial(METHOD, **mode, patience=1, lr_images=0.02)  # so that the rate falls
    want, plain_images = plain(make_run(torch.float64), make(), 6)
    got, images = batched(make_run(torch.float64), make(), 6)
    assert got == pytest.approx(want, rel=1e-9)
    torch.testing.assert_close(images, plain_images, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_batched_equals_per_class_in_float32(make_run, mode):
    _, plain_images = plain(make_run(torch.float32), METHOD(**mode), 5)
    _, images = batched(make_run(torch.float32), METHOD(**mode), 5)
    near = ((images - plain_images).abs() <= 1e-5).float()
    assert near.mean() >= 0.99


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("mode", MODES[:3])
def test_chunks_change_nothing(make_run, mode, chunk):
    whole = batched(make_run(torch.float64), METHOD(**mode), 3)
    parts = batched(make_run(torch.float64, chunk), METHOD(**mode), 3)
    assert parts[0] == pytest.approx(whole[0], rel=1e-9)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", [*MODES, {"real_batch": "first", "patience": 0}])
def test_rules_of_a_method(mode):
    check_method(NCFM, Bench(synthetic=MOSAIC), **SMALL, **mode)


@pytest.mark.parametrize("kind", ["net", "scale_mixture"])
def test_the_sampling_network_learns_in_a_run(make_run, kind):
    run, method = make_run(torch.float32), METHOD(frequency=kind)
    method.setup(run)
    before = [p.detach().clone() for p in method._frequencies.network.parameters()]
    method.step(run, 0)
    after = list(method._frequencies.network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_interpolation_is_a_straight_line(make_run):
    run, method = make_run(torch.float64), METHOD()
    method.setup(run)
    extractor, judge = method._nets.draw(run.stream("interpolation", 4))
    rng = run.stream("interpolation", 4)
    member, share = int(torch.randint(2, (), generator=rng)), float(torch.rand((), generator=rng))
    ends = method._nets._initial, method._nets._trained
    for name, value in extractor.state_dict().items():
        want = share * ends[0][name][member] + (1 - share) * ends[1][name][member]
        torch.testing.assert_close(value, want)
        assert torch.equal(judge.state_dict()[name], ends[1][name][member])
    assert not torch.equal(ends[0]["classifier.weight"][0], ends[1]["classifier.weight"][0])


def test_a_pool_trained_on_other_data_is_refused(tmp_path):
    Bench(synthetic=MOSAIC).run(METHOD(), tmp_path)
    (file, *_) = tmp_path.rglob("0000.safetensors")
    save_file(load_file(file), file, {"data": "of another dataset"})
    with pytest.raises(DataError, match="not trained on the images"):
        Bench(synthetic=MOSAIC).run(METHOD(), tmp_path)


def test_a_larger_pool_trains_only_what_is_missing(tmp_path):
    Bench(synthetic=MOSAIC).run(METHOD(), tmp_path)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.safetensors")}
    Bench(synthetic=MOSAIC).run(METHOD(pool_size=3), tmp_path)
    assert len(before) == 2 and len(list(tmp_path.rglob("*.safetensors"))) == 3
    assert all(f.read_bytes() == content for f, content in before.items())


def test_saved_pixels_stay_inside(tmp_path):
    method = METHOD(lr_images=5.0)
    run = Bench(synthetic=MOSAIC).run(method, tmp_path)
    method.step(run, 0)
    assert run.synthetic.images.max() > 1
    method.finish(run)
    assert run.synthetic.images.min() >= 0 and run.synthetic.images.max() <= 1
