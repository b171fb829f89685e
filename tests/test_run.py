"""Run: where regularizers act, and where a bad gradient is kept from the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.optim import SGD

from ddkit.data import Dataset
from ddkit.errors import ContractError
from ddkit.regularizer import Match, Regularizer, Term
from ddkit.run import Run, added
from ddkit.runtime.device import Runtime
from ddkit.runtime.divergence import Divergence
from ddkit.runtime.memory import saved_bytes
from ddkit.testing import Bench, stand_in


@dataclass
class Sum(Regularizer):
    """The sum of all pixels, times a factor."""

    requires: ClassVar[frozenset[str]] = frozenset({"syn"})
    factor: float = 1.0

    def loss(self, m: Match) -> torch.Tensor:
        return self.factor * m.syn.sum()


class Looking(Sum):
    requires: ClassVar[frozenset[str]] = frozenset({"syn", "proxy"})


def bench_run(tmp_path: Path, *terms: Term, method: Any = None) -> Run:
    class Still:
        reads_proxies = False

        def check(self, *_: Any) -> None: ...

        def setup(self, run: Run) -> None:
            run.optimizers = [SGD([run.synthetic.images], lr=1.0)]

    return Bench(terms=terms).run(method or Still(), tmp_path)  # type: ignore[arg-type]


def match(run: Run) -> Match:
    syn, groups = run.synthetic.decode()
    return Match(syn=syn, groups=groups)


def test_regularizers_add_to_the_loss_weighted_and_under_their_names(tmp_path: Path):
    run = bench_run(tmp_path, Term("a", 0.5, Sum()), Term("b", 2.0, Sum(3.0)))
    m = match(run)
    metrics = run.backward(m.syn.square().sum(), m)
    images = run.synthetic.images.detach()
    assert list(metrics) == ["loss", "a", "b"]
    torch.testing.assert_close(metrics["loss"], images.square().sum())
    torch.testing.assert_close(metrics["a"], 0.5 * images.sum())
    torch.testing.assert_close(metrics["b"], 6.0 * images.sum())
    assert run.synthetic.images.grad is not None
    torch.testing.assert_close(run.synthetic.images.grad, 2 * images + 6.5)
    assert not any(v.requires_grad for v in metrics.values())


def test_regularizers_act_alone_where_the_method_wrote_its_gradients_itself(tmp_path: Path):
    run = bench_run(tmp_path, Term("a", 0.5, Sum()))
    run.synthetic.images.grad = torch.ones_like(run.synthetic.images)
    metrics = run.backward(None, match(run))
    assert list(metrics) == ["a"]
    assert run.synthetic.images.grad.eq(1.5).all()


def test_without_regularizers_or_gradient_nothing_happens(tmp_path: Path):
    run = bench_run(tmp_path)
    assert run.backward(None, match(run)) == {}
    metrics = run.backward(torch.ones(()), match(run))
    assert float(metrics["loss"]) == 1
    assert run.synthetic.images.grad is None


def test_apply_steps_and_zeroes(tmp_path: Path):
    run = bench_run(tmp_path)
    before = run.synthetic.images.detach().clone()
    run.synthetic.images.grad = torch.ones_like(before)
    run.apply()
    torch.testing.assert_close(run.synthetic.images.detach(), before - 1)
    assert run.synthetic.images.grad is None
    assert run.watch.found() is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_remembered(
    value: float, tmp_path: Path
):
    run = bench_run(tmp_path)
    before = run.synthetic.images.detach().clone()
    run.synthetic.images.grad = torch.ones_like(before)
    run.synthetic.images.grad[0, 0, 0, 0] = value
    run.at = 7
    run.apply()
    assert torch.equal(run.synthetic.images.detach(), before)
    assert run.watch.found() == Divergence(7, (0,))
    run.at = 8
    run.synthetic.images.grad = torch.full_like(before, torch.nan)
    run.apply()
    assert run.watch.found() == Divergence(7, (0,))  # the first


def test_a_gradient_of_something_else_names_no_class(tmp_path: Path):
    run = bench_run(tmp_path)
    other = torch.nn.Parameter(torch.ones(2))
    run.optimizers.append(torch.optim.SGD([other], lr=1.0))
    other.grad = torch.tensor([1.0, torch.inf])
    run.apply()
    assert run.watch.found() == Divergence(0, ())
    assert other.tolist() == [1, 1]


def test_a_divergence_names_its_classes_shortly():
    names = ("a", "b", "c", "d", "e")
    assert Divergence(0, ()).told(names) == ""
    assert Divergence(0, (1,)).told(names) == "class 'b'"
    assert Divergence(0, (0, 1, 2, 4)).told(names) == "classes 'a', 'b', 'c' and 1 more"
    assert Divergence(0, (0, 1, 2, 3, 4)).told(names) == "all classes"


def test_every_optimizer_steps(tmp_path: Path):
    run = bench_run(tmp_path)
    scale = nn.Parameter(torch.ones(()))
    run.optimizers.append(SGD([scale], lr=1.0, maximize=True))
    (scale * match(run).syn.square().sum()).backward()
    run.apply()
    assert scale.item() > 1


def test_metrics_of_chunks_add_up_by_name():
    one = {"loss": torch.tensor(1.0), "a": torch.tensor(2.0)}
    two = {"loss": torch.tensor(3.0), "b": torch.tensor(4.0)}
    assert added({}, one) == one
    assert {k: float(v) for k, v in added(one, two).items()} == {"loss": 4, "a": 2, "b": 4}


def test_class_chunks_are_of_the_size_asked_for_and_whole_with_batch_norm(
    tmp_path: Path, tiny: Dataset
):
    run = bench_run(tmp_path)
    run.chunk = 2
    net = stand_in(tiny.info)
    assert [c.tolist() for c in run.class_chunks(net)] == [[0, 1], [2]]
    net.features[1] = nn.BatchNorm2d(8)
    assert [c.tolist() for c in run.class_chunks(net)] == [[0, 1, 2]]


def test_an_automatic_chunk_fits_the_budget_and_is_kept(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
):
    run, net = bench_run(tmp_path), stand_in(tiny.info)
    cost = saved_bytes(net, torch.zeros(1, *tiny.info.shape))
    assert cost > 4 * 8 * 8 * 8  # at least a map of the first layer
    monkeypatch.setattr(Runtime, "budget", property(lambda _: 2 * 2 * cost))
    assert [len(c) for c in run.class_chunks(net)] == [2, 1]
    assert run.chunk == 2
    tight = bench_run(tmp_path)
    monkeypatch.setattr(Runtime, "budget", property(lambda _: 1))
    assert [len(c) for c in tight.class_chunks(net)] == [1, 1, 1]


def test_chunks_of_classes_change_no_result(tmp_path: Path, loaded: Any):
    results = []
    for chunk in (1, 2, 3):
        covariance = loaded.regularizers["covariance"].factory()
        method = loaded.methods["dm"].factory(iterations=2, batch_real=8)
        run = bench_run(tmp_path, Term("covariance", 0.01, covariance), method=method)
        run.chunk = chunk
        metrics = [method.step(run, i) for i in range(2)]
        results.append((run.synthetic.images.detach(), metrics[-1]))
    for images, metrics in results[:-1]:
        torch.testing.assert_close(images, results[-1][0], rtol=1e-4, atol=1e-5)
        for name, value in metrics.items():
            torch.testing.assert_close(value, results[-1][1][name], rtol=1e-4, atol=1e-5)


def test_real_images_are_looked_at_in_parts_without_gradient(tmp_path: Path, tiny: Dataset):
    run, net = bench_run(tmp_path), stand_in(tiny.info)
    x = torch.randn(10, *tiny.info.shape)
    whole = run.look_syn(net, x)[1]
    object.__setattr__(run.runtime, "micro_batch", 3)
    _, embedding = run.look_real(net, x)
    assert not embedding.requires_grad
    torch.testing.assert_close(embedding, whole)


def test_maps_and_proxies_are_supplied_only_where_somebody_reads_them(
    tmp_path: Path, tiny: Dataset
):
    idle = bench_run(tmp_path)
    assert idle.draw_proxy(0) is None
    assert not idle.wants("real_maps")
    maps, _ = idle.look_real(stand_in(tiny.info), torch.randn(4, *tiny.info.shape))
    assert maps.numel() == 0
    busy = bench_run(tmp_path, Term("looking", 1.0, Looking()))
    assert busy.draw_proxy(0) is not None
    assert busy.wants("real_maps", "proxy")


class Seeing(Looking):
    """Keeps the weights of every proxy that it is shown."""

    seen: ClassVar[list[float]] = []

    def loss(self, m: Match) -> torch.Tensor:
        self.seen.append(float(next(m.proxy.parameters()).detach().sum()))  # type: ignore[union-attr]
        return super().loss(m)


def test_a_match_without_a_proxy_gets_that_of_the_step_and_one_with_its_own_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Seeing, "seen", [])
    run = bench_run(tmp_path, Term("seeing", 1.0, Seeing()))
    assert run.proxies is not None
    sums = [float(next(run.proxies.member(i).parameters()).sum()) for i in range(2)]
    assert sums[0] != sums[1]
    for run.at in range(8):
        for _ in range(2):  # chunks of classes
            run.backward(None, match(run))
    pairs = [Seeing.seen[i : i + 2] for i in range(0, 16, 2)]
    assert all(a == b for a, b in pairs), "within a step all chunks see the same network"
    assert {a for a, _ in pairs} == set(sums), "steps draw anew"
    Seeing.seen.clear()
    own = replace(match(run), proxy=run.draw_proxy(0))
    for run.at in range(8):
        run.backward(None, own)
    assert Seeing.seen == [pairs[0][0]] * 8


@dataclass
class Odd(Sum):
    """A regularizer whose loss is what it is given."""

    value: Any = None

    def loss(self, m: Match) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, "not a value of type float"),
        (None, "not a value of type NoneType"),
        (torch.ones(3), "not one of shape [3]; sum it over the classes"),
    ],
)
def test_a_loss_that_is_no_scalar_tensor_is_told_as_its_owners(
    value: Any, words: str, tmp_path: Path
):
    run = bench_run(tmp_path, Term("odd#2", 1.0, Odd(value=value)))
    with pytest.raises(ContractError) as broken:
        run.backward(None, match(run))
    assert (broken.value.kind, broken.value.name) == ("regularizer", "odd")
    assert str(broken.value) == f"loss must return a scalar tensor, {words}"
    if value is not None:
        with pytest.raises(ContractError, match="the loss that it gives to") as broken:
            run.backward(value, match(run))
        assert broken.value.kind == "method"


def test_a_match_that_lacks_what_a_term_reads_is_the_methods_fault(tmp_path: Path):
    class Views(Sum):
        requires: ClassVar[frozenset[str]] = frozenset({"syn", "real_view", "real_labels"})

    run = bench_run(tmp_path, Term("views", 1.0, Views()))
    with pytest.raises(ContractError, match=r"lacks real_labels, real_view, which .*'views'") as e:
        run.backward(None, match(run))
    assert e.value.kind == "method"


def test_streams_are_those_of_the_seed(tmp_path: Path):
    run = bench_run(tmp_path)
    one, same = (torch.rand(3, generator=run.stream("augment", 4)) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, torch.rand(3, generator=run.stream("augment", 5)))
