"""The study: the only record of a search. Everything that happens to a trial is told to it at the moment it happens."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from fmnist_models.data import count_training_images
from fmnist_models.epoch import DIRECTIONS, Epoch
from search.configuration.config import SearchConfig
from search.errors import ExperimentError
from search.records.cost import read_seconds
from search.records.experiment import Experiment
from search.records.fold_values import FOLD_EPOCHS
from search.records.journal import one_append
from search.records.numbers import is_same_value
from search.records.record import (
    DEVICE,
    DEVICE_SEPARATOR,
    MESSAGE,
    NUM_EPOCHS,
    PAUSES,
    REASON,
    SECONDS,
    Failure,
    best_value,
    open_study,
)
from search.records.repetition import Repetition, check_is_search, read_repetition
from search.records.spans import last_moment
from search.study.fold_standings import FoldStandings
from search.study.horizon import Horizon
from search.study.pruning import build_pruner
from search.study.standings import Standings
from search.study.suggestions import Suggester

PRUNED_AFTER = "pruned_after_epoch"
"""User attribute of a trial: the epoch after which the pruner ended it."""
_QUEUE = "enqueued"  # of the study: the chosen configurations; of a trial: which of them it is


@dataclass(frozen=True)
class Assignment:
    """What a trial is to train: its number in the study and all its hyperparameters, ``model`` among them.

    Of a repetition also ``seed``, its own, ``num_epochs``, after which it ends, and ``fold``, the images it is
    validated with.
    """

    number: int
    hyperparameters: dict[str, Any]
    seed: int | None = None
    num_epochs: int | None = None
    fold: int | None = None


class SearchStudy:
    """An Optuna study seen as a search sees it: assignments out, epochs and failures in.

    A study that already holds trials is continued: trials that were running come out first, under their own numbers,
    and new ones follow until it holds ``config.max_trials``.

    With ``config.deterministic`` trial k is drawn from, and pruned by, the results of trials 0 … k - C alone, where C
    is ``config.max_concurrent_trials``, and comes out when all of them have ended: then nothing depends on which of
    the C trials at work is the faster one.

    ``repetitions``: new trials are these, in this order, and nothing is drawn. ``experiment``: where a trial that was
    interrupted has left word of when it was last trained.
    """

    def __init__(
        self,
        study: optuna.Study,
        config: SearchConfig,
        *,
        warm: Sequence[FrozenTrial] = (),
        horizon: Horizon | None = None,
        repetitions: Sequence[Repetition] | None = None,
        experiment: Experiment | None = None,
    ) -> None:
        self.study = study
        self._config = config
        self._window = (config.max_concurrent_trials or 1) if config.deterministic else 1
        self._suggester = Suggester(config, window=self._window, warm=warm, horizon=horizon)
        self._standings = _build_standings(config, window=self._window if config.deterministic else None)
        self._running: dict[int, Trial] = {}
        self._devices: dict[int, str] = {}  # of running trials, until they are recorded
        self._epochs_s: dict[int, dict[int, float]] = {}
        self._processor_s: dict[int, float] = {}
        # Kept beside the study, from which Optuna would make a list of all trials each time.
        trials = study.get_trials(deepcopy=False)
        self._ids = [trial._trial_id for trial in trials]
        self._repetitions = None if repetitions is None else dict(enumerate(repetitions, start=len(trials)))
        self._open = {trial.number for trial in trials if not trial.state.is_finished()}
        self._num_enqueued = sum(_QUEUE in trial.user_attrs for trial in trials)
        self._queue: list[dict[str, Any]] | None = None
        for trial in trials:
            self._learn(trial)
        self._interrupted = [n for n in sorted(self._open) if self._settle(n) == TrialState.RUNNING]
        self._last_trained = {} if experiment is None else _find_last_trained(experiment, trials, self._interrupted)

    @classmethod
    def open(cls, experiment: Experiment, config: SearchConfig, *, warm: Sequence[FrozenTrial] = ()) -> SearchStudy:
        """The experiment's study, made if it is not there; to be called by the one process that holds its lock.

        ``warm``: finished trials of another search, which the sampler learns from.

        Raises:
            ExperimentError: it cannot be opened, or holds repetitions, which no search goes on with.
        """
        study = open_study(experiment, study_storage=config.study_storage, direction=DIRECTIONS[config.metric])
        check_is_search(experiment, study.get_trials(deepcopy=False))
        return cls(study, config, warm=warm, experiment=experiment)

    def enqueue(self, configurations: Sequence[dict[str, Any]]) -> int:
        """Puts chosen configurations (parameter → value) before all other new trials; those known already stay.

        Returns how many will not be tried until the study is to hold more trials.
        """
        queue = self._read_queue()
        new = [one for one in configurations if not any(_is_same_configuration(one, known) for known in queue)]
        if new:
            self.study.set_user_attr(_QUEUE, queue + new)
            self._queue = queue + new
        num_waiting = len(queue) + len(new) - self._num_enqueued
        return max(0, num_waiting - max(0, self._config.max_trials - len(self._ids)))

    def next_assignment(self) -> Assignment | None:
        """The next trial to train; ``None`` if there is none, or none yet (see ``has_next``).

        Raises:
            ExperimentError: a trial that was running, or a chosen configuration, does not go with the space.
        """
        if not self.has_next():
            return None
        number = self._interrupted.pop(0) if self._interrupted else self._add()
        self._running[number] = Trial(self.study, self._ids[number])
        self._note_pause(number)
        repetition = read_repetition(self.trial(number))
        if repetition is None:
            return Assignment(number, self._hyperparameters(number))
        return Assignment(
            number,
            self._hyperparameters(number),
            seed=repetition.seed,
            num_epochs=repetition.num_epochs,
            fold=repetition.fold,
        )

    def has_next(self) -> bool:
        """Whether there is a trial to train now: an interrupted one, or a new one that may be drawn already."""
        if self._interrupted:
            return True
        if self.is_full():
            return False
        if not self._config.deterministic or self._repetitions is not None:
            return True
        return min(self._open, default=math.inf) > len(self._ids) - self._window

    def give_back(self, number: int) -> None:
        """Takes back a trial that was handed out and is not trained after all; it comes out again."""
        del self._running[number]
        self._interrupted.append(number)

    def charge(self, number: int, processor_s: float) -> None:
        """Adds processor time to what a running trial has taken; recorded with its end, or by ``record_charges``."""
        self._processor_s[number] = self._processor_s.get(number, 0.0) + processor_s

    def record_charges(self) -> None:
        """Records what the trials that are running have taken so far, as this process goes on with none of them."""
        for number in self._running:
            self._record_seconds(number)

    def report(self, number: int, epoch: Epoch) -> TrialState:
        """Records a finished epoch of a running trial, which may end it, and returns the trial's state after it.

        It is COMPLETE with its best epoch's value after the last epoch, of the last fold if it has folds, PRUNED when
        the pruner says so, else RUNNING. An epoch that the study knows already, told again by a continued trial,
        changes nothing.
        """
        with one_append(self.study._storage):
            self._record_device(number)
            known = self.trial(number)
            self._epochs_s.setdefault(number, {})[epoch.epoch] = epoch.epoch_s
            if epoch.epoch not in known.intermediate_values:
                value = epoch.metric(self._config.metric)
                # The decision is recorded before the value, so that it is made once, whatever happens in between.
                if epoch.epoch < self._num_epochs(known) and self._should_prune(known, {epoch.epoch: value}):
                    self._running[number].set_user_attr(PRUNED_AFTER, epoch.epoch)
                self._running[number].report(value, step=epoch.epoch)
                self._standings.epoch_ended(number, epoch.epoch, value)
            return self._settle(number)

    def note_device(self, number: int, device: str) -> None:
        """Takes the device that a running trial trains on; recorded with its next epoch or its failure."""
        self._devices[number] = device

    def _record_device(self, number: int) -> None:
        """A trial that goes on elsewhere has both devices."""
        device = self._devices.pop(number, None)
        if device is None:
            return
        known = self.trial(number).user_attrs.get(DEVICE)
        before = known.split(DEVICE_SEPARATOR) if isinstance(known, str) else []
        if device not in before:
            self._running[number].set_user_attr(DEVICE, DEVICE_SEPARATOR.join([*before, device]))

    def fail(self, number: int, failure: Failure) -> None:
        """Records that a running trial failed, and why; does nothing if the trial has ended already."""
        if number not in self._running:
            return
        trial = self._running[number]
        with one_append(self.study._storage):
            self._record_device(number)
            trial.set_user_attr(MESSAGE, failure.message)
            trial.set_user_attr(REASON, failure.reason.value)
            self._settle(number)

    def is_running(self, number: int) -> bool:
        """Whether this process handed the trial out and it has not ended."""
        return number in self._running

    def is_full(self) -> bool:
        """Whether the study holds as many trials as asked for, so that no new one will come out."""
        return len(self._ids) >= self._config.max_trials

    def is_finished(self) -> bool:
        """Whether the study holds as many trials as asked for and none of them is still to be trained."""
        return self.is_full() and not self._open

    def trial(self, number: int) -> FrozenTrial:
        """A trial as recorded."""
        return self.study._storage.get_trial(self._ids[number])

    def _hyperparameters(self, number: int) -> dict[str, Any]:
        try:
            return self._config.space.suggest(self.trial(number))
        except ValueError as error:
            raise ExperimentError(
                f"trial {number} of the study {self.study.study_name} does not go with the search's space: {error}"
            ) from error

    def _read_queue(self) -> list[dict[str, Any]]:
        if self._queue is None:
            queue = self.study.user_attrs.get(_QUEUE, [])
            if not isinstance(queue, list) or not all(isinstance(chosen, dict) for chosen in queue):
                raise ExperimentError(f"the study {self.study.study_name} holds no list of chosen configurations")
            self._queue = queue
        return self._queue

    def _add(self) -> int:
        """Draws a trial, or takes the next repetition, and records it with all its parameters at once; gives its
        number."""
        number = len(self._ids)
        if self._repetitions is not None:
            repetition = self._repetitions[number]
            return self._record(
                repetition.to_trial(), fold_epochs=repetition.num_epochs if not repetition.fold else None
            )
        queue, position = self._read_queue(), self._num_enqueued
        fixed = queue[position] if position < len(queue) else None
        try:
            drawn = self._suggester.suggest(number, fixed=fixed)
        except (TypeError, ValueError) as error:
            if fixed is None:
                raise
            raise ExperimentError(
                f"chosen configuration {position + 1} of the study {self.study.study_name} does not go with the "
                f"search's space: {error}"
            ) from error
        if fixed is not None:
            drawn.set_user_attr(_QUEUE, position)
        self._num_enqueued += fixed is not None
        return self._record(drawn, fold_epochs=self._config.max_epochs)

    def _note_pause(self, number: int) -> None:
        trained = self._last_trained.pop(number, None)
        trial = self.trial(number)
        if trained is None or trial.datetime_start is None:
            return
        pause = [(moment - trial.datetime_start).total_seconds() for moment in (trained, datetime.now())]
        before = trial.user_attrs.get(PAUSES)
        self._running[number].set_user_attr(PAUSES, [*(before if isinstance(before, list) else ()), pause])

    def _record(self, new: FrozenTrial, *, fold_epochs: int | None) -> int:
        """Adds a trial; where trials train folds, one that is not a single one of them, of so many epochs each."""
        number = len(self._ids)
        if self._config.folds is not None and fold_epochs is not None:
            new.set_user_attr(FOLD_EPOCHS, fold_epochs)
        self.study.add_trial(new)
        self._ids.append(self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))
        self._open.add(number)
        self._suggester.tell(self.trial(number))
        return number

    def _learn(self, trial: FrozenTrial) -> None:
        """Takes in a trial that the study held at the start."""
        self._suggester.tell(trial)
        for epoch, value in trial.intermediate_values.items():
            self._standings.epoch_ended(trial.number, epoch, value)
        self._standings.trial_ended(trial)

    def _should_prune(self, known: FrozenTrial, newest: dict[int, float]) -> bool:
        if PRUNED_AFTER in known.user_attrs:
            return False
        return self._standings.should_prune(known.number, known.intermediate_values | newest)

    def _num_epochs(self, trial: FrozenTrial) -> int:
        """After how many epochs, over all its folds, the trial is complete."""
        num_epochs: int = trial.user_attrs.get(NUM_EPOCHS, self._config.max_epochs)
        return num_epochs * (self._config.folds or 1) if FOLD_EPOCHS in trial.user_attrs else num_epochs

    def _settle(self, number: int) -> TrialState:
        """Ends a trial whose record says that it has ended; a crash can come between the two. Returns its state."""
        known = self.trial(number)
        if REASON in known.user_attrs:
            return self._tell(number, TrialState.FAIL)
        if self._num_epochs(known) in known.intermediate_values:
            return self._tell(number, TrialState.COMPLETE)
        if known.user_attrs.get(PRUNED_AFTER) in list(known.intermediate_values):
            return self._tell(number, TrialState.PRUNED)
        return TrialState.RUNNING

    def _record_seconds(self, number: int) -> None:
        """Notes on a running trial what it has taken, if its processes have told."""
        if number not in self._processor_s:
            return
        before = read_seconds(self.trial(number))
        processor_s = self._processor_s.pop(number) + (0.0 if before is None else before.processor)
        # A trial that is continued reports all its epochs again, unless it ends before that.
        epochs_s = max(math.fsum(self._epochs_s.get(number, {}).values()), 0.0 if before is None else before.epochs)
        told = {"epochs": round(epochs_s, 3), "processor": round(processor_s, 3)}
        self._running[number].set_user_attr(SECONDS, told)

    def _tell(self, number: int, state: TrialState) -> TrialState:
        if number in self._running:
            self._record_seconds(number)
        self._running.pop(number, None)
        self._epochs_s.pop(number, None)
        self._processor_s.pop(number, None)
        value = best_value(self.trial(number), self._config.metric) if state == TrialState.COMPLETE else None
        self.study.tell(number, value, state=state)
        self._open.discard(number)
        ended = self.trial(number)
        self._suggester.tell(ended)
        self._standings.trial_ended(ended)
        return state


def _is_same_configuration(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(is_same_value(value, other[name]) for name, value in one.items())


def _find_last_trained(
    experiment: Experiment, trials: Sequence[FrozenTrial], numbers: Sequence[int]
) -> dict[int, datetime]:
    """When the last epoch of each was saved, in local time; where this machine has not seen it, the last moment that
    the study tells of."""
    found: dict[int, datetime] = {}
    for number in numbers:
        with contextlib.suppress(OSError):
            found[number] = datetime.fromtimestamp(experiment.trial(number).epochs.stat().st_mtime)
    moments = [moment for trial in trials if (moment := last_moment(trial)) is not None]
    last = max([*moments, *found.values()], default=None)
    return {number: moment for number in numbers if (moment := found.get(number, last)) is not None}


def _build_standings(config: SearchConfig, *, window: int | None) -> Standings | FoldStandings:
    pruner = build_pruner(config)
    if config.folds is None:
        return Standings(pruner, window=window)
    num_images = count_training_images(config.dataset, config.train_size) / config.folds
    return FoldStandings(pruner, metric=config.metric, size=config.max_epochs, num_images=num_images, window=window)
