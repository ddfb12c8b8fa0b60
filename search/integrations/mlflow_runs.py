"""An experiment as runs of MLflow, sent from its record again and again: each time what is missing there, and no more.
Neither Ray nor torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from search.errors import ExperimentError
from search.integrations.mlflow_registry import register_best
from search.records.confirmation import find_winner_or_best, is_settled
from search.records.evaluation_file import Evaluation, read_evaluation
from search.records.experiment import Experiment
from search.records.fold_values import FOLDS, read_folds
from search.records.inventory import find_holder
from search.records.record import MESSAGE, REASON, STATE_NAMES, list_trials, read_study
from search.records.results import read_settings
from search.records.tracking import Target
from search.review.curve import end_s, read_curve, start_s
from search.review.trial_notes import notes_of, read_tests, test_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_SEARCH, _TRIAL_OF, _TRIAL, _EPOCHS, _TEST = (
    "fmnist_search",
    "fmnist_trial_of",
    "fmnist_trial",
    "fmnist_epochs",
    "fmnist_test",
)
_PARENT = "mlflow.parentRunId"
_STATUSES = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
# What cannot change when a search is continued, as parameters of MLflow cannot either.
_SETTINGS = ("dataset", "train_size", "test_size", "metric", "max_epochs", "sampler", "pruner", "seed", "precision")
_NAME = re.compile(r"[^A-Za-z0-9_. /-]")
_MAX_NAME, _MAX_TEXT = 250, 5000  # characters that MLflow takes
_MAX_METRICS, _PAGE = 1000, 1000  # in one request
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""For a client that rather tries again later than waits, and tells nobody else; what a person set stays."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """``num_trials`` the experiment has, ``num_new`` of them were sent or went on; ``model_version`` of the best model
    if it was registered just now."""

    num_trials: int
    num_new: int
    model_version: str | None


def send_experiment(experiment: Experiment, target: Target, *, is_over: bool = False) -> Sent:
    """Sends what the server does not have: one run for the search, below it one a trial, the test result and the best
    model. Whatever is cut short is completed by the next call.

    ``is_over``: the process that runs the experiment is at its end and asks for it.

    Raises:
        ExperimentError: mlflow is not installed, the server does not answer or refuses, or the experiment is damaged.
        ConfigError: the configuration is missing or not YAML.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    settings = read_settings(experiment)
    trials = list_trials(experiment)
    if not trials:
        return Sent(num_trials=0, num_new=0, model_version=None)
    with _explained(target):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=target.tracking_uri, registry_uri=target.tracking_uri)
        sender = _Sender(experiment, settings, client, _experiment_id(client, target.experiment))
        return sender.send(trials, is_over=is_over)


def identify(experiment: Experiment) -> str:
    """What tells an experiment from all others, wherever its folder is and however it is called now: 16 hexadecimal
    digits of when its first trial began, to the microsecond, and of its study's name."""
    study = read_study(experiment)
    first = study.get_trials(deepcopy=False)[0]
    return hashlib.sha256(f"{study.study_name} {first.datetime_start}".encode()).hexdigest()[:16]


