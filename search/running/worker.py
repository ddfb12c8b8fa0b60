"""What a worker does with a trial: train on from its last checkpoint, save every epoch, then report it."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.train.torch import get_device
from torch import distributed as dist

from fmnist_models.checkpoint import load_checkpoint
from fmnist_models.data import TrainingData
from fmnist_models.devices import check_cuda, device_name
from fmnist_models.errors import CheckpointError
from fmnist_models.feature_cache import default_cache
from fmnist_models.fold_training import FoldTraining
from fmnist_models.folds import FoldedImages
from fmnist_models.seeds import derive_seed
from fmnist_models.training import DivergedError, Training, TrainingPlan
from search.configuration.space import MODEL
from search.errors import ExperimentError
from search.records.experiment import Experiment, TrialFiles
from search.records.record import Failure, Reason
from search.running.saver import Saver
from search.running.slots import Slot
from search.running.trainable import Trainable
from search.running.trial_message import explain_traceback, failure_message, with_device
from search.study.search_study import Assignment


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
    ``precision``: by network.
    """

    experiment: Experiment
    data: ray.ObjectRef[TrainingData | FoldedImages]
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
        DeviceError: the worker holds a GPU, and torch sees none.
        StorageError: what has to be saved cannot be.
    """
    # Of cuBLAS, which reads it when it is first used; the process is one of Ray's own.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    device = _find_device(shared.slot)
    name = device_name(device)
    try:
        _train(
            assignment,
            shared,
            device=device,
            report=lambda message: report(with_device(message, name)),
            is_first=is_first,
        )
    finally:
        _give_back_memory()


def _find_device(slot: Slot) -> torch.device:
    if not slot.gpus:
        return torch.device("cpu")
    check_cuda()  # without a device Ray's function would give the CPU
    return get_device()


def _train(
    assignment: Assignment,
    shared: Shared,
    *,
    device: torch.device,
    report: Callable[[dict[str, Any]], None],
    is_first: bool,
) -> None:
    torch.set_num_threads(shared.slot.threads_per_worker)
    if torch.are_deterministic_algorithms_enabled() != shared.deterministic:  # even to say no loads torch's compiler
        torch.use_deterministic_algorithms(shared.deterministic)
    files = shared.experiment.here().trial(assignment.number)
    saver = Saver(
        files,
        dataset=shared.dataset,
        metric=shared.metric,
        max_epochs=shared.num_epochs,
        num_epochs=assignment.num_epochs,
    )
    training = _resume(assignment, shared, files, device=device, saver=saver if is_first else None)
    for epoch in list(training.history):
        report(dataclasses.asdict(epoch))
    last = None if isinstance(training, FoldTraining) else assignment.num_epochs  # with folds, of each of them
    if len(training.history) == last:
        return
    try:
        for epoch in training.epochs():
            if is_first:
                _save(saver, training, files)
            report(dataclasses.asdict(epoch))
            if epoch.epoch == last:
                return
    except DivergedError as error:
        report(failure_message(Failure(Reason.DIVERGED, str(error))))


def _give_back_memory() -> None:
    """Hands what the trial has freed to the system; glibc keeps it, as its settings are here (`cluster/heap.py`)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
    if trim is not None:
        trim(0)


def _make_training(assignment: Assignment, shared: Shared, *, device: torch.device) -> Trainable:
    hyperparameters = dict(assignment.hyperparameters)
    network = hyperparameters.pop(MODEL)
    plan = TrainingPlan(
        network=network,
        hyperparameters=hyperparameters,
        num_epochs=shared.num_epochs,
        seed=derive_seed(shared.seed, assignment.number) if assignment.seed is None else assignment.seed,
        precision=shared.precision[network],
    )
    pretrained = shared.pretrained.get(hyperparameters.get("weights", "none"))
    options: dict[str, Any] = {
        "device": device,
        "pretrained": None if pretrained is None else ray.get(pretrained),
        "cache": default_cache(shared.feature_cache_bytes),
    }
    data = ray.get(shared.data)
    if isinstance(data, FoldedImages):
        if assignment.fold is None:
            num_epochs = assignment.num_epochs or plan.num_epochs
            return FoldTraining(plan, data, num_epochs=num_epochs, make=shared.make_training, **options)
        data = data.fold(assignment.fold)
    return shared.make_training(plan, data, **options)


def _resume(
    assignment: Assignment, shared: Shared, files: TrialFiles, *, device: torch.device, saver: Saver | None
) -> Trainable:
    """The training as its last checkpoint left it, or at its beginning if there is none that can be read.

    The first worker, which has the ``saver``, completes what a crash may have left unwritten beside that checkpoint.
    """
    state = _read_checkpoint(files, is_first=saver is not None)
    training = _make_training(assignment, shared, device=device)
    if state is None:
        return training
    try:
        training.load_state_dict(state)
        if saver is not None:
            saver.complete(training)
    except (OSError, ExperimentError) as error:  # it may be readable the next time
        raise not_saved(files, error) from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if explain_traceback(f"{type(error).__qualname__}: {error}").reason == Reason.MEMORY:
            raise
        if saver is not None:
            files.remove_checkpoints()
        return _make_training(assignment, shared, device=device)  # not the one that may be half of each
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


def _save(saver: Saver, training: Trainable, files: TrialFiles) -> None:
    try:
        saver.save(training)
    except (OSError, ExperimentError) as error:
        raise not_saved(files, error) from error


def not_saved(files: TrialFiles, error: OSError | ExperimentError) -> StorageError:
    """What keeps a trial from saving, in words."""
    return StorageError(f"{files.path}: {error.strerror or error}" if isinstance(error, OSError) else str(error))
