"""A finished model as two files anyone can read: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fmnist_models.data import Normalisation
from fmnist_models.networks import build_network


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


def load_model(folder: Path) -> tuple[nn.Module, ModelConfig]:
    """The model of a folder, in eval mode on the CPU, with its configuration.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: they do not belong together.
    """
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    raw["normalisation"] = Normalisation(**raw["normalisation"])
    raw["class_names"] = tuple(raw["class_names"])
    config = ModelConfig(**raw)
    model = build_network(config.network, config.hyperparameters)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder / 'model.safetensors'} does not hold a {config.network}: {error}") from error
    return model.eval(), config
