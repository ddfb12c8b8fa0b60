"""The table of what a model said of every test image: files only, neither Ray nor torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fmnist_models.files import read_bounded
from search.errors import ExperimentError

_IMAGE, _LABEL, _PREDICTED, _DATASET = "image", "label", "predicted", "dataset"
_MAX_BYTES = 2**26
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """True classes ``(N,)`` int64 and probabilities of all classes ``(N, C)`` float32, of the first N test images."""

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The most probable class of each image, ``(N,)`` int64."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of the most probable class of each image, ``(N,)`` float32."""
        return np.take_along_axis(self.probabilities, self.predicted[:, None], axis=1)[:, 0]


def format_predictions(predictions: Predictions, *, class_names: Sequence[str], dataset: str) -> str:
    """CSV, one row an image: its number in the test set, true and predicted class, and each class's probability."""
    names = np.asarray(class_names)
    table = pd.DataFrame({_IMAGE: np.arange(len(predictions.labels))})
    table[_LABEL], table[_PREDICTED] = names[predictions.labels], names[predictions.predicted]
    table[list(class_names)] = predictions.probabilities
    return table.assign(**{_DATASET: dataset}).to_csv(index=False, float_format="%.6g")


def read_predictions(path: Path, *, class_names: Sequence[str]) -> Predictions:
    """What ``format_predictions`` wrote.

    Raises:
        ExperimentError: there is no such table, or it is damaged.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_bounded(path, max_bytes=_MAX_BYTES)))
        codes = {name: code for code, name in enumerate(class_names)}
        numbers = table[_IMAGE].to_numpy()
        labels = np.asarray([codes[name] for name in table[_LABEL]], dtype=np.int64)
        probabilities = table[list(class_names)].to_numpy(np.float32)
    except FileNotFoundError as error:
        raise ExperimentError(f"{path} is missing; `fmnist evaluate` writes it") from error
    except OSError as error:
        raise ExperimentError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ExperimentError(f"{path} is no table of predictions: {str(error)[:300]}") from error
    is_distribution = (probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=_SUM_TOLERANCE)
    if not (len(labels) and is_distribution and np.array_equal(numbers, np.arange(len(labels)))):
        raise ExperimentError(f"{path} is no table of predictions: images 0, 1, … with probabilities that add up to 1")
    return Predictions(labels, probabilities)
