"""The values of a trial whose objective is its mean over folds: which of its epochs belong to which fold, and what they
add up to. Neither Ray nor torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from fmnist_models.epoch import DIRECTIONS

FOLD_EPOCHS = "fold_epochs"
"""User attribute of a trial that trains folds: how many epochs each of them has. Its epochs are numbered through."""

Values = Mapping[int, float]
_DIGITS = 12  # of a mean after the decimal point


FOLDS = "folds"
"""Column of a table of trials that have folds: how many are complete."""


def fold_epochs(trial: FrozenTrial) -> int | None:
    """How many epochs each fold of the trial has; ``None`` of a trial without folds."""
    value = trial.user_attrs.get(FOLD_EPOCHS)
    return value if type(value) is int and value >= 1 else None


def curve(trial: FrozenTrial) -> Values:
    """Epoch → the value that the trial is judged by: of a trial with folds the mean over them."""
    size = fold_epochs(trial)
    return trial.intermediate_values if size is None else mean_curve(trial.intermediate_values, size=size)


def complete_folds(trial: FrozenTrial) -> int | None:
    """How many folds of the trial are complete; ``None`` of a trial without folds."""
    size = fold_epochs(trial)
    return None if size is None else count_folds(trial.intermediate_values, size=size)


def count_folds(values: Values, *, size: int) -> int:
    """How many folds of ``size`` epochs are complete."""
    count = 0
    while all(epoch in values for epoch in range(count * size + 1, (count + 1) * size + 1)):
        count += 1
    return count


def describe_epochs(trial: FrozenTrial, best: int | None) -> str:
    """What the trial has trained and which epoch counts, in words."""
    size, values = fold_epochs(trial), trial.intermediate_values
    if size is None:
        return f"epoch {best} of {len(values)}"
    count = count_folds(values, size=size)
    if not count:
        return f"epoch {best} of {len(values)} of the first fold"
    return f"mean over {count} fold{'s' * (count > 1)}, epoch {best} of {size}"


def mean_curve(values: Values, *, size: int) -> Values:
    """Epoch 1…``size`` → the mean of its values over the complete folds; the first fold's as far as it has come, if
    none is complete. Rounded, so that means of as many images are equal."""
    count = count_folds(values, size=size)
    if not count:
        return {epoch: value for epoch, value in values.items() if epoch <= size}
    return {
        epoch: round(math.fsum(values[fold * size + epoch] / count for fold in range(count)), _DIGITS)
        for epoch in range(1, size + 1)
    }


def best_of(values: Values, metric: str) -> int | None:
    """The epoch with the best value, the earliest of equals; ``None`` if there is none."""
    sign = -1 if DIRECTIONS[metric] == "maximize" else 1
    return min(values, key=lambda epoch: (sign * values[epoch], epoch), default=None)


def fold_scores(values: Values, *, size: int, metric: str) -> list[float]:
    """The value of each complete fold, in order, at the epoch that is best for their mean."""
    epoch = best_of(mean_curve(values, size=size), metric)
    if epoch is None:
        return []
    return [values[fold * size + epoch] for fold in range(count_folds(values, size=size))]


def progress_of(trial: FrozenTrial, metric: str) -> Values:
    """Epoch → what the trial was worth after it, as a sampler is to see it: after each complete fold but the first
    the best value of the mean so far, and in the first fold, as in a trial without folds, that of each epoch."""
    size, values = fold_epochs(trial), trial.intermediate_values
    if size is None:
        return values
    worth = {epoch: value for epoch, value in values.items() if epoch <= size}
    for count in range(2, count_folds(values, size=size) + 1):
        mean = mean_curve({epoch: values[epoch] for epoch in range(1, count * size + 1)}, size=size)
        worth[count * size] = (max if DIRECTIONS[metric] == "maximize" else min)(mean.values())
    return worth


def read_folds(settings: Mapping[str, Any]) -> int | None:
    """How many folds a configuration, as plain values, asks for; ``None`` if for none."""
    objective = settings.get("objective")
    folds = objective.get("folds") if isinstance(objective, Mapping) else None
    return folds if type(folds) is int and 2 <= folds <= 20 else None
