"""Studies as a dashboard is given them: copies in memory, with all that is known of a trial; never the record."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from search.records.experiment import Experiment
from search.records.record import read_study
from search.records.results import read_settings
from search.review.trial_notes import notes_of, read_tests

Extra = Callable[[Experiment, int], Mapping[str, str]]
"""System attributes that a trial, by its number, shall have."""


def reflect(experiments: Sequence[Experiment], *, extra: Extra) -> InMemoryStorage:
    """One study for each experiment, in their order, under its name, or under where it is if names are shared.

    System attributes of the record, a stranger's maybe, are left out: dashboards take pictures and pages from them.

    Raises:
        ConfigError: a configuration is missing or not YAML.
        ExperimentError: a configuration or a study is damaged, or cannot be read.
    """
    storage = InMemoryStorage()
    names = [experiment.name for experiment in experiments]
    for experiment in experiments:
        experiment.fetch()
        settings, study = read_settings(experiment), read_study(experiment)
        name = experiment.name if names.count(experiment.name) == 1 else experiment.location
        study_id = storage.create_new_study(study.directions, name)
        for key in ("dataset", "metric", "max_trials"):
            storage.set_study_user_attr(study_id, key, settings[key])
        storage.set_study_user_attr(study_id, "experiment", experiment.location)
        tests = read_tests(experiment)
        for trial in study.get_trials(deepcopy=False):
            notes = notes_of(trial, experiment, metric=settings["metric"], test=tests.get(trial.number))
            storage.create_new_trial(study_id, _with(trial, notes, extra(experiment, trial.number)))
        copy = optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            copy.set_metric_names([settings["metric"]])
    return storage


def _with(trial: FrozenTrial, notes: Mapping[str, str | int | float], extra: Mapping[str, str]) -> FrozenTrial:
    return FrozenTrial(
        number=trial.number,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**trial.user_attrs, **notes},
        system_attrs=dict(extra),
        intermediate_values=trial.intermediate_values,
        trial_id=trial._trial_id,
    )


class Watch:
    """Says whether experiments have changed, without reading them, and not too often."""

    def __init__(self, experiments: Sequence[Experiment], *, least_s: float) -> None:
        self._experiments = experiments
        self._least_s = least_s
        self._seen: list[object] = []
        self._next_s = 0.0

    def is_due(self) -> bool:
        """Whether it is time to look, and there may be something new."""
        if time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + self._least_s
        now = [self._state(experiment) for experiment in self._experiments]
        changed, self._seen = now != self._seen or None in now, now
        return changed

    def took(self, seconds: float) -> None:
        """Reading takes that long; the longer, the less often."""
        self._next_s = time.monotonic() + max(self._least_s, 5 * seconds)

    def _state(self, experiment: Experiment) -> object:
        """What differs once the experiment has changed; ``None`` if that takes reading it: in a database or a store."""
        if experiment.store is not None or os.path.isfile(experiment.reference):
            return None
        paths = (experiment.journal, experiment.config, experiment.evaluation.summary)
        tests = sorted(experiment.trials.glob(f"*/{experiment.evaluation.summary.name}"))
        return [(str(path), _stamp(str(path))) for path in (*paths, *tests)]


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
