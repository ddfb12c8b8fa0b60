"""The values that trials are compared by, kept sorted, so that a decision costs nearly the same after any number of
trials."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.study.pruning import Pruner


class Standings:
    """What a pruner compares trials with.

    ``window``: a trial is compared with those up to number k - ``window`` alone; ``None``: with all others.
    """

    def __init__(self, pruner: Pruner, *, window: int | None = None) -> None:
        self._pruner = pruner
        self._window = window
        self._values: defaultdict[Any, array[float]] = defaultdict(lambda: array("d"))
        self._by_number: defaultdict[Any, dict[int, float]] = defaultdict(dict)  # the same, where a window asks for it
        self._newest = -1

    def epoch_ended(self, number: int, epoch: int, value: float) -> None:
        """Takes in the value that a trial got at an epoch."""
        if not self._pruner.of_complete:
            self._add(number, epoch, value)

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Takes in what only a trial that has ended counts with; its epochs have been told before."""
        if self._pruner.of_complete and trial.state == TrialState.COMPLETE:
            for epoch, value in trial.intermediate_values.items():
                self._add(trial.number, epoch, value)

    def should_prune(self, number: int, values: dict[int, float]) -> bool:
        """Whether trial ``number`` ends after the newest epoch of ``values`` (epoch → value), of which this has not
        been told yet."""
        field = self._pruner.field(number, max(values))
        return field is not None and self._pruner.should_prune(values, self._there(field, number))

    def _add(self, number: int, epoch: int, value: float) -> None:
        field = self._pruner.field(number, epoch)
        if field is None:
            return
        insort(self._values[field], value)
        if self._window is not None:
            self._by_number[field][number] = value
            self._newest = max(self._newest, number)

    def _there(self, field: Any, number: int) -> Sequence[float]:
        values = self._values[field]
        if self._window is None:
            return values
        values = values[:]
        later, numbers = self._by_number[field], range(max(0, number + 1 - self._window), self._newest + 1)
        for value in (later[other] for other in numbers if other in later):
            del values[bisect_left(values, value)]
        return values
