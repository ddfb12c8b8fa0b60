"""The list of jobs: each shows how far its own experiment was when it ended. No cluster is needed to tell."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from rich.console import Console

from cluster.jobs import Job, JobState
from search.cli.job_list import as_row, as_table
from search.cli.submitting import JobRequest
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.records.inventory import summarise
from search.records.lock import hold_experiment
from search.running.continuation import begin_run
from search.study.search_study import SearchStudy

RAW: dict[str, Any] = {"dataset": "synthetic", "space": {"model": "customnet"}, "max_epochs": 1, "pruner": "none"}


def train(experiment: Experiment, values: list[float | None], *, max_trials: int) -> None:
    """A run of the search: each trial ends with its value, or is left running with ``None``."""
    config = parse_config(RAW | {"max_trials": max_trials}, where="test")
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        for value in values:
            assignment = study.next_assignment()
            assert assignment is not None
            if value is not None:
                study.report(assignment.number, make_epoch(1, value))


def job_of(experiment: Experiment, state: JobState, *, max_trials: int, ended: datetime | None) -> Job:
    config = parse_config(RAW | {"max_trials": max_trials}, where="test")
    request = JobRequest(
        experiment=experiment.name,
        config=config.to_yaml(),
        experiments_dir=str(experiment.path.parent),
        data_dir=None,
        queue=None,
        warm_start=None,
    )
    metadata = request.to_submission().metadata
    return Job(
        id=f"{experiment.name}-{state}",
        state=state,
        entrypoint="",
        message="",
        metadata=metadata,
        started=ended,
        ended=ended,
        exit_code=None,
    )


@pytest.fixture
def history(tmp_path: Path) -> list[Job]:
    """A job that failed before its first trial, one that was stopped after two of three trials, and the one that
    continued it with five; the newest first."""
    experiment = Experiment(tmp_path / "mine")
    failed = job_of(experiment, JobState.FAILED, max_trials=3, ended=datetime.now().astimezone())
    train(experiment, [0.5, 0.25, None], max_trials=3)
    stopped = job_of(experiment, JobState.STOPPED, max_trials=3, ended=datetime.now().astimezone())
    train(experiment, [0.75, 0.625, 0.875], max_trials=5)
    ended = job_of(experiment, JobState.SUCCEEDED, max_trials=5, ended=datetime.now().astimezone())
    return [ended, stopped, failed]


def test_a_job_keeps_its_own_numbers_when_another_one_continues_its_experiment(history: list[Job]) -> None:
    rows = [as_row(job) for job in history]
    told = [(row["state"], row["trials"], row["max_trials"], row["best_value"]) for row in rows]
    assert told == [("succeeded", 5, 5, 0.875), ("stopped", 2, 3, 0.5), ("failed", None, None, None)]
    console = Console(width=150)
    with console.capture() as captured:
        console.print(as_table(history))
    lines = captured.get().splitlines()[1:]
    assert [found for line in lines for found in line.split() if "/" in found] == ["5/5", "2/3"]
    assert "0.5000" in lines[1]


def test_a_running_jobs_numbers_are_those_of_now(history: list[Job], tmp_path: Path) -> None:
    row = as_row(job_of(Experiment(tmp_path / "mine"), JobState.RUNNING, max_trials=5, ended=None))
    assert (row["trials"], row["max_trials"], row["best_value"]) == (5, 5, 0.875)


def test_an_experiment_is_summarised_as_of_a_moment(history: list[Job], tmp_path: Path) -> None:
    progress = summarise(Experiment(tmp_path / "mine"), until=history[1].ended).progress
    assert progress is not None
    assert (progress.num_ended, progress.num_open, progress.best_value) == (2, 1, 0.5)
    assert summarise(Experiment(tmp_path / "mine"), until=history[2].ended).progress is None
