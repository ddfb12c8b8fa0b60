"""A search with folds as people look at it: every reader tells of means and folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from made_experiment import make_experiment
from reported import read_page

from search.configuration.config import parse_config
from search.records.epochs_file import format_epochs
from search.records.experiment import Experiment
from search.records.record import list_trials
from search.records.results import read_trials
from search.report import write_report
from search.review.display import trials_table
from search.review.listing import Question, read_listing
from search.review.listing_formats import notes
from search.review.trial_detail import read_details
from search.review.trial_detail_text import describe_trial
from search.study.warm_start import read_warm_start
from search.yaml_file import dump_yaml, read_yaml

CONFIG: dict[str, Any] = {
    "dataset": "synthetic",
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
    "max_trials": 4,
    "max_epochs": 2,
    "pruner": "median",
    "objective": {"folds": 5},
}
GOOD = [0.5, 0.8, 0.5, 0.7, 0.5, 0.6, 0.5, 0.7, 0.5, 0.7]
BAD = [value - 0.3 for value in GOOD]


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """One complete, one pruned after four folds, one in its second fold, one in its first."""
    path = tmp_path_factory.mktemp("reviewed") / "folded"
    made = make_experiment(path, parse_config(CONFIG, where="test"), [GOOD, BAD, GOOD[:3], GOOD[:1]])
    for trial in list_trials(made):
        epochs = [make_epoch(epoch, value) for epoch, value in trial.intermediate_values.items()]
        made.trial(trial.number).path.mkdir(exist_ok=True)
        made.trial(trial.number).epochs.write_text(format_epochs(epochs, dataset="synthetic", fold_epochs=2))
    return made


def test_lists_show_means_and_how_many_folds_they_are_of(reviewed: Experiment) -> None:
    listing = read_listing(reviewed, Question())
    rows = {row["trial"]: row for row in listing.rows}
    assert "folds" in listing.columns
    assert {number: row["folds"] for number, row in rows.items()} == {0: 5, 1: 4, 2: 1, 3: 0}
    assert [rows[n]["value"] for n in range(4)] == pytest.approx([0.7, 0.4, 0.8, 0.5])
    assert rows[0]["best_epoch"] == 2
    assert any("2 of 20 epochs (2 ended trials, max_epochs 2 in 5 folds)" in note for note in notes(listing))
    table = read_trials(reviewed)
    assert list(table["folds"]) == [5, 4, 1, 0]
    assert trials_table(table, title="", metric="val_accuracy")


def test_lists_of_searches_without_folds_know_no_folds(tmp_path: Path) -> None:
    plain = make_experiment(tmp_path / "plain", parse_config(CONFIG | {"objective": None}, where="test"), [[0.5, 0.6]])
    assert "folds" not in read_listing(plain, Question()).columns
    assert "folds" not in read_trials(plain).columns


def test_a_trial_is_shown_with_the_value_of_each_fold(reviewed: Experiment) -> None:
    complete, pruned, second, first = read_details(reviewed, range(4))
    assert complete.fold_values == [0.8, 0.7, 0.6, 0.7, 0.7]
    assert complete.mean_curve == pytest.approx({1: 0.5, 2: 0.7})
    assert len(complete.training) == 10
    text = describe_trial(complete).plain
    assert "0.7000 at its best, in epoch 2, as the mean of 5 folds" in text
    assert "standard deviation 0.0707" in text
    assert "as the mean of 4 folds" in describe_trial(pruned).plain
    assert "as the mean of the first fold" in describe_trial(second).plain
    assert "no fold is complete" in describe_trial(first).plain


def test_the_page_marks_where_folds_end(reviewed: Experiment, tmp_path: Path) -> None:
    write_report(reviewed, tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert "up to 2 epochs in each of 5 folds" in page.text
    assert "in epoch 2, the mean over 5 folds" in page.text
    assert "each of 5 folds has 2" in page.text
    assert "Fold after fold, of 2 epochs each" in page.text


@pytest.mark.parametrize("objective", [5, {"folds": "5"}, {"folds": 10**12}, {"folds": True}, [], {"folds": None}])
def test_a_strangers_objective_that_makes_no_sense_is_none(
    objective: object, reviewed: Experiment, tmp_path: Path
) -> None:
    path = tmp_path / "strange"
    make_experiment(path, parse_config(CONFIG, where="test"), [GOOD])
    strange = Experiment(path)
    strange.config.write_text(dump_yaml(read_yaml(strange.config) | {"objective": objective}))
    assert len(read_listing(strange, Question()).rows) == 1
    write_report(strange, tmp_path / "page.html")


def test_a_sampler_learns_from_means_and_is_told_of_the_difference(reviewed: Experiment) -> None:
    plain = parse_config(CONFIG | {"objective": None}, where="test")
    warm = read_warm_start(reviewed, plain)
    assert [trial.value for trial in warm.trials] == [pytest.approx(0.7), None]
    assert warm.trials[1].intermediate_values[8] == pytest.approx(0.4)
    assert "warm start: objective was the mean over 5 folds there, a single training here" in warm.notes
