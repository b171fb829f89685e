"""Runs in float64, and the plain class-by-class form of what methods do for all classes at once."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddkit.backbone import look
from ddkit.data import Dataset, MemoryImages
from ddkit.distillation.bench import Bench, tiny_dataset
from ddkit.method import Method
from ddkit.regularizer import Match, Regularizer
from ddkit.run import Run


class Wide(Run):
    """A run that computes in float64."""

    def look_syn(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        return look(net, x)


class Mirror(Regularizer):
    """A term that reads both views' maps, for the regularizers' side of a sweep."""

    requires = frozenset({"syn_maps", "real_maps", "labels", "real_labels"})

    def loss(self, m: Match) -> Tensor:
        assert m.syn_maps is not None and m.real_maps is not None and m.real_groups is not None
        return (m.groups.mean(m.syn_maps) - m.real_groups.mean(m.real_maps)).pow(4).sum()


def ragged(dataset: Dataset | None = None) -> Dataset:
    """Return a dataset whose classes differ in size; the first has fewer images than a batch."""
    full = dataset or tiny_dataset()
    source = full.train
    assert isinstance(source, MemoryImages)
    kept = torch.ones_like(source.labels, dtype=torch.bool)
    kept[(source.labels == 0).nonzero()[4:, 0]] = False
    kept[(source.labels == 2).nonzero()[10:, 0]] = False
    return Dataset(full.info, MemoryImages(source.images[kept], source.labels[kept]), full.test)


def wide_run(method: Method, folder: Path, bench: Bench) -> Run:
    """Return a run of `method` whose images, batches and networks are float64."""
    run = bench.run(method, folder)
    run.synthetic.images.data = run.synthetic.images.data.double()
    fresh, fetch = run.nets.fresh, run.real.fetch
    run.nets.fresh = lambda *c: fresh(*c).double()  # type: ignore[method-assign]
    run.real.fetch = lambda index: fetch(index).double()  # type: ignore[method-assign]
    return run


def naive_step_gradients(net: nn.Module, x: Tensor, label: int, graph: bool) -> list[Tensor]:
    """Return the parameters' gradients of one class's mean loss, in the plain way."""
    loss = cross_entropy(net(x), torch.full((len(x),), label))
    return list(torch.autograd.grad(loss, list(net.parameters()), create_graph=graph))
