"""What Ray Tune asks of the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna import create_study
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.running.progress import SilentProgress
from search.running.retention import Retention
from search.running.trial_message import begin_message
from search.running.tune_bridge import StudyScheduler
from search.study.search_study import SearchStudy

CONFIG = parse_config({"space": {"model": "customnet"}}, where="test")


class Controller:
    """Tune's, as far as trials are added to it; to ask it for all that ever were is a mistake."""

    class _ActorManager:
        def _actor_task_failed(self, task: Any, exception: Exception) -> None: ...

    _actor_manager = _ActorManager()


def make_trial(number: int, status: str) -> Trial:
    trial = Trial("stub", config={"number": number}, stub=True)
    trial.set_status(status)
    return trial


def make_study() -> SearchStudy:
    return SearchStudy(create_study(direction="maximize"), CONFIG)


def make_scheduler(folder: Path, study: SearchStudy | None = None) -> StudyScheduler:
    experiment = Experiment(folder)
    return StudyScheduler(
        study or make_study(),
        experiment,
        retention=Retention(experiment, CONFIG, []),
        progress=SilentProgress(),
    )


def test_trials_are_started_in_the_order_in_which_they_came_and_again_at_its_end(tmp_path: Path) -> None:
    scheduler, controller = make_scheduler(tmp_path), Controller()
    trials = [make_trial(number, Trial.PENDING) for number in (7, 8, 9)]
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    assert scheduler.choose_trial_to_run(controller) is trials[0]
    for trial, status in zip(trials, (Trial.RUNNING, Trial.TERMINATED, Trial.PENDING), strict=True):
        trial.set_status(status)
    assert scheduler.choose_trial_to_run(controller) is trials[2]
    trials[0].set_status(Trial.PENDING)  # its process died
    scheduler.on_trial_add(controller, trials[0])
    assert scheduler.choose_trial_to_run(controller) is trials[2]
    trials[2].set_status(Trial.RUNNING)
    assert scheduler.choose_trial_to_run(controller) is trials[0]
    trials[0].set_status(Trial.ERROR)
    assert scheduler.choose_trial_to_run(controller) is None


def test_of_an_ended_trial_tune_keeps_no_averages(tmp_path: Path) -> None:
    trial = make_trial(0, Trial.RUNNING)
    trial.update_last_result({"val_accuracy": 0.5, "training_iteration": 1})
    assert trial.metric_analysis
    make_scheduler(tmp_path).on_trial_complete(Controller(), trial, trial.last_result)
    assert len(trial.run_metadata.get_json_state()) < 2000
    assert trial.last_result["val_accuracy"] == 0.5


def test_that_workers_have_begun_is_no_epoch(tmp_path: Path) -> None:
    study = make_study()
    assignment = study.next_assignment()
    assert assignment is not None
    scheduler, trial = make_scheduler(tmp_path, study), make_trial(assignment.number, Trial.RUNNING)
    assert scheduler.on_trial_result(Controller(), trial, begin_message()) == TrialScheduler.CONTINUE
    assert study.is_running(assignment.number)
    assert study.trial(assignment.number).intermediate_values == {}
