"""What a search of ours reached on the test images, to be seen beside published numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fmnist_models.files import read_json
from search.errors import ExperimentError
from search.records.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The best trial's accuracy on ``num_images`` test images, with its 95 % interval."""

    experiment: str
    network: str
    dataset: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    num_images: int


def read_searched(experiment: Experiment) -> Searched:
    """What `fmnist evaluate` wrote of the experiment's best trial.

    Raises:
        ExperimentError: the experiment was not evaluated, or its evaluation is damaged.
        FileError: it cannot be read.
    """
    path = experiment.evaluation.summary
    try:
        raw = read_json(path)
        scores = raw["scores"]
        found = Searched(
            experiment=experiment.name,
            network=str(raw["hyperparameters"]["model"])[:100],
            dataset=str(raw["dataset"])[:100],
            accuracy=float(scores["accuracy"]),
            accuracy_low=float(scores["accuracy_low"]),
            accuracy_high=float(scores["accuracy_high"]),
            num_images=int(scores["num_images"]),
        )
    except FileNotFoundError as error:
        raise ExperimentError(f"{path} is missing; `fmnist evaluate {experiment.name}` writes it") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ExperimentError(f"{path} is no evaluation: {error!r}"[:300]) from error
    if not all(math.isfinite(value) for value in (found.accuracy, found.accuracy_low, found.accuracy_high)):
        raise ExperimentError(f"{path} is no evaluation: an accuracy is no finite number")
    return found
