"""The best trial's meeting with the test set, as its files tell it; they may be a stranger's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fmnist_models.errors import UserError
from fmnist_models.files import read_json
from search.experiment import EvaluationFiles
from search.predictions import Predictions, read_predictions
from search.report.wording import text

_MAX_CLASSES = 20
_MAX_IMAGES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Test accuracy (0…1) with its 95 % interval, and ``confusion`` ``(C, C)`` int64, rows: true classes.

    ``predictions``: what the model said of every test image; ``None`` if that is not there or of another evaluation,
    and ``problem`` then says what about it.
    """

    trial: int
    dataset: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    class_names: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    predictions: Predictions | None
    problem: str = ""

    @property
    def num_images(self) -> int:
        return int(self.confusion.sum())


def read_evaluated(files: EvaluationFiles) -> Evaluated | str:
    """The evaluation, or why there is none."""
    try:
        raw = read_json(files.summary)
    except FileNotFoundError:
        return "The best trial has not been tested on the test images yet."
    except UserError as error:
        return str(error)
    try:
        return _parse(raw, files)
    except (KeyError, TypeError, ValueError, OverflowError):
        return f"{files.summary} is not the result of an evaluation."


def _parse(raw: Any, files: EvaluationFiles) -> Evaluated:
    scores = raw["scores"]
    names = tuple(one["name"] for one in scores["classes"])
    confusion = _parse_counts(scores["confusion"], size=len(names))
    bounds = [scores[key] for key in ("accuracy_low", "accuracy", "accuracy_high")]
    if not (2 <= len(names) <= _MAX_CLASSES and len(set(names)) == len(names)):
        raise ValueError("class names")
    if not all(isinstance(value, str) for value in (*names, raw["dataset"])) or type(raw["trial"]) is not int:
        raise ValueError("of another kind")
    if not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in bounds):
        raise ValueError("accuracy")
    if not math.isclose(bounds[1], confusion.trace() / confusion.sum(), abs_tol=1e-6):
        raise ValueError("accuracy is not that of the confusion matrix")
    predictions, problem = _read_predictions(files, names, confusion)
    return Evaluated(
        trial=raw["trial"],
        dataset=raw["dataset"],
        accuracy=bounds[1],
        accuracy_low=bounds[0],
        accuracy_high=bounds[2],
        class_names=tuple(text(name, limit=40) for name in names),
        confusion=confusion,
        predictions=predictions,
        problem=problem,
    )


def _parse_counts(raw: Any, *, size: int) -> npt.NDArray[np.int64]:
    is_square = isinstance(raw, list) and len(raw) == size and all(len(row) == size for row in raw)
    if not is_square or not all(type(cell) is int and 0 <= cell <= _MAX_IMAGES for row in raw for cell in row):
        raise ValueError("confusion")
    confusion = np.asarray(raw, dtype=np.int64)
    if not 0 < confusion.sum() <= _MAX_IMAGES:
        raise ValueError("confusion")
    return confusion


def _read_predictions(
    files: EvaluationFiles, names: Sequence[str], confusion: npt.NDArray[np.int64]
) -> tuple[Predictions | None, str]:
    try:
        predictions = read_predictions(files.predictions, class_names=names)
    except UserError as error:
        return None, str(error)
    counted = np.zeros_like(confusion)
    np.add.at(counted, (predictions.labels, predictions.predicted), 1)
    if not np.array_equal(counted, confusion):
        return None, f"{files.predictions} is not of the evaluation in {files.summary.name}."
    return predictions, ""
