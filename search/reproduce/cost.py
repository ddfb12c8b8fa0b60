"""What a reproduction will take on this machine, measured on a few steps of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fmnist_models.data import LabelledImages, TrainingData
from fmnist_models.training import Training
from search.errors import ExperimentError
from search.reproduce.runs import Subject

LIMIT_S = 12 * 3600.0
_NUM_STEPS = 2


@dataclass(frozen=True)
class Cost:
    """At most so many seconds for all the runs of a model that are not finished."""

    title: str
    num_runs: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.title}: up to {format_duration(self.seconds)} for {self.num_runs} of its trainings"


def measure_seconds(
    subject: Subject, train: LabelledImages, *, pretrained: Mapping[str, Tensor] | None, device: torch.device
) -> float:
    """Seconds that one training takes at most: the time of a few steps, as often as it has such."""
    data = subject.protocol.split(train)
    plan = dataclasses.replace(subject.plan(0), num_epochs=2)
    count = min(_NUM_STEPS * plan.recipe.batch_size, len(data.train))
    sample = TrainingData(data.train.first(count), data.validation.first(2), data.normalisation)
    epochs = Training(plan, sample, device=device, pretrained=pretrained).epochs()
    next(epochs)  # memory is found and kernels are chosen
    return next(epochs).epoch_s / count * len(data.train) * subject.protocol.num_epochs


def check_costs(costs: list[Cost], *, limit_s: float = LIMIT_S) -> None:
    """Refuses what would take longer than ``limit_s`` in all.

    Raises:
        ExperimentError: it would; says what each model takes and what can be done.
    """
    total_s = sum(cost.seconds for cost in costs)
    if total_s > limit_s:
        raise ExperimentError(
            f"this would take up to {format_duration(total_s)} on this machine ({'; '.join(map(str, costs))}), more "
            f"than {format_duration(limit_s)}; nothing was trained. Use a GPU, choose models with --model, fewer "
            f"--seeds or a smaller --scale, or insist with --yes"
        )


def format_duration(seconds: float) -> str:
    """As a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"
