"""One model trained with one seed under a protocol and tested once; what is finished is never trained again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmnist_models.checkpoint import load_checkpoint, save_checkpoint
from fmnist_models.data import CLASS_NAMES, LabelledImages
from fmnist_models.epoch import Epoch
from fmnist_models.errors import CheckpointError
from fmnist_models.files import read_json, write_aside
from fmnist_models.metrics import score, thresholded_micro
from fmnist_models.prediction import DeviceImages, predict_scores
from fmnist_models.training import Training, TrainingPlan
from search.errors import ExperimentError
from search.records.epochs_file import format_epochs
from search.records.predictions import Predictions, format_predictions
from search.records.versions import collect_versions
from search.reproduce.machine import describe_machine
from search.reproduce.protocol import Protocol

_DATASET = "fashion-mnist"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is trained: a network with its own hyperparameters, under a protocol. ``weights``: which pretrained ones."""

    network: str
    hyperparameters: Mapping[str, Any]
    protocol: Protocol
    weights: str = "none"

    def plan(self, seed: int) -> TrainingPlan:
        values = {**self.hyperparameters, **self.protocol.recipe}
        return TrainingPlan(
            network=self.network, hyperparameters=values, num_epochs=self.protocol.num_epochs, seed=seed
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        plain["hyperparameters"].pop("weights", None)  # a path is of one machine alone
        return plain


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run gave: ``numbers`` metric → value, ``classes`` metric → one value a class, counts by true class."""

    seed: int
    tested_epoch: int
    train_s: float
    numbers: Mapping[str, float]
    classes: Mapping[str, tuple[float, ...]]
    confusion: tuple[tuple[int, ...], ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class RunFiles:
    """The files of one run."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Where an interrupted training goes on; gone when it is finished."""
        return self.path / "last.pt"

    @property
    def epochs(self) -> Path:
        return self.path / "epochs.csv"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def result(self) -> Path:
        return self.path / "result.json"


def run(
    subject: Subject,
    seed: int,
    *,
    train: LabelledImages,
    test: LabelledImages,
    pretrained: Mapping[str, Tensor] | None,
    device: torch.device,
    files: RunFiles,
    tell: Callable[[Epoch], None],
) -> RunResult:
    """Trains on from where ``files`` left off, tests the last epoch and saves the result.

    Raises:
        ExperimentError: nothing can be saved there.
        DivergedError: the loss is no longer finite.
    """
    protocol = subject.protocol
    data = protocol.split(train)
    training = _resume(lambda: Training(subject.plan(seed), data, device=device, pretrained=pretrained), files)
    try:
        files.path.mkdir(parents=True, exist_ok=True)
        epochs = training.epochs()
        while not protocol.is_over(training.history):
            epoch = next(epochs)
            save_checkpoint(files.checkpoint, training.state_dict())
            tell(epoch)
        images = DeviceImages(test, device).images
        scores = predict_scores(training.predictor, images, normalisation=data.normalisation)
        predictions = Predictions(test.labels, scores.softmax(1).cpu().numpy())
        result = _judge(seed, training.history, predictions, device)
        write_aside(files.epochs, format_epochs(training.history, dataset=_DATASET))
        write_aside(files.predictions, format_predictions(predictions, class_names=CLASS_NAMES, dataset=_DATASET))
        written = {"subject": subject.to_dict(), **dataclasses.asdict(result)}
        write_aside(files.result, json.dumps(written, indent=2) + "\n")
        files.checkpoint.unlink(missing_ok=True)
    except OSError as error:
        raise ExperimentError(f"the run cannot be saved in {files.path}: {error.strerror or error}") from error
    return result


def read_result(subject: Subject, files: RunFiles) -> RunResult | None:
    """The result of a finished run, ``None`` if it is not finished.

    Raises:
        ExperimentError: it is of another model or protocol, or damaged.
        FileError: it cannot be read.
    """
    try:
        raw = read_json(files.result)
    except FileNotFoundError:
        return None
    if not isinstance(raw, dict) or raw.pop("subject", None) != subject.to_dict():
        raise ExperimentError(
            f"{files.result} is of another model, protocol or pretrained weights; choose another folder with --output"
        )
    try:
        raw["classes"] = {metric: tuple(map(float, values)) for metric, values in raw["classes"].items()}
        raw["numbers"] = {metric: float(value) for metric, value in raw["numbers"].items()}
        raw["confusion"] = tuple(tuple(map(int, row)) for row in raw["confusion"])
        result = RunResult(**raw)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ExperimentError(f"{files.result} is not the result of a run: {str(error)[:200]}") from error
    return result


def _judge(seed: int, history: list[Epoch], predictions: Predictions, device: torch.device) -> RunResult:
    scores = score(predictions.labels, predictions.predicted, class_names=CLASS_NAMES)
    precision, recall = thresholded_micro(predictions.labels, predictions.probabilities)
    return RunResult(
        seed=seed,
        tested_epoch=history[-1].epoch,
        train_s=float(np.sum([epoch.epoch_s for epoch in history])),
        numbers={
            "accuracy": scores.accuracy,
            "training accuracy": history[-1].train_accuracy,
            "macro precision": scores.macro.precision,
            "macro recall": scores.macro.recall,
            "micro precision at 0.5": precision,
            "micro recall at 0.5": recall,
        },
        classes={
            "precision": tuple(one.precision for one in scores.classes),
            "recall": tuple(one.recall for one in scores.classes),
        },
        confusion=scores.confusion,
        machine=describe_machine(device),
        versions=collect_versions(),
    )


def _resume(make: Callable[[], Training], files: RunFiles) -> Training:
    """The training as its last checkpoint left it, from the beginning if there is none that can be read."""
    training = make()
    if files.checkpoint.is_file():
        try:
            training.load_state_dict(load_checkpoint(files.checkpoint))
        except (CheckpointError, LookupError, TypeError, ValueError, RuntimeError):
            return make()
    return training
