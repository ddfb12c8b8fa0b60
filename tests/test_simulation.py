"""Searches in virtual time: the clock adds up, the study decides, and the table says what was measured."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from benchmarks.record_table import NUM_EPOCHS, SPACE, TABLE, configurations
from search.configuration.config import SearchConfig, parse_config
from search.study.recorded_table import RecordedTable, read_table
from search.study.simulation import Fleet, Simulated, simulate

# Three configurations of one hyperparameter, two epochs each of 1 s, 2 s and 4 s.
SMALL = """configuration,lr,epoch,val_accuracy,val_loss,seconds
0,0.001,1,0.5,1.5,1
0,0.001,2,0.6,1.4,1
1,0.01,1,0.7,1.3,2
1,0.01,2,0.8,1.2,2
2,0.1,1,0.2,1.8,4
2,0.1,2,0.1,1.9,4
"""
SMALL_SPACE = {"model": "customnet", "lr": {"choice": [0.001, 0.01, 0.1]}}


def make_config(**changes: Any) -> SearchConfig:
    raw = {"space": SMALL_SPACE, "max_trials": 12, "max_epochs": 2, "pruner": "none", "sampler": "random"}
    return parse_config(raw | changes, where="test")


def make_table(folder: Path, config: SearchConfig, text: str = SMALL) -> RecordedTable:
    path = folder / "table.csv"
    path.write_text(text)
    return read_table(path, config.space)


def run(folder: Path, fleet: Fleet, **changes: Any) -> Simulated:
    config = make_config(**changes)
    return simulate(config, make_table(folder, config), fleet)


def test_without_any_cost_of_its_own_one_slot_is_never_idle(tmp_path: Path) -> None:
    done = run(tmp_path, Fleet(num_slots=1))
    assert [trial.number for trial in done.trials] == list(range(12))
    assert done.busy_s == done.duration_s
    assert done.idle_share == 0
    assert done.num_epochs == 24
    assert {trial.last_value for trial in done.trials} == {0.6, 0.8, 0.1}
    assert all(trial.value == max(trial.last_value, 0.2) for trial in done.trials)
    assert done.driver_s > 0


def test_what_the_driver_and_starts_take_is_idle_time(tmp_path: Path) -> None:
    fleet = Fleet(num_slots=1, start_s=0.5, suggest_s=0.25, report_s=0.125)
    plain, done = run(tmp_path, Fleet(num_slots=1)), run(tmp_path, fleet)
    assert done.duration_s - plain.duration_s == 12 * (0.5 + 0.25 + 2 * 0.125)
    assert done.busy_s == plain.busy_s
    assert done.idle_share == pytest.approx(12 / done.duration_s)


def test_the_driver_does_one_thing_at_a_time(tmp_path: Path) -> None:
    """Twelve slots ask at once: the last one's trial begins after 12 s, and until then nobody's epoch is heard of."""
    table = make_table(tmp_path, make_config(), SMALL[: SMALL.index("1,0.01")])
    done = simulate(make_config(), table, Fleet(num_slots=12, suggest_s=1.0))
    assert sorted(trial.time_s for trial in done.trials) == [12 + 1.0] * 11 + [12 + 2.0]
    assert done.time_to(0.6) == 13.0
    assert done.time_to(0.61) is None


def test_slots_work_side_by_side_and_wait_for_the_last(tmp_path: Path) -> None:
    done = run(tmp_path, Fleet(num_slots=3))
    assert done.duration_s < done.busy_s
    assert 0 < done.idle_share < 0.5
    assert done.best_value(after=12) == 0.8


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_studys_pruner_decides(tmp_path: Path, metric: str) -> None:
    done = run(tmp_path, Fleet(num_slots=2), pruner="halving", metric=metric, max_trials=30)
    states = [trial.state for trial in done.trials]
    assert len(states) == 30
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert done.num_epochs == 2 * states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED)
    assert done.best_value(after=30) == (0.8 if metric == "val_accuracy" else 1.2)


def test_a_search_is_the_same_each_time_and_another_with_another_seed(tmp_path: Path) -> None:
    runs = [run(tmp_path, Fleet(num_slots=2), sampler="tpe", max_trials=20, seed=seed).trials for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_between_recorded_configurations_lies_their_mean(tmp_path: Path) -> None:
    config = make_config(space={"model": "customnet", "lr": {"float": [0.001, 0.1], "log": True}})
    table = make_table(tmp_path, config)
    recorded = table.epochs({"lr": 0.01})
    assert [(e.epoch, e.val_accuracy, e.val_loss, e.epoch_s) for e in recorded] == [
        (1, pytest.approx(0.7), pytest.approx(1.3), pytest.approx(2.0)),
        (2, pytest.approx(0.8), pytest.approx(1.2), pytest.approx(2.0)),
    ]
    between = table.epochs({"lr": 0.00316227766})[0]  # 1/4 of the range from two of them, 3/4 from the third
    weights = (16, 16, 16 / 9)
    expected = (0.5 * weights[0] + 0.7 * weights[1] + 0.2 * weights[2]) / sum(weights)
    assert between.val_accuracy == pytest.approx(expected)


def test_a_table_with_gaps_is_refused(tmp_path: Path) -> None:
    for text in (SMALL.replace("2,0.1,2,0.1,1.9,4\n", ""), SMALL.replace("1,0.01,2,", "1,0.01,3,"), ""):
        with pytest.raises(ValueError, match=r"table\.csv must hold the same epochs"):
            make_table(tmp_path, make_config(), text)


def test_a_table_of_another_space_is_refused(tmp_path: Path) -> None:
    for space in ({"lr": {"choice": [0.001, 0.01]}}, {"momentum": {"float": [0.1, 0.9]}, "optimizer": "sgd"}):
        with pytest.raises(ValueError, match=r"table\.csv must have a column"):
            make_table(tmp_path, make_config(space={"model": "customnet", **space}))


def test_the_table_that_is_shipped_can_be_made_again_and_searched() -> None:
    config = parse_config({"space": SPACE, "max_epochs": NUM_EPOCHS, "max_trials": 20}, where="test")
    table = read_table(TABLE, config.space)
    assert table.num_epochs == NUM_EPOCHS
    assert len(table.results) >= 60
    assert TABLE.stat().st_size < 300_000
    with TABLE.open(newline="") as file:
        first = {int(row["configuration"]): float(row["lr"]) for row in csv.DictReader(file)}
    drawn = list(configurations(max(first) + 1))
    assert {number: drawn[number]["lr"] for number in first} == first
    done = simulate(config, table, Fleet(num_slots=4))
    assert done.best_value(after=20) > 0.7
    assert 0 <= done.idle_share < 0.5
