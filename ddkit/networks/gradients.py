"""Gradients of a network's parameters, class by class: what gradient matching compares.

The loss of a class is the mean cross-entropy of its rows, all labelled with it. Parameters are read
and never written to: frozen ones stay so, and no ``.grad`` is filled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from ddkit.backbone import has_batch_statistics
from ddkit.data import DataInfo
from ddkit.errors import IncompatibleError
from ddkit.images.groups import Groups
from ddkit.runtime.device import Runtime

Gradients = tuple[Tensor, ...]
"""One tensor for each parameter, in the order of ``net.parameters()``; where they are of several
classes, each has the classes as its first axis."""

Distance = Callable[[Gradients, Gradients], Tensor]
"""Of the gradients of the same classes, real and synthetic, to a scalar: the sum over classes."""


def matched(
    net: nn.Module,
    real: Tensor,
    real_groups: Groups,
    syn: Tensor,
    groups: Groups,
    distance: Distance,
    runtime: Runtime,
) -> Tensor:
    """Return `distance` of the classes' gradients on `real` [M,C,H,W] and `syn` [N,C,H,W].

    A scalar, differentiable by `syn` once. Where the classes go through `net` one by one, each
    one's derivative is taken at once, so that memory holds the graph of one.

    On a GPU, classes of equal size go through together (`torch.func.vmap`), as many as there are
    rows: chunk them by `Run.class_chunks`. On a CPU one by one is faster, up to six times for the
    real images: vmap makes grouped convolutions of the weight gradients.
    """
    together = runtime.device.type == "cuda" and groups.equal and real_groups.equal
    if together and not has_batch_statistics(net) and len(groups) > 1:
        theirs = stacked_gradients(net, real_groups.pad(real), groups.classes, runtime)
        ours = stacked_gradients(net, groups.pad(syn), groups.classes, runtime)
        return distance(tuple(g.detach() for g in theirs), ours)
    leaf = syn.detach().requires_grad_()
    total = leaf.new_zeros(())
    slope = torch.zeros_like(leaf)
    theirs_rows = _class_rows(real_groups)
    for c, rows in _class_rows(groups).items():
        part = leaf[rows.to(leaf.device)].detach().requires_grad_()
        theirs = class_gradients(net, real[theirs_rows[c].to(real.device)], c, runtime)
        ours = class_gradients(net, part, c, runtime, differentiable=True)
        value = distance(_alone(theirs), _alone(ours))
        (derivative,) = torch.autograd.grad(value, part)
        slope[rows.to(leaf.device)] = derivative
        total += value.detach()
    return _Differentiated.apply(syn, total, slope)


def class_gradients(
    net: nn.Module, x: Tensor, label: int, runtime: Runtime, differentiable: bool = False
) -> Gradients:
    """Return the parameters' gradients of the loss on `x`, all of class `label`.

    With `differentiable` they carry a graph back to `x`; without, `x` goes through in parts where
    its images do not depend on each other.
    """
    names, leaves = _parameters(net)
    whole = differentiable or has_batch_statistics(net)
    total: list[Tensor] = []
    for part in [x] if whole else x.split(runtime.micro_batch):
        labels = torch.full((len(part),), label, device=x.device)
        loss = _loss(net, dict(zip(names, leaves, strict=True)), part, labels, runtime)
        gradients = torch.autograd.grad(
            loss * (len(part) / len(x)),
            leaves,
            create_graph=differentiable,
            materialize_grads=True,
        )
        pairs = zip(total, gradients, strict=True) if total else ()
        total = [a + b for a, b in pairs] or list(gradients)
    return tuple(total)


def stacked_gradients(
    net: nn.Module, x: Tensor, classes: Sequence[int], runtime: Runtime
) -> Gradients:
    """Return the same of several classes at once; `x` [G,n,C,H,W], differentiable by `x`."""
    labels = torch.tensor(classes).to(x.device)[:, None].expand(-1, x.shape[1])

    def loss(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return _loss(net, parameters, images, labels, runtime)

    names, leaves = _parameters(net)
    of_one_class = grad(loss)
    parameters = {n: p.detach() for n, p in zip(names, leaves, strict=True)}
    gradients = vmap(of_one_class, in_dims=(None, 0, 0))(parameters, x, labels)
    return tuple(gradients[name] for name in names)


def check_twice_differentiable(net: nn.Module, info: DataInfo) -> None:
    """Refuse a network on the CPU whose parameters' gradients no image can differentiate.

    Raises:
        IncompatibleError: saying why.
    """
    runtime = Runtime(torch.device("cpu"))
    x = torch.zeros(2, *info.shape).requires_grad_()
    try:
        gradients = class_gradients(net, x, 0, runtime, differentiable=True)
        # backward() runs the whole graph; grad(…, x) would not meet a layer that only says so there
        torch.stack([g.square().sum() for g in gradients]).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise IncompatibleError(
            f"gradient matching needs second derivatives, which this backbone does not have "
            f"({reason}); choose another, such as convnet"
        ) from error


def _parameters(net: nn.Module) -> tuple[list[str], list[Tensor]]:
    """Return the names of the parameters and stand-ins that share their values."""
    named = list(net.named_parameters())
    return [n for n, _ in named], [p.detach().requires_grad_() for _, p in named]


def _loss(
    net: nn.Module, parameters: dict[str, Tensor], x: Tensor, labels: Tensor, runtime: Runtime
) -> Tensor:
    with runtime.autocast():
        logits = functional_call(net, parameters, (x,))
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return cross_entropy(logits, labels)


def _class_rows(groups: Groups) -> dict[int, Tensor]:
    """Return the rows of each class, int64 on the CPU, by class."""
    return {c: (groups.host == c).nonzero()[:, 0] for c in groups.classes}


def _alone(gradients: Gradients) -> Gradients:
    return tuple(g[None] for g in gradients)


class _Differentiated(torch.autograd.Function):
    """A value whose derivative by `x` is known already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return outer[0] * slope, None, None
