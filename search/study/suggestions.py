"""Suggesting hyperparameters: Optuna's sampler asks a study that shows it only what it may see."""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_models.epoch import DIRECTIONS
from fmnist_models.seeds import derive_seed
from search.configuration.config import SearchConfig
from search.records.fold_values import progress_of
from search.study.horizon import Horizon


class Suggester:
    """Draws each trial's hyperparameters as a function of (seed, trial number, what it may see).

    What trial k may see is the result of every trial up to number k - ``window`` that has ended; others it sees as
    running. Of those that have ended it looks at what ``horizon`` keeps. ``warm``: finished trials of another search,
    seen from the start.
    """

    def __init__(
        self,
        config: SearchConfig,
        *,
        window: int,
        warm: Sequence[FrozenTrial] = (),
        horizon: Horizon | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        self._window = window
        self._num_warm = len(warm)
        self._horizon = horizon or Horizon(config.metric)
        self._running: dict[int, FrozenTrial] = {}
        self._ended: dict[int, FrozenTrial] = {}  # of those that it sees as running
        for position, trial in enumerate(warm):
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._horizon.add(_copy(trial, position, metric=config.metric))

    def tell(self, trial: FrozenTrial) -> None:
        """Tells it of one of the search's trials: that it runs, or how it ended."""
        if self._config.sampler == "random":
            return
        position = self._num_warm + trial.number
        if trial.number not in self._running:
            self._running[trial.number] = _copy(trial, position)
        if trial.state.is_finished():
            self._ended[trial.number] = _copy(trial, position, metric=self._config.metric)

    def suggest(self, number: int, *, fixed: Mapping[str, Any] | None = None) -> FrozenTrial:
        """A running trial with all its parameters, to be added to the study.

        It has been told of each trial up to ``number`` - 1. ``fixed``: parameters that are given.
        """
        self._advance(to=number)
        storage = _Storage([*self._horizon.trials(), *self._running.values()])
        storage.create_new_study([StudyDirection[DIRECTIONS[self._config.metric].upper()]], "suggestions")
        # Counted on from the warm trials: a search with the seed of that which it learns from would draw the same.
        sampler = build_sampler(self._config, number=self._num_warm + number)
        study = optuna.load_study(study_name="suggestions", storage=storage, sampler=sampler)
        if fixed:
            study.enqueue_trial(dict(fixed))
        trial = study.ask()
        self._config.space.suggest(trial)
        params = self._config.space.as_written(trial.params)
        return create_trial(state=TrialState.RUNNING, params=params, distributions=trial.distributions)

    def _advance(self, *, to: int) -> None:
        """Shows the ends of the trials that trial ``to`` may see."""
        for number in [number for number in self._ended if number <= to - self._window]:
            trial = self._ended.pop(number)
            del self._running[number]
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._horizon.add(trial)


class _Storage(InMemoryStorage):
    """Holds the trial that parameters are asked for, and shows ``past`` ones beside it."""

    def __init__(self, past: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._past = past

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        past = [trial for trial in self._past if states is None or trial.state in states]
        return past + super().get_all_trials(study_id, deepcopy, states)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Forgets the notes that a sampler makes of trials."""


def _copy(trial: FrozenTrial, position: int, *, metric: str | None = None) -> FrozenTrial:
    """What a sampler is to know of a trial, if it has ended its values in ``metric`` too; numbered from 1, as 0 is the
    one that it is asked for."""
    has_ended = metric is not None
    return FrozenTrial(
        number=position + 1,
        trial_id=position + 1,
        state=trial.state if has_ended else TrialState.RUNNING,
        value=trial.value if has_ended else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if metric is None else dict(progress_of(trial, metric)),
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete if has_ended else None,
        user_attrs={},
        system_attrs={},
    )


def build_sampler(config: SearchConfig, *, number: int) -> BaseSampler:
    """The configured sampler for the trial of that number, which with the search's seed decides its own."""
    seed = derive_seed(config.seed, number)
    if config.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
