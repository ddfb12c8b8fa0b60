"""The best model of an experiment, ready to be used, wherever it is by now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fmnist_models.classifier import Classifier
from fmnist_models.data import DATASETS, load_images
from fmnist_models.files import read_json
from fmnist_models.paths import expand_home
from fmnist_models.saved_model import ModelConfig, is_saved_model, load_classifier
from search.configuration.config import read_config
from search.configuration.space import MODEL
from search.errors import ExperimentError
from search.records.experiment import Experiment, find_experiment
from search.records.store import Store, is_address
from search.records.versions import collect_versions

_TOLD = ("trial", "epoch", "metric", "value", "rule")


@dataclass(frozen=True, kw_only=True)
class Winner:
    """A classifier on the CPU; ``experiment``: none of a folder that holds the model's two files alone."""

    name: str
    classifier: Classifier
    config: ModelConfig
    experiment: Experiment | None = None

    def test_images(self, *, data_root: Path) -> npt.NDArray[np.uint8]:
        """``(N, 28, 28)``: those that the experiment tests with, or else all of the model's data set.

        Raises:
            ConfigError: the experiment's configuration is damaged.
            ExperimentError: there is no such data set.
            DataError: the images are damaged or missing.
        """
        dataset, size = self.config.dataset, None
        if self.experiment is not None:
            settings = read_config(self.experiment)
            dataset, size = settings.dataset, settings.test_size
        if dataset not in DATASETS:
            raise ExperimentError(f"{self.name} was trained on {dataset!r}, which is no data set that is known here")
        return load_images(dataset, "test", root=data_root, size=size).images

    def provenance(self) -> dict[str, str]:
        """Which trial of which experiment it was, and the versions that made it and that read it now.

        Raises:
            FileError: a file of the experiment that says so is damaged.
        """
        found = {"exported_with": json.dumps(collect_versions())}
        if self.experiment is None:
            return found
        summary = _read_if_there(self.experiment.evaluation.summary)
        versions = _read_if_there(self.experiment.versions)
        is_of_this_model = isinstance(summary, dict) and summary.get("hyperparameters") == {
            MODEL: self.config.network,
            **self.config.hyperparameters,
        }
        told = {key: str(summary[key]) for key in _TOLD if key in summary} if is_of_this_model else {}
        made_with = {"made_with": json.dumps(versions[-1])} if isinstance(versions, list) and versions else {}
        return {"experiment": self.name, **told, **made_with, **found}


def find_winner(reference: str, *, directory: Path | Store) -> Winner:
    """The model of an experiment, or of a folder that holds ``model.safetensors`` and ``config.json``.

    Raises:
        ExperimentError: there is no such experiment, or it has no best model yet, or holds links.
        UserError: the model's files are damaged.
    """
    folder = expand_home(reference).absolute()
    if not is_address(reference) and is_saved_model(folder):
        Experiment(folder).check_files()
        classifier, config = load_classifier(folder)
        return Winner(name=folder.name, classifier=classifier, config=config)
    experiment = find_experiment(reference, directory=directory)
    experiment.fetch_best()
    best = experiment.best_weights.parent
    if not is_saved_model(best):
        raise ExperimentError(
            f"{experiment.name} has no best model yet; `fmnist evaluate {experiment.name}` saves it once a trial is "
            "complete"
        )
    classifier, config = load_classifier(best)
    return Winner(name=experiment.name, classifier=classifier, config=config, experiment=experiment)


def _read_if_there(path: Path) -> Any:
    return read_json(path) if path.exists() else None
