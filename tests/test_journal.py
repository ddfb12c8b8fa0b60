"""The journal's file: what belongs together is appended in one piece, and nothing is lost or misplaced by that."""

from __future__ import annotations

import errno
import itertools
import json
import os
from pathlib import Path

import pytest
from epochs import make_epoch
from optuna.trial import FrozenTrial, TrialState

from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.records.journal import one_append
from search.records.record import Failure, Reason, read_study
from search.study.search_study import SearchStudy

CONFIG = parse_config(
    {
        "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
        "sampler": "random",
        "pruner": "halving",
        "reduction_factor": 2,
        "max_epochs": 2,
        "max_trials": 50,
    },
    where="test",
)
NEW_TRIAL, STATE, VALUE, ATTRIBUTE = 4, 6, 7, 8  # Optuna's numbers of what a line says


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    made = Experiment(tmp_path / "search")
    made.create()
    return made


def operations(experiment: Experiment) -> list[int]:
    return [json.loads(line)["op_code"] for line in experiment.journal.read_bytes().splitlines()]


def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets longer with every sync of a file."""
    sync, seen = os.fsync, []

    def counted(descriptor: int) -> None:
        seen.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    return seen


def start_trial(study: SearchStudy) -> int:
    assignment = study.next_assignment()
    assert assignment is not None
    return assignment.number


def read(experiment: Experiment) -> list[FrozenTrial]:
    return read_study(experiment).get_trials(deepcopy=False)


def test_each_event_is_one_append_however_much_it_records(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, seen = SearchStudy.open(experiment, CONFIG), syncs(monkeypatch)
    good, bad, broken = (start_trial(study) for _ in range(3))
    assert len(seen) == 3
    at_start = len(operations(experiment))
    study.report(good, make_epoch(1, 0.9))
    study.report(good, make_epoch(2, 0.8))
    assert study.report(bad, make_epoch(1, 0.1)) == TrialState.PRUNED
    study.fail(broken, Failure(Reason.CODE, "KeyError: 'x'"))
    assert len(seen) == 3 + 4
    ended, pruned, failed = [VALUE, STATE], [ATTRIBUTE, VALUE, STATE], [ATTRIBUTE, ATTRIBUTE, STATE]
    assert operations(experiment)[at_start:] == [VALUE, *ended, *pruned, *failed]
    assert [t.state for t in read(experiment)] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [t.state for t in study.study.get_trials()] == [t.state for t in read(experiment)]
    assert sorted(os.listdir(experiment.path)) == ["study.journal", "trials"]


def test_optuna_knows_where_each_line_begins_that_was_appended_in_one_piece(experiment: Experiment) -> None:
    """Else it would read the whole file, from its first line on, at each event."""
    study = SearchStudy.open(experiment, CONFIG)
    for _ in range(4):
        number = start_trial(study)
        study.report(number, make_epoch(1, 0.9))
        study.report(number, make_epoch(2, 0.9))
    lengths = [len(line) for line in experiment.journal.read_bytes().splitlines(keepends=True)]
    backend = study.study._storage._backend  # type: ignore[attr-defined]
    assert backend._log_number_offset == dict(enumerate(itertools.accumulate(lengths, initial=0)))


def test_an_event_that_cannot_be_written_leaves_the_file_as_it_was_and_comes_before_the_next_one(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = SearchStudy.open(experiment, CONFIG)
    number = start_trial(study)
    before = experiment.journal.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            study.fail(number, Failure(Reason.CODE, "KeyError: 'x'"))
    assert experiment.journal.read_bytes() == before
    assert [trial.state for trial in read(experiment)] == [TrialState.RUNNING]
    again = start_trial(study)
    study.report(again, make_epoch(1, 0.5))
    assert operations(experiment)[-5:] == [ATTRIBUTE, ATTRIBUTE, STATE, NEW_TRIAL, VALUE]
    assert [trial.state for trial in read(experiment)] == [TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in study.study.get_trials()] == [TrialState.FAIL, TrialState.RUNNING]


def test_what_could_not_be_written_stays_out_when_another_process_has_written_since(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = SearchStudy.open(experiment, CONFIG)
    number = start_trial(study)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.close(-1))
        with pytest.raises(OSError, match="Bad file"):
            study.fail(number, Failure(Reason.CODE, "KeyError: 'x'"))
    read_study(experiment).set_user_attr("note", "of another process")
    before = experiment.journal.read_bytes()
    for _ in range(2):
        with pytest.raises(OSError, match="another process has written to it"):
            start_trial(study)
    assert experiment.journal.read_bytes() == before
    assert [trial.state for trial in read(experiment)] == [TrialState.RUNNING]


def test_what_was_recorded_before_an_event_was_broken_off_is_in_the_file(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, CONFIG)
    number = start_trial(study)
    trial_id = study.trial(number)._trial_id
    storage = study.study._storage

    def record_half() -> None:
        with one_append(storage):
            storage.set_trial_user_attr(trial_id, "first", 1)
            assert study.trial(number).user_attrs == {"first": 1}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_half()
    assert [trial.user_attrs for trial in read(experiment)] == [{"first": 1}]


def test_two_who_write_a_journal_do_not_write_into_each_others_event(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, CONFIG)
    number = start_trial(study)
    other = read_study(experiment)
    other.set_user_attr("note", "of another process")
    study.report(number, make_epoch(1, 0.9))
    other.set_user_attr("note", "again")
    study.report(number, make_epoch(2, 0.9))
    for seen in (read_study(experiment), study.study, other):
        assert [trial.intermediate_values for trial in seen.get_trials()] == [{1: 0.9, 2: 0.9}]
        assert seen.user_attrs == {"note": "again"}
