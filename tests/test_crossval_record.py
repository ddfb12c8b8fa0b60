"""What is left of a cross-validation: whom it is shown to, what reads it, and what a crash leaves. No cluster runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import fmnist
from made_experiment import make_experiment
from optuna.trial import TrialState, create_trial
from reported import read_page
from rich.console import Console
from test_crossval import SEARCH

from fmnist_models.checkpoint import save_weights
from fmnist_models.data import CLASS_NAMES, load_images
from fmnist_models.epoch import DIRECTIONS
from fmnist_models.folds import FoldedImages
from fmnist_models.networks import build_network
from search.configuration.config import load_config, parse_config
from search.errors import ConfigError
from search.records.cross_validation import CrossValidation, estimate, read_cross_validation
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.records.predictions import Predictions, format_predictions
from search.records.record import best_trial, best_trials, list_trials, open_study
from search.records.store import Store
from search.report import write_report
from search.report.cross_validation import describe_folds
from search.report.material import read_material
from search.review.display import cross_validation_table
from search.running.continuation import begin_run
from search.running.preparation import Prepared, prepare
from search.running.progress import SilentProgress
from search.running.slots import local_resources, plan_slots
from search.workflows.crossvalidating import Subject, cross_validate, subject_of_config, with_folds
from search.workflows.repeating import train_repetitions

NUM_FOLDS = 3
FIXED = {**SEARCH, "train_size": 120, "space": {"model": "lenet5", "lr": 0.01}, "precision": "fp32"}


def train_folds(path: Path, file: Path) -> Experiment:
    """As the trainings of `fmnist crossval FILE` leave it: folds that are complete, with their weights."""
    experiment = Experiment(path)
    subject = subject_of_config(load_config(file)[0], where=str(file))
    config = subject.config.model_copy(update={"max_trials": NUM_FOLDS, "keep_checkpoints": NUM_FOLDS})
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = open_study(experiment, study_storage=None, direction=DIRECTIONS[config.metric])
        for one in subject.repetitions(NUM_FOLDS):
            value = 0.5 + 0.1 * (one.fold or 0)
            values = dict.fromkeys(range(1, one.num_epochs + 1), value)
            notes = one.to_trial().user_attrs
            study.add_trial(
                create_trial(state=TrialState.COMPLETE, value=value, intermediate_values=values, user_attrs=notes)
            )
    put_weights(experiment)
    return experiment


def put_weights(experiment: Experiment) -> None:
    for trial in list_trials(experiment):
        path = experiment.trial(trial.number).best
        path.parent.mkdir(exist_ok=True)
        save_weights(path, build_network("lenet5", {}).state_dict())


def judge(experiment: Experiment, file: Path) -> CrossValidation:
    """What the folds come to; nothing is trained, so no cluster is needed."""
    subject = subject_of_config(load_config(file)[0], where=str(file))
    slots = plan_slots(subject.config, [local_resources()])
    found = cross_validate(experiment, subject, prepare_folds(subject), slots, progress=SilentProgress())
    assert found is not None
    return found


def prepare_folds(subject: Subject) -> Prepared:
    config = subject.config
    images = load_images("synthetic", "train", root=Path("unused"), size=config.train_size)
    prepared = prepare(config, data_root=Path("unused"))
    return with_folds(prepared, FoldedImages(images, folds=NUM_FOLDS, seed=config.seed))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mine.yaml`` and, in ``e``, what its cross-validation left."""
    folder = tmp_path_factory.mktemp("made")
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(FIXED))
    judge(train_folds(folder / "e" / "mine-3-folds", file), file)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "made"))


def crossval(capsys: pytest.CaptureFixture[str], folder: Path, *more: object) -> tuple[int, str, str]:
    where = ["--folds", NUM_FOLDS, "--experiments-dir", folder / "e"]
    return fmnist(capsys, "crossval", folder / "mine.yaml", *where, *more)


@pytest.mark.parametrize("change", ["space.lr=0.02", "train_size=180"])
def test_an_old_result_is_not_shown_for_another_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert crossval(capsys, folder)[0] == 0
    code, out, err = crossval(capsys, folder, "--set", change)
    assert (code, out) == (2, "")
    assert change.partition("=")[0] in err
    assert "exists with another configuration" in err


def test_what_was_trained_under_another_configuration_is_not_taken_for_trained(folder: Path) -> None:
    config = parse_config({**FIXED, "space": {"model": "lenet5", "lr": 0.02}}, where="test")
    subject = subject_of_config(config, where="test")
    with pytest.raises(ConfigError, match=r"space\.lr: 0\.01 there, 0\.02 now"):
        train_repetitions(
            Experiment(folder / "e" / "mine-3-folds"),
            prepare_folds(subject),
            plan_slots(config, [local_resources()]),
            subject.repetitions(NUM_FOLDS),
            title="",
            progress=SilentProgress(),
        )


def test_a_strangers_experiment_names_no_database_to_write_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FMNIST_STUDY_STORAGE", raising=False)
    theirs = make_experiment(tmp_path / "e" / "theirs", parse_config(SEARCH, where="test"), [[0.5, 0.6, 0.7], [0.4]])
    victim = tmp_path / "victim.db"
    settings = yaml.safe_load(theirs.config.read_text()) | {"study_storage": f"sqlite:///{victim}"}
    theirs.config.write_text(yaml.safe_dump(settings))
    code, out, err = fmnist(capsys, "crossval", "theirs", "--folds", 3, "--experiments-dir", tmp_path / "e")
    assert (code, out) == (2, "")
    assert "set FMNIST_STUDY_STORAGE" in err
    assert not victim.exists()
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["theirs"]


