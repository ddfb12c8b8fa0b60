"""What a page is made from, read once: the configuration, the trials, and the state of the search."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS
from search.errors import ExperimentError
from search.records.confirmation import Confirmation, is_settled, read_confirmation, winner_or_best
from search.records.cost import Cost, measure_cost, read_held
from search.records.experiment import Experiment
from search.records.inventory import State, find_holder
from search.records.occupancy import Occupancy, measure_occupancy
from search.records.record import best_trial, best_value, is_cross_validation, list_trials
from search.records.results import read_settings
from search.records.runs import read_runs

_MAX_IMAGES = 100_000


@dataclass(frozen=True, kw_only=True)
class Material:
    """An experiment as it was when it was read; ``written`` is that moment, in local time.

    ``best``: the complete trial with the best value. ``state``: RUNNING, FINISHED or INTERRUPTED. ``confirmation``:
    what there is of it, if that was asked for. ``occupancy``: the search's time. ``cost``: ``None`` if a study of its
    parts cannot be read.
    """

    experiment: Experiment
    settings: dict[str, Any]
    trials: Sequence[FrozenTrial]
    best: FrozenTrial | None
    state: State
    written: datetime
    occupancy: Occupancy
    cost: Cost | None
    confirmation: Confirmation | None = None

    @property
    def winner(self) -> FrozenTrial | None:
        """The confirmed trial, or else the best one."""
        return winner_or_best(self.trials, self.confirmation, metric=self.metric)

    @property
    def is_cross_validation(self) -> bool:
        """Whether the trials are folds of one configuration, of which none is the best."""
        return is_cross_validation(self.trials)

    @property
    def metric(self) -> str:
        return str(self.settings["metric"])

    @property
    def is_more_better(self) -> bool:
        return DIRECTIONS[self.metric] == "maximize"

    @property
    def dataset(self) -> str:
        return str(self.settings["dataset"])

    @property
    def num_ended(self) -> int:
        return sum(trial.state.is_finished() for trial in self.trials)

    def setting(self, key: str, *, low: int = 1, high: int = _MAX_IMAGES) -> int | None:
        """A whole number of the configuration; ``None`` if there is none that makes sense."""
        value = self.settings.get(key)
        return value if type(value) is int and low <= value <= high else None

    def with_values(self, *states: TrialState) -> list[tuple[FrozenTrial, float]]:
        """The trials in one of the states that have finished an epoch, each with its best value; best first."""
        found = [(trial, best_value(trial, self.metric)) for trial in self.trials if trial.state in states]
        valued = [(trial, value) for trial, value in found if value is not None]
        return sorted(valued, key=lambda pair: (-pair[1] if self.is_more_better else pair[1], pair[0].number))


def read_material(experiment: Experiment) -> Material:
    """Reads the experiment, whether a search of it runs or not.

    Raises:
        ConfigError: the configuration is missing or not YAML.
        ExperimentError: the configuration or the study is damaged.
    """
    settings = read_settings(experiment)
    is_held = _is_held(experiment)  # before the trials: a search that ends in between is then rather shown as running
    trials = list_trials(experiment)
    num_ended = sum(trial.state.is_finished() for trial in trials)
    confirmation, is_confirmed = None, False
    with contextlib.suppress(ExperimentError):  # the search can be read all the same
        confirmation = read_confirmation(experiment, settings, trials)
        is_confirmed = is_settled(experiment, settings, trials)
    cost = None
    with contextlib.suppress(ExperimentError):
        cpus, gpus = read_held(settings)
        cost = measure_cost(experiment, cpus=cpus, gpus=gpus)
    is_finished = num_ended == len(trials) >= settings["max_trials"] and is_confirmed
    return Material(
        experiment=experiment,
        settings=settings,
        trials=trials,
        best=best_trial(trials, settings["metric"]),
        state=State.RUNNING if is_held else State.FINISHED if is_finished else State.INTERRUPTED,
        written=datetime.now().replace(microsecond=0),
        occupancy=measure_occupancy(trials, read_runs(experiment), now=datetime.now() if is_held else None),
        confirmation=confirmation,
        cost=cost,
    )


def _is_held(experiment: Experiment) -> bool:
    try:
        return find_holder(experiment) is not None
    except OSError as error:
        raise ExperimentError(f"{experiment.lock} cannot be looked at: {error.strerror}") from error
