"""Training a trial again, to see whether it gets the same curve."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_models.epoch import DIRECTIONS
from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded
from search.errors import ExperimentError
from search.records.epochs_file import parse_epochs
from search.records.experiment import FINAL, Experiment, TrialFiles
from search.records.fold_values import FOLD_EPOCHS
from search.records.record import MESSAGE, read_study
from search.records.repetition import read_repetition
from search.records.replayed import Replay, ReplayedEpoch
from search.running.preparation import Prepared
from search.running.progress import SilentProgress
from search.running.runner import run_trials
from search.running.slots import Slots
from search.study.search_study import PRUNED_AFTER, SearchStudy

_COMPARED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
_MAX_TABLE_BYTES = 2**24


def find_replayable(experiment: Experiment, number: int) -> FrozenTrial:
    """A trial that finished an epoch.

    Raises:
        ExperimentError: there is no such trial, or it finished no epoch.
    """
    trials = read_study(experiment).get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise ExperimentError(f"{experiment.name} has no trial {number}; valid: 0 to {len(trials) - 1}")
    if not trials[number].intermediate_values:
        raise ExperimentError(f"trial {number} of {experiment.name} finished no epoch, so there is nothing to compare")
    repetition = read_repetition(trials[number])
    if repetition is not None and (repetition.fold is not None or experiment.name == FINAL):
        raise ExperimentError(
            f"trial {number} of {experiment.name} was trained on other images; valid: a search's trial"
        )
    return trials[number]


def replay_trial(experiment: Experiment, recorded: FrozenTrial, prepared: Prepared, slots: Slots) -> Replay:
    """Trains a trial again on the connected Ray cluster, as many epochs as it had, and compares.

    It runs in a study and a folder of its own that are gone afterwards, but under its own number, and so with its own
    seed.
    """
    number, last = recorded.number, max(recorded.intermediate_values)
    settings = {"max_trials": number + 1, "pruner": "none", "time_budget_s": None, "trial_timeout_s": None}
    config = prepared.config.model_copy(update=settings)
    study = optuna.create_study(direction=DIRECTIONS[config.metric])
    study.add_trials([create_trial(state=TrialState.FAIL)] * number)
    study.add_trial(_anew(recorded, last=last))
    again = SearchStudy(study, config)
    with tempfile.TemporaryDirectory(prefix="fmnist-replay-") as folder:
        scratch = Experiment(Path(folder))
        scratch.create()
        alone = dataclasses.replace(prepared, config=config)
        run_trials(scratch, alone, slots, study=again, progress=SilentProgress())
        now = _curve(again.trial(number), scratch.trial(number), metric=config.metric)
    experiment.trial(number).fetch()
    there = _curve(recorded, experiment.trial(number), metric=config.metric)
    epochs = [ReplayedEpoch(epoch=e, recorded=there[e], again=now.get(e, {})) for e in sorted(there)]
    failure = again.trial(number).user_attrs.get(MESSAGE)
    return Replay(trial=number, metric=config.metric, epochs=tuple(epochs), failure=failure)


def _curve(trial: FrozenTrial, files: TrialFiles, *, metric: str) -> dict[int, dict[str, float]]:
    """Epoch → the losses and accuracies of its table, where that can be read, and the metric's value in the study."""
    try:
        text = read_bounded(files.epochs, max_bytes=_MAX_TABLE_BYTES).decode()
        table = {epoch.epoch: {name: getattr(epoch, name) for name in _COMPARED} for epoch in parse_epochs(text)}
    except (OSError, FileError, ValueError):
        table = {}
    return {epoch: {**table.get(epoch, {}), metric: value} for epoch, value in trial.intermediate_values.items()}


def _anew(recorded: FrozenTrial, *, last: int) -> FrozenTrial:
    """The trial before its first epoch, to end where it ended."""
    repetition = read_repetition(recorded)
    ends = {PRUNED_AFTER: last} if repetition is None else repetition.to_trial().user_attrs
    return create_trial(
        state=TrialState.RUNNING,
        params=recorded.params,
        distributions=dict(recorded.distributions),
        user_attrs={
            **ends,
            **{key: value for key, value in recorded.user_attrs.items() if key == FOLD_EPOCHS},
        },
    )
