"""From images to class scores."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fmnist_models.data import LabelledImages, Normalisation
from fmnist_models.precision import autocast, memory_format

_BATCH = 1000
_LARGE_BATCH = 100  # of networks that enlarge their images, as 1,000 would take many GiB


class DeviceImages:
    """``images`` ``(N, 28, 28)`` uint8 and ``labels`` ``(N,)`` int64, one tensor each; a batch is an index."""

    def __init__(self, data: LabelledImages, device: torch.device) -> None:
        self.images = as_tensor(data.images).to(device)
        self.labels = as_tensor(data.labels).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(B, 28, 28)`` uint8 and labels ``(B,)`` int64 of the ``(B,)`` int64 numbers, which lie there too."""
        return self.images[index], self.labels[index]


def normalise(images: Tensor, by: Normalisation) -> Tensor:
    """``(B, 28, 28)`` uint8 to ``(B, 1, 28, 28)`` float32 with the training images' mean at 0 and deviation 1."""
    return images.unsqueeze(1).float().sub_(255 * by.mean).div_(255 * by.std)


@torch.inference_mode()
def predict_scores(
    model: nn.Module, images: Tensor, *, normalisation: Normalisation, precision: str = "fp32"
) -> Tensor:
    """Class scores ``(N, 10)`` float32 before softmax, of ``(N, 28, 28)`` uint8 images on the model's device."""
    model.eval()
    layout = memory_format(precision)
    scores = []
    batch = _LARGE_BATCH if getattr(model, "input_size", 0) > images.shape[-1] else _BATCH
    for part in torch.split(images, batch):
        with autocast(precision, images.device):
            scores.append(model(normalise(part, normalisation).to(memory_format=layout)).float())
    return torch.cat(scores)


def predict_probabilities(
    model: nn.Module, images: npt.NDArray[np.uint8], *, normalisation: Normalisation, temperature: float = 1.0
) -> npt.NDArray[np.float32]:
    """Class probabilities ``(N, 10)`` float32 of ``(N, 28, 28)`` images, by a model on the CPU.

    ``temperature``: what scores are divided by before softmax (``fit_temperature``); 1 leaves them as they are.
    """
    scores = predict_scores(model, as_tensor(images), normalisation=normalisation)
    probabilities: npt.NDArray[np.float32] = (scores / temperature).softmax(1).numpy()
    return probabilities


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """The array, not a copy, as a tensor that nobody writes to."""
    with warnings.catch_warnings():
        # Ray's shared arrays are read-only.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
