"""What a search says of itself at its end."""

from __future__ import annotations

from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState, create_trial

from search.workflows.main_job import idle_share

START = datetime(2026, 1, 1)


def make_trial(start_s: float, end_s: float | None) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING if end_s is None else TrialState.FAIL)
    trial.datetime_start = START + timedelta(seconds=start_s)
    trial.datetime_complete = None if end_s is None else START + timedelta(seconds=end_s)
    return trial


def test_the_idle_share_is_of_all_slots_from_the_first_start_to_the_last_end() -> None:
    assert idle_share([make_trial(0, 10), make_trial(0, 10)], since=START, num_slots=2) == 0
    assert idle_share([make_trial(0, 10), make_trial(0, 5)], since=START, num_slots=2) == 0.25
    assert idle_share([make_trial(5, 10)], since=START, num_slots=2) == 0.5


def test_time_before_this_run_and_trials_without_an_end_do_not_count() -> None:
    resumed, before, running = make_trial(-100, 10), make_trial(-50, -40), make_trial(0, None)
    assert idle_share([resumed, before, running], since=START, num_slots=1) == 0
    assert idle_share([before, running], since=START, num_slots=1) is None
