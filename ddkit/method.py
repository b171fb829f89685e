"""Methods: what is matched, and how a step is taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from ddkit.data import DataInfo
from ddkit.recipes.sections import SyntheticSpec
from ddkit.reporter import Metrics
from ddkit.runtime.memory import tensor_bytes

if TYPE_CHECKING:
    from ddkit.run import Run


class Method(ABC):
    """A way to learn a synthetic set; options are the fields of a dataclass.

    A method draws randomness from `Run.stream` alone and keeps in `state_dict` whatever the
    synthetic set and `Run.optimizers` do not hold, so that a resumed run equals an unbroken one.
    """

    provides: ClassVar[frozenset[str]]
    """The names of the `Match` fields that its steps fill, apart from `proxy`."""

    chooses: ClassVar[bool] = False
    """Whether it makes the set of real images, so that ``synthetic.init`` has no say."""

    @property
    def reads_proxies(self) -> bool:
        """Whether the method itself looks through the recipe's pool of trained networks."""
        return False

    def check(  # noqa: B027 - most methods take anything
        self, spec: SyntheticSpec, info: DataInfo, net: nn.Module
    ) -> None:
        """Refuse what the method cannot do, before anything is trained.

        `net` is a network of the recipe's backbone for `info`, on the CPU, to look at or to probe.

        Raises:
            RecipeError: an option has no value for this kind of set.
            IncompatibleError: the backbone, or the formation, is not for this method.
        """

    @abstractmethod
    def steps(self, run: Run) -> int:
        """Return how many steps a run takes."""

    @abstractmethod
    def setup(self, run: Run) -> None:
        """Prepare: set `run.optimizers`, train or load networks."""

    @abstractmethod
    def step(self, run: Run, i: int) -> Metrics:
        """Take outer update `i`, the smallest unit worth resuming; return its loss terms."""

    def finish(self, run: Run) -> None:  # noqa: B027 - most methods have nothing to finish
        """Do what is left after the last step."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain containers from which `load_state_dict` continues."""
        return {}

    def state_bytes(self) -> int:
        """Return how many bytes `state_dict` may come to hold, known after `setup`.

        By default those of its tensors now; a method whose state grows says what it grows to.
        """
        return tensor_bytes(self.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take up a state that `state_dict` returned, after `setup`."""
