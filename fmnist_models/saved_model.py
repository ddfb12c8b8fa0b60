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

from torch import nn

from fmnist_models.checkpoint import load_weights, save_weights
from fmnist_models.data import CLASS_NAMES, Normalisation
from fmnist_models.errors import CheckpointError, SavedModelError
from fmnist_models.files import read_json, write_aside
from fmnist_models.flip_averaging import bare_network, for_inference
from fmnist_models.networks import build_network

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is needed beside the weights: images ``(28, 28)`` in 0…1 are normalised as ``(image - mean) / std``."""

    network: str
    hyperparameters: Mapping[str, Any]
    normalisation: Normalisation
    class_names: tuple[str, ...]
    dataset: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def save_model(folder: Path, model: nn.Module, config: ModelConfig, *, metadata: Mapping[str, str]) -> None:
    """Writes the two files of a model as ``load_model`` gives it; ``metadata`` goes into that of the weights.

    Raises:
        OSError: one of them cannot be written.
    """
    save_weights(folder / _WEIGHTS, bare_network(model).state_dict(), metadata=metadata)
    write_aside(folder / _CONFIG, config.to_json())


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
        network.load_state_dict(load_weights(weights))
    except (RuntimeError, CheckpointError) as error:
        raise SavedModelError(f"{weights} does not hold a {config.network}: {error}") from error
    return model.eval(), config


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
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise SavedModelError(f"{where} is not a saved model's configuration: {error!r}") from error
    if not is_whole:
        raise SavedModelError(f"{where} is not a saved model's configuration: a value is of another kind")
    return config
