"""Which trials are not worth going on with: decided from recorded values alone, so that a decision can be made again.

Optuna's own pruners write into the study while they decide, which a crash in between would leave half done, and see
every trial there is, which a repeatable search must not; and go through all of them each time.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from fmnist_models.epoch import DIRECTIONS, is_better
from search.configuration.config import SearchConfig
from search.records.rungs import list_rungs

_MEDIAN_OF_AT_LEAST = 5  # trials, as in Optuna's MedianPruner


class Pruner(Protocol):
    """Decides about a trial after an epoch. ``of_complete``: only complete trials are compared with."""

    of_complete: ClassVar[bool]

    def field(self, number: int, epoch: int) -> Hashable | None:
        """Where trial ``number`` is compared at this epoch, with all that are there too; ``None`` if nowhere."""
        ...

    def should_prune(self, values: Mapping[int, float], there: Sequence[float]) -> bool:
        """Whether a trial ends after the newest epoch of ``values`` (epoch → the search's metric).

        ``there``: the others' values in the field of that epoch, in ascending order.
        """
        ...


@dataclass(frozen=True)
class NoPruner:
    """Lets every trial go on."""

    of_complete: ClassVar[bool] = False

    def field(self, number: int, epoch: int) -> Hashable | None:
        return None

    def should_prune(self, values: Mapping[int, float], there: Sequence[float]) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class HalvingPruner:
    """Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning").

    At each rung (``search.records.rungs``; Optuna has them in the second half of ``max_epochs`` too) a trial goes on if
    it is among the best 1/``reduction_factor`` of those that have come so far, or the best of fewer.
    """

    of_complete: ClassVar[bool] = False
    metric: str
    min_epochs: int
    max_epochs: int
    reduction_factor: int

    def field(self, number: int, epoch: int) -> Hashable | None:
        return epoch if epoch in list_rungs(self.min_epochs, self.max_epochs, self.reduction_factor) else None

    def should_prune(self, values: Mapping[int, float], there: Sequence[float]) -> bool:
        num_going_on = max(1, (len(there) + 1) // self.reduction_factor)
        return _count_better(values[max(values)], there, metric=self.metric) >= num_going_on


@dataclass(frozen=True, kw_only=True)
class HyperbandPruner(HalvingPruner):
    """Successive halving in brackets, each with a later first rung (Li et al. 2018, "Hyperband", algorithm 1).

    A trial's number decides its bracket, in the proportions of the paper; it is compared with trials of its own only.
    """

    def field(self, number: int, epoch: int) -> Hashable | None:
        bracket = self.bracket(number)
        is_early = epoch < self.min_epochs * self.reduction_factor**bracket
        return None if is_early or super().field(number, epoch) is None else (bracket, epoch)

    def bracket(self, number: int) -> int:
        """The trial's bracket, 0 the one with the earliest first rung."""
        shares = self._shares()
        position = zlib.crc32(str(number).encode()) % sum(shares)
        return next(bracket for bracket in range(len(shares)) if position < sum(shares[: bracket + 1]))

    def _shares(self) -> list[int]:
        """How many trials of each round belong to each bracket."""
        num_brackets = math.floor(math.log(self.max_epochs / self.min_epochs, self.reduction_factor) + 1e-9) + 1
        return [math.ceil(num_brackets * self.reduction_factor**s / (s + 1)) for s in reversed(range(num_brackets))]


@dataclass(frozen=True, kw_only=True)
class MedianPruner:
    """From epoch ``min_epochs`` on, a trial whose best value so far is worse than the median of the complete trials'
    values at this epoch ends (Golovin et al. 2017, "Google Vizier", section 3.5)."""

    of_complete: ClassVar[bool] = True
    metric: str
    min_epochs: int

    def field(self, number: int, epoch: int) -> Hashable | None:
        return epoch if epoch >= self.min_epochs else None

    def should_prune(self, values: Mapping[int, float], there: Sequence[float]) -> bool:
        if len(there) < _MEDIAN_OF_AT_LEAST:
            return False
        median = (there[(len(there) - 1) // 2] + there[len(there) // 2]) / 2
        return all(is_better(median, value, metric=self.metric) for value in values.values())


def _count_better(value: float, there: Sequence[float], *, metric: str) -> int:
    """How many of the values, which ascend, are better."""
    if DIRECTIONS[metric] == "maximize":
        return len(there) - bisect_right(there, value)
    return bisect_left(there, value)


def build_pruner(config: SearchConfig) -> Pruner:
    """The configured pruner."""
    metric, first, factor = config.metric, config.min_epochs, config.reduction_factor
    match config.pruner:
        case "halving":
            return HalvingPruner(metric=metric, min_epochs=first, max_epochs=config.max_epochs, reduction_factor=factor)
        case "hyperband":
            return HyperbandPruner(
                metric=metric, min_epochs=first, max_epochs=config.max_epochs, reduction_factor=factor
            )
        case "median":
            return MedianPruner(metric=metric, min_epochs=first)
        case "none":
            return NoPruner()
