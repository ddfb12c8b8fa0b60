"""What Ray Tune asks of the search."""

from __future__ import annotations

from typing import Any

from optuna import create_study
from ray.tune.experiment import Trial

from search.config import parse_config
from search.experiment import Experiment
from search.progress import SilentProgress
from search.retention import Retention
from search.study import SearchStudy
from search.tune_bridge import StudyScheduler


class Controller:
    """Knows the trials that have not ended; to ask it for all that ever were is a mistake."""

    def __init__(self, live: set[Trial]) -> None:
        self._live = live

    def get_live_trials(self) -> set[Trial]:
        return self._live


def make_trial(number: int, status: str) -> Trial:
    trial = Trial("stub", config={"number": number}, stub=True)
    trial.set_status(status)
    return trial


def test_the_first_of_the_live_trials_that_wait_is_started_next(tmp_path: Any) -> None:
    config = parse_config({"space": {"model": "customnet"}}, where="test")
    experiment = Experiment(tmp_path)
    scheduler = StudyScheduler(
        SearchStudy(create_study(direction="maximize"), config),
        experiment,
        retention=Retention(experiment, config, []),
        progress=SilentProgress(),
    )
    waiting = [make_trial(number, Trial.PENDING) for number in (9_999, 10_000, 10_001)]
    running = make_trial(9_998, Trial.RUNNING)
    assert scheduler.choose_trial_to_run(Controller({*waiting, running})) is waiting[0]
    assert scheduler.choose_trial_to_run(Controller({running})) is None
