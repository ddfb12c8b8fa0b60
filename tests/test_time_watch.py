"""When a trial's process is killed from outside: Tune's trials, a clock that the tests turn, and no process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from search.records.experiment import Experiment
from search.running import time_watch
from search.running.time_limit import read_timeout
from search.running.time_watch import TimeWatch
from search.running.trial_message import begin_message

TIMEOUT_S = 100.0
LONGEST_S = TIMEOUT_S + time_watch._GRACE_S


class Watched:
    """One trial of process ``process``, that Tune may start again twice, and what has been killed by then."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, waits_for_word: bool = False) -> None:
        self.now_s, self.killed = 1000.0, list[str]()
        monkeypatch.setattr(time_watch, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(time_watch, "ray", SimpleNamespace(kill=self.killed.append))
        self.experiment = Experiment(folder)
        self.experiment.create()
        self.controller = SimpleNamespace(_resetting_trials=set[Trial]())
        self.watch = TimeWatch(self.experiment, TIMEOUT_S, waits_for_word=waits_for_word)
        self.trial = Trial("stub", config={"number": 0}, max_failures=2, stub=True)
        self.trial.temporary_state.ray_actor = "process"
        self.watch.follow(self.controller, self.trial)

    def turn(self, status: str, *, by_s: float = 0.0, is_resetting: bool = False) -> None:
        self.trial.set_status(status)
        self.controller._resetting_trials = {self.trial} if is_resetting else set()
        self.now_s += by_s
        self.watch.on_step_end(0, [self.trial])

    def report(self, message: dict[str, Any]) -> None:
        self.watch.on_trial_result(0, [self.trial], self.trial, message)

    def is_timeout(self) -> bool:
        return read_timeout(self.experiment.trial(0)) is not None


def test_a_trial_that_runs_too_long_fails_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path / "search", monkeypatch)
    watched.turn(Trial.PENDING, by_s=10 * LONGEST_S)
    watched.turn(Trial.RUNNING)
    watched.turn(Trial.RUNNING, by_s=LONGEST_S - 1)
    assert (watched.killed, watched.is_timeout()) == ([], False)
    watched.turn(Trial.RUNNING, by_s=2)
    watched.turn(Trial.RUNNING, by_s=10 * LONGEST_S)
    assert (watched.killed, watched.is_timeout(), watched.trial.max_failures) == (["process"], True, 0)


def test_the_time_of_a_worker_group_begins_with_its_first_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path / "search", monkeypatch, waits_for_word=True)
    watched.turn(Trial.RUNNING)
    watched.turn(Trial.RUNNING, by_s=10 * LONGEST_S)  # it waits for room
    watched.report(begin_message())
    watched.turn(Trial.RUNNING, by_s=LONGEST_S - 1)
    watched.report({"val_accuracy": 0.5})
    assert watched.killed == []
    watched.turn(Trial.RUNNING, by_s=2)
    assert (watched.killed, watched.is_timeout()) == (["process"], True)


def test_the_time_begins_anew_with_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path / "search", monkeypatch)
    watched.turn(Trial.RUNNING)
    watched.turn(Trial.PENDING, by_s=LONGEST_S - 1)
    watched.turn(Trial.RUNNING)
    watched.turn(Trial.RUNNING, by_s=LONGEST_S - 1)
    assert watched.killed == []


@pytest.mark.parametrize("waits_for_word", [False, True])
def test_a_warm_process_that_does_not_take_up_a_trial_is_killed_and_the_trial_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_for_word: bool
) -> None:
    watched = Watched(tmp_path / "search", monkeypatch, waits_for_word=waits_for_word)
    watched.turn(Trial.PENDING, by_s=1000.0)
    watched.turn(Trial.PENDING, is_resetting=True)
    watched.turn(Trial.PENDING, by_s=time_watch._RESET_S - 1, is_resetting=True)
    assert watched.killed == []
    for _ in range(3):  # until Tune hears of it
        watched.turn(Trial.PENDING, by_s=2, is_resetting=True)
    assert (watched.killed, watched.is_timeout(), watched.trial.max_failures) == (["process"], False, 2)
    watched.turn(Trial.ERROR, by_s=1000.0, is_resetting=True)  # from which Tune does not take it out
    assert watched.killed == ["process"]


def test_a_warm_process_that_takes_up_its_trial_late_has_the_whole_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path / "search", monkeypatch)
    watched.turn(Trial.PENDING, is_resetting=True)
    watched.turn(Trial.RUNNING, by_s=time_watch._RESET_S - 1)
    watched.turn(Trial.RUNNING, by_s=LONGEST_S - 1)
    assert watched.killed == []


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_tune_without_the_private_names_is_watched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dead: bool
) -> None:
    watched = Watched(tmp_path / "search", monkeypatch)
    if is_dead:
        watched.trial.temporary_state.ray_actor = None
    watched.watch.follow(SimpleNamespace(), watched.trial)
    watched.turn(Trial.RUNNING)
    watched.turn(Trial.RUNNING, by_s=LONGEST_S + 1)
    assert (watched.killed, watched.is_timeout()) == ([] if is_dead else ["process"], True)
