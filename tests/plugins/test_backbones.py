"""The networks of the published results: sizes, contract, refusals, derivatives."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional

from ddkit.backbone import embed, has_batch_statistics, maps
from ddkit.data import DataInfo
from ddkit.errors import IncompatibleError
from ddkit.recipes.binding import schema
from ddkit_backbones.densenet import DenseLayer
from ddkit_backbones.layers import HeadPool

MODULES = ("alexnet", "convnet", "densenet", "lenet", "mlp", "resnet", "vgg")
FACTORIES: dict[str, Callable[..., nn.Module]] = {
    name: factory
    for module in MODULES
    for name, factory in import_module(f"ddkit_backbones.{module}").register_backbones().items()
}
SMALL: dict[str, dict[str, Any]] = {  # the same networks, quick
    "convnet": {"width": 16},
    "densenet": {"growth": 4},
    "resnet18": {"width": 8},
    "resnet10_ap": {"width": 8},
    "resnet18_ap": {"width": 8},
}


def info(channels: int, height: int, classes: int = 10, width: int | None = None) -> DataInfo:
    names = tuple(map(str, range(classes)))
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return DataInfo("shapes", channels, height, width or height, names, zeros, ones)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def build(name: str, of: DataInfo, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return FACTORIES[name](of, **{**SMALL.get(name, {}), **options})


CIFAR10, CIFAR100, TINY = info(3, 32), info(3, 32, 100), info(3, 64, 200)
MNIST, DIGITS = info(1, 28), info(1, 16)


PUBLISHED = [
    ("convnet", {}, (320010, 504420, 1938120), 2048),
    ("convnet", {"norm": "batch"}, (320010, 504420, 1938120), 2048),
    ("convnet", {"depth": 1}, (331530, 3280740, 26218440), 32768),
    ("convnet", {"depth": 2}, (233610, 970980, 6705480), 8192),
    ("convnet", {"depth": 4}, (452490, 498660, 857160), 512),
    ("convnet", {"width": 32}, (24714, 70884, 429384), 512),
    ("convnet", {"width": 64}, (86282, 178532, 895432), 1024),
    ("convnet", {"width": 256}, (1229834, 1598564, 4465864), 4096),
    ("convnet", {"norm": "layer"}, (663306, 847716, 3313608), 2048),
    ("convnet", {"norm": "none"}, (319242, 503652, 1937352), 2048),
    ("convnet", {"pooling": "none"}, (1610250, 13406820, None), 131072),
    ("alexnet", {}, (1872202, 2148772, None), 3072),
    ("alexnet", {"norm": "batch"}, (1874122, 2150692, None), 3072),
    ("vgg11", {}, (9231114, 9277284, None), 512),
    ("vgg11", {"norm": "batch"}, (9231114, 9277284, None), 512),
    ("resnet18", {}, (11173962, 11220132, 11578632), 512),
    ("resnet18", {"norm": "batch"}, (11173962, 11220132, 11578632), 512),
    ("resnet18_ap", {}, (11250762, 11988132, None), 8192),
    ("resnet18_ap", {"norm": "batch"}, (11250762, 11988132, None), 8192),
    ("mlp", {}, (411146, 422756, None), 128),
    ("lenet", {}, (62006, 69656, None), 84),
]


@pytest.mark.parametrize(("name", "options", "counts", "width"), PUBLISHED)
def test_parameter_counts_are_those_of_the_published_networks(
    name: str, options: dict[str, Any], counts: tuple[int | None, ...], width: int
) -> None:
    for of, count in zip((CIFAR10, CIFAR100, TINY), counts, strict=True):
        if count is not None:
            assert size(FACTORIES[name](of, **options)) == count
    net = FACTORIES[name](CIFAR10, **options).eval()
    with torch.no_grad():
        assert embed(net, torch.zeros(1, 3, 32, 32)).shape == (1, width)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("convnet", 317706),
        ("alexnet", 1865802),
        ("vgg11", 9229962),
        ("resnet18", 11172810),
        ("resnet18_ap", 11213770),
    ],
)
def test_mnist_has_the_published_parameter_counts(name: str, count: int) -> None:
    assert size(FACTORIES[name](MNIST)) == count


def test_imagenet_networks_have_the_published_sizes() -> None:
    assert size(FACTORIES["convnet"](info(3, 128), depth=5)) == 615690
    assert size(FACTORIES["convnet"](info(3, 224, 100), depth=6)) == 858340
    assert round(size(FACTORIES["resnet10_ap"](CIFAR10)) / 1e6, 2) == 4.90


def test_densenet_has_121_layers_and_a_million_parameters() -> None:
    # No paper gives the number; it follows from growth 12 and blocks of 6, 12, 24, 16.
    net = FACTORIES["densenet"](CIFAR10)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == 121
    assert size(net) == 1000618


@pytest.mark.parametrize(
    "of",
    [CIFAR10, MNIST, DIGITS, TINY, info(3, 32, 10, 48)],
    ids=["3x32x32", "1x28x28", "1x16x16", "3x64x64", "3x32x48"],
)
@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_a_network_is_its_classifier_after_its_embedding(name: str, of: DataInfo) -> None:
    net = build(name, of).eval()
    x = torch.randn(3, *of.shape, requires_grad=True)
    logits, e = net(x), embed(net, x)
    assert logits.shape == (3, of.num_classes)
    assert e.ndim == 2
    torch.testing.assert_close(net.get_classifier()(e), logits)  # type: ignore[operator]
    features = maps(net, x)
    assert features.ndim == 3 and len(features) == 3
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    assert gradient.abs().sum() > 0
    assert not torch.allclose(e[0], e[1])


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_gradients_have_gradients(name: str) -> None:
    # In-place activations must not break gradient matching.
    net = build(name, DIGITS).double()
    x = torch.randn(4, *DIGITS.shape, dtype=torch.float64, requires_grad=True)

    def squares() -> Tensor:
        loss = functional.cross_entropy(net(x), torch.arange(4))
        gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        return torch.stack([g.square().sum() for g in gradients]).sum()

    (second,) = torch.autograd.grad(squares(), x)
    direction = torch.randn_like(x)
    step = 1e-7
    with torch.no_grad():
        x += step * direction
    high = squares().item()
    with torch.no_grad():
        x -= 2 * step * direction
    slope = (high - squares().item()) / (2 * step)
    assert slope == pytest.approx((second * direction).sum().item(), rel=1e-3)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "swish"])
@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
def test_every_convnet_variant_differentiates_twice(norm: str, activation: str) -> None:
    net = build("convnet", DIGITS, width=8, norm=norm, activation=activation, pooling="max")
    x = torch.randn(2, *DIGITS.shape, requires_grad=True)
    (first,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.isfinite().all()


def test_a_dense_layer_passes_its_input_on_unchanged() -> None:
    x = torch.randn(2, 4, 5, 5)
    kept = x.clone()
    assert torch.equal(DenseLayer(4, 2, "none")(x)[:, :4], kept)


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_a_seed_makes_a_network_and_the_classifier_probe_draws_nothing(name: str) -> None:
    first, second = build(name, DIGITS), build(name, DIGITS)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    torch.manual_seed(0)
    wide = FACTORIES[name](info(1, 16, 7), **SMALL.get(name, {}))
    for key, value in first.state_dict().items():
        if not key.startswith("classifier"):
            assert torch.equal(value, wide.state_dict()[key])


def test_convnet_draws_weights_in_the_order_of_its_layers() -> None:
    net = build("convnet", DIGITS, depth=2)
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(256, 10)]
    mine = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer, other in zip(layers, mine, strict=True):
        assert torch.equal(layer.state_dict()["weight"], other.state_dict()["weight"])


@pytest.mark.parametrize("name", sorted(FACTORIES.keys() - {"resnet10_ap"}))  # draws twice
def test_weights_are_drawn_from_the_first_layer_to_the_last(name: str) -> None:
    # Another order would give every seed another network, and tests of shapes would not see it.
    net = build(name, DIGITS)
    drawn = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    assert all(torch.equal(value, drawn[key]) for key, value in net.state_dict().items())


def test_convnet_computes_what_its_layers_say() -> None:
    net = build("convnet", CIFAR10, depth=2)
    state = list(net.state_dict().values())
    x = torch.randn(5, 3, 32, 32)
    f = x
    for w, b, scale, shift in (state[:4], state[4:8]):
        f = functional.conv2d(f, w, b, padding=1)
        f = functional.instance_norm(f, weight=scale, bias=shift, eps=1e-5).relu()
        f = functional.avg_pool2d(f, 2)
    torch.testing.assert_close(maps(net, x), f.flatten(2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embed(net, x), f.flatten(1), rtol=1e-5, atol=1e-5)


def test_resnet10_ap_draws_convolutions_by_their_outputs() -> None:
    net = FACTORIES["resnet10_ap"](CIFAR10)
    wide = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 512]
    for conv in wide:
        expected = (2 / (conv.kernel_size[0] ** 2 * 512)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("side", "kernel", "pool"), [(64, 3, 0), (128, 3, 2), (224, 7, 4)])
def test_the_stem_of_resnet10_ap_follows_the_image(side: int, kernel: int, pool: int) -> None:
    trunk = list(build("resnet10_ap", info(3, side)).features)  # type: ignore[arg-type]
    assert trunk[0].kernel_size == (kernel, kernel)
    assert (trunk[3].kernel_size if pool else 0) == pool


def test_only_mnist_is_padded_to_32() -> None:
    for name, more in (("convnet", 2), ("alexnet", 2), ("vgg11", 2), ("lenet", 2)):
        paddings = {}
        for of in (MNIST, DIGITS, info(1, 32), info(3, 28)):
            net = build(name, of)
            first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
            paddings[of.shape] = int(first.padding[0])
        usual = paddings[1, 32, 32]
        assert paddings == {(1, 28, 28): usual + more, (1, 16, 16): usual, (1, 32, 32): usual} | {
            (3, 28, 28): usual
        }


@pytest.mark.parametrize(
    ("name", "of", "options", "words"),
    [
        ("convnet", DIGITS, {"depth": 5}, "depth 5 cannot carry the 16x16 .* lower depth to 4"),
        ("convnet", info(3, 1), {}, "pooling 1 leaves nothing"),
        ("convnet", CIFAR10, {"norm": "group", "width": 6}, "4 groups, which do not divide 6"),
        ("lenet", info(1, 8), {}, "lenet cannot carry the 8x8 images of shapes.*at least 16x16"),
        ("alexnet", info(3, 4), {}, "alexnet cannot carry the 4x4 .*at least 8x8"),
        ("resnet18", info(3, 8), {}, "an instance norm erases a map of 1x1; norm = .batch"),
        ("resnet18_ap", info(3, 8), {}, "an instance norm erases a map of 1x1"),
        ("resnet10_ap", info(3, 4), {"norm": "batch"}, "Output size is too small"),
        ("densenet", info(3, 4), {}, "use larger images"),
        ("densenet", info(3, 8), {"norm": "instance"}, "an instance norm erases"),
        ("vgg11", info(3, 1), {}, "an instance norm erases a map of 1x1"),
    ],
)
def test_a_resolution_that_a_network_cannot_carry_is_refused_in_one_line(
    name: str, of: DataInfo, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(IncompatibleError, match=words) as caught:
        build(name, of, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["convnet", "vgg11", "alexnet", "lenet"])
def test_a_refusal_is_never_too_early(name: str) -> None:
    smallest = {"convnet": 8, "vgg11": 2, "alexnet": 8, "lenet": 16}[name]
    build(name, info(3, smallest))
    with pytest.raises(IncompatibleError):
        build(name, info(3, smallest - 1))


def test_batch_norm_carries_what_instance_norm_cannot() -> None:
    assert embed(build("resnet18", info(3, 8), norm="batch"), torch.randn(2, 3, 8, 8)).ndim == 2


def test_pooling_before_the_classifier_adapts_without_changing_parameters() -> None:
    for name in ("resnet18", "vgg11"):
        assert size(build(name, DIGITS)) == size(build(name, info(1, 32)))
    assert maps(build("resnet18", DIGITS), torch.randn(1, 1, 16, 16)).shape == (1, 64, 1)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(HeadPool(4)(x), functional.avg_pool2d(x, 4))
    torch.testing.assert_close(HeadPool(4)(x[..., :2, :3]), x[..., :2, :3].mean((2, 3), True))


def test_only_batch_norm_lets_images_see_each_other() -> None:
    x = torch.randn(4, *DIGITS.shape)
    for norm in ("instance", "batch", "layer", "group", "none"):
        net = build("convnet", DIGITS, norm=norm).train()
        assert has_batch_statistics(net) == (norm == "batch")
        alone, together = net(x[:2]), net(x)[:2]
        assert torch.allclose(alone, together, atol=1e-5) == (norm != "batch")
    assert not has_batch_statistics(build("resnet18", DIGITS))


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_networks_stack_under_vmap(name: str) -> None:
    nets = [build(name, DIGITS), FACTORIES[name](DIGITS, **SMALL[name])]
    parameters, buffers = stack_module_state(nets)
    x = torch.randn(3, *DIGITS.shape)

    def one(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return functional_call(nets[0], (p, b), (x,))

    together = torch.vmap(one)(parameters, buffers)
    torch.testing.assert_close(
        together, torch.stack([net(x) for net in nets]), atol=1e-5, rtol=1e-4
    )


def test_every_option_has_a_default_and_a_type() -> None:
    for factory in FACTORIES.values():
        options = schema(factory)
        assert options.pop("info").hint is DataInfo
        assert all(not o.required and o.hint is not Any for o in options.values())
