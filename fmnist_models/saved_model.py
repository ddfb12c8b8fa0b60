"""A finished model as two files anyone can read: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fmnist_models.checkpoint import dump_weights, load_weights
from fmnist_models.classifier import Classifier
from fmnist_models.data import CLASS_NAMES, Normalisation
from fmnist_models.errors import CheckpointError, SavedModelError
from fmnist_models.files import read_json, write_together
from fmnist_models.flip_averaging import bare_network, for_inference
from fmnist_models.networks import build_network
from fmnist_models.training_distance import TrainingDistance

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_REFERENCES = "training_distance.references"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is needed beside the weights: images ``(28, 28)`` in 0…1 are normalised as ``(image - mean) / std``.

    Scores are divided by ``temperature`` before softmax. An image whose ``TrainingDistance`` is above
    ``distance_threshold`` does not look like the training images; ``None``: the model was saved without.
    """

    network: str
    hyperparameters: Mapping[str, Any]
    normalisation: Normalisation
    class_names: tuple[str, ...]
    dataset: str
    temperature: float = 1.0
    distance_threshold: float | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def save_model(
    folder: Path,
    model: nn.Module,
    config: ModelConfig,
    *,
    metadata: Mapping[str, str],
    distance: TrainingDistance | None = None,
) -> None:
    """Writes the two files of a model as ``load_model`` gives it; ``metadata`` goes into that of the weights.

    ``distance``: one with ``config.distance_threshold``, whose references are a tensor beside the weights.

    Raises:
        OSError: one of them cannot be written.
    """
    references = {} if distance is None else {_REFERENCES: distance.references}
    weights = dump_weights({**bare_network(model).state_dict(), **references}, metadata=metadata)
    write_together({folder / _WEIGHTS: weights, folder / _CONFIG: config.to_json()})


def is_saved_model(folder: Path) -> bool:
    """Whether both files are there; says nothing about their contents."""
    return all(os.path.isfile(folder / name) for name in (_WEIGHTS, _CONFIG))


def load_model(folder: Path) -> tuple[nn.Module, ModelConfig]:
    """The model of a folder, as it predicts (``for_inference``), in eval mode on the CPU, with its configuration.

    Raises:
        FileNotFoundError: one of the two files is missing.
        FileError: ``config.json`` cannot be read.
        SavedModelError: one of the two is damaged, or they do not belong together.
    """
    model, config, _ = _load(folder)
    return model, config


def load_classifier(folder: Path) -> tuple[Classifier, ModelConfig]:
    """The model of a folder with all that stands around it, on the CPU, and its configuration.

    Raises:
        As ``load_model``.
    """
    model, config, distance = _load(folder)
    made = Classifier(model, config.normalisation, temperature=config.temperature, distance=distance)
    return made, config


def _load(folder: Path) -> tuple[nn.Module, ModelConfig, TrainingDistance | None]:
    path, weights = folder / _CONFIG, folder / _WEIGHTS
    config = _parse_config(read_json(path), where=path)
    if not weights.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(weights))
    try:
        network = build_network(config.network, config.hyperparameters)
        model = for_inference(network, config.hyperparameters)
    except ValueError as error:
        raise SavedModelError(f"{path}: {error}") from error
    try:
        tensors = load_weights(weights)
        references = tensors.pop(_REFERENCES, None)
        network.load_state_dict(tensors)
    except (RuntimeError, CheckpointError) as error:
        raise SavedModelError(f"{weights} does not hold a {config.network}: {error}") from error
    return model.eval(), config, _make_distance(references, config, where=weights)


def _make_distance(references: Tensor | None, config: ModelConfig, *, where: Path) -> TrainingDistance | None:
    if config.distance_threshold is None:
        return None
    if references is None:
        raise SavedModelError(f"{where} lacks {_REFERENCES}, which the distance_threshold of {_CONFIG} needs")
    try:
        return TrainingDistance(references, threshold=config.distance_threshold)
    except ValueError as error:
        raise SavedModelError(f"{where}: {_REFERENCES}: {error}") from error


def _parse_config(raw: Any, *, where: Path) -> ModelConfig:
    try:
        config = ModelConfig(
            **{**raw, "normalisation": Normalisation(**raw["normalisation"]), "class_names": tuple(raw["class_names"])}
        )
        mean, std = config.normalisation.mean, config.normalisation.std
        is_whole = (
            all(isinstance(text, str) for text in (config.network, config.dataset, *config.class_names))
            and len(config.class_names) == len(CLASS_NAMES)
            and isinstance(config.hyperparameters, dict)
            and all(isinstance(number, (int, float)) and math.isfinite(number) for number in (mean, std))
            and std > 0
            and _is_positive(config.temperature)
            and (config.distance_threshold is None or _is_positive(config.distance_threshold))
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise SavedModelError(f"{where} is not a saved model's configuration: {error!r}") from error
    if not is_whole:
        raise SavedModelError(f"{where} is not a saved model's configuration: a value is of another kind")
    return config


def _is_positive(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number) and number > 0
