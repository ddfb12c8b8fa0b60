"""The study: the only record of a search. Everything that happens to a trial is told to it at the moment it happens."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from fmnist_models.epoch import DIRECTIONS, Epoch
from fmnist_models.seeds import derive_seed
from search.config import SearchConfig
from search.experiment import Experiment
from search.record import MESSAGE, REASON, Failure, best_value, open_storage, repair_journal


@dataclass(frozen=True)
class Assignment:
    """What a trial is to train: its number in the study and all its hyperparameters, ``model`` among them."""

    number: int
    hyperparameters: dict[str, Any]


class SearchStudy:
    """An Optuna study seen as a search sees it: assignments out, epochs and failures in.

    A study that already holds trials is continued: trials that were running come out first, under their own numbers,
    and new ones follow until it holds ``config.max_trials``.
    """

    def __init__(self, study: optuna.Study, config: SearchConfig) -> None:
        self.study = study
        self._config = config
        trials = study.get_trials(deepcopy=False)
        self._num_trials = sum(trial.state != TrialState.WAITING for trial in trials)
        self._interrupted = [trial for trial in trials if trial.state == TrialState.RUNNING]
        self._running: dict[int, Trial] = {}

    @classmethod
    def open(cls, experiment: Experiment, config: SearchConfig) -> SearchStudy:
        """The experiment's study, made if it is not there; to be called by the one process that holds its lock."""
        repair_journal(experiment.journal)
        storage = open_storage(experiment.journal)
        names = optuna.get_all_study_names(storage)
        study = optuna.create_study(
            storage=storage,
            study_name=names[0] if names else experiment.name,
            direction=DIRECTIONS[config.metric],
            pruner=build_pruner(config),
            load_if_exists=True,
        )
        # From the same random state a continued search would draw its first suggestions again.
        study.sampler = build_sampler(config, num_trials_before=len(study.get_trials(deepcopy=False)))
        return cls(study, config)

    def next_assignment(self) -> Assignment | None:
        """The next trial to train; ``None`` when the study holds as many as asked for."""
        if self._interrupted:
            frozen = self._interrupted.pop(0)
            trial = Trial(self.study, frozen._trial_id)
        elif self._num_trials < self._config.max_trials:
            trial = self.study.ask()
            self._num_trials += 1
        else:
            return None
        self._running[trial.number] = trial
        return Assignment(trial.number, self._config.space.suggest(trial))

    def report(self, number: int, epoch: Epoch) -> TrialState:
        """Records a finished epoch of a running trial, which may end it, and returns the trial's state after it.

        It is COMPLETE with its best epoch's value after the last epoch, PRUNED when the pruner says so, else RUNNING.
        An epoch that the study knows already, told again by a continued trial, changes nothing.
        """
        trial = self._running[number]
        is_new = epoch.epoch not in self.trial(number).intermediate_values
        if is_new:
            trial.report(epoch.metric(self._config.metric), step=epoch.epoch)
        if epoch.epoch >= self._config.max_epochs:
            return self._tell(number, TrialState.COMPLETE)
        if is_new and trial.should_prune():
            return self._tell(number, TrialState.PRUNED)
        return TrialState.RUNNING

    def fail(self, number: int, failure: Failure) -> None:
        """Records that a running trial failed, and why; does nothing if the trial has ended already."""
        if number not in self._running:
            return
        trial = self._running[number]
        trial.set_user_attr(REASON, failure.reason.value)
        trial.set_user_attr(MESSAGE, failure.message)
        self._tell(number, TrialState.FAIL)

    def is_running(self, number: int) -> bool:
        """Whether this process handed the trial out and it has not ended."""
        return number in self._running

    def is_finished(self) -> bool:
        """Whether the study holds as many trials as asked for and none of them is still to be trained."""
        trials = self.study.get_trials(deepcopy=False)
        return len(trials) >= self._config.max_trials and all(trial.state.is_finished() for trial in trials)

    def trial(self, number: int) -> FrozenTrial:
        """A trial as recorded."""
        return self.study.get_trials(deepcopy=False)[number]

    def _tell(self, number: int, state: TrialState) -> TrialState:
        trial = self._running.pop(number)
        value = best_value(self.trial(number), self._config.metric) if state == TrialState.COMPLETE else None
        self.study.tell(trial, value, state=state)
        return state


def build_sampler(config: SearchConfig, *, num_trials_before: int) -> BaseSampler:
    """The configured sampler, seeded by the search's seed and by how many trials there are already."""
    seed = derive_seed(config.seed, num_trials_before)
    if config.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def build_pruner(config: SearchConfig) -> BasePruner:
    """The configured pruner."""
    match config.pruner:
        case "halving":
            return SuccessiveHalvingPruner(min_resource=config.min_epochs, reduction_factor=config.reduction_factor)
        case "hyperband":
            return HyperbandPruner(
                min_resource=config.min_epochs,
                max_resource=config.max_epochs,
                reduction_factor=config.reduction_factor,
            )
        case "median":
            return MedianPruner(n_warmup_steps=config.min_epochs)
        case "none":
            return NopPruner()
