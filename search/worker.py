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
from torch import Tensor, nn
from torch import distributed as dist

from fmnist_models.checkpoint import load_checkpoint, save_checkpoint, save_weights
from fmnist_models.data import TrainingData
from fmnist_models.epoch import Epoch, is_better
from fmnist_models.errors import CheckpointError
from fmnist_models.feature_cache import FeatureCache, default_folder
from fmnist_models.files import write_aside
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

    model: nn.Module
    history: list[Epoch]

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

    ``precision``: by network.
    """

    experiment: Experiment
    data: ray.ObjectRef[TrainingData]
    pretrained: Mapping[str, ray.ObjectRef[Any]]
    slot: Slot
    num_epochs: int
    dataset: str
    metric: str
    seed: int
    precision: Mapping[str, str]
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
    saver = _Saver(files, shared)
    for epoch in list(training.history):
        report(dataclasses.asdict(epoch))
    try:
        for epoch in training.epochs():
            if is_first:
                saver.save(training)
            report(dataclasses.asdict(epoch))
    except DivergedError as error:
        report(failure_message(Failure(Reason.DIVERGED, str(error))))


def _make_training(assignment: Assignment, shared: Shared) -> Trainable:
    hyperparameters = dict(assignment.hyperparameters)
    network = hyperparameters.pop(MODEL)
    plan = TrainingPlan(
        network=network,
        hyperparameters=hyperparameters,
        num_epochs=shared.num_epochs,
        seed=derive_seed(shared.seed, assignment.number),
        precision=shared.precision[network],
    )
    pretrained = shared.pretrained.get(hyperparameters.get("weights", "none"))
    return shared.make_training(
        plan,
        ray.get(shared.data),
        device=get_device() if shared.slot.gpus else torch.device("cpu"),
        pretrained=None if pretrained is None else ray.get(pretrained),
        cache=FeatureCache(default_folder(), shared.feature_cache_bytes) if shared.feature_cache_bytes else None,
    )


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
            files.send(*_save_beside(training, files, shared))
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


class _Saver:
    """Saves a trial after each of its epochs, before anyone is told of it.

    The best epoch's weights are in the last checkpoint as long as no epoch comes after it, and they get a file of their
    own just before one does, or at the trial's end: not after each epoch that is better than those before it.
    """

    def __init__(self, files: TrialFiles, shared: Shared) -> None:
        self._files = files
        self._shared = shared
        self._unsaved_best: dict[str, Tensor] | None = None

    def save(self, training: Trainable) -> None:
        """Saves the trial as it is after its newest epoch.

        Raises:
            StorageError: it cannot be saved.
        """
        try:
            is_best, written = _ends_with_best(training, self._shared), [self._files.last, self._files.epochs]
            if self._unsaved_best is not None and not is_best:
                save_weights(self._files.best, self._unsaved_best)
                self._files.send(self._files.best)
                self._unsaved_best = None
            save_checkpoint(self._files.last, training.state_dict())
            if is_best and len(training.history) == self._shared.num_epochs:
                save_weights(self._files.best, training.model.state_dict())
                written.insert(1, self._files.best)
            elif is_best:
                self._unsaved_best = _copy(training.model.state_dict())
            _write_table(training, self._files, self._shared)
            self._files.send(*written)
        except (OSError, ExperimentError) as error:
            raise not_saved(self._files, error) from error


def not_saved(files: TrialFiles, error: OSError | ExperimentError) -> StorageError:
    """What keeps a trial from saving, in words."""
    return StorageError(f"{files.path}: {error.strerror or error}" if isinstance(error, OSError) else str(error))


def _save_beside(training: Trainable, files: TrialFiles, shared: Shared) -> list[Path]:
    """What follows from a checkpoint: the table of its epochs, and the weights if the newest epoch is the best. Gives
    what was written."""
    _write_table(training, files, shared)
    if not _ends_with_best(training, shared):
        return [files.epochs]
    save_weights(files.best, training.model.state_dict())
    return [files.best, files.epochs]


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, and not of what trains on."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _write_table(training: Trainable, files: TrialFiles, shared: Shared) -> None:
    write_aside(files.epochs, format_epochs(training.history, dataset=shared.dataset))


def _ends_with_best(training: Trainable, shared: Shared) -> bool:
    """Whether the newest epoch is the best so far."""
    *before, newest = (epoch.metric(shared.metric) for epoch in training.history)
    return all(is_better(newest, value, metric=shared.metric) for value in before)