class _Sender:
    def __init__(
        self, experiment: Experiment, settings: Mapping[str, Any], client: MlflowClient, experiment_id: str
    ) -> None:
        self._experiment = experiment
        self._settings = settings
        self._metric = str(settings["metric"])
        self._client = client
        self._experiment_id = experiment_id
        self._identity = identify(experiment)

    def send(self, trials: Sequence[FrozenTrial], *, is_over: bool) -> Sent:
        parent = self._parent(trials)
        known = {int(run.data.tags[_TRIAL]): run for run in self._find(_TRIAL_OF)}
        tests = read_tests(self._experiment)
        num_new = 0
        for trial in trials:
            run = known.get(trial.number)
            if run is None or run.info.status == "RUNNING":
                known[trial.number], is_new = self._send_trial(trial, run, parent)
                num_new += is_new
        for number, test in tests.items():
            if number in known:
                self._send_test(known[number], test)
        self._send_search(parent, trials, is_over=is_over)
        version = None
        best = read_evaluation(self._experiment.evaluation)
        if best is not None and best.trial in known:
            self._send_files(parent, best)
            version = register_best(self._client, self._experiment, best, known[best.trial])
        return Sent(num_trials=len(trials), num_new=num_new, model_version=version)

    def _find(self, tag: str) -> Iterator[Run]:
        page: str | None = None
        while True:
            runs = self._client.search_runs(
                [self._experiment_id],
                f"tags.{tag} = '{self._identity}'",
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=page,
            )
            yield from runs
            page = runs.token
            if not page:
                return

    def _parent(self, trials: Sequence[FrozenTrial]) -> Run:
        found = next(self._find(_SEARCH), None)
        if found is not None:
            return found
        run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(start_s(trials[0])),
            tags={_SEARCH: self._identity, "location": self._experiment.location},
            run_name=self._experiment.name,
        )
        settings = {key: self._settings[key] for key in _SETTINGS if self._settings.get(key) is not None}
        folds = read_folds(self._settings)
        settings |= {} if folds is None else {FOLDS: folds}
        self._log(run, params=settings)
        return run

    def _send_trial(self, trial: FrozenTrial, run: Run | None, parent: Run) -> tuple[Run, bool]:
        """The trial's run, and whether there was anything to send."""
        began = _milliseconds(start_s(trial))
        if run is None:
            tags = {_TRIAL_OF: self._identity, _TRIAL: str(trial.number), _PARENT: parent.info.run_id}
            name = f"trial {trial.number}"
            run = self._client.create_run(self._experiment_id, start_time=began, tags=tags, run_name=name)
        sent = int(run.data.tags.get(_EPOCHS, -1))
        points = read_curve(self._experiment, trial, metric=self._metric)
        if not trial.state.is_finished() and sent == len(points):
            return run, False
        new = [
            (name, value, _milliseconds(point.time_s), point.epoch)
            for point in points[max(0, sent) :]
            for name, value in point.values.items()
        ]
        tags = {_EPOCHS: str(len(points)), "state": STATE_NAMES[trial.state]}
        ended = _milliseconds(end_s(trial))
        if trial.state.is_finished():
            tags |= {key: trial.user_attrs[key] for key in (REASON, MESSAGE) if key in trial.user_attrs}
            notes = notes_of(trial, self._experiment, metric=self._metric, test=None)
            new += [(name, value, ended, 0) for name, value in notes.items() if not isinstance(value, str)]
            tags |= {name: value for name, value in notes.items() if isinstance(value, str)}
        self._log(run, metrics=new, params=trial.params if sent < 0 else {}, tags=tags)
        if trial.state.is_finished():  # last: from then on the trial counts as sent
            self._client.set_terminated(run.info.run_id, _STATUSES[trial.state], ended)
        return run, True

    def _send_test(self, run: Run, test: Evaluation) -> None:
        digest = _digest(test)
        if run.data.tags.get(_TEST) == digest:
            return
        now = run.info.start_time
        metrics = [(name, value, now, test.epoch) for name, value in test_metrics(test).items()]
        self._log(run, metrics=metrics, tags={_TEST: digest})

    def _send_search(self, parent: Run, trials: Sequence[FrozenTrial], *, is_over: bool) -> None:
        states = [trial.state for trial in trials]
        best = find_winner_or_best(self._experiment, self._settings, trials)
        counts = {f"num_{STATE_NAMES[state]}": float(states.count(state)) for state in _STATUSES}
        if best is not None and best.value is not None:
            counts[f"best_{self._metric}"] = best.value
        now = _milliseconds(max(map(end_s, trials)))
        changed = {name: value for name, value in counts.items() if parent.data.metrics.get(name) != value}
        if changed:
            num_ended = sum(state.is_finished() for state in states)
            self._log(parent, metrics=[(name, value, now, num_ended) for name, value in changed.items()])
        status = self._status(trials, is_over=is_over)
        if parent.info.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(parent.info.run_id, status)
        else:
            self._client.set_terminated(parent.info.run_id, status, now)

    def _status(self, trials: Sequence[FrozenTrial], *, is_over: bool) -> str:
        is_searched = all(trial.state.is_finished() for trial in trials) and len(trials) >= self._settings["max_trials"]
        with contextlib.suppress(ExperimentError):  # of what confirms it; the search can be read all the same
            if is_searched and is_settled(self._experiment, self._settings, trials):
                return "FINISHED"
        return "RUNNING" if not is_over and find_holder(self._experiment) is not None else "KILLED"

    def _send_files(self, parent: Run, test: Evaluation) -> None:
        digest = _digest(test)
        if parent.data.tags.get(_TEST) == digest:
            return
        files = self._experiment.evaluation
        for path in (*files.all, self._experiment.config):
            if path.is_file():
                self._client.log_artifact(parent.info.run_id, str(path))
        metrics = [(name, value, parent.info.start_time, 0) for name, value in test_metrics(test).items()]
        self._log(parent, metrics=metrics, tags={_TEST: digest, "best_trial": str(test.trial)})

    def _log(
        self,
        run: Run,
        *,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics, which MLflow keeps once however often they come, before the tags that say that they came."""
        from mlflow.entities import Metric, Param, RunTag

        rows = [Metric(_name(name), float(value), time, step) for name, value, time, step in metrics]
        for first in range(0, len(rows), _MAX_METRICS):
            self._client.log_batch(run.info.run_id, metrics=rows[first : first + _MAX_METRICS])
        self._client.log_batch(
            run.info.run_id,
            params=[Param(_name(name), str(value)[:_MAX_TEXT]) for name, value in (params or {}).items()][:100],
            tags=[RunTag(name, value[:_MAX_TEXT]) for name, value in (tags or {}).items()],
        )


def _experiment_id(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:  # another search made it at this moment
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


@contextlib.contextmanager
def _explained(target: Target) -> Iterator[None]:
    try:
        yield
    except ExperimentError:
        raise
    except ImportError as error:
        raise ExperimentError(f"mlflow is not installed ({error}); pip install 'fmnist-search[mlflow]'") from error
    except Exception as error:  # what a server may answer is past listing
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExperimentError(f"MLflow at {target.tracking_uri} did not take it: {reason}") from error


def _digest(test: Evaluation) -> str:
    return hashlib.sha256(json.dumps(asdict(test), sort_keys=True).encode()).hexdigest()[:16]


def _name(text: str) -> str:
    """A name as MLflow takes it."""
    return _NAME.sub("_", text)[:_MAX_NAME]


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
