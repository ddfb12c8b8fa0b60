"""A trial's learning curve as other programs want it: all that was measured, epoch by epoch, and when."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from fmnist_models.epoch import Epoch
from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment

_MAX_BYTES = 2**24
_MAX_EPOCH_S = 1e8


@dataclass(frozen=True)
class Point:
    """What was measured after an epoch, at ``time_s`` of Unix's clock; metric → finite value."""

    epoch: int
    time_s: float
    values: Mapping[str, float]


def read_curve(experiment: Experiment, trial: FrozenTrial, *, metric: str) -> list[Point]:
    """The epochs that the study knows of, in order, each with all that the trial's table has of it, or with the
    search's metric alone where there is no table: on another machine, or in a store.

    What was read once stays as it is when the trial goes on.
    """
    table = _read_table(experiment, trial.number)
    time_s = start_s(trial)
    points = []
    for number in sorted(trial.intermediate_values):
        epoch = table.get(number)
        values = {} if epoch is None else {k: v for k, v in dataclasses.asdict(epoch).items() if k != "epoch"}
        time_s += max(0.0, min(values.get("epoch_s", 0.0), _MAX_EPOCH_S))
        values[metric] = trial.intermediate_values[number]  # the record has the last word
        points.append(Point(number, time_s, values))
    return points


def start_s(trial: FrozenTrial) -> float:
    """When the trial began, by Unix's clock."""
    return _clock_s(trial.datetime_start.timestamp() if trial.datetime_start else 0.0)


def end_s(trial: FrozenTrial) -> float:
    """When the trial ended, by Unix's clock; when it began, if it has not."""
    return _clock_s(trial.datetime_complete.timestamp()) if trial.datetime_complete else start_s(trial)


def _clock_s(seconds: float) -> float:
    return max(0.0, seconds)  # no program expects a trial from before 1970


def _read_table(experiment: Experiment, number: int) -> dict[int, Epoch]:
    try:
        text = read_bounded(experiment.trial(number).epochs, max_bytes=_MAX_BYTES).decode()
        epochs = parse_epochs(text)
    except (OSError, FileError, ValueError):
        return {}
    return {epoch.epoch: epoch for epoch in epochs if all(map(math.isfinite, dataclasses.astuple(epoch)))}