def test_no_fold_is_the_best(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = list_trials(Experiment(made / "e" / "mine-3-folds"))
    assert best_trial(trials, "val_accuracy") is None
    assert best_trials(trials, "val_accuracy") == []
    code, out, _ = fmnist(capsys, "experiments", "--experiments-dir", made / "e", "--json")
    [row] = json.loads(out)["experiments"]
    assert (code, row["state"], row["best_value"]) == (0, "finished", None)


@pytest.mark.parametrize("more", [[], ["--trial", "0"]], ids=str)
def test_a_cross_validation_has_no_model_to_test(
    made: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    code, _, err = fmnist(capsys, "evaluate", "mine-3-folds", *more, "--experiments-dir", made / "e")
    assert code == 2
    assert "mine-3-folds is a cross-validation" in err


def test_what_was_said_of_training_images_is_compared_with_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(folder / "e" / "mine-3-folds")
    assert experiment.out_of_fold.name == "out_of_fold.csv"
    assert not experiment.evaluation.predictions.exists()
    predictions = Predictions(np.arange(10), np.full((10, 10), 0.1, np.float32))
    text = format_predictions(predictions, class_names=CLASS_NAMES, dataset="synthetic")
    experiment.evaluation.predictions.write_text(text)  # by a stranger
    shutil.copytree(experiment.path, folder / "e" / "other")
    names = ["mine-3-folds", "other", "--experiments-dir", folder / "e", "--json"]
    code, out, err = fmnist(capsys, "experiments", "compare", *names)
    assert code == 0, err
    told = json.loads(out)
    assert [side["best_value"] for side in told["experiments"]] == [None, None]
    assert [side["is_cross_validation"] for side in told["experiments"]] == [True, True]
    [pair] = told["pairs"]
    assert pair["test"] is None
    assert "mine-3-folds is a cross-validation" in pair["refused"]


def test_the_page_has_the_estimates_and_no_winner(folder: Path) -> None:
    experiment = Experiment(folder / "e" / "mine-3-folds")
    write_report(experiment, data_dir=Path("/nowhere"))
    page, found = read_page(experiment.report), read_cross_validation(experiment)
    assert found is not None
    accuracy, ankle = found.metrics["accuracy"], found.classes["Ankle boot"]["precision"]
    for one in (accuracy, ankle):
        assert f"{one.mean:.4f} ± {one.deviation:.4f}" in page.text
        assert f"{one.low:.4f} to {one.high:.4f}" in page.text
    assert "This cross-validation trained one configuration" in page.text
    assert "This cross-validation is finished" in page.text
    assert "Precision of each class" in page.text
    assert not [word for word in ("won", "winner", "This search") if word in page.text]
    experiment.cross_validation.unlink()
    _, result = describe_folds(read_material(experiment))
    assert "no result yet" in result
    experiment.cross_validation.write_text("[]")
    write_report(experiment, data_dir=Path("/nowhere"))
    assert "is no result of a cross-validation" in read_page(experiment.report).text


def test_weights_that_a_crash_left_go_with_the_next_call(folder: Path) -> None:
    experiment = Experiment(folder / "e" / "mine-3-folds")
    assert not list(experiment.path.rglob("*.safetensors"))
    put_weights(experiment)
    judge(experiment, folder / "mine.yaml")
    assert not list(experiment.path.rglob("*.safetensors"))


def test_the_result_is_sent_last_and_weights_go_after_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local = train_folds(tmp_path / "sent-3-folds", folder / "mine.yaml")
    done: list[str] = []
    monkeypatch.setattr(Store, "local", tmp_path)
    monkeypatch.setattr(Store, "fetch", lambda store, path, besides=None: None)
    monkeypatch.setattr(Store, "find", lambda store, path: [local.trial(fold).best for fold in range(NUM_FOLDS)])
    monkeypatch.setattr(Store, "send", lambda store, *paths: done.extend(path.name for path in paths))
    monkeypatch.setattr(Store, "remove", lambda store, *paths: done.append("removed"))
    judge(Experiment(local.path, store=Store("s3://bucket/experiments")), folder / "mine.yaml")
    assert {"crossval.csv", "out_of_fold.csv", "study.journal"} < set(done)
    assert done.count("crossval.json") == 1
    assert done[done.index("crossval.json") :] == ["crossval.json", *["removed"] * NUM_FOLDS]


def test_the_interval_of_a_share_ends_where_shares_do() -> None:
    share, loss = estimate([0.95, 0.85]), estimate([0.95, 0.85], is_share=False)
    assert (share.low, share.high) == (pytest.approx(0.9 - 12.706 * 0.05, abs=1e-3), 1.0)
    assert estimate([0.05, 0.15]).low == 0.0
    assert loss.high > 1.5


@pytest.mark.parametrize(("width", "expected"), [(100, True), (99, False)])
def test_classes_have_intervals_where_the_screen_is_wide_enough(made: Path, width: int, expected: bool) -> None:
    found = read_cross_validation(Experiment(made / "e" / "mine-3-folds"))
    assert found is not None
    console = Console(width=width)
    with console.capture() as captured:
        console.print(cross_validation_table(found, width=width))
    one = found.classes["Ankle boot"]["f1"]
    [line] = [line for line in captured.get().splitlines() if line.startswith("Ankle boot")]
    assert (f"({one.low:.3f}-{one.high:.3f})" in line) == expected
    assert " ± " in line


def test_what_a_search_chose_is_said_to_be_optimistic(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert "optimistic" not in crossval(capsys, folder)[1]
    result = folder / "e" / "mine-3-folds" / "crossval.json"
    told: dict[str, Any] = json.loads(result.read_text())
    result.write_text(json.dumps(told | {"source": "mine", "of_trial": 1}))
    assert "a little optimistic" in crossval(capsys, folder)[1]
