"""The journal: whole lines whatever happens, and nothing of a foreign one gets further than reading it."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny_disk import tiny_disk

from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.journal import JournalFile
from search.records.record import MESSAGE, REASON, open_storage, read_study, repair_journal

LR = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": false}}'
BY = {"worker_id": "w"}
STARTED = {"datetime_start": "2025-01-01T00:00:00.000000+00:00"}
ENDED = {"datetime_complete": "2025-01-01T00:01:00.000000+00:00"}
STUDY = {"op_code": 0, **BY, "study_name": "x", "directions": [2]}
TRIAL = {"op_code": 4, **BY, "study_id": 0, **STARTED}
LINES: tuple[dict[str, Any], ...] = (
    STUDY,
    TRIAL,
    {
        "op_code": 5,
        **BY,
        "trial_id": 0,
        "param_name": "lr",
        "param_value_internal": 0.01,
        "distribution": LR,
    },
    {"op_code": 7, **BY, "trial_id": 0, "step": 1, "intermediate_value": 0.5},
    {"op_code": 8, **BY, "trial_id": 0, "user_attr": {REASON: "code"}},
    {"op_code": 8, **BY, "trial_id": 0, "user_attr": {MESSAGE: "ValueError"}},
)
END = {"op_code": 6, **BY, "trial_id": 0, "state": 1, "values": [0.5], **ENDED}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A study with one trial that runs."""
    path = tmp_path / "experiment" / "study.journal"
    path.parent.mkdir()
    path.write_text(as_text(*LINES))
    return path


def as_text(*lines: Any) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def read_journal(journal: Path) -> optuna.Study:
    return read_study(Experiment(journal.parent))


def open_study(journal: Path) -> optuna.Study:
    return optuna.load_study(study_name="x", storage=open_storage(journal))


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """The system lets no file of this process grow beyond: the write that would is cut short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_until_it_fails(study: optuna.Study) -> int | None:
    """Gives the system's number of the failure."""
    for number in itertools.count():
        try:
            study.set_user_attr(f"note {number}", "x" * 333)
        except OSError as error:
            return error.errno
    raise AssertionError


def test_the_lines_are_those_of_a_study(journal: Path) -> None:
    [trial] = read_journal(journal).get_trials()
    assert (trial.params, trial.intermediate_values) == ({"lr": 0.01}, {1: 0.5})
    journal.write_text(as_text(*LINES, END))
    assert read_journal(journal).get_trials()[0].value == 0.5


# Writing


def test_an_append_that_fails_half_way_leaves_no_half_line(journal: Path) -> None:
    study, before = open_study(journal), journal.read_bytes()
    for more in (0, 1, 40):
        with files_end_at(len(before) + more), pytest.raises(OSError) as caught:  # noqa: PT011 (judged below)
            study.set_user_attr("note", "x" * 100)
        assert caught.value.errno == errno.EFBIG
        assert journal.read_bytes() == before
    study.set_user_attr("note", "y")
    assert journal.read_bytes().startswith(before)
    assert read_journal(journal).user_attrs == {"note": "y"}


def test_on_a_full_disk_the_journal_keeps_its_lines_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", kibibytes=64) as disk:
        journal, filler = disk / "study.journal", disk / "filler"
        filler.write_bytes(bytes(40 * 2**10))
        storage = open_storage(journal)
        study = optuna.create_study(storage=storage, study_name="x")
        assert write_until_it_fails(study) == errno.ENOSPC
        assert journal.read_bytes().endswith(b"\n")
        kept = read_journal(journal).user_attrs
        assert kept == study.user_attrs
        assert len(kept) > 10
        filler.unlink()
        study.set_user_attr("at last", 1)
        assert read_journal(journal).user_attrs == {**kept, "at last": 1}


def test_a_journal_that_vanished_is_not_made_again(journal: Path) -> None:
    study = open_study(journal)
    journal.unlink()
    with pytest.raises(FileNotFoundError):
        study.set_user_attr("note", 1)
    with pytest.raises(FileNotFoundError):
        study.get_trials()
    assert list(journal.parent.iterdir()) == []
    shutil.rmtree(journal.parent)
    with pytest.raises(FileNotFoundError):
        study.set_user_attr("note", 1)
    assert not journal.parent.exists()


