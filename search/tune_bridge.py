"""Ray Tune's side of the study: a searcher that asks it, and a scheduler that tells it and heeds its pruner."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.progress import Progress
from search.record import Failure, Reason
from search.study import SearchStudy
from search.trial import parse_epoch, parse_failure


class _NotSaved:
    """Tune pickles its searcher and scheduler into its own files; the study is the record, so nothing goes there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_NotSaved, Searcher):
    """Hands out the study's trials until it holds as many as asked for."""

    def __init__(self, study: SearchStudy, progress: Progress) -> None:
        super().__init__()
        self._study = study
        self._progress = progress

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        assignment = self._study.next_assignment()
        if assignment is None:
            return str(Searcher.FINISHED)
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

    def __init__(self, study: SearchStudy, progress: Progress) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._progress = progress

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Only a trial whose process died ends in an error of Tune's, and only the last time is its end."""
        number = trial.config["number"]
        if self._study.is_running(number) and not trial.should_recover():  # type: ignore[no-untyped-call]
            self._study.fail(number, Failure(Reason.INFRASTRUCTURE, _last_error(trial)))
            self._progress.trial_ended(self._study.trial(number))

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        if not self._study.is_running(number):
            return str(TrialScheduler.STOP)
        failure = parse_failure(result)
        if failure is not None:
            self._study.fail(number, failure)
            state = TrialState.FAIL
        else:
            epoch = parse_epoch(result)
            state = self._study.report(number, epoch)
            self._progress.epoch_ended(number, epoch)
            if state == TrialState.RUNNING:
                return str(TrialScheduler.CONTINUE)
        self._progress.trial_ended(self._study.trial(number))
        # A trial that has nothing more to do ends by itself, which leaves its process fit for the next one.
        return str(TrialScheduler.STOP if state == TrialState.PRUNED else TrialScheduler.CONTINUE)


def _last_error(trial: TuneTrial) -> str:
    """What Ray says of the last death of the trial's process: the first and the last line of it."""
    _, _, last = Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure # ")
    _, *said = [line.strip() for line in last.splitlines() if line.strip()]
    return " … ".join(dict.fromkeys([said[0], said[-1]]))[:500] if said else "the trial's process died"
