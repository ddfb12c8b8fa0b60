"""The model of a trial, from the weights that the trial keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial
from torch import Tensor, nn

from fmnist_models.checkpoint import load_weights
from fmnist_models.data import LabelledImages, Normalisation, TrainingData
from fmnist_models.errors import CheckpointError
from fmnist_models.flip_averaging import for_inference
from fmnist_models.networks import build_network
from fmnist_models.prediction import DeviceImages, predict_scores
from fmnist_models.temperature import fit_temperature
from search.configuration.config import SearchConfig
from search.configuration.space import MODEL
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.fold_values import fold_epochs
from search.records.record import best_epoch
from search.running.saver import saved_epoch


def load_predictor(
    experiment: Experiment, config: SearchConfig, trial: FrozenTrial
) -> tuple[nn.Module, dict[str, Any]]:
    """What predicts as the trial does, from the weights that it keeps, and its hyperparameters.

    Raises:
        ExperimentError: the weights are gone or unreadable, or not of the configured space.
    """
    weights = experiment.trial(trial.number).best
    try:
        hyperparameters = config.space.suggest(trial)
        network = build_network(hyperparameters[MODEL], hyperparameters)
    except (ValueError, LookupError) as error:
        raise ExperimentError(f"trial {trial.number} does not go with {experiment.config}: {error}") from error
    try:
        network.load_state_dict(load_weights(weights))
    except (OSError, RuntimeError, CheckpointError) as error:
        raise ExperimentError(f"{weights} is not a checkpoint of trial {trial.number}: {error}") from error
    return for_inference(network, hyperparameters), hyperparameters


def class_scores(model: nn.Module, images: LabelledImages, *, normalisation: Normalisation) -> Tensor:
    """Class scores ``(N, 10)`` float32 on the CPU, in fp32, computed on a GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = DeviceImages(images, device).images
    return predict_scores(model.to(device), there, normalisation=normalisation).cpu()


def measure_temperature(experiment: Experiment, config: SearchConfig, trial: FrozenTrial, data: TrainingData) -> float:
    """The temperature that calibrates the trial's model on the validation images of ``data``; 1 where no weights of its
    best epoch are kept, as of a mean over folds, or where they are unreadable."""
    files, epoch = experiment.trial(trial.number), best_epoch(trial, config.metric)
    files.fetch()
    if epoch is None or fold_epochs(trial) is not None or is_behind(files.best, epoch):
        return 1.0
    try:
        model, _ = load_predictor(experiment, config, trial)
    except ExperimentError:  # told when the trial itself is to be tested
        return 1.0
    scores = class_scores(model, data.validation, normalisation=data.normalisation)
    return fit_temperature(scores, torch.from_numpy(data.validation.labels))


def is_behind(weights: Path, epoch: int) -> bool:
    """Whether a trial's weights are missing or of another epoch; those of older versions do not say, and are not."""
    try:
        return saved_epoch(weights) not in (None, epoch)
    except CheckpointError:  # told when they are loaded
        return not weights.is_file()
