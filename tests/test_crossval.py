"""`fmnist crossval`: what it trains, what it says of it, and that the same command goes on."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from command import fmnist
from made_experiment import make_experiment
from optuna.trial import TrialState
from scipy import stats

from fmnist_models.data import CLASS_NAMES, load_images
from fmnist_models.folds import FoldedImages, split_folds
from search.cli import main
from search.configuration.config import parse_config
from search.errors import ConfigError, ExperimentError
from search.records.cross_validation import (
    FoldPredictions,
    estimate,
    format_pooled,
    judge_folds,
    pool,
    read_cross_validation,
)
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment
from search.records.predictions import Predictions, read_predictions
from search.records.record import list_trials
from search.workflows.crossvalidating import check_same, subject_of_config, subject_of_trial

NUM_FOLDS = 3
SEARCH = {
    "dataset": "synthetic",
    "train_size": 240,
    "space": {"model": "customnet", "lr": {"float": [1e-3, 1e-2], "log": True}, "flip_averaging": True},
    "max_trials": 2,
    "max_epochs": 3,
    "pruner": "none",
    "precision": "fp32",  # as predictions are made, so that losses agree
}


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search, ``mine``, and of the folds of its best trial, trained on a Ray of their own."""
    folder = tmp_path_factory.mktemp("validated")
    config = parse_config(SEARCH, where="test")
    make_experiment(folder / "mine", config, [[0.5, 0.6, 0.7], [0.6, 0.8, 0.7]])
    arguments = ["crossval", "mine", "--folds", str(NUM_FOLDS), "--experiments-dir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fmnist", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder


def test_the_folds_are_trials_of_an_experiment_and_keep_no_weights(validated: Path) -> None:
    experiment = Experiment(validated / f"mine-trial-1-{NUM_FOLDS}-folds")
    best, trials = list_trials(Experiment(validated / "mine"))[1], list_trials(experiment)
    assert [trial.user_attrs["fold"] for trial in trials] == [1, 2, 3]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trial.params == best.params and sorted(trial.intermediate_values) == [1, 2] for trial in trials)
    assert len({trial.user_attrs["seed"] for trial in trials}) == NUM_FOLDS
    assert not [*experiment.path.rglob("*.safetensors"), *experiment.path.rglob("*.pt")]


def test_what_is_saved_is_what_the_predictions_say(validated: Path) -> None:
    experiment = Experiment(validated / f"mine-trial-1-{NUM_FOLDS}-folds")
    found, table = read_cross_validation(experiment), pd.read_csv(experiment.out_of_fold)
    images = load_images("synthetic", "train", root=Path("unused"), size=240)
    assert found is not None
    assert (found.source, found.of_trial, found.num_folds, found.num_epochs) == ("mine", 1, NUM_FOLDS, 2)
    assert list(table["image"]) == list(range(240))
    assert list(table["label"]) == [CLASS_NAMES[label] for label in images.labels]
    accuracies, losses = [], []
    for fold in range(1, NUM_FOLDS + 1):
        rows = table[table["fold"] == fold]
        held_out = split_folds(images, folds=NUM_FOLDS, fold=fold, seed=0).validation
        assert (images.images[rows["image"]] == held_out.images).all()
        accuracies.append((rows["label"] == rows["predicted"]).mean())
        losses.append(parse_epochs(experiment.trial(fold - 1).epochs.read_text())[-1].val_loss)
    assert found.metrics["accuracy"].values == pytest.approx(accuracies)
    assert found.metrics["loss"].values == pytest.approx(losses, rel=1e-5)
    trials = list_trials(experiment)
    assert [trial.value for trial in trials] == pytest.approx(accuracies, abs=1e-6)
    saved = read_predictions(experiment.out_of_fold, class_names=CLASS_NAMES)
    assert found.pooled.accuracy == pytest.approx((saved.labels == saved.predicted).mean())
    rows = pd.read_csv(experiment.cross_validation_table, keep_default_na=False)
    assert len(rows) == 5 + 3 * len(CLASS_NAMES)
    assert float(rows.loc[0, "mean"]) == pytest.approx(np.mean(accuracies))


