"""What the test set said about a trial, as a file holds it: neither Ray nor torch."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from fmnist_models.epoch import DIRECTIONS
from fmnist_models.errors import FileError
from fmnist_models.files import read_json
from fmnist_models.metrics import Scores
from search.errors import ExperimentError
from search.records.confirmation import Confirmation
from search.records.experiment import EvaluationFiles

_MAX_COUNT = 2**31
_MAX_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the test set said about one trial; ``confirmation``: what it was chosen by, if that was asked for;
    ``temperature``: of the probabilities in the table of predictions, ``None`` in files of older versions, where they
    are not scaled. The scores count classes alone, which no temperature changes."""

    experiment: str
    dataset: str
    trial: int
    epoch: int
    metric: str
    value: float
    rule: str
    hyperparameters: dict[str, Any]
    scores: Scores
    confirmation: Confirmation | None = None
    temperature: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        if self.confirmation is None:
            del values["confirmation"]
        if self.temperature is None:
            del values["temperature"]
        return values

    def per_class(self) -> pd.DataFrame:
        """Precision, recall, F1 and support, one row a class and the two averages below."""
        rows = [*self.scores.classes, self.scores.macro, self.scores.weighted]
        return pd.DataFrame([dataclasses.asdict(row) for row in rows]).rename(columns={"name": "class"})


def read_evaluation(files: EvaluationFiles) -> Evaluation | None:
    """What ``to_dict`` gave, as it was written; ``None`` if nothing was tested yet.

    Raises:
        ExperimentError: it is damaged or holds something else.
    """
    try:
        raw = read_json(files.summary)
        evaluation = TypeAdapter(Evaluation).validate_json(json.dumps(raw), strict=True)
    except FileNotFoundError:
        return None
    except FileError as error:
        raise ExperimentError(str(error)) from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ExperimentError(f"{files.summary} is no test result: {where} is missing or of another kind") from error
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{files.summary} is no test result: {str(error)[:300]}") from error
    if not _is_sound(evaluation):
        raise ExperimentError(f"{files.summary} is no test result: a value is out of its range")
    return evaluation


def _is_sound(evaluation: Evaluation) -> bool:
    scores = evaluation.scores
    rows = (*scores.classes, scores.macro, scores.weighted)
    shares = [scores.accuracy, scores.accuracy_low, scores.accuracy_high]
    shares += [share for row in rows for share in (row.precision, row.recall, row.f1)]
    counts = [scores.num_images, evaluation.trial, *(row.support for row in rows)]
    counts += [count for row in scores.confusion for count in row]
    size = len(scores.classes)
    return (
        evaluation.metric in DIRECTIONS
        and evaluation.epoch > 0
        and math.isfinite(evaluation.value)
        and (evaluation.temperature is None or 0 < evaluation.temperature < math.inf)
        and all(0 <= share <= 1 for share in shares)
        and all(0 <= count < _MAX_COUNT for count in counts)
        and 0 < size <= _MAX_CLASSES
        and [len(row) for row in scores.confusion] == [size] * size
        and (evaluation.confirmation is None or evaluation.confirmation.is_sound())
    )
