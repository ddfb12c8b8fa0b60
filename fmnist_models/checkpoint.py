"""A training's checkpoints: whole or not there, and read without running anything they hold."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from fmnist_models.errors import CheckpointError
from fmnist_models.files import write_aside


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a training's ``state_dict()``."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_aside(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what ``save_checkpoint`` wrote, tensors on the CPU.

    Raises:
        CheckpointError: cut short, altered or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not check the sums
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} differs from its checksum")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    return state


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes a model's ``state_dict()`` as safetensors."""
    write_aside(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))
