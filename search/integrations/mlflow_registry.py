"""The best model in MLflow's registry, with its signature: it can be served without this project being installed."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmnist_models.files import read_bounded
from search.records.evaluation_file import Evaluation
from search.records.experiment import Experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_WEIGHTS = "weights_sha256"
_MAX_BYTES = 2**30
_REQUIREMENTS = ("numpy", "safetensors", "scikit-learn", "torch", "torchvision")
_FOLDER = "model"


def register_best(client: MlflowClient, experiment: Experiment, test: Evaluation, run: Run) -> str | None:
    """Registers the tested model as a new version of a model with the experiment's name, unless that is there already;
    gives the version.

    Raises:
        OSError: the model cannot be read.
    """
    folder = experiment.best_weights.parent
    experiment.fetch_best()
    if not (experiment.best_weights.is_file() and experiment.best_config.is_file()):
        return None
    weights = hashlib.sha256(read_bounded(experiment.best_weights, max_bytes=_MAX_BYTES)).hexdigest()
    name = experiment.name
    registered = client.search_model_versions(f"name = '{name}'")
    if any(one.tags.get(_WEIGHTS) == weights and one.run_id == run.info.run_id for one in registered):
        return None
    with tempfile.TemporaryDirectory() as temporary:
        _save(Path(temporary, _FOLDER), folder)
        client.log_artifacts(run.info.run_id, str(Path(temporary, _FOLDER)), _FOLDER)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    made = client.create_model_version(
        name,
        source=f"{run.info.artifact_uri}/{_FOLDER}",
        run_id=run.info.run_id,
        tags={_WEIGHTS: weights, "dataset": test.dataset, "trial": str(test.trial), "epoch": str(test.epoch)},
        description=f"test accuracy {test.scores.accuracy:.2%} on {test.scores.num_images:,} {test.dataset} images",
        await_creation_for=0,
    )
    return str(made.version)


def _save(path: Path, best: Path) -> None:
    """Nothing pickled: the two files of the model, and the code that reads them."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    mlflow.pyfunc.save_model(
        path,
        python_model=str(Path(__file__).with_name("mlflow_model.py")),
        artifacts={"best": str(best)},
        code_paths=[str(_fmnist_models())],
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 28, 28))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 10))]),
        ),
        pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
    )


def _fmnist_models() -> Path:
    spec = importlib.util.find_spec("fmnist_models")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
