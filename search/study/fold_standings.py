"""What trials with folds are compared by: in the first fold as any trial is, and from then on fold by fold."""

from __future__ import annotations

from bisect import insort

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS
from search.records.fold_values import count_folds, fold_scores
from search.study.pruning import NoPruner, Pruner
from search.study.standings import Standings
from search.study.wilcoxon import SMALLEST_UNIT, is_worse


class FoldStandings:
    """``Standings`` of a search with folds of ``size`` epochs each.

    In the first fold ``pruner`` decides; after each further one that is complete, ``is_worse`` does, against the best
    complete trial (the first of equals) of those that ``window`` lets it see. Without a pruner nothing is pruned.
    ``num_images``: validation images per fold, on average.
    """

    def __init__(self, pruner: Pruner, *, metric: str, size: int, num_images: float, window: int | None = None) -> None:
        self._first_fold = Standings(pruner, window=window)
        self._prunes = not isinstance(pruner, NoPruner)
        self._metric = metric
        self._sign = -1 if DIRECTIONS[metric] == "maximize" else 1
        self._size = size
        self._unit = 1 / num_images if metric == "val_accuracy" else SMALLEST_UNIT
        self._window = window
        self._complete: list[tuple[float, int, tuple[float, ...]]] = []  # value, number and scores, the best first

    def epoch_ended(self, number: int, epoch: int, value: float) -> None:
        """Takes in the value that a trial got at an epoch."""
        if epoch <= self._size:
            self._first_fold.epoch_ended(number, epoch, value)

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Takes in what only a trial that has ended counts with; its epochs have been told before."""
        self._first_fold.trial_ended(trial)
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            scores = fold_scores(trial.intermediate_values, size=self._size, metric=self._metric)
            insort(self._complete, (self._sign * trial.value, trial.number, tuple(scores)))

    def should_prune(self, number: int, values: dict[int, float]) -> bool:
        """Whether trial ``number`` ends after the newest epoch of ``values`` (epoch → value), of which this has not
        been told yet."""
        newest = max(values)
        if newest <= self._size:
            return self._first_fold.should_prune(number, values)
        if not self._prunes or newest != count_folds(values, size=self._size) * self._size:
            return False
        best = next((scores for _, other, scores in self._complete if self._may_see(number, other)), None)
        if best is None:
            return False
        scores = fold_scores(values, size=self._size, metric=self._metric)
        return is_worse(scores, best, metric=self._metric, unit=self._unit)

    def _may_see(self, number: int, other: int) -> bool:
        return other != number and (self._window is None or other <= number - self._window)
