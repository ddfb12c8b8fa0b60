"""The end of a search that wants a winner one can trust: its best trials again with fresh seeds, then the winner on all
images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial

from fmnist_models.data import join_parts
from fmnist_models.folds import FoldedImages
from fmnist_models.training import Training
from search.configuration.config import SearchConfig
from search.errors import ExperimentError
from search.records.confirmation import choose_winner, find_final, plan_confirmation, plan_final, read_confirmation
from search.records.experiment import CONFIRMATION, FINAL, Experiment
from search.records.record import MESSAGE, best_epoch, best_trials, list_trials
from search.running.preparation import Prepared
from search.running.progress import Progress
from search.running.runner import Outcome
from search.running.slots import Slots
from search.running.trainable import Trainable
from search.workflows.repeating import train_repetitions


def is_final(experiment: Experiment, config: SearchConfig, trials: Sequence[FrozenTrial]) -> bool:
    """Whether there is a winner that has been trained on all images.

    Raises:
        ExperimentError: a study is damaged or cannot be reached.
    """
    number = _winner(experiment, config, trials)
    return number is not None and find_final(experiment, number) is not None


def confirm_best(
    experiment: Experiment,
    prepared: Prepared,
    slots: Slots,
    *,
    trials: Sequence[FrozenTrial],
    progress: Progress,
    until_s: float | None,
    make_training: Callable[..., Trainable] = Training,
) -> Outcome:
    """Trains the best of the search's ``trials`` again as ``config.confirm`` says, ranks them by their means, and
    trains the winner on training and validation images; so it does with the best one of a search with folds, whose
    trials leave no model. What was done before is not done again.

    ``until_s``: on the monotonic clock, when no more is trained.

    Raises:
        ExperimentError: what happens cannot be recorded, or the winner's training on all images failed.
        KeyboardInterrupt: SIGINT.
    """
    config = prepared.config
    best = best_trials(trials, config.metric)
    if config.confirm is not None and best:
        top, num_seeds = min(config.confirm.top, len(best)), config.confirm.seeds
        wanted = plan_confirmation(trials, metric=config.metric, top=top, num_seeds=num_seeds, seed=config.seed)
        outcome = train_repetitions(
            experiment.part(CONFIRMATION),
            prepared,
            slots,
            wanted,
            title=f"confirming the best {top} with fresh seeds: {len(wanted)} trainings",
            progress=progress,
            time_left_s=_left_s(until_s),
            make_training=make_training,
        )
        if outcome == Outcome.OUT_OF_TIME:
            return outcome
    number = _winner(experiment, config, trials)
    if number is None:
        return Outcome.FINISHED
    return train_final(
        experiment,
        prepared,
        slots,
        trial=trials[number],
        num_epochs=best_epoch(trials[number], config.metric) or 1,
        progress=progress,
        time_left_s=_left_s(until_s),
        make_training=make_training,
    )


def train_final(
    experiment: Experiment,
    prepared: Prepared,
    slots: Slots,
    *,
    trial: FrozenTrial,
    num_epochs: int,
    progress: Progress,
    time_left_s: float | None = None,
    make_training: Callable[..., Trainable] = Training,
) -> Outcome:
    """Trains a trial's configuration for ``num_epochs`` on all images, in the experiment's part ``FINAL``, unless that
    was done before. Nothing is chosen by what it reports: its images to validate on are among those it trains on.

    Raises:
        ExperimentError: it failed, or what happens cannot be recorded; the next call tries again.
        KeyboardInterrupt: SIGINT.
    """
    if find_final(experiment, trial.number) is not None:
        return Outcome.FINISHED
    final = experiment.part(FINAL)
    before = list_trials(final) if final.exists() else []
    wanted = plan_final(trial, num_epochs=num_epochs, seed=prepared.config.seed, before=before)
    data = join_parts(prepared.data.fold(1) if isinstance(prepared.data, FoldedImages) else prepared.data)
    outcome = train_repetitions(
        final,
        dataclasses.replace(prepared, data=data),
        slots,
        [wanted],
        title=f"training trial {trial.number} on all {len(data.train):,} images, whose validation images it now knows",
        progress=progress,
        time_left_s=time_left_s,
        keep_weights=True,
        make_training=make_training,
    )
    if outcome == Outcome.FINISHED and find_final(experiment, trial.number) is None:
        reason = list_trials(final)[-1].user_attrs.get(MESSAGE)
        raise ExperimentError(
            f"trial {trial.number} of {experiment.name} failed when it was trained on all images: {reason}; "
            "`fmnist search resume` of it tries again with another seed"
        )
    return outcome


def _left_s(until_s: float | None) -> float | None:
    return None if until_s is None else until_s - time.monotonic()


def _winner(experiment: Experiment, config: SearchConfig, trials: Sequence[FrozenTrial]) -> int | None:
    confirmation = read_confirmation(experiment, config.model_dump(), trials)
    winner = choose_winner(trials, confirmation, metric=config.metric, has_folds=config.folds is not None)
    return None if winner is None else winner[0]
