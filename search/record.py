"""The study as read: what its trials say, and which of them is best. Neither Ray nor torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS
from search.errors import ExperimentError

REASON = "reason"
MESSAGE = "message"

STATE_NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class Reason(StrEnum):
    """Why a trial failed."""

    DIVERGED = "diverged"
    MEMORY = "memory"
    CODE = "code"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Failure:
    """A trial's failure: the reason to count by and a message to read."""

    reason: Reason
    message: str


def open_storage(journal: Path) -> JournalStorage:
    """The storage behind a journal file, made if it is not there.

    Raises:
        ExperimentError: the file is damaged or holds something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return JournalStorage(JournalFileBackend(str(journal)))
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise ExperimentError(f"{journal} is damaged or holds something else: {error!r}") from error


def repair_journal(journal: Path) -> None:
    """Cuts off a last line that a crash left unfinished; what is appended to it would be lost with it."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


def read_study(journal: Path) -> optuna.Study:
    """The one study of a journal, to read from; its name need not be that of the folder, which may have been renamed.

    Raises:
        ExperimentError: the journal is damaged, holds no study, or several.
    """
    storage = open_storage(journal)
    names = optuna.get_all_study_names(storage)
    if len(names) != 1:
        raise ExperimentError(f"{journal} should hold one study, but holds {len(names)}")
    return optuna.load_study(study_name=names[0], storage=storage, sampler=RandomSampler())


def best_epoch(trial: FrozenTrial, metric: str) -> int | None:
    """The epoch with the trial's best value, the earliest of equals; ``None`` if it has not finished any."""
    values = trial.intermediate_values
    sign = _sign(metric)
    return min(values, key=lambda epoch: (sign * values[epoch], epoch), default=None)


def best_value(trial: FrozenTrial, metric: str) -> float | None:
    """The trial's best value over its epochs; ``None`` if it has not finished any."""
    epoch = best_epoch(trial, metric)
    return None if epoch is None else trial.intermediate_values[epoch]


def best_trial(trials: Sequence[FrozenTrial], metric: str) -> FrozenTrial | None:
    """The complete trial with the best value, the lowest number of equals; ``None`` if none is complete."""
    values = {trial.number: trial.value for trial in trials if trial.state == TrialState.COMPLETE}
    ranked = [(_sign(metric) * value, number) for number, value in values.items() if value is not None]
    return trials[min(ranked)[1]] if ranked else None


def _sign(metric: str) -> int:
    """What turns the metric into one of which less is better."""
    return -1 if DIRECTIONS[metric] == "maximize" else 1
