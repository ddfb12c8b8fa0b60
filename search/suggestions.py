"""Suggesting hyperparameters: Optuna's sampler asks a copy of the study that shows it only what it may see."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_models.epoch import DIRECTIONS
from fmnist_models.seeds import derive_seed
from search.config import SearchConfig


class Suggester:
    """Draws each trial's hyperparameters as a function of (seed, trial number, what it may see).

    What trial k may see is the result of every trial up to number k - ``window`` that has ended; others it sees as
    running. ``warm``: finished trials of another search, seen from the start.
    """

    def __init__(self, config: SearchConfig, *, window: int, warm: Sequence[FrozenTrial] = ()) -> None:
        self._config = config
        self._window = window
        self._storage = _Storage()
        self._copy = optuna.create_study(
            storage=self._storage, direction=DIRECTIONS[config.metric], sampler=RandomSampler()
        )
        self._num_warm = len(warm)
        self._copy.add_trials(warm)
        self._num_shown = 0
        self._running: list[int] = []

    def suggest(
        self, number: int, *, trials: Sequence[FrozenTrial], fixed: Mapping[str, Any] | None = None
    ) -> FrozenTrial:
        """A running trial with all its parameters, to be added to the study.

        ``trials``: the study's trials 0 … ``number`` - 1. ``fixed``: parameters that are given.
        """
        self._show(trials, to=number)
        # Counted on from the warm trials: a search with the seed of that which it learns from would draw the same.
        self._copy.sampler = build_sampler(self._config, number=self._num_warm + number)
        if fixed:
            self._copy.enqueue_trial(dict(fixed))
        trial = self._copy.ask()
        self._config.space.suggest(trial)
        self._num_shown += 1
        self._running.append(number)
        return create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)

    def _show(self, trials: Sequence[FrozenTrial], *, to: int) -> None:
        """Brings the copy up to what trial ``to`` may see."""
        for trial in trials[self._num_shown : to]:
            shown = create_trial(state=TrialState.RUNNING, params=trial.params, distributions=dict(trial.distributions))
            self._copy.add_trial(shown)
            self._running.append(trial.number)
        self._num_shown = to
        for number in list(self._running):
            if trials[number].state.is_finished() and number <= to - self._window:
                self._end(trials[number])
                self._running.remove(number)

    def _end(self, trial: FrozenTrial) -> None:
        trial_id = self._num_warm + trial.number
        for epoch, value in trial.intermediate_values.items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        self._storage.set_trial_state_values(trial_id, trial.state, trial.values)


class _Storage(InMemoryStorage):
    """Forgets the notes that a sampler makes of trials: a copy made anew, after a restart, would not have them."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        pass


def build_sampler(config: SearchConfig, *, number: int) -> BaseSampler:
    """The configured sampler for the trial of that number, which with the search's seed decides its own."""
    seed = derive_seed(config.seed, number)
    if config.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
