"""Which trials are not worth going on with: decided from recorded values alone, so that a decision can be made again.

Optuna's own pruners write into the study while they decide, which a crash in between would leave half done, and see
every trial there is, which a repeatable search must not.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import is_better
from search.config import SearchConfig

_MEDIAN_OF_AT_LEAST = 5  # trials, as in Optuna's MedianPruner


class Pruner(Protocol):
    """Decides about a trial after an epoch."""

    def should_prune(self, number: int, values: Mapping[int, float], others: Sequence[FrozenTrial]) -> bool:
        """Whether trial ``number`` ends after the newest epoch of ``values`` (epoch → the search's metric).

        ``others``: the trials that it is compared with, itself not among them.
        """
        ...


@dataclass(frozen=True)
class NoPruner:
    """Lets every trial go on."""

    def should_prune(self, number: int, values: Mapping[int, float], others: Sequence[FrozenTrial]) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class HalvingPruner:
    """Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning").

    At each rung, epochs ``min_epochs * reduction_factor ** n``, a trial goes on if it is among the best
    1/``reduction_factor`` of those that have come so far, or the best of fewer.
    """

    metric: str
    min_epochs: int
    reduction_factor: int

    def should_prune(self, number: int, values: Mapping[int, float], others: Sequence[FrozenTrial]) -> bool:
        epoch = max(values)
        if not self._is_rung(epoch):
            return False
        value = values[epoch]
        there = [trial.intermediate_values[epoch] for trial in others if epoch in trial.intermediate_values]
        num_going_on = max(1, (len(there) + 1) // self.reduction_factor)
        return sum(is_better(other, value, metric=self.metric) for other in there) >= num_going_on

    def _is_rung(self, epoch: int) -> bool:
        rung = self.min_epochs
        while rung < epoch:
            rung *= self.reduction_factor
        return rung == epoch


@dataclass(frozen=True, kw_only=True)
class HyperbandPruner:
    """Successive halving in brackets, each with a later first rung (Li et al. 2018, "Hyperband", algorithm 1).

    A trial's number decides its bracket, in the proportions of the paper; it is compared with trials of its own only.
    """

    metric: str
    min_epochs: int
    max_epochs: int
    reduction_factor: int

    def should_prune(self, number: int, values: Mapping[int, float], others: Sequence[FrozenTrial]) -> bool:
        bracket = self.bracket(number)
        halving = HalvingPruner(
            metric=self.metric,
            min_epochs=self.min_epochs * self.reduction_factor**bracket,
            reduction_factor=self.reduction_factor,
        )
        return halving.should_prune(number, values, [t for t in others if self.bracket(t.number) == bracket])

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

    metric: str
    min_epochs: int

    def should_prune(self, number: int, values: Mapping[int, float], others: Sequence[FrozenTrial]) -> bool:
        epoch = max(values)
        complete = [trial.intermediate_values for trial in others if trial.state == TrialState.COMPLETE]
        there = [known[epoch] for known in complete if epoch in known]
        if epoch < self.min_epochs or len(there) < _MEDIAN_OF_AT_LEAST:
            return False
        median = statistics.median(there)
        return all(is_better(median, value, metric=self.metric) for value in values.values())


def build_pruner(config: SearchConfig) -> Pruner:
    """The configured pruner."""
    metric, first, factor = config.metric, config.min_epochs, config.reduction_factor
    match config.pruner:
        case "halving":
            return HalvingPruner(metric=metric, min_epochs=first, reduction_factor=factor)
        case "hyperband":
            return HyperbandPruner(
                metric=metric, min_epochs=first, max_epochs=config.max_epochs, reduction_factor=factor
            )
        case "median":
            return MedianPruner(metric=metric, min_epochs=first)
        case "none":
            return NoPruner()
