"""What a person sees while a search runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from epochs import make_epoch
from rich.console import Console

from search.configuration.config import SearchConfig, parse_config
from search.records.experiment import Experiment
from search.records.record import Failure, Reason
from search.running.progress import SearchProgress
from search.study.search_study import SearchStudy


def make_config(dataset: str) -> SearchConfig:
    raw = {
        "dataset": dataset,
        "space": {"model": "customnet", "lr": 0.5, "dropout": {"float": [0.1, 0.1]}},
        "max_trials": 5,
        "max_epochs": 2,
        "reduction_factor": 2,
    }
    return parse_config(raw, where="test")


def tell_a_story(path: Path, dataset: str, *, terminal: bool) -> str:
    """One trial is complete, one pruned, one failed, one runs after its first epoch; the text that was written."""
    config = make_config(dataset)
    path.mkdir()
    study = SearchStudy.open(Experiment(path), config)
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None)
    with SearchProgress(console, config, []) as progress:
        for accuracies in ([0.75, 0.875], [0.25], [0.5], [0.8125]):
            assignment = study.next_assignment()
            assert assignment is not None
            progress.trial_started(assignment)
            if assignment.number == 2:
                study.fail(2, Failure(Reason.CODE, "RuntimeError: [red]a mistake[/x]"))
                progress.trial_ended(study.trial(2))
                continue
            for number, accuracy in enumerate(accuracies, start=1):
                state = study.report(assignment.number, make_epoch(number, accuracy))
                progress.epoch_ended(assignment.number, make_epoch(number, accuracy))
                if state.is_finished():
                    progress.trial_ended(study.trial(assignment.number))
        if terminal:
            console.print(progress._render())
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_without_a_terminal_each_finished_trial_has_one_line(tmp_path: Path) -> None:
    lines = tell_a_story(tmp_path / "x", "fashion-mnist", terminal=False).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["trial", "0", "complete"],
        ["trial", "1", "pruned"],
        ["trial", "2", "failed"],
    ]
    assert "val_accuracy 0.8750 (epoch 2 of 2)  dropout=0.1" in lines[0]
    assert "val_accuracy 0.2500 (epoch 1 of 1)" in lines[1]
    assert "code: RuntimeError: [red]a mistake[/x]" in lines[2]


def test_a_terminal_shows_counts_the_best_and_what_runs(tmp_path: Path) -> None:
    text = tell_a_story(tmp_path / "x", "fashion-mnist", terminal=True)
    assert "3/5 trials  1 complete, 1 pruned, 1 failed" in text
    assert "best so far: val_accuracy 0.8750 (trial 0" in text
    assert "left" in text
    running = next(line.split() for line in text.splitlines() if line.split()[:2] == ["3", "customnet"])
    assert running == ["3", "customnet", "1/2", "0.1875", "0.1875", "0.8125"]


@pytest.mark.parametrize("terminal", [False, True])
def test_synthetic_is_said_wherever_a_number_is_shown(tmp_path: Path, terminal: bool) -> None:
    text = tell_a_story(tmp_path / "x", "synthetic", terminal=terminal)
    assert all("synthetic" in line for line in text.splitlines() if "val_accuracy 0" in line)
    if terminal:
        assert "left   on synthetic" in text, "running trials' values stand below this line"
