"""How long trials were under way, whenever they were interrupted."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.records.record import PAUSES, list_trials
from search.records.spans import list_spans, worked_s
from search.running.continuation import begin_run
from search.study.search_study import SearchStudy

BEGUN = datetime(2026, 1, 1, 10)


def at(minutes: float) -> datetime:
    return BEGUN + timedelta(minutes=minutes)


def make_trial(*pauses: Any, minutes: float = 60) -> FrozenTrial:
    trial = create_trial(value=0.5, user_attrs={PAUSES: list(pauses)} if pauses else {})
    trial.datetime_start, trial.datetime_complete = BEGUN, at(minutes)
    return trial


def pause(first: float, last: float) -> list[float]:
    return [60 * first, 60 * last]


def test_a_trial_was_not_under_way_while_it_waited_to_be_continued() -> None:
    trial = make_trial(pause(5, 20), pause(30, 50))
    assert list_spans(trial) == [(at(0), at(5)), (at(20), at(30)), (at(50), at(60))]
    assert worked_s(trial) == 25 * 60


def test_a_trial_that_has_not_ended_has_no_time_yet() -> None:
    trial = make_trial()
    trial.datetime_complete = None
    assert (list_spans(trial), worked_s(trial)) == ([], None)
    assert list_spans(trial, until=at(7)) == [(at(0), at(7))]


@pytest.mark.parametrize(
    "strange", [7, "x", [1], ["x", "y"], pause(20, 5), pause(-5, 5), pause(5, 90), [0, 1e300], None], ids=str
)
def test_what_makes_no_sense_is_no_pause(strange: Any) -> None:
    assert worked_s(make_trial(strange)) == 60 * 60


def test_a_continued_trial_notes_since_when_nobody_had_trained_it(tmp_path: Path) -> None:
    raw = {"space": {"model": "customnet"}, "max_trials": 2, "max_epochs": 2, "pruner": "none"}
    config, experiment = parse_config(raw, where="test"), Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        for accuracies in ([0.5], [0.5, 0.5]):
            assignment = study.next_assignment()
            assert assignment is not None
            for epoch, accuracy in enumerate(accuracies, start=1):
                study.report(assignment.number, make_epoch(epoch, accuracy))
    files = experiment.trial(0)
    files.path.mkdir()
    files.epochs.write_text("")
    long_ago = datetime.now() - timedelta(hours=1)
    lines = [json.loads(line) for line in experiment.journal.read_text().splitlines()]
    begun = [line | {"datetime_start": long_ago.isoformat()} if "datetime_start" in line else line for line in lines]
    experiment.journal.write_text("".join(json.dumps(line) + "\n" for line in begun))
    os.utime(files.epochs, (long_ago.timestamp() + 60, long_ago.timestamp() + 60))
    study = SearchStudy.open(experiment, config)
    assignment = study.next_assignment()
    assert assignment is not None
    assert study.report(assignment.number, make_epoch(2, 0.5)) == TrialState.COMPLETE
    continued, other = list_trials(experiment)
    assert continued.user_attrs[PAUSES] == [[pytest.approx(60, abs=1), pytest.approx(3600, abs=60)]]
    assert worked_s(continued) == pytest.approx(60, abs=60)
    assert PAUSES not in other.user_attrs


def test_a_trial_that_was_interrupted_in_its_first_epoch_was_not_under_way_until_it_was_continued(
    tmp_path: Path,
) -> None:
    """There is no table of epochs that says when it was last trained."""
    raw = {"space": {"model": "customnet"}, "max_trials": 2, "max_epochs": 1, "pruner": "none"}
    config, experiment = parse_config(raw, where="test"), Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        for _ in range(2):
            study.next_assignment()
        study.report(0, make_epoch(1, 0.5))
    shift_journal(experiment, timedelta(hours=1))
    study = SearchStudy.open(experiment, config)
    assert study.next_assignment() is not None
    study.report(1, make_epoch(1, 0.5))
    _, continued = list_trials(experiment)
    assert worked_s(continued) == pytest.approx(0, abs=60)


def shift_journal(experiment: Experiment, by: timedelta) -> None:
    """As if all that it tells of had been so much earlier."""
    lines = [json.loads(line) for line in experiment.journal.read_text().splitlines()]
    for line in lines:
        for key in ("datetime_start", "datetime_complete"):
            if line.get(key):
                line[key] = (datetime.fromisoformat(line[key]) - by).isoformat()
    experiment.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
