"""`from search import load_experiment`: all of it, on a real experiment, without a change to any file of it."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from made_experiment import FAILED, make_experiment
from nbclient import NotebookClient
from optuna.trial import TrialState

from fmnist_models.checkpoint import save_checkpoint, save_weights
from fmnist_models.data import TrainingData, load_images
from fmnist_models.training import Training, TrainingPlan
from search import load_experiment
from search.configuration.config import parse_config
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.workflows.evaluation import evaluate_and_save

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "review.ipynb"
CONFIG = {
    "dataset": "synthetic",
    "train_size": 100,
    "test_size": 50,
    "space": {"model": {"choice": ["customnet"]}, "lr": {"float": [1e-4, 1e-1], "log": True}},
    "max_trials": 4,
    "max_epochs": 2,
    "pruner": "none",
}


@pytest.fixture(scope="module")
def finished(synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Trial 0 complete and the best, 1 failed, 2 complete, 3 running; tested, with weights that are no good."""
    config = parse_config(CONFIG, where="test")
    path = tmp_path_factory.mktemp("loaded") / "mine"
    experiment = make_experiment(path, config, [[0.5, 0.75], FAILED, [0.5, 0.625], [0.5]])
    plan = TrainingPlan(network="customnet", hyperparameters={}, num_epochs=2, seed=0)
    training = Training(plan, synthetic_data, device=torch.device("cpu"))
    save_weights(experiment.trial(0).best, training.model.state_dict())
    save_checkpoint(experiment.trial(0).last, training.state_dict())
    evaluate_and_save(experiment, config, None, data_root=path, data=synthetic_data)
    return experiment


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_gives_trials_the_best_and_what_the_test_set_said(finished: Experiment) -> None:
    before = contents(finished.path)
    loaded = load_experiment("mine", directory=finished.path.parent)
    assert list(loaded.trials["trial"]) == [0, 2, 3, 1]
    best = loaded.best
    assert best is not None
    assert (best.number, best.value, best.epoch) == (0, 0.75, 2)
    assert set(best.parameters) == {"model", "lr"}
    assert best.parameters["lr"] == loaded.trials["lr"][0]
    evaluation = loaded.evaluation
    assert evaluation is not None
    assert json.loads(json.dumps(evaluation.to_dict())) == json.loads(finished.evaluation.summary.read_text())
    assert len(evaluation.per_class()) == 12
    assert contents(finished.path) == before


def test_its_study_is_a_copy(finished: Experiment) -> None:
    before = contents(finished.path)
    loaded = load_experiment(finished.path)
    study = loaded.study
    assert study.best_trial.number == 0
    assert study.study_name == "mine"
    study.tell(study.ask().number, state=TrialState.FAIL)
    study.set_user_attr("mine", True)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "RUNNING", "FAIL"]
    assert len(loaded.study.trials) == 4
    assert contents(finished.path) == before


def test_its_model_says_of_the_images_what_the_evaluation_says(finished: Experiment) -> None:
    model = load_experiment(finished.path).load_model()
    images = load_images("synthetic", "test", root=finished.path, size=50)
    probabilities = model(torch.from_numpy(images.images))
    assert not model.training
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50))
    evaluation = load_experiment(finished.path).evaluation
    assert evaluation is not None
    accuracy = (probabilities.argmax(1).numpy() == images.labels).mean()
    assert accuracy == pytest.approx(evaluation.scores.accuracy)


def test_of_a_search_that_has_only_begun_there_is_little(tmp_path: Path) -> None:
    loaded = load_experiment(make_experiment(tmp_path / "new", parse_config(CONFIG, where="test"), [[0.5]]).path)
    assert loaded.best is None
    assert loaded.evaluation is None
    assert list(loaded.trials["state"]) == ["running"]
    with pytest.raises(ExperimentError, match=r"config\.json is missing; the end of a search writes it"):
        loaded.load_model()


def test_an_experiment_that_is_not_there_names_those_that_are(finished: Experiment) -> None:
    with pytest.raises(ExperimentError, match="no experiment 'yours'; valid: mine"):
        load_experiment("yours", directory=finished.path.parent)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("scores",), None),
        (("scores", "accuracy"), 1.5),
        (("scores", "accuracy"), math.nan),
        (("scores", "num_images"), 10**400),
        (("scores", "confusion"), [[1]]),
        (("scores", "classes"), []),
        (("metric",), "luck"),
        (("value",), math.inf),
        (("trial",), "0"),
        (("hyperparameters",), []),
    ],
)
def test_a_damaged_test_result_is_an_error_that_names_its_file(
    finished: Experiment, tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    copy = Experiment(Path(shutil.copytree(finished.path, tmp_path / "copy")))
    raw = json.loads(copy.evaluation.summary.read_text())
    inside = raw
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    copy.evaluation.summary.write_text(json.dumps(raw))
    with pytest.raises(ExperimentError, match=r"evaluation\.json is no"):
        _ = load_experiment(copy.path).evaluation


def test_the_notebook_runs(finished: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMNIST_EXPERIMENT", str(finished.path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    before = contents(finished.path)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "right again; the first image is a" in said
    assert contents(finished.path) == before
