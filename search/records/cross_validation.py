"""What K folds of one configuration came to, as files hold it. Neither Ray nor torch."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from fmnist_models.errors import FileError
from fmnist_models.files import read_json
from fmnist_models.metrics import Scores, score
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.predictions import Predictions, format_predictions

_AVERAGED = ("precision", "recall", "f1")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """``values``, one a fold: their mean, the sample's standard deviation, and a 95 % interval of the mean.

    The interval is Student's t over the K folds, with K - 1 degrees of freedom. It takes the folds for independent,
    which they are not: any two share most of their training images, so that it is rather too narrow, and no unbiased
    estimate of the variance exists (Bengio and Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold
    Cross-Validation", JMLR 5). That of a share ends at 0 and 1, where it would go beyond what is possible.
    """

    mean: float
    deviation: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """A configuration, trained ``num_folds`` times for ``num_epochs`` epochs, each time judged by images held out.

    ``source``: the experiment whose trial ``of_trial`` has the configuration; ``None`` if it is of a file. A search on
    some of the same images chose that trial and its number of epochs, so that its values are a little optimistic.
    ``metrics``: accuracy, loss (mean cross-entropy, in nats) and macro averages. ``classes``: of each class, its
    precision, recall and F1. ``pooled``: all images, each as the fold predicted it that had not seen it.
    """

    experiment: str
    dataset: str
    source: str | None
    of_trial: int | None
    num_folds: int
    num_epochs: int
    hyperparameters: dict[str, Any]
    metrics: dict[str, Estimate]
    classes: dict[str, dict[str, Estimate]]
    pooled: Scores

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> Iterator[tuple[str, str, Estimate]]:
        """Metric, class or nothing, and estimate."""
        for metric, estimate in self.metrics.items():
            yield metric, "", estimate
        for name, estimates in self.classes.items():
            for metric, estimate in estimates.items():
                yield metric, name, estimate

    def to_csv(self) -> str:
        """One row a metric and class, the values of the folds among its columns."""
        rows = [
            {
                "metric": metric,
                "class": name,
                **{key: getattr(estimate, key) for key in ("mean", "deviation", "low", "high")},
                **{f"fold_{fold}": value for fold, value in enumerate(estimate.values, start=1)},
                "dataset": self.dataset,
            }
            for metric, name, estimate in self.rows()
        ]
        return pd.DataFrame(rows).to_csv(index=False)


@dataclass(frozen=True)
class FoldPredictions:
    """What one fold's model said of the images it had not seen; ``images``: their indices ``(N,)`` int64; ``loss``: the
    mean cross-entropy in nats, which probabilities that were rounded to 0 would not give."""

    images: npt.NDArray[np.int64]
    predictions: Predictions
    loss: float


def estimate(values: Sequence[float], *, is_share: bool = True) -> Estimate:
    """Mean, deviation and interval of at least two values; ``is_share``: none can be less than 0 or more than 1."""
    from scipy.stats import t

    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    low, high = (max(0.0, mean - half), min(1.0, mean + half)) if is_share else (mean - half, mean + half)
    return Estimate(mean=mean, deviation=deviation, low=low, high=high, values=tuple(values))


def judge_folds(
    folds: Sequence[FoldPredictions], *, class_names: Sequence[str]
) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]], Scores]:
    """``metrics``, ``classes`` and ``pooled`` of a ``CrossValidation``."""
    scores = [score(one.predictions.labels, one.predictions.predicted, class_names=class_names) for one in folds]
    metrics = {
        "accuracy": estimate([one.accuracy for one in scores]),
        "loss": estimate([one.loss for one in folds], is_share=False),
        **{f"macro {name}": estimate([getattr(one.macro, name) for one in scores]) for name in _AVERAGED},
    }
    classes = {
        name: {metric: estimate([getattr(one.classes[code], metric) for one in scores]) for metric in _AVERAGED}
        for code, name in enumerate(class_names)
    }
    pooled, _ = pool(folds)
    return metrics, classes, score(pooled.labels, pooled.predicted, class_names=class_names)


def pool(folds: Sequence[FoldPredictions]) -> tuple[Predictions, npt.NDArray[np.int64]]:
    """The predictions of all folds in the order of the images, and the fold, from 1, of each image."""
    order = np.argsort(np.concatenate([one.images for one in folds]))
    numbers = np.concatenate([np.full(len(one.images), fold) for fold, one in enumerate(folds, start=1)])
    labels = np.concatenate([one.predictions.labels for one in folds])
    probabilities = np.concatenate([one.predictions.probabilities for one in folds])
    return Predictions(labels[order], probabilities[order]), numbers[order]


def format_pooled(folds: Sequence[FoldPredictions], *, class_names: Sequence[str], dataset: str) -> str:
    """CSV as ``predictions`` has it, of the training images, and the fold that had not seen each of them."""
    pooled, numbers = pool(folds)
    lines = format_predictions(pooled, class_names=class_names, dataset=dataset).splitlines()
    return "\n".join(f"{line},{fold}" for line, fold in zip(lines, ["fold", *map(str, numbers)], strict=True)) + "\n"


def read_cross_validation(experiment: Experiment) -> CrossValidation | None:
    """What was saved of it; ``None`` if nothing was yet.

    Raises:
        ExperimentError: it is damaged or holds something else.
    """
    path = experiment.cross_validation
    try:
        raw = read_json(path)
        found = TypeAdapter(CrossValidation).validate_json(json.dumps(raw), strict=True)
    except FileNotFoundError:
        return None
    except (FileError, ValidationError, ValueError, RecursionError) as error:
        raise ExperimentError(f"{path} is no result of a cross-validation: {str(error)[:300]}") from error
    if not all(math.isfinite(number) for _, _, one in found.rows() for number in (one.mean, one.deviation)):
        raise ExperimentError(f"{path} is no result of a cross-validation: a value is no finite number")
    return found


def describe_limits(found: CrossValidation) -> str:
    """What to bear in mind about the numbers."""
    limits = "the intervals take folds for independent, and are rather too narrow as folds share training images"
    if found.source is None:
        return limits
    return f"{limits}; the values are a little optimistic, as a search on some of these images chose the configuration"


def describe_estimates(estimates: Mapping[str, Estimate]) -> list[tuple[str, ...]]:
    """Name, mean ± deviation and interval of each, as text."""
    return [
        (name, f"{one.mean:.4f} ± {one.deviation:.4f}", f"{one.low:.4f} to {one.high:.4f}")
        for name, one in estimates.items()
    ]
