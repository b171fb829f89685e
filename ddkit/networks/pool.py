"""Networks for methods to look through: fresh random ones, and a pool trained on the real data."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ddkit.backbone import freeze
from ddkit.data import DataInfo, Dataset
from ddkit.errors import CheckpointError, DataError, DivergedError, IncompatibleError
from ddkit.images.groups import Groups
from ddkit.images.real import RealImages
from ddkit.networks.digest import build_digest, state_digest
from ddkit.networks.fresh import Build, build
from ddkit.networks.training import accuracy, epochs, fit
from ddkit.recipes.sections import ProxySpec, TrainSpec
from ddkit.reporter import Reporter, Silent
from ddkit.runtime import lock, randomness, storage
from ddkit.runtime.device import Runtime
from ddkit.runtime.progress import duration

CACHE_FORMAT = 2


class RawInput(nn.Module):
    """A network that was trained on pixels in [0, 1], to be shown normalised images."""

    def __init__(self, net: nn.Module, info: DataInfo):
        super().__init__()
        self.net: Any = net
        self.info = info
        self.output_fmt = getattr(net, "output_fmt", "NCHW")
        self.num_prefix_tokens = getattr(net, "num_prefix_tokens", 0)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.net.forward_features(self.info.denormalize(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.net.forward_head(x, pre_logits=pre_logits)

    def get_classifier(self) -> nn.Module:
        return self.net.get_classifier()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.info.denormalize(x))


class ProxyPool:
    """The recipe's pool of networks trained on real data, cached by content.

    The cache key covers the training data, the backbone (its name, its options, and what it builds)
    and the whole training recipe, not the number of networks: a larger pool of the same kind trains
    only what is missing, and recipes with the same kind share it. Accuracies are kept with the hash
    of the test images that they were measured on, and measured anew on others.
    """

    def __init__(
        self,
        spec: ProxySpec,
        make: Build,
        dataset: Dataset,
        runtime: Runtime,
        seed: int,
        cache: Path | None = None,
    ):
        self.spec = spec
        self.info = dataset.info
        self._dataset = dataset.to(runtime.device)
        self._data = dataset.fingerprint()
        self._test = dataset.test.fingerprint()
        self._runtime = runtime
        self._seed = seed
        self._make: Build = make if spec.input == "normalized" else self._raw(make)
        self._net: nn.Module | None = None
        self._states: dict[int, dict[str, Tensor]] = {}
        self.accuracies: dict[int, float] = {}
        """By number, the share of test images that a loaded network has right, 0 to 1."""
        self._cache = cache

    @cached_property
    def folder(self) -> Path:
        """Where the networks are kept; to know it, one is built and tried."""
        return (self._cache or storage.cache("networks")) / self._key()

    def _raw(self, make: Build) -> Build:
        return lambda: RawInput(make(), self.info)

    def _key(self) -> str:
        spec = self.spec
        facts = {
            "format": CACHE_FORMAT,
            "data": self._data,
            "backbone": [spec.backbone.name, dict(spec.backbone.options)],
            "builds": build_digest(self._make, self.info),
            "training": repr(spec.training()),
            "rest": [spec.images, spec.input, spec.seed, self._runtime.precision],
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        name = re.sub(r"[^\w-]", "-", self.info.name)[:60]  # a set's file may say "../.."
        return f"{name}-{blake2b(text.encode(), digest_size=8).hexdigest()}"

    def missing(self) -> list[int]:
        """Return the numbers of the networks that are not in the cache."""
        return [i for i in range(self.spec.count) if not self._path(i).is_file()]

    def cached(self) -> dict[int, float | None]:
        """Return the test accuracies, 0 to 1, of the networks in the cache, by number.

        None where it was not measured on these test images. Only headers are read. A network that
        is damaged, or of other images, is left out.
        """
        found: dict[int, float | None] = {}
        for i in range(self.spec.count):
            try:
                with safe_open(self._path(i), framework="pt") as file:
                    described = file.metadata() or {}
                if described.get("data") == self._data:
                    found[i] = json.loads(described["test_accuracies"]).get(self._test)
            except (SafetensorError, OSError, KeyError, ValueError):
                continue
        return found

    def prepare(self, reporter: Reporter) -> None:
        """Train what is missing, after saying what it will cost; each network is kept at once."""
        storage.sweep(self.folder)
        missing = self.missing()
        if missing:
            storage.check_writable(self._path(missing[0]))
            seconds = self.price() * len(missing)
            reporter.note(
                f"proxies: {len(missing)} of {self.spec.count} x {self.spec.backbone} to train, "
                f"{self.spec.epochs} epochs each on {self._count()} images: "
                f"about {duration(seconds)}, once; cached in {self.folder}"
            )
            reporter.begin("proxies", epochs(self.spec.training()) * len(missing))
            try:
                tested = self._train_all(missing, reporter)
            finally:
                reporter.end()
            if tested:
                mean = 100 * sum(tested) / len(tested)
                reporter.note(f"proxies: {mean:.1f} % of the test images right, on average")
        states = (self._load(i) for i in range(self.spec.count))
        self._states = {i: self._placed(state) for i, state in enumerate(states)}
        self._net = freeze(self.build().to(self._runtime.device))
        self._net.train(self.spec.mode == "train")

    def _train_all(self, missing: list[int], reporter: Reporter) -> list[float]:
        """Train networks, sharing the work with other processes at the same pool.

        First those that no other process is at; then those that one began and did not finish.
        """
        tested, begun = [], []
        for i in missing:
            taken = lock.try_lock(self._lock(i))
            if taken is None:
                begun.append(i)
                continue
            with taken:
                if not self._path(i).is_file():
                    tested.append(self._train(i, reporter))
        for i in begun:
            with lock.held(self._lock(i), reporter.note, f"proxy {i}"):
                if not self._path(i).is_file():
                    tested.append(self._train(i, reporter))
        return tested

    def build(self) -> nn.Module:
        """Return a network of the pool's kind, untrained."""
        return build(self._make, torch.device("cpu"), self.spec.seed, "proxy-module")

    @property
    def module(self) -> nn.Module:
        """The module that every draw fills, with the weights of the last one."""
        if self._net is None:
            raise RuntimeError("a pool is used before prepare()")
        return self._net

    def draw(self, *counters: int) -> nn.Module:
        """Return a uniformly drawn member of the pool, frozen; the same module every time."""
        rng = randomness.generator(self._seed, "proxies", *counters)
        return self.member(int(torch.randint(self.spec.count, (), generator=rng)))

    def member(self, index: int) -> nn.Module:
        """Return member `index`, in the same module as `draw`."""
        self.module.load_state_dict(self._states[index])
        return self.module

    def initial(self, index: int) -> dict[str, Tensor]:
        """Return the weights that member `index` was trained from."""
        return self._new(index).state_dict()

    def trained(self, index: int) -> dict[str, Tensor]:
        """Return the weights of member `index`."""
        return self._states[index]

    def _placed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights on the device, if the whole pool takes no more than the budget there."""
        size = sum(v.numel() * v.element_size() for v in state.values())
        if size * self.spec.count > self._runtime.budget:
            return state
        return {k: v.to(self._runtime.device) for k, v in state.items()}

    def _train(self, index: int, reporter: Reporter) -> float:
        net = self._new(index)
        spec = self.spec.training()
        fetch, count = self._fetcher(index)
        seed = randomness.derive(self.spec.seed, "proxy-training", index)
        try:
            fit(net, fetch, count, spec, seed, self._runtime, reporter)
            tested = accuracy(net, self._dataset.test, self.info, self._runtime)
        except DivergedError as error:
            raise DivergedError(
                f"{self.spec.backbone} diverged when it was trained on {self.info.name} for a pool "
                f"(lr {self.spec.lr:g}): {error}; it is not kept. Lower that pool's lr"
            ) from None
        state = {k: v.cpu().contiguous() for k, v in net.state_dict().items()}
        self._keep(index, state, {self._test: tested})
        return tested

    def _keep(self, index: int, state: dict[str, Tensor], accuracies: dict[str, float]) -> None:
        """Write a network with what it says of itself; `accuracies` by the hash of test images."""
        told = {"data": self._data, "test_accuracies": json.dumps(accuracies)}
        metadata = told | {"digest": _digest(state, told)}
        storage.write_atomically(self._path(index), lambda path: save_file(state, path, metadata))

    def _new(self, index: int) -> nn.Module:
        return build(self._make, self._runtime.device, self.spec.seed, "proxy-init", index)

    def _fetcher(self, index: int) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        """Return how to fetch training rows: of all images, or of a subset drawn per network."""
        real = RealImages(self._dataset, self.spec.seed, self._runtime.device)
        chosen = torch.arange(len(real.source.labels))
        if self.spec.images is not None and self.spec.images < len(chosen):
            each, more = divmod(self.spec.images, self.info.num_classes)
            drawn = real.choose(each + 1, index, "proxy-images")
            groups = Groups.of(real.source.labels[drawn])
            kept = [each + (c < more) for c in groups.classes]
            split = drawn.split(list(groups.counts))
            chosen = torch.cat([rows[:k] for rows, k in zip(split, kept, strict=True)])
        labels = real.source.labels.to(self._runtime.device)

        def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
            index = chosen[rows]
            return real.fetch(index), labels[index.to(labels.device)]

        return fetch, len(chosen)

    def _count(self) -> int:
        total = len(self._dataset.train.labels)
        return min(total, self.spec.images or total)

    def price(self) -> float:
        """Return the seconds that one network will take, from two short timed epochs."""
        fetch, _ = self._fetcher(0)
        rows = min(4 * self.spec.batch_size, self._count())
        spec = TrainSpec(epochs=1, batch_size=self.spec.batch_size, lr=self.spec.lr)
        net, seconds = self._new(0), 0.0
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            try:
                fit(net, fetch, rows, spec, 0, self._runtime, Silent())
            except DivergedError:
                pass  # whether training diverges, training shows
            except IncompatibleError as error:
                raise IncompatibleError(f"a pool of {self.spec.backbone}: {error}") from None
            if self._runtime.device.type == "cuda":
                torch.cuda.synchronize(self._runtime.device)
            seconds = time.perf_counter() - start
        return seconds / rows * self._count() * epochs(self.spec.training())

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:04d}.safetensors"

    def _lock(self, index: int) -> Path:
        return self.folder / f".{index:04d}.lock"

    def _load(self, index: int) -> dict[str, Tensor]:
        try:
            with safe_open(self._path(index), framework="pt") as file:
                described = file.metadata() or {}
                state = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118 - not mapped
        except (SafetensorError, OSError):
            described, state = {}, {}
        if described.get("data", self._data) != self._data:
            raise DataError(
                f"{self._path(index)}: this network was not trained on the images of "
                f"{self.info.name} that are here; remove the file to train it anew"
            )
        if described.pop("digest", "") != _digest(state, described):  # damaged: make it again
            storage.remove(self._path(index))
            self._train(index, Silent())
            return self._load(index)
        known: dict[str, float] = json.loads(described["test_accuracies"])
        if self._test not in known:
            known[self._test] = self._measured(index, state)
            with suppress(CheckpointError):  # a cache that may only be read still serves
                self._keep(index, state, known)
        self.accuracies[index] = known[self._test]
        return state

    def _measured(self, index: int, state: dict[str, Tensor]) -> float:
        """Return the accuracy on the test images that are here of a network that is kept."""
        net = self._new(index)
        net.load_state_dict(state)
        return accuracy(net, self._dataset.test, self.info, self._runtime)


def _digest(state: dict[str, Tensor], told: dict[str, str]) -> str:
    """Return a hash of weights and of what their file says of them: a flipped bit shows."""
    text = state_digest(state) + json.dumps(told, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()