def test_a_journal_in_the_place_of_one_that_vanished_stays_as_it_is(journal: Path) -> None:
    study, content = open_study(journal), journal.read_text()
    journal.rename(journal.with_name("moved"))
    journal.write_text(content)
    with pytest.raises(FileNotFoundError, match="another file has taken its place"):
        study.set_user_attr("note", 1)
    with pytest.raises(FileNotFoundError, match="another file has taken its place"):
        study.get_trials()
    assert journal.read_text() == content
    assert sorted(path.name for path in journal.parent.iterdir()) == ["moved", "study.journal"]


def test_a_storage_makes_its_journal_but_no_folders_for_it(tmp_path: Path) -> None:
    open_storage(tmp_path / "study.journal")
    assert (tmp_path / "study.journal").read_bytes() == b""
    with pytest.raises(ExperimentError, match="cannot be made: No such file"):
        open_storage(tmp_path / "gone" / "experiment" / "study.journal")
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_reading_a_study_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"study\.journal cannot be read: No such file"):
        read_journal(tmp_path / "study.journal")
    assert list(tmp_path.iterdir()) == []


def test_optuna_is_given_no_way_to_unpickle_anything(journal: Path) -> None:
    """It does so with the snapshots of a backend that has them."""
    assert not hasattr(JournalFile(journal), "load_snapshot")


# Putting right what a crash left


def test_a_journal_cut_at_any_byte_of_its_last_line_is_read_and_continued(journal: Path) -> None:
    whole = journal.read_bytes()
    last = as_text(END).encode()
    for length in range(len(last)):
        journal.write_bytes(whole + last[:length])
        assert [trial.state.name for trial in read_journal(journal).get_trials()] == ["RUNNING"]
        repair_journal(journal)
        assert journal.read_bytes() == whole
    journal.write_bytes(whole + last)
    repair_journal(journal)
    assert [trial.state.name for trial in read_journal(journal).get_trials()] == ["COMPLETE"]


@pytest.mark.parametrize("tail", [b"\0" * 5_000, b"{", b"\xff\xfe"], ids=["zeros", "brace", "no text"])
def test_what_a_crash_leaves_of_a_line_is_cut(journal: Path, tail: bytes) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    repair_journal(journal)
    open_study(journal).set_user_attr("note", 1)
    assert read_journal(journal).user_attrs == {"note": 1}


@pytest.mark.parametrize("content", [b"", b"{", b'{"op_code":0,"worker_id":'])
def test_a_journal_cut_in_its_first_line_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.journal").write_bytes(content)
    repair_journal(tmp_path / "study.journal")
    assert (tmp_path / "study.journal").read_bytes() == b""


@pytest.mark.parametrize("content", [b"a note", b'{"my": "results"}', b"\x80\x04", bytes(100)])
def test_another_file_than_a_journal_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(content)
    with pytest.raises(ExperimentError, match=r"study\.journal is no journal"):
        repair_journal(path)
    assert path.read_bytes() == content


def test_there_is_nothing_to_put_right_where_there_is_nothing(tmp_path: Path) -> None:
    repair_journal(tmp_path / "study.journal")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_was_killed_keeps_nobody_waiting(journal: Path) -> None:
    lock = journal.with_name("study.journal.lock")
    lock.symlink_to(journal)
    repair_journal(journal)
    assert not lock.is_symlink()
    start_s = time.monotonic()
    open_study(journal).set_user_attr("note", 1)
    assert time.monotonic() - start_s < 5, "Optuna waits for 30 s"
    assert not lock.is_symlink()


def test_a_lock_that_cannot_be_removed_is_named(journal: Path) -> None:
    journal.with_name("study.journal.lock").mkdir()
    with pytest.raises(ExperimentError, match=r"study\.journal\.lock cannot be put right: Is a directory"):
        repair_journal(journal)


