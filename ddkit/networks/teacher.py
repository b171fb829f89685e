"""A teacher: networks trained on the real data, whose answers are the labels that judges learn."""

from __future__ import annotations

from statistics import mean

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softmax

from ddkit.networks.pool import ProxyPool
from ddkit.recipes.sections import TeacherSpec
from ddkit.reporter import Reporter
from ddkit.runtime.device import Runtime


class Teacher:
    """Labels images by the mean probability of a pool's networks."""

    def __init__(self, pool: ProxyPool, spec: TeacherSpec, runtime: Runtime):
        self._pool = pool
        self._runtime = runtime
        self.spec = spec

    def prepare(self, reporter: Reporter) -> None:
        """Train or load the networks, and say how good they are."""
        self._pool.prepare(reporter)
        reporter.note(f"teacher: {100 * self.accuracy:.1f} % of the test images right")

    @property
    def identity(self) -> str:
        """What tells this teacher's networks from others: their data, training and build."""
        return self._pool.folder.name

    @property
    def accuracy(self) -> float:
        """The networks' mean test accuracy, 0 to 1, once they are prepared."""
        return mean(self._pool.accuracies.values())

    @torch.no_grad()
    def label(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return class probabilities float32 [N,K] for normalised `images` [N,C,H,W].

        `labels` int64 [N] are their classes: an answer that is not the class is replaced.
        """
        count = self._pool.spec.count
        total = torch.zeros(len(images), self._pool.info.num_classes, device=images.device)
        for i in range(count):
            net = self._pool.member(i)
            with self._runtime.autocast():
                logits = torch.cat([net(x) for x in images.split(self._runtime.micro_batch)])
            total += softmax(logits.float(), dim=1)
        return corrected(total / count, labels, self.spec.wrong == "logit")


def corrected(probabilities: Tensor, labels: Tensor, logit: bool = False) -> Tensor:
    """Return `probabilities` [N,K] with new rows where the largest is not at the label.

    The new row is the label alone. With `logit` it is what NCFM's released program makes of it: a
    one in a row of *logits*, so that the label's probability is e / (e + K - 1), 0.23 of 10
    classes, and the row says almost nothing (methods/ncfm, section 7).
    """
    certain = one_hot(labels, probabilities.shape[1]).to(probabilities.dtype)
    if logit:
        certain = softmax(certain, dim=1)
    wrong = probabilities.argmax(1, keepdim=True) != labels[:, None]
    return torch.where(wrong, certain, probabilities)
