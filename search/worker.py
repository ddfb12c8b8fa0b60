"""What a worker does with a trial: train on from its last checkpoint, save every epoch, then report it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray.train.torch import get_device
from torch import distributed as dist
from torch import nn

from fmnist_models.checkpoint import load_checkpoint, save_checkpoint, save_weights
from fmnist_models.data import TrainingData
from fmnist_models.epoch import Epoch, is_better
from fmnist_models.errors import CheckpointError
from fmnist_models.feature_cache import FeatureCache, default_folder
from fmnist_models.files import write_aside
from fmnist_models.fold_training import FoldTraining
from fmnist_models.folds import FoldedImages
from fmnist_models.seeds import derive_seed
from fmnist_models.training import DivergedError, Training, TrainingPlan
from search.epochs_file import format_epochs
from search.errors import ExperimentError
from search.experiment import Experiment, TrialFiles
from search.record import Failure, Reason
from search.slots import Slot
from search.space import MODEL
from search.study import Assignment
from search.trial_message import explain_traceback, failure_message


class Trainable(Protocol):
    """What a trial runs; ``fmnist_models.training.Training`` is the real one."""

    history: list[Epoch]

    @property
    def model(self) -> nn.Module: ...

    def epochs(self) -> Iterator[Epoch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class StorageError(Exception):
    """What a trial has to save could not be saved, which is no fault of its own."""


class WorkerError(Exception):
    """The traceback of what one of several workers raised; of the exception itself Ray Train passes on the message."""


class PeerLostError(WorkerError):
    """The same, of what is no more than that another worker is gone."""


# How a traceback, all that is left of an exception from a worker group, names it.
STORAGE_ERROR = f"{StorageError.__module__}.{StorageError.__qualname__}: "


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all trials of a search have in common; images and pretrained weights lie in Ray's object store.

    ``num_epochs``: what learning-rate schedules span; a trial that ends before goes the same way up to there.
    """

    experiment: Experiment
    data: ray.ObjectRef[TrainingData | FoldedImages]
    pretrained: Mapping[str, ray.ObjectRef[Any]]
    slot: Slot
    num_epochs: int
    dataset: str
    metric: str
    seed: int
    precision: str
    deterministic: bool
    timeout_s: float | None
    feature_cache_bytes: int = 0
    make_training: Callable[..., Trainable] = Training


def train_assignment(
    assignment: Assignment, shared: Shared, *, report: Callable[[dict[str, Any]], None], is_first: bool = True
) -> None:
    """Trains a trial to its end; of several workers, who each do this, the first one saves what all of them report.

    What ``report`` raises ends the training.

    Raises:
        StorageError: what has to be saved cannot be.
    """
    torch.set_num_threads(shared.slot.threads_per_worker)
    # Of cuBLAS, which reads it when it is first used; the process is one of Ray's own.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(shared.deterministic)
    files = shared.experiment.here().trial(assignment.number)
    training = _resume(assignment, shared, files, is_first=is_first)
    for epoch in list(training.history):
        report(dataclasses.asdict(epoch))
    last = None if isinstance(training, FoldTraining) else assignment.num_epochs  # with folds, of each of them
    if len(training.history) == last:
        return
    try:
        for epoch in training.epochs():
            if is_first:
                _save(training, files, shared, assignment)
            report(dataclasses.asdict(epoch))
            if epoch.epoch == last:
                return
    except DivergedError as error:
        report(failure_message(Failure(Reason.DIVERGED, str(error))))


