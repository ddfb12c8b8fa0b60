"""All that is known of one trial: its record, its curves and its files. Neither Ray nor torch, nor pandas."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded
from search.errors import ExperimentError, SelectionError
from search.records.confirmation import read_confirmation
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment, TrialFiles
from search.records.fold_values import fold_epochs, fold_scores, mean_curve
from search.records.numbers import is_same_value
from search.records.record import DEVICE, list_trials
from search.records.repetition import read_repetition
from search.records.results import CURVE, compact_parameters, read_settings
from search.review.confirmation_text import describe_confirmed
from search.review.listing import listing_row

_MAX_EPOCHS_BYTES = 2**22
_LOG_BYTES, _LOG_LINES = 2**13, 30


@dataclass(frozen=True, kw_only=True)
class TrialFile:
    """A file of a trial that is there; ``what`` says what it holds."""

    what: str
    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class TrialDetail:
    """One trial.

    ``curve`` and ``training``: the search's metric on validation and on training images, by epoch; the latter from the
    trial's table of epochs, empty if there is none. Of a trial with folds both are numbered through; ``mean_curve``:
    what it is judged by, by the epoch of each fold; ``fold_values``: of each complete fold at the best epoch. ``log``:
    the last lines of what a failed trial left, if it did. ``device``: what it trained on, ``cpu`` or a GPU's name;
    ``None`` of a trial of an older version, or one that failed before its first epoch.
    ``confirmed``: what came of its confirmation, and ``repeats``: what trial of a search it repeats, in words.
    """

    experiment: str
    dataset: str
    metric: str
    number: int
    state: str
    reason: str | None
    message: str | None
    parameters: Mapping[str, Any]
    value: float | None
    best_epoch: int | None
    last_value: float | None
    last_epoch: int | None
    started: str | None
    duration_s: float | None
    curve: Mapping[int, float]
    mean_curve: Mapping[int, float] | None
    fold_values: Sequence[float] | None
    training: Mapping[int, float]
    files: Sequence[TrialFile]
    log: str | None
    device: str | None = None
    confirmed: str | None = None
    repeats: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def read_details(experiment: Experiment, numbers: Sequence[int]) -> list[TrialDetail]:
    """All that is known of the trials of these numbers.

    Raises:
        SelectionError: there is no trial of such a number.
        ConfigError: the configuration is missing or not YAML.
        ExperimentError: the configuration or the study is damaged.
    """
    settings = read_settings(experiment)
    trials = list_trials(experiment)
    for number in numbers:
        if not 0 <= number < len(trials):
            valid = f"valid: 0 to {len(trials) - 1}" if trials else "it has none yet"
            raise SelectionError(f"{experiment.name} has no trial {number}; {valid}")
    confirmed = _describe_confirmed(experiment, settings, trials)
    return [
        dataclasses.replace(
            _read_detail(experiment, trials[number], settings["metric"], settings["dataset"]),
            confirmed=confirmed.get(number),
        )
        for number in numbers
    ]


def _describe_confirmed(
    experiment: Experiment, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]
) -> dict[int, str]:
    with contextlib.suppress(ExperimentError):  # the search can be read all the same
        confirmation = read_confirmation(experiment, settings, trials)
        if confirmation is not None:
            return {one.trial: describe_confirmed(one, confirmation) for one in confirmation.trials}
    return {}


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The names under which two mappings hold different values, with both; ``None`` where one of them has none."""
    names = dict.fromkeys([*a, *b])
    return {name: [a.get(name), b.get(name)] for name in names if not is_same_value(a.get(name), b.get(name))}


def _read_detail(experiment: Experiment, trial: FrozenTrial, metric: str, dataset: str) -> TrialDetail:
    files = experiment.trial(trial.number)
    if trial.state.is_finished() or not experiment.is_held():
        files.fetch()
    elif not files.last.exists():  # what a process here is writing is the newest there is, but this one is elsewhere
        files.fetch_epochs()
    row = listing_row(trial, metric=metric, dataset=dataset)
    started, size = trial.datetime_start, fold_epochs(trial)
    return TrialDetail(
        experiment=experiment.name,
        dataset=dataset,
        metric=metric,
        number=trial.number,
        state=row["state"],
        reason=row["reason"],
        message=row["message"],
        parameters=compact_parameters(trial.params),
        value=row["value"],
        best_epoch=row["best_epoch"],
        last_value=row["last_value"],
        last_epoch=row["last_epoch"],
        started=None if started is None else started.isoformat(" ", timespec="seconds"),
        duration_s=row["duration_s"],
        curve=dict(zip(sorted(trial.intermediate_values), row[CURVE], strict=True)),
        mean_curve=None if size is None else dict(mean_curve(trial.intermediate_values, size=size)),
        fold_values=None if size is None else fold_scores(trial.intermediate_values, size=size, metric=metric),
        training=_read_training(files.epochs, metric),
        files=_list_files(files, is_over=trial.state.is_finished()),
        log=_read_log(files),
        device=trial.user_attrs.get(DEVICE),
        repeats=str(repetition) if (repetition := read_repetition(trial)) else None,
    )


def _read_training(path: Path, metric: str) -> dict[int, float]:
    with contextlib.suppress(OSError, FileError, ValueError):
        epochs = parse_epochs(read_bounded(path, max_bytes=_MAX_EPOCHS_BYTES).decode())
        values = {e.epoch: {"val_accuracy": e.train_accuracy, "val_loss": e.train_loss}[metric] for e in epochs}
        return {epoch: value for epoch, value in values.items() if math.isfinite(value) and 0 < epoch < 2**31}
    return {}


def _list_files(files: TrialFiles, *, is_over: bool) -> list[TrialFile]:
    known = {
        "best weights" if is_over else "best weights, unless the last epoch is the best": files.best,
        "checkpoint of the last epoch": files.last,
        "table of epochs": files.epochs,
        "error": files.error,
        "where it hung": files.timeout,
        "test result": files.evaluation.summary,
    }
    return [
        TrialFile(what=what, path=f"{files.location}/{path.name}", size_bytes=path.stat().st_size)
        for what, path in known.items()
        if os.path.isfile(path)
    ]


def _read_log(files: TrialFiles) -> str | None:
    for path in (files.error, files.timeout):
        with contextlib.suppress(OSError), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LOG_BYTES))
            lines = file.read(_LOG_BYTES).decode(errors="replace").splitlines()
            return "\n".join(lines[-_LOG_LINES:])
    return None
