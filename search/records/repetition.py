"""Repetitions: a recorded configuration trained again, with another seed or on other images, for a given number of
epochs. They are trials of a study of their own. Neither Ray nor torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.record import FOLD, NUM_EPOCHS, REASON, Reason

OF_TRIAL, SEED, REPLICATE = "of_trial", "seed", "replicate"
"""User attributes of a repetition, besides those of ``search.records.record``; all hold whole numbers."""

_MAX_ATTEMPTS = 3
_OF_MACHINES = (Reason.INFRASTRUCTURE, Reason.MEMORY, Reason.TIMEOUT)

Key = tuple[int | None, int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """A training that repeats a configuration.

    ``of_trial``: the trial of the search that has the configuration, ``None`` if none has. ``num_epochs``: after how
    many epochs it ends, of the ``max_epochs`` that learning-rate schedules still span. ``seed``: of the training.
    ``replicate``: which of several with fresh seeds, and ``fold``: which part of the images is held out, each from 1.
    """

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    num_epochs: int
    seed: int
    of_trial: int | None = None
    replicate: int | None = None
    fold: int | None = None

    @property
    def key(self) -> Key:
        """What tells it from the others of its study."""
        return self.of_trial, self.replicate, self.fold

    def __str__(self) -> str:
        what = f"with fresh seed {self.replicate}" if self.fold is None else f"fold {self.fold}"
        return what if self.of_trial is None else f"trial {self.of_trial} {what}"

    def to_trial(self) -> FrozenTrial:
        """The trial before its first epoch."""
        marks = {OF_TRIAL: self.of_trial, REPLICATE: self.replicate, FOLD: self.fold}
        return create_trial(
            state=TrialState.RUNNING,
            params=dict(self.params),
            distributions=dict(self.distributions),
            user_attrs={
                NUM_EPOCHS: self.num_epochs,
                SEED: self.seed,
                **{name: value for name, value in marks.items() if value is not None},
            },
        )


def read_repetition(trial: FrozenTrial) -> Repetition | None:
    """The repetition that a trial is; ``None`` if it is a search's own, or a stranger's of no sense."""
    notes = trial.user_attrs
    num_epochs, seed, *marks = (notes.get(name) for name in (NUM_EPOCHS, SEED, OF_TRIAL, REPLICATE, FOLD))
    if not _is_count(num_epochs) or not _is_count(seed) or not all(mark is None or _is_count(mark) for mark in marks):
        return None
    of_trial, replicate, fold = marks
    return Repetition(
        params=trial.params,
        distributions=trial.distributions,
        num_epochs=num_epochs,
        seed=seed,
        of_trial=of_trial,
        replicate=replicate,
        fold=fold,
    )


def check_is_search(experiment: Experiment, trials: Sequence[FrozenTrial]) -> None:
    """Makes sure that none of the experiment's trials is a repetition.

    Raises:
        ExperimentError: one is.
    """
    if any(NUM_EPOCHS in trial.user_attrs for trial in trials):
        raise ExperimentError(
            f"{experiment.location} holds trainings that repeat a trial, and is no search to go on with; the command "
            "that began it continues it"
        )


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**32


def by_key(trials: Sequence[FrozenTrial]) -> dict[Key, FrozenTrial]:
    """The repetitions among the trials; of several attempts at one the last."""
    found: dict[Key, FrozenTrial] = {}
    for trial in trials:
        repetition = read_repetition(trial)
        if repetition is not None:
            found[repetition.key] = trial
    return found


def list_lost(trials: Sequence[FrozenTrial]) -> set[Key]:
    """The repetitions whose last attempt failed by its machine, and not more than so many did: another may succeed."""
    attempts = Counter(one.key for one in map(read_repetition, trials) if one is not None)
    return {key for key, trial in by_key(trials).items() if _is_lost(trial) and attempts[key] < _MAX_ATTEMPTS}


def _is_lost(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get(REASON) in _OF_MACHINES