def _make_training(assignment: Assignment, shared: Shared) -> Trainable:
    hyperparameters = dict(assignment.hyperparameters)
    plan = TrainingPlan(
        network=hyperparameters.pop(MODEL),
        hyperparameters=hyperparameters,
        num_epochs=shared.num_epochs,
        seed=derive_seed(shared.seed, assignment.number) if assignment.seed is None else assignment.seed,
        precision=shared.precision,
    )
    pretrained = shared.pretrained.get(hyperparameters.get("weights", "none"))
    options: dict[str, Any] = {
        "device": get_device() if shared.slot.gpus else torch.device("cpu"),
        "pretrained": None if pretrained is None else ray.get(pretrained),
        "cache": FeatureCache(default_folder(), shared.feature_cache_bytes) if shared.feature_cache_bytes else None,
    }
    data = ray.get(shared.data)
    if isinstance(data, FoldedImages):
        if assignment.fold is None:
            num_epochs = assignment.num_epochs or plan.num_epochs
            return FoldTraining(plan, data, num_epochs=num_epochs, make=shared.make_training, **options)
        data = data.fold(assignment.fold)
    return shared.make_training(plan, data, **options)


def _resume(assignment: Assignment, shared: Shared, files: TrialFiles, *, is_first: bool) -> Trainable:
    """The training as its last checkpoint left it, or at its beginning if there is none that can be read.

    The first worker completes what a crash may have left unwritten beside that checkpoint.
    """
    state = _read_checkpoint(files, is_first=is_first)
    training = _make_training(assignment, shared)
    if state is None:
        return training
    try:
        training.load_state_dict(state)
        if is_first:
            files.send(*_save_beside(training, files, shared, assignment))
    except (OSError, ExperimentError) as error:  # it may be readable the next time
        raise not_saved(files, error) from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if explain_traceback(f"{type(error).__qualname__}: {error}").reason == Reason.MEMORY:
            raise
        if is_first:
            files.remove_checkpoints()
        return _make_training(assignment, shared)  # not the one that may be half of each
    return training


def _read_checkpoint(files: TrialFiles, *, is_first: bool) -> dict[str, Any] | None:
    """The last checkpoint; ``None`` if there is none, or it is damaged. Several workers read the same or none: they
    have to do the same things from the beginning on.

    Raises:
        StorageError: it cannot be read, or not by all of them.
    """
    try:
        files.fetch()
        state = load_checkpoint(files.last) if files.last.exists() else None
    except (OSError, ExperimentError) as error:  # it may be readable the next time
        raise not_saved(files, error) from error
    except CheckpointError:
        state = None
    if dist.is_initialized():
        seen: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(seen, None if state is None else len(state.get("history", ())))
        if len(set(seen)) > 1:
            raise StorageError(f"{files.last}: the workers of the trial do not see the same checkpoint")
    if state is None and is_first:
        files.remove_checkpoints()
    return state


def _save(training: Trainable, files: TrialFiles, shared: Shared, assignment: Assignment) -> None:
    """Saves the trial as it is after its newest epoch, before anyone is told of it."""
    try:
        save_checkpoint(files.last, training.state_dict())
        files.send(files.last, *_save_beside(training, files, shared, assignment))
    except (OSError, ExperimentError) as error:
        raise not_saved(files, error) from error


def not_saved(files: TrialFiles, error: OSError | ExperimentError) -> StorageError:
    """What keeps a trial from saving, in words."""
    return StorageError(f"{files.path}: {error.strerror or error}" if isinstance(error, OSError) else str(error))


def _save_beside(training: Trainable, files: TrialFiles, shared: Shared, assignment: Assignment) -> list[Path]:
    """What follows from a checkpoint: the table of its epochs, and the weights if the newest epoch is the one that
    counts: the best, or where the number of epochs is given the last; none of a trial with folds, which has no model
    that is all of it. Gives what was written."""
    if isinstance(training, FoldTraining):
        size = training.num_epochs
        write_aside(files.epochs, format_epochs(training.history, dataset=shared.dataset, fold_epochs=size))
        return [files.epochs]
    *before, newest = (epoch.metric(shared.metric) for epoch in training.history)
    if assignment.num_epochs is None:
        counts = all(is_better(newest, value, metric=shared.metric) for value in before)
    else:
        counts = len(training.history) == assignment.num_epochs
    if counts:
        save_weights(files.best, training.model.state_dict())
    write_aside(files.epochs, format_epochs(training.history, dataset=shared.dataset))
    return [files.best, files.epochs] if counts else [files.epochs]
