"""Holding an experiment: what is removed at the end if no study came of it, and what never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch

from search.configuration.config import SearchConfig, parse_config
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.records.store import Store
from search.running.continuation import begin_run
from search.study.search_study import SearchStudy


def make_config() -> SearchConfig:
    raw = {"space": {"model": "customnet"}, "max_trials": 2, "max_epochs": 1, "pruner": "none"}
    return parse_config(raw, where="test")


def search(experiment: Experiment) -> None:
    """Runs one trial, as far as its driver goes, with a file in its folder."""
    begin_run(experiment, make_config())
    study = SearchStudy.open(experiment, make_config())
    assignment = study.next_assignment()
    assert assignment is not None
    study.report(assignment.number, make_epoch(1, 0.5))
    experiment.trial(assignment.number).path.mkdir()
    experiment.trial(assignment.number).epochs.write_text("1")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("is_inside", [True, False])
@pytest.mark.parametrize("was_there", [True, False])
def test_a_journal_that_is_moved_in_the_middle_costs_no_other_file(
    tmp_path: Path, is_inside: bool, was_there: bool
) -> None:
    experiment = Experiment(tmp_path / "x")
    if was_there:
        with hold_experiment(experiment):
            search(experiment)
    with hold_experiment(experiment):
        search(experiment)
        experiment.log.write_text("Ray's log")
        experiment.journal.rename(experiment.path / "moved" if is_inside else tmp_path / "moved")
        before = files_below(experiment.path)
    assert files_below(experiment.path) == before


def test_a_study_that_has_no_trial_yet_stays_with_what_goes_with_it(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        begin_run(experiment, make_config())
        SearchStudy.open(experiment, make_config())
        experiment.journal.rename(experiment.path / "study.journal.old")
        before = files_below(experiment.path)
    assert files_below(experiment.path) == before


def test_a_folder_that_has_taken_the_place_of_the_held_one_stays(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        begin_run(experiment, make_config())
        experiment.path.rename(tmp_path / "moved")
        experiment.trials.mkdir(parents=True)
        experiment.config.write_text("mine")
    assert files_below(experiment.path) == {"trials", "config.yaml"}
    assert experiment.config.read_text() == "mine"
    assert (tmp_path / "moved" / "config.yaml").exists()


@pytest.mark.parametrize("was_there", [True, False])
def test_a_start_that_came_to_no_study_leaves_nothing(tmp_path: Path, was_there: bool) -> None:
    experiment = Experiment(tmp_path / "new" / "x")
    if was_there:
        experiment.path.mkdir(parents=True)
        (experiment.path / "notes.txt").write_text("mine")
    before = files_below(tmp_path)
    with hold_experiment(experiment):
        begin_run(experiment, make_config())
        experiment.log.write_text("Ray's log")
        (experiment.path / ".config.yaml.1.part").write_text("half")
    assert files_below(tmp_path) == before


def test_what_another_put_into_a_new_folder_stays(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        (experiment.path / "notes.txt").write_text("mine")
    assert (experiment.path / "notes.txt").read_text() == "mine"


def test_a_store_that_cannot_be_reached_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any) -> None:
        raise ExperimentError("cannot be used: no route")

    monkeypatch.setattr(Store, "fetch", unreachable)
    experiment = Experiment(tmp_path / "copies" / "x", store=Store("s3://bucket/experiments"))
    with pytest.raises(ExperimentError, match="no route"), hold_experiment(experiment):
        pass
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("name", ["study.journal", "search.log", "test_looks.jsonl"])
def test_a_folder_in_the_place_of_a_file_that_grows_is_called_no_plain_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "x" / name).mkdir(parents=True)
    with pytest.raises(ExperimentError, match=f"{name} is no plain file"), hold_experiment(Experiment(tmp_path / "x")):
        pass
