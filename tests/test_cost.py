"""What a search says that it cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from optuna.trial import create_trial

from search.configuration.config import parse_config
from search.records.cost import measure_cost, read_held
from search.records.epochs_file import format_epochs
from search.records.experiment import CONFIRMATION, FINAL, Experiment
from search.records.record import PAUSES, SECONDS, Failure, Reason, list_trials, open_study
from search.study.search_study import SearchStudy


def make_study(experiment: Experiment, *trials: dict[str, Any]) -> None:
    """Complete trials with these notes."""
    experiment.create()
    study = open_study(experiment, study_storage=None, direction="maximize")
    for notes in trials:
        study.add_trial(create_trial(value=0.5, user_attrs=notes))


def write_epochs(experiment: Experiment, trial: int, count: int, *, fold_epochs: int | None = None) -> None:
    """Epochs of one second each."""
    table = experiment.trial(trial).epochs
    table.parent.mkdir(parents=True, exist_ok=True)
    epochs = [make_epoch(number, 0.5) for number in range(1, count + 1)]
    table.write_text(format_epochs(epochs, dataset="synthetic", fold_epochs=fold_epochs))


def test_search_confirmation_and_last_training_count_by_what_a_trial_holds(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "mine")
    assert measure_cost(experiment, cpus=2, gpus=1).core_hours == 0
    for part, count in ((experiment, 2), (experiment.part(CONFIRMATION), 1), (experiment.part(FINAL), 1)):
        make_study(part, *({} for _ in range(count)))
    for part, trial, count in ((experiment, 0, 5), (experiment, 1, 3), (experiment.part(CONFIRMATION), 0, 7)):
        write_epochs(part, trial, count)
    write_epochs(experiment.part(FINAL), 0, 3, fold_epochs=1)
    cost = measure_cost(experiment, cpus=200, gpus=100)
    assert (cost.core_hours, cost.gpu_hours) == (1.0, 0.5)
    assert str(cost) == "1 core-hours and 0.5 GPU-hours wall clock (epochs only)"


def test_a_table_that_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "mine")
    make_study(experiment, {}, {}, {})
    write_epochs(experiment, 0, 36)
    for trial, text in ((1, "\x00"), (2, experiment.trial(0).epochs.read_text().replace(",1.0,", ",inf,"))):
        experiment.trial(trial).path.mkdir(parents=True)
        experiment.trial(trial).epochs.write_text(text)
    assert measure_cost(experiment, cpus=1, gpus=0).core_hours == pytest.approx(0.01)


def test_processor_time_is_that_of_all_trials_that_recorded_it(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "mine")
    measured = {SECONDS: {"epochs": 1800, "processor": 3600.0}}
    make_study(experiment, measured, measured, {}, {SECONDS: "x"}, {SECONDS: {"epochs": -1, "processor": True}})
    make_study(experiment.part(CONFIRMATION), measured)
    write_epochs(experiment, 2, 1800)
    cost = measure_cost(experiment, cpus=2, gpus=0)
    assert (cost.core_hours, cost.processor_core_hours, cost.num_unmeasured) == (4, 3, 1)
    assert "4 core-hours wall clock" in str(cost)
    assert "3 core-hours CPU time (with start and saving; 1 trial not measured)" in str(cost)


@pytest.mark.parametrize(
    ("settings", "held"),
    [
        ({"cpus_per_trial": 0.5, "gpus_per_trial": 0.25}, (0.5, 0.25)),
        ({"cpus_per_trial": None, "workers_per_trial": 2}, (2, 0)),
        ({"cpus_per_trial": "x", "gpus_per_trial": -1}, (1, 0)),
    ],
)
def test_a_trial_holds_what_the_configuration_says(settings: dict[str, Any], held: tuple[float, float]) -> None:
    assert read_held(settings) == held


def test_a_trial_is_charged_over_all_runs_and_each_epoch_by_the_clock_once(tmp_path: Path) -> None:
    raw = {"space": {"model": "customnet"}, "max_trials": 1, "max_epochs": 2, "pruner": "none"}
    config, experiment = parse_config(raw, where="test"), Experiment(tmp_path / "x")
    experiment.create()
    for last in (1, 2):
        study = SearchStudy.open(experiment, config)
        assert study.next_assignment() is not None
        for epoch in range(1, last + 1):
            study.charge(0, 5.0)
            study.report(0, make_epoch(epoch, 0.5))
        study.record_charges()
    [trial] = list_trials(experiment)
    assert trial.user_attrs[SECONDS] == {"epochs": 2.0, "processor": 15.0}
    assert PAUSES in trial.user_attrs


def test_a_continued_trial_that_fails_before_it_reports_again_keeps_what_it_took(tmp_path: Path) -> None:
    raw = {"space": {"model": "customnet"}, "max_trials": 1, "max_epochs": 3, "pruner": "none"}
    config, experiment = parse_config(raw, where="test"), Experiment(tmp_path / "x")
    experiment.create()
    study = SearchStudy.open(experiment, config)
    assert study.next_assignment() is not None
    study.charge(0, 5.0)
    study.report(0, make_epoch(1, 0.5))
    study.record_charges()
    continued = SearchStudy.open(experiment, config)
    assert continued.next_assignment() is not None
    continued.charge(0, 1.0)
    continued.fail(0, Failure(Reason.MEMORY, "no more memory"))
    [trial] = list_trials(experiment)
    assert trial.user_attrs[SECONDS] == {"epochs": 1.0, "processor": 6.0}


def test_a_process_is_charged_what_it_used_its_start_first() -> None:
    script = """
import time
from search.running.processor_time import charge_s
first = charge_s()
begun = time.process_time()
while time.process_time() < begun + 0.3: pass
second = charge_s()
time.sleep(0.3)
print(first > 0.3, 0.28 <= second < 0.5, charge_s() < 0.1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3
