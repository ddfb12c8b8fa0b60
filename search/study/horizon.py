"""What a sampler looks at of the trials that have ended: so few that a suggestion costs the same after any number."""

from __future__ import annotations

import hashlib
import heapq

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS

_Rank = tuple[bool, float, float, int]


class Horizon:
    """The best trials, and a fixed random sample of the others.

    Which they are follows from the set of trials alone, in whatever order they came: a search that was interrupted has
    the same before it as one that was not. Each trial is added once, under a number of its own.

    ``num_best``: as many as TPE ever takes for good ones, so that those are the same as without a bound.
    ``num_others``: of the rest, from which TPE learns where it has been.
    """

    def __init__(self, metric: str, *, num_best: int = 25, num_others: int = 475) -> None:
        self._sign = -1 if DIRECTIONS[metric] == "maximize" else 1
        self._num_best = num_best
        self._num_others = num_others
        self._best: list[tuple[_Rank, FrozenTrial]] = []  # heaps, both with the one to go first
        self._others: list[tuple[int, FrozenTrial]] = []

    def add(self, trial: FrozenTrial) -> None:
        """Takes in a trial that is COMPLETE or PRUNED."""
        heapq.heappush(self._best, (self._rank(trial), trial))
        if len(self._best) <= self._num_best:
            return
        _, other = heapq.heappop(self._best)
        heapq.heappush(self._others, (-_lot(other.number), other))
        if len(self._others) > self._num_others:
            heapq.heappop(self._others)

    def trials(self) -> list[FrozenTrial]:
        """What there is to look at, by number."""
        return sorted((trial for _, trial in (*self._best, *self._others)), key=lambda trial: trial.number)

    def _rank(self, trial: FrozenTrial) -> _Rank:
        """The greater, the better, as TPE has it: complete trials by value, then pruned ones by how far they came."""
        if trial.state == TrialState.COMPLETE:
            assert trial.value is not None
            return True, 0.0, -self._sign * trial.value, -trial.number
        epoch = max(trial.intermediate_values, default=-1)
        return False, epoch, -self._sign * trial.intermediate_values.get(epoch, 0.0), -trial.number


def _lot(number: int) -> int:
    """What a trial draws for its place in the sample; the lowest stay."""
    return int.from_bytes(hashlib.blake2b(str(number).encode(), digest_size=8).digest())