@pytest.mark.parametrize("whole", [True, False])
def test_a_line_without_end_is_refused_and_left_alone(journal: Path, whole: bool) -> None:
    if not whole:
        journal.write_bytes(b"")
    os.truncate(journal, 10 * 2**30)
    start_s = time.monotonic()
    for read in (read_journal, open_storage, repair_journal):
        with pytest.raises(ExperimentError, match=r"study\.journal is no journal"):
            read(journal)
    assert journal.stat().st_size == 10 * 2**30
    assert time.monotonic() - start_s < 5


# What is no journal of a search


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "3", "null", '"x"', "{}", '{"op_code": 99}', '{"op_code": "0"}', '{"op_code": [4]}', "not JSON"),
        *('{"op_code": 0}', '{"op_code": 4, "study_id": 0}', '{"op_code": 4, "study_id": []}', "[" * 100_000),
        *('{"op_code": 0, "study_name": "y", "directions": [7]}', "1" * 10_000, '{"op_code": 1, "study_id": 0}'),
        as_text({**TRIAL, "datetime_start": "tomorrow"}),
        as_text({**TRIAL, "datetime_start": "0001-01-01T00:00:00+23:59"}),
        as_text({**TRIAL, "params": {"lr": 1}, "distributions": {}}),
        as_text({**TRIAL, "params": {"lr": 1}, "distributions": {"lr": '{"name": "System", "attributes": {}}'}}),
        as_text({**TRIAL, "params": {"lr": 5}, "distributions": {"lr": '{"name": "CategoricalDistribution"}'}}),
        as_text({**TRIAL, "state": 17}),
        as_text({**TRIAL, "intermediate_values": {"one": 1}}),
        as_text({**LINES[3], "step": []}),
        as_text({**LINES[4], "user_attr": ["ab", "cd"]}),
        as_text({**END, "values": 1}),
        as_text({**END, "state": None}),
    ],
    ids=lambda line: line[:60].strip(),
)
def test_an_operation_that_is_none_is_an_experiment_error(journal: Path, line: str) -> None:
    journal.write_text(journal.read_text() + line.strip() + "\n" + as_text({**LINES[3], "step": 2}))
    with pytest.raises(ExperimentError, match=r"study\.journal"):
        read_journal(journal)


@pytest.mark.parametrize(
    "line",
    [
        {**STUDY, "study_name": ["y"]},
        {**STUDY, "study_name": "y", "directions": [1, 2]},
        {**LINES[2], "param_name": 3},
        {**LINES[2], "param_name": "\ud800"},
        {**LINES[2], "param_name": "x", "param_value_internal": None},
        {**LINES[2], "param_name": "x", "param_value_internal": [1]},
        {**LINES[2], "param_name": "x", "param_value_internal": float("inf")},
        {**LINES[3], "step": "2"},
        {**LINES[3], "step": 0},
        {**LINES[3], "step": 2.5},
        {**LINES[3], "step": False},
        {**LINES[3], "step": 10**30},
        {**LINES[3], "intermediate_value": None},
        {**LINES[3], "intermediate_value": float("nan")},
        {**LINES[3], "intermediate_value": 10**400},
        {**LINES[3], "intermediate_value": "0.5"},
        {**LINES[3], "intermediate_value": [0.5]},
        {**LINES[4], "user_attr": {REASON: 5}},
        {**LINES[4], "user_attr": {MESSAGE: {"<b>": 1}}},
        {**LINES[4], "user_attr": {MESSAGE: "\udfff"}},
        {**TRIAL, "user_attrs": []},
        {**TRIAL, "system_attrs": "none"},
        {**END, "values": []},
        {**END, "values": [1, 2]},
        {**END, "values": ["best"]},
        {**END, "values": [float("-inf")]},
        {**END, "values": "x"},
    ],
    ids=lambda line: str({key: value for key, value in line.items() if key not in {**BY, **STARTED, **ENDED}})[:80],
)
def test_what_no_trial_of_a_search_holds_is_refused(journal: Path, line: dict[str, Any]) -> None:
    """Optuna itself reads all of these."""
    journal.write_text(as_text(*LINES, line))
    for read in (read_journal, open_storage):
        with pytest.raises(ExperimentError, match=r"study\.journal is damaged or holds something else"):
            read(journal)
