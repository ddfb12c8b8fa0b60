"""What of a search stays on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError, ExperimentError
from search.records.experiment import Experiment
from search.running.retention import Retention, check_room

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


def make_config(**changes: Any) -> SearchConfig:
    return parse_config({"space": {"model": "customnet"}, **changes}, where="test")


def make_trial(number: int, state: TrialState, value: float) -> FrozenTrial:
    complete = state == TrialState.COMPLETE
    trial = create_trial(state=state, value=value if complete else None, intermediate_values={1: value})
    trial.number = number
    return trial


def save_checkpoints(experiment: Experiment, trials: Sequence[FrozenTrial]) -> None:
    for trial in trials:
        files = experiment.trial(trial.number)
        files.path.mkdir(parents=True, exist_ok=True)
        files.last.write_bytes(b"last")
        files.best.write_bytes(b"best")


def kept(experiment: Experiment, trials: Sequence[FrozenTrial], file: str) -> list[int]:
    return [trial.number for trial in trials if getattr(experiment.trial(trial.number), file).exists()]


def test_as_many_trials_keep_weights_as_are_confirmed(tmp_path: Path) -> None:
    trials = [make_trial(number, TrialState.COMPLETE, number / 10) for number in range(4)]
    save_checkpoints(Experiment(tmp_path), trials)
    Retention(Experiment(tmp_path), make_config(keep_checkpoints=1, confirm={"top": 3, "seeds": 1}), trials)
    assert kept(Experiment(tmp_path), trials, "best") == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    outcomes=st.lists(st.tuples(st.sampled_from(STATES), st.integers(0, 5)), min_size=1, max_size=12),
    keep=st.integers(1, 4),
    metric=st.sampled_from(["val_accuracy", "val_loss"]),
    num_before=st.integers(0, 12),
)
def test_the_best_complete_trials_keep_weights_and_running_ones_everything(
    tmp_path_factory: pytest.TempPathFactory,
    outcomes: list[tuple[TrialState, int]],
    keep: int,
    metric: str,
    num_before: int,
) -> None:
    experiment = Experiment(tmp_path_factory.mktemp("kept"))
    trials = [make_trial(number, state, float(value)) for number, (state, value) in enumerate(outcomes)]
    save_checkpoints(experiment, trials)
    retention = Retention(experiment, make_config(keep_checkpoints=keep, metric=metric), trials[:num_before])
    for trial in trials[num_before:]:
        if trial.state.is_finished():
            retention.trial_ended(trial)
    sign = -1 if metric == "val_accuracy" else 1
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda t: (sign * t.intermediate_values[1], t.number))[:keep]
    running = {t.number for t in trials if t.state == TrialState.RUNNING}
    assert set(kept(experiment, trials, "best")) == {t.number for t in best} | running
    assert set(kept(experiment, trials, "last")) == running
    save_checkpoints(experiment, trials)  # as processes do that learn too late that their trial has ended
    retention.sweep(trials)
    assert set(kept(experiment, trials, "best")) == {t.number for t in best} | running


def test_a_limit_too_low_for_what_is_kept_at_once_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "not" / "there" / "yet")
    check_room(experiment, make_config(max_disk_gb=1.0), num_slots=2)
    with pytest.raises(ConfigError, match=r"max_disk_gb: 2 trials .* need up to 1\.\d+ GB, but got 1"):
        check_room(
            experiment, make_config(max_disk_gb=1.0, space={"model": "resnet18"}, keep_checkpoints=9), num_slots=2
        )
    assert list(tmp_path.iterdir()) == []


def test_room_is_kept_for_as_many_trials_as_there_are_and_not_for_every_slot(tmp_path: Path) -> None:
    """Of a ResNet-18, 0.0447 GB: 7 for each trial at work, 1 for each that is kept."""
    for changes, needed in (
        ({"max_trials": 2}, r"2 trials at a time and the best 2 need up to 0\.716 GB"),
        ({"max_trials": 1}, r"1 trial at a time and the best 1 need up to 0\.358 GB"),
        ({"max_trials": 2, "confirm": {"top": 3, "seeds": 2}}, r"4 trials at a time and the best 2 need"),
        ({"max_trials": 500}, r"200 trials at a time and the best 3 need"),
    ):
        with pytest.raises(ConfigError, match=needed):
            check_room(
                Experiment(tmp_path),
                make_config(space={"model": "resnet18"}, max_disk_gb=0.1, cpus_per_trial=0.01, **changes),
                num_slots=200,
            )


def test_room_is_kept_for_the_average_of_the_weights_where_there_may_be_one(tmp_path: Path) -> None:
    """Of a ResNet-18, 0.0447 GB: 7 and 3 kept are 0.447 GB, 9 and 3 kept are 0.536 GB."""
    check = {"max_disk_gb": 0.5}
    for space in ({}, {"ema": 0.0}):
        check_room(Experiment(tmp_path), make_config(space={"model": "resnet18", **space}, **check), num_slots=1)
    averaged = make_config(space={"model": "resnet18", "ema": {"choice": [0.0, 0.9]}}, **check)
    with pytest.raises(ConfigError, match=r"need up to 0\.537 GB, but got 0\.5"):
        check_room(Experiment(tmp_path), averaged, num_slots=1)


def test_room_is_kept_for_the_largest_images_of_the_space(tmp_path: Path) -> None:
    """AlexNet-11 has 58.3 million weights for images of 227 pixels, and half of them for 28."""
    space = {"model": {"choice": ["customnet", "alexnet11"]}, "input_size": {"choice": [28, 227]}}
    with pytest.raises(ConfigError, match=r"need up to 2\.33 GB"):
        check_room(Experiment(tmp_path), make_config(space=space, max_disk_gb=1.5), num_slots=1)
    check_room(Experiment(tmp_path), make_config(space={**space, "input_size": 28}, max_disk_gb=1.5), num_slots=1)


def test_an_experiment_above_its_limit_starts_no_further_trial(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "full")
    experiment.create()
    retention = Retention(experiment, make_config(max_disk_gb=0.02), [])
    retention.before_trial()
    (experiment.path / "grown").write_bytes(bytes(21_000_000))
    with pytest.raises(ExperimentError, match=r"takes 0\.021 GB, more than max_disk_gb: 0\.02"):
        Retention(experiment, make_config(max_disk_gb=0.02), []).before_trial()