def test_the_same_command_again_trains_nothing_and_shows_the_same(
    validated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(validated / f"mine-trial-1-{NUM_FOLDS}-folds")
    before = experiment.journal.read_bytes()
    code, out, err = fmnist(capsys, "crossval", "mine", "--folds", NUM_FOLDS, "--experiments-dir", validated, "--json")
    assert (code, json.loads(out)) == (0, json.loads(experiment.cross_validation.read_text())), err
    assert experiment.journal.read_bytes() == before
    code, out, _ = fmnist(capsys, "crossval", "mine", "--folds", NUM_FOLDS, "--experiments-dir", validated)
    assert code == 0
    assert "trial 1 of mine on synthetic, 3 folds of 2 epochs" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--trial", "0"], "holds something else than these 3 folds"),
        (["--trial", "7"], "no trial 7"),
        (["--set", "max_epochs=1"], "mine is an experiment"),
    ],
    ids=str,
)
def test_what_does_not_go_with_it_is_refused(
    validated: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    name = ["--name", f"mine-trial-1-{NUM_FOLDS}-folds", "--folds", NUM_FOLDS, "--experiments-dir", validated]
    code, out, err = fmnist(capsys, "crossval", "mine", *arguments, *name)
    assert (code, out) == (2, "")
    assert expected in err


def test_a_search_does_not_go_on_with_folds_nor_folds_with_a_search(
    validated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(validated, tmp_path / "e")
    name = f"mine-trial-1-{NUM_FOLDS}-folds"
    before = tmp_path.joinpath("e", name, "config.yaml").read_text()
    code, _, err = fmnist(capsys, "search", "resume", name, "--trials", 9, "--experiments-dir", tmp_path / "e")
    assert code == 2
    assert "no search to go on with" in err
    assert tmp_path.joinpath("e", name, "config.yaml").read_text() == before
    code, _, err = fmnist(capsys, "crossval", "mine", "--name", "mine", "--experiments-dir", tmp_path / "e")
    assert code == 2
    assert "holds something else" in err


def test_a_space_with_a_choice_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(SEARCH))
    code, _, err = fmnist(capsys, "crossval", "mine.yaml")
    assert code == 2
    assert "space.lr is not one value" in err
    code, _, err = fmnist(capsys, "crossval", "mine.yaml", "--set", "space.lr=0.01", "--folds", 50)
    assert code == 2
    assert "cannot be split into 50 folds" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_of_a_configuration_each_fold_has_a_seed_of_its_own_and_all_epochs(tmp_path: Path) -> None:
    config = parse_config({**SEARCH, "space": {"model": "customnet", "lr": 0.01}, "confirm": {}}, where="test")
    subject = subject_of_config(config, where="mine.yaml")
    wanted = subject.repetitions(10)
    assert [(one.fold, one.num_epochs, one.of_trial, one.params) for one in wanted] == [
        (fold, 3, None, {}) for fold in range(1, 11)
    ]
    assert len({one.seed for one in [*wanted, *subject.repetitions(5)]}) == 15
    assert subject.config.confirm is None
    check_same(Experiment(tmp_path / "none"), wanted)
    with pytest.raises(ConfigError, match="not fixed: lr"):
        subject_of_config(parse_config(SEARCH, where="test"), where="mine.yaml")


def test_a_trial_without_an_epoch_has_no_best_number_of_them(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "a", parse_config(SEARCH, where="test"), [[], [0.5]])
    with pytest.raises(ExperimentError, match="no complete trial"):
        subject_of_trial(experiment, None)
    with pytest.raises(ExperimentError, match="finished no epoch"):
        subject_of_trial(experiment, 0)
    assert subject_of_trial(experiment, 1).num_epochs == 1


def test_the_interval_is_students_over_folds() -> None:
    values = [0.91, 0.93, 0.9, 0.92, 0.94]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))


def make_folds(num_images: int, num_folds: int) -> tuple[FoldedImages, list[FoldPredictions]]:
    """Predictions that are right for even images, and for odd ones of the next class."""
    images = load_images("synthetic", "train", root=Path("unused"), size=num_images)
    folded, folds = FoldedImages(images, folds=num_folds, seed=3), []
    for fold in range(1, num_folds + 1):
        held_out = folded.held_out(fold)
        labels = images.labels[held_out]
        probabilities = np.full((len(labels), 10), 0.05, dtype=np.float32)
        probabilities[np.arange(len(labels)), (labels + held_out % 2) % 10] = 0.55
        folds.append(FoldPredictions(held_out, Predictions(labels, probabilities), loss=fold / 2))
    return folded, folds


def test_folds_are_pooled_in_the_order_of_the_images() -> None:
    folded, folds = make_folds(200, 4)
    pooled, numbers = pool(folds)
    assert (pooled.labels == folded.images.labels).all()
    assert (pooled.predicted == (folded.images.labels + np.arange(200) % 2) % 10).all()
    for fold in range(1, 5):
        assert (np.flatnonzero(numbers == fold) == folded.held_out(fold)).all()
        assert (folded.fold(fold).validation.images == folded.images.images[folded.held_out(fold)]).all()
    table = pd.read_csv(io.StringIO(format_pooled(folds, class_names=CLASS_NAMES, dataset="synthetic")))
    assert list(table["fold"]) == list(numbers)


def test_metrics_are_means_over_folds() -> None:
    _, folds = make_folds(200, 4)
    metrics, classes, pooled = judge_folds(folds, class_names=CLASS_NAMES)
    accuracies = [float((one.images % 2 == 0).mean()) for one in folds]
    assert metrics["accuracy"].values == pytest.approx(accuracies)
    assert (metrics["loss"].values, metrics["loss"].mean) == ((0.5, 1.0, 1.5, 2.0), 1.25)
    assert set(classes) == set(CLASS_NAMES)
    assert metrics["macro recall"].mean == pytest.approx(np.mean([one["recall"].mean for one in classes.values()]))
    assert pooled.accuracy == 0.5


@pytest.mark.parametrize("damage", ["{", "[]", '{"metrics": 1}', "null"])
def test_a_damaged_result_is_named(tmp_path: Path, damage: Any) -> None:
    experiment = Experiment(tmp_path / "a")
    experiment.create()
    assert read_cross_validation(experiment) is None
    experiment.cross_validation.write_text(damage)
    with pytest.raises(ExperimentError, match=r"crossval\.json"):
        read_cross_validation(experiment)
