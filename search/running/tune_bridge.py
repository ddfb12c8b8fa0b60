"""Ray Tune's side of the study: a searcher that asks it, and a scheduler that tells it and heeds its pruner."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fmnist_models.errors import UserError
from search.records.experiment import Experiment
from search.records.record import Failure, Reason
from search.running.progress import Progress
from search.running.retention import Retention
from search.running.time_limit import read_timeout
from search.running.time_watch import TimeWatch
from search.running.trial_message import (
    parse_device,
    parse_epoch,
    parse_failure,
    parse_processor_s,
    parse_storage_failure,
    tells_of_begin,
)
from search.study.search_study import SearchStudy

# What Ray raises for a process that its memory monitor killed.
_KILLED_FOR_MEMORY = "OutOfMemoryError"


class Halt(BaseException):
    """What happens can no longer be recorded. No ``Exception``, as Tune would take that for a trial's."""


class _NotSaved:
    """Tune pickles its searcher and scheduler into its own files; the study is the record, so nothing goes there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_NotSaved, Searcher):
    """Hands out the study's trials until it holds as many as asked for."""

    def __init__(self, study: SearchStudy, experiment: Experiment, *, retention: Retention, progress: Progress) -> None:
        super().__init__()
        self._study = study
        self._experiment = experiment
        self._retention = retention
        self._progress = progress

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        with _recording(self._experiment):
            if not self._study.has_next():
                return str(Searcher.FINISHED) if self._study.is_finished() else None
            self._retention.before_trial()
            assignment = self._study.next_assignment()
            assert assignment is not None
        self._progress.trial_started(assignment)
        return dataclasses.asdict(assignment)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to do: the scheduler tells the study."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: a search is continued from its study."""
        raise NotImplementedError


class StudyScheduler(_NotSaved, FIFOScheduler):
    """Tells the study each epoch and each failure as it comes in, and stops a trial when the study's pruner says so."""

    _supports_buffered_results = False

    def __init__(
        self,
        study: SearchStudy,
        experiment: Experiment,
        *,
        retention: Retention,
        progress: Progress,
        time_watch: TimeWatch | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._time_watch = time_watch
        self._live: dict[TuneTrial, None] = {}  # in the order in which they came
        self._study = study
        self._experiment = experiment
        self._retention = retention
        self._progress = progress

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._live.pop(trial, None)  # one that is started again goes to the end
        self._live[trial] = None
        if self._time_watch is not None:
            self._time_watch.follow(tune_controller, trial)
        _take_for_deaths(tune_controller)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """First in, first out; Tune's own goes through all trials that ever were, and that at every event."""
        for trial in [t for t in self._live if t.is_finished()]:  # type: ignore[no-untyped-call]
            del self._live[trial]
        return next((trial for trial in self._live if trial.status == TuneTrial.PENDING), None)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Drops Tune's own averages of a trial that has ended: 20 kB a trial that nobody reads, and in its last
        snapshot once more."""
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Only a trial whose process died ends in an error of Tune's; it is the trial's end if it took too long, or
        has used up its restarts. One that Tune gives up before it began is handed out anew."""
        number = trial.config["number"]
        if not self._study.is_running(number):
            return
        with _recording(self._experiment):
            failure = read_timeout(self._experiment.trial(number))
            if failure is None and trial.status == TuneTrial.ERROR:  # what Tune sets before it starts a trial again
                return
            if failure is None and _has_begun(trial, tune_controller):
                failure = _explain_death(Path(trial.error_file).read_text(encoding="utf-8"))
            if failure is None:
                self._study.give_back(number)
            else:
                self._study.fail(number, failure)
                self._ended(number)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        if not self._study.is_running(number):
            return str(TrialScheduler.STOP)
        if tells_of_begin(result):
            return str(TrialScheduler.CONTINUE)
        problem = parse_storage_failure(result)
        if problem is not None:
            raise Halt(f"{problem}; nothing that was saved before is lost")
        with _recording(self._experiment):
            state = self._tell(number, result)
            if state == TrialState.RUNNING:
                return str(TrialScheduler.CONTINUE)
            self._ended(number)
        # A trial that has nothing more to do ends by itself, which leaves its process fit for the next one.
        return str(TrialScheduler.STOP if state == TrialState.PRUNED else TrialScheduler.CONTINUE)

    def _tell(self, number: int, result: dict[str, Any]) -> TrialState:
        device = parse_device(result)
        if device is not None:
            self._study.note_device(number, device)
        self._study.charge(number, parse_processor_s(result))
        failure = parse_failure(result)
        if failure is not None:
            self._study.fail(number, failure)
            return TrialState.FAIL
        epoch = parse_epoch(result)
        state = self._study.report(number, epoch)
        self._progress.epoch_ended(number, epoch)
        return state

    def _ended(self, number: int) -> None:
        trial = self._study.trial(number)
        self._retention.trial_ended(trial)
        self._progress.trial_ended(trial)


@contextlib.contextmanager
def _recording(experiment: Experiment) -> Iterator[None]:
    """Halts the search when the record cannot be written."""
    try:
        yield
    except OSError as error:
        raise Halt(f"{experiment.path}: {error.strerror or error}; nothing that was saved before is lost") from error
    except UserError as error:
        raise Halt(str(error)) from error


def _take_for_deaths(tune_controller: Any) -> None:
    """Has Tune take each of Ray's errors that is no trial's own for its process's death: of one that the memory monitor
    killed it hears now as ``ActorDiedError``, now as ``OutOfMemoryError``, and from the latter it would die itself."""
    manager = tune_controller._actor_manager
    tell = type(manager)._actor_task_failed

    def tell_death(tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, (RayActorError, RayTaskError)):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        tell(manager, tracked_actor_task, exception)

    manager._actor_task_failed = tell_death


def _has_begun(trial: TuneTrial, tune_controller: Any) -> bool:
    """Whether the trial was at work: not if what died was a warm process that was only about to take it up."""
    return trial.status == TuneTrial.RUNNING and trial not in getattr(tune_controller, "_resetting_trials", ())


def _explain_death(text: str) -> Failure:
    """What Ray says of the last death of a trial's process: the first and the last line of it."""
    _, _, last = text.rpartition("Failure # ")
    reason = Reason.MEMORY if _KILLED_FOR_MEMORY in last else Reason.INFRASTRUCTURE
    _, *said = [line.strip() for line in last.splitlines() if line.strip()]
    return Failure(reason, " … ".join(dict.fromkeys([said[0], said[-1]]))[:500] if said else "the trial's process died")
