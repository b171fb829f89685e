"""NCFM's parts: the discrepancy, the ascending network, its sweep and plateau, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, normalize
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ddkit.distillation.bench import CPU, stand_in
from ddkit.errors import RecipeError
from ddkit.images.groups import Groups
from ddkit.images.optimizers import AdamWSweep
from ddkit.images.real import RealImages
from ddkit.images.synthetic import check_ipc, initial
from ddkit.recipes.sections import SyntheticSpec
from ddkit.testing import tiny_dataset
from ddkit_methods.ncfd import ncfd
from ddkit_methods.ncfm import NCFM
from ddkit_methods.ncfm_frequencies import SamplingNetwork
from ddkit_methods.ncfm_pool import Plateau

MOSAIC = SyntheticSpec(ipc=2, init="first", factor=2, init_resize="nearest", space="pixel")


@pytest.mark.parametrize("lr", [1e-3, 1e-5])
def test_ascent_raises_the_discrepancy(lr):
    torch.manual_seed(0)
    net, noise = SamplingNetwork(8).double(), torch.randn(6, 8, dtype=torch.float64)
    real, syn, groups = features(20), features(7), Groups.of
    sides = real, groups(torch.zeros(20).long()), syn, groups(torch.zeros(7).long())
    ascent = SGD(net.parameters(), lr=lr, maximize=True)
    loss = 300 * ncfd(*sides, net(noise))
    loss.backward()
    biases = [m.bias.grad for m in net.modules() if isinstance(m, nn.Linear)]
    assert max(b.abs().max().item() for b in biases) < 1e-10  # batch norm follows
    ascent.step()
    with torch.no_grad():
        assert 300 * ncfd(*sides, net(noise)) > loss


def features(rows, dim=8, seed=0):
    rng = torch.Generator().manual_seed(seed + rows)
    return torch.randn(rows, dim, generator=rng, dtype=torch.float64)


def frequencies(rows=64, dim=8):
    return features(rows, dim, seed=99)


def one(x):
    return Groups.of(torch.zeros(len(x), dtype=torch.int64))


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_discrepancy_is_a_symmetric_distance(weights):
    a, b, t = features(9), features(5), frequencies()
    forth = ncfd(a, one(a), b, one(b), t, *weights)
    assert forth > 0
    torch.testing.assert_close(forth, ncfd(b, one(b), a, one(a), t, *weights))
    torch.testing.assert_close(forth, ncfd(a.flip(0), one(a), 3 * b, one(b), t, *weights))
    assert ncfd(a, one(a), a, one(a), t, *weights) <= 1e-6


def test_equal_weights_leave_the_plain_difference():
    a, b, t = features(9), features(5), frequencies()
    phi = [torch.exp(1j * (normalize(x) @ t.T)).mean(0) for x in (a, b)]
    want = 0.3**0.5 * (phi[0] - phi[1]).abs().mean()
    torch.testing.assert_close(ncfd(a, one(a), b, one(b), t, 0.3, 0.3), want)


def test_gaussian_frequencies_estimate_the_kernel_distance():
    """By Bochner the mean of ``|dPhi|^2`` is MMD^2 with kernel ``exp(<x,y> - 1)``."""
    a, b = normalize(features(9)), normalize(features(5))
    t = frequencies(200_000)
    phi = [torch.exp(1j * (x @ t.T)).mean(0) for x in (a, b)]
    kernel = [torch.exp(x @ y.T - 1).mean() for x, y in ((a, a), (b, b), (a, b))]
    want = kernel[0] + kernel[1] - 2 * kernel[2]
    assert (phi[0] - phi[1]).abs().square().mean().item() == pytest.approx(want.item(), rel=0.02)


def test_classes_of_unequal_size_add_up():
    real, syn, t = features(9), features(6), frequencies()
    real_labels, labels = torch.tensor([0] * 2 + [1] * 7), torch.tensor([0, 1, 1, 0, 1, 1])
    got = ncfd(real, Groups.of(real_labels), syn, Groups.of(labels), t, 0.7, 0.3)
    parts = [(real[real_labels == c], syn[labels == c]) for c in range(2)]
    want = sum(ncfd(r, one(r), s, one(s), t, 0.7, 0.3) for r, s in parts)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("rate", [0.05, torch.tensor(0.05, dtype=torch.float64)])
def test_the_adamw_sweep_equals_one_step_per_class(rate):
    counts = (2, 1, 3, 2, 2)
    positions = torch.arange(5).repeat_interleave(torch.tensor(counts))
    start = features(10, 6)
    published, ours = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = AdamW([published], lr=0.05, weight_decay=0.1)
    sweep = AdamWSweep(ours, positions, 5, rate, weight_decay=0.1)
    for _ in range(7):
        for c in range(5):
            optimizer.zero_grad(set_to_none=False)
            (3 * published[positions == c]).sin().square().sum().backward()
            optimizer.step()
        sweep.drift()
        (3 * ours).sin().square().sum().backward()
        sweep.step()
        sweep.zero_grad()
        torch.testing.assert_close(ours, published, rtol=1e-9, atol=1e-9)


def test_the_plateau_is_torchs():
    lasting = nn.Parameter(torch.zeros(2))
    theirs = AdamW([lasting], lr=1.0)
    schedule = ReduceLROnPlateau(theirs, factor=0.5, patience=3, threshold=1e-4)
    ours = AdamW([nn.Parameter(torch.zeros(2))], lr=torch.tensor(1.0))
    plateau = Plateau(ours, 0.5, 3)
    rng = torch.Generator().manual_seed(0)
    for k in range(200):
        metric = 1 / (1 + k / 20) + 0.2 * torch.rand((), generator=rng)
        schedule.step(metric.item())
        plateau.step(metric)
        assert plateau.rate.item() == pytest.approx(theirs.param_groups[0]["lr"])
    assert plateau.rate.item() < 0.2


def test_images_start_as_the_first_of_the_data():
    real = RealImages(tiny_dataset(), 0, CPU)
    made = initial(MOSAIC, real, 0)
    pixels, _ = real.first(torch.arange(3), 8)
    pixels = real.info.denormalize(pixels).unflatten(0, (3, 8))
    half = interpolate(pixels.flatten(0, 1), size=(8, 8), mode="nearest").unflatten(0, (3, 8))
    got = made.images.detach().unflatten(0, (3, 2))
    for k in range(4):  # tile k of image j shows the class's image 2 k + j
        i, j = divmod(k, 2)
        tile = got[..., 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
        torch.testing.assert_close(tile, half[:, 2 * k : 2 * k + 2])
    decoded, _ = made.decode()
    enlarged = interpolate(half[:, :1].flatten(0, 1), scale_factor=2, mode="bilinear")
    shown = real.info.denormalize(decoded)[[0, 2, 4]]  # tile-major: the first of each class
    torch.testing.assert_close(shown, enlarged)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"lr_sampler": 1e-3}, "lr_sampler belongs to frequency"),
        ({"frequency": "net", "base_variance": 1.0}, "base_variance belongs to"),
        ({"optimizer": "sgd", "weight_decay": 0.1}, "weight_decay belongs to optimizer"),
        ({"momentum": 0.5}, "momentum belongs to optimizer = 'sgd'"),
        ({"frequency": "net", "num_freqs": 100}, "multiple of 16"),
        ({"frequency": "net", "num_freqs": 16}, "at least 32"),
        ({"amplitude": 0.0, "phase": 0.0}, "nothing is matched"),
    ],
)
def test_options_of_another_mode_are_refused(options, words):
    dataset = tiny_dataset()
    with pytest.raises(RecipeError, match=words):
        NCFM(**options).check(MOSAIC, dataset.info, stand_in(dataset.info))


def test_normalised_images_are_refused():
    dataset = tiny_dataset()
    with pytest.raises(RecipeError, match="pixel"):
        NCFM().check(SyntheticSpec(), dataset.info, stand_in(dataset.info))


@pytest.mark.parametrize(
    "spec, words",
    [
        (SyntheticSpec(ipc=4, factor=2, init="first"), "needs 16 real images"),
        (SyntheticSpec(ipc=1, factor=7, init="noise"), "7 x 7 tiles do not fit"),
        (SyntheticSpec(ipc=1, factor=8, kind="multi", init="noise"), "5 x 5 tiles do not fit"),
    ],
)
def test_sets_that_do_not_fit_are_refused(spec, words):
    with pytest.raises(RecipeError, match=words):
        check_ipc(spec, [12, 12, 12], tiny_dataset().info)
