"""Opening an experiment: what may change between two runs of it, and what a crash may have left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch

from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.running.continuation import begin_run, check_continuation
from search.study.search_study import SearchStudy

SPACE: dict[str, Any] = {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}}


def make_config(**changes: Any) -> SearchConfig:
    raw = {"space": SPACE, "max_trials": 2, "max_epochs": 1, "pruner": "none", **changes}
    return parse_config(raw, where="test")


def run(experiment: Experiment, config: SearchConfig, *, warm_start: Experiment | None = None) -> int:
    """Runs the search; gives how many warm trials it learned from."""
    with hold_experiment(experiment):
        warm = begin_run(experiment, config, warm_start=warm_start)
        study = SearchStudy.open(experiment, config, warm=warm.trials)
        while (assignment := study.next_assignment()) is not None:
            study.report(assignment.number, make_epoch(1, 0.5))
        return len(warm.trials)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    made = Experiment(tmp_path / "first")
    run(made, make_config())
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {"max_trials": 9},
        {"time_budget_s": 5.0},
        {"max_concurrent_trials": 1},
        {"trial_timeout_s": 5.0},
        {"max_restarts": 0},
        {"keep_checkpoints": 1},
        {"max_disk_gb": 5.0},
    ],
    ids=str,
)
def test_what_keeps_trials_comparable_may_change(experiment: Experiment, changes: dict[str, Any]) -> None:
    check_continuation(experiment, make_config(**changes))


def test_other_changes_are_refused_key_by_key(experiment: Experiment) -> None:
    changed = make_config(seed=3, space={**SPACE, "lr": {"float": [1e-4, 1e-1], "log": True}, "dropout": 0.1})
    with pytest.raises(ConfigError) as refused:
        check_continuation(experiment, changed)
    _, *lines, valid = str(refused.value).splitlines()
    assert lines == [
        "  seed: 0 there, 3 now",
        "  space.lr: {'float': [0.0001, 0.01], 'log': True} there, {'float': [0.0001, 0.1], 'log': True} now",
        "  space.dropout: none there, 0.1 now",
    ]
    assert valid.startswith("valid: the same configuration (only ")


def test_a_repeatable_searchs_concurrency_may_not_change(tmp_path: Path) -> None:
    made = Experiment(tmp_path / "repeatable")
    run(made, make_config(deterministic=True, max_concurrent_trials=1))
    with pytest.raises(ConfigError, match="max_concurrent_trials: 1 there, 2 now"):
        check_continuation(made, make_config(deterministic=True, max_concurrent_trials=2))


def test_a_warm_start_is_kept_and_may_not_change(experiment: Experiment, tmp_path: Path) -> None:
    other, third = Experiment(tmp_path / "other"), Experiment(tmp_path / "third")
    run(third, make_config(seed=1))
    assert run(other, make_config(), warm_start=experiment) == 2
    assert run(other, make_config(max_trials=3), warm_start=experiment) == 2
    assert run(other, make_config(max_trials=4)) == 2
    with pytest.raises(ConfigError, match=r"exists and learned from .*first"):
        run(other, make_config(), warm_start=third)
    with pytest.raises(ConfigError, match="exists and learned from no other"):
        run(experiment, make_config(), warm_start=third)


def test_a_warm_start_of_a_run_that_never_came_to_a_study_is_forgotten(experiment: Experiment, tmp_path: Path) -> None:
    running, killed = Experiment(tmp_path / "running"), Experiment(tmp_path / "killed")
    with hold_experiment(running):
        begin_run(running, make_config(), warm_start=experiment)
        shutil.copytree(running.path, killed.path)  # no study is made
    assert killed.warm_start.exists()
    assert run(killed, make_config()) == 0
    assert not killed.warm_start.exists()


def test_what_a_killed_process_was_writing_is_removed(experiment: Experiment) -> None:
    part = experiment.trial(0).path / ".last.pt.123.part"
    part.parent.mkdir()
    part.write_bytes(b"half")
    run(experiment, make_config())
    assert not part.exists()
