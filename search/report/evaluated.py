"""The best trial's meeting with the test set, as its files tell it; they may be a stranger's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fmnist_models.errors import UserError
from search.records.evaluation_file import read_evaluation
from search.records.experiment import EvaluationFiles
from search.records.predictions import Predictions, read_predictions
from search.report.wording import text

_MAX_CLASSES = 20
_MAX_IMAGES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Test accuracy (0…1) with its 95 % interval, and ``confusion`` ``(C, C)`` int64, rows: true classes.

    ``predictions``: what the model said of every test image; ``None`` if that is not there or of another evaluation,
    and ``problem`` then says what about it. ``temperature``: that of their probabilities, ``None`` if unrecorded.
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
    temperature: float | None = None

    @property
    def num_images(self) -> int:
        return int(self.confusion.sum())


def read_evaluated(files: EvaluationFiles) -> Evaluated | str:
    """The evaluation, or why there is none."""
    try:
        told = read_evaluation(files)
    except UserError as error:
        return str(error)
    if told is None:
        return "The best trial has not been tested on the test images yet."
    scores, names = told.scores, tuple(one.name for one in told.scores.classes)
    confusion = np.asarray(scores.confusion, dtype=np.int64)
    is_drawable = 2 <= len(names) <= _MAX_CLASSES and len(set(names)) == len(names)
    if not (is_drawable and 0 < confusion.sum() <= _MAX_IMAGES):
        return f"{files.summary} has classes or counts that no test set has."
    if not math.isclose(scores.accuracy, confusion.trace() / confusion.sum(), abs_tol=1e-6):
        return f"{files.summary} has another accuracy than its confusion matrix."
    predictions, problem = _read_predictions(files, names, confusion)
    return Evaluated(
        trial=told.trial,
        dataset=told.dataset,
        accuracy=scores.accuracy,
        accuracy_low=scores.accuracy_low,
        accuracy_high=scores.accuracy_high,
        class_names=tuple(text(name, limit=40) for name in names),
        confusion=confusion,
        predictions=predictions,
        problem=problem,
        temperature=told.temperature,
    )


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
