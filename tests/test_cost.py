"""What a search says that it cost."""

from __future__ import annotations

from pathlib import Path

from epochs import make_epoch

from search.records.cost import measure_cost
from search.records.epochs_file import format_epochs
from search.records.experiment import CONFIRMATION, FINAL, Experiment


def write_epochs(experiment: Experiment, trial: int, count: int, *, fold_epochs: int | None = None) -> None:
    """Epochs of one second each."""
    table = experiment.trial(trial).epochs
    table.parent.mkdir(parents=True)
    epochs = [make_epoch(number, 0.5) for number in range(1, count + 1)]
    table.write_text(format_epochs(epochs, dataset="synthetic", fold_epochs=fold_epochs))


def test_search_confirmation_and_last_training_count_by_what_a_trial_holds(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "mine")
    assert measure_cost(experiment, cpus=2, gpus=1).core_hours == 0
    for part, trial, count in ((experiment, 0, 5), (experiment, 1, 3), (experiment.part(CONFIRMATION), 0, 7)):
        write_epochs(part, trial, count)
    write_epochs(experiment.part(FINAL), 0, 3, fold_epochs=1)
    cost = measure_cost(experiment, cpus=200, gpus=100)
    assert (cost.core_hours, cost.gpu_hours) == (1.0, 0.5)
    assert str(cost) == "1 CPU core hours and 0.5 GPU hours"


def test_a_table_that_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "mine")
    write_epochs(experiment, 0, 36)
    for trial, text in ((1, "\x00"), (2, experiment.trial(0).epochs.read_text().replace(",1.0,", ",inf,"))):
        experiment.trial(trial).path.mkdir(parents=True)
        experiment.trial(trial).epochs.write_text(text)
    assert str(measure_cost(experiment, cpus=1, gpus=0)) == "0.01 CPU core hours"
