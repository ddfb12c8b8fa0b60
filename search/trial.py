"""One trial, as Ray Tune starts it: Ray Train runs a training and every epoch is saved, then reported."""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import train, tune
from ray.exceptions import RayError
from ray.train import ControllerError, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback
from torch import nn

from fmnist_models.checkpoint import load_checkpoint, save_checkpoint, save_weights
from fmnist_models.data import TrainingData
from fmnist_models.epoch import Epoch, is_better
from fmnist_models.errors import CheckpointError
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
from search.time_limit import read_timeout, time_limit

# A worker group's controller looks after its workers every 2 s by default, and a report can wait that long.
_QUICK_CONTROLLER = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
# What Python, torch and CUDA say when there is no more memory.
_OUT_OF_MEMORY = ("MemoryError", "DefaultCPUAllocator: ", "CUDA error: out of memory", "CUDA out of memory")
_REASON = "failure_reason"
_MESSAGE = "failure_message"
_STORAGE = "storage_failure"


class Trainable(Protocol):
    """What a trial runs; ``fmnist_models.training.Training`` is the real one."""

    model: nn.Module
    history: list[Epoch]

    def epochs(self) -> Iterator[Epoch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class StorageError(Exception):
    """What a trial has to save could not be saved, which is no fault of its own."""


# How a traceback, all that is left of an exception from a worker group, names it.
_STORAGE_ERROR = f"{StorageError.__module__}.{StorageError.__qualname__}: "


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all trials of a search have in common; images and pretrained weights lie in Ray's object store."""

    experiment: Experiment
    data: ray.ObjectRef[TrainingData]
    pretrained: Mapping[str, ray.ObjectRef[Any]]
    slot: Slot
    num_epochs: int
    dataset: str
    metric: str
    seed: int
    precision: str
    deterministic: bool
    timeout_s: float | None
    make_training: Callable[..., Trainable] = Training


def run_trial(config: dict[str, Any], shared: Shared) -> None:
    """The Tune trainable: one worker trains in this process, several in a Ray Train worker group.

    What goes wrong in the training is the trial's result. What goes wrong around it (a worker or its node is gone) is
    raised, and Tune restarts the trial, which continues from its last checkpoint. A trial that takes longer than
    ``shared.timeout_s`` ends its process.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"  # 2 s are little on a machine with other work
    shared = dataclasses.replace(shared, experiment=shared.experiment.here())
    assignment = Assignment(**config)
    files = shared.experiment.trial(assignment.number)
    timeout = read_timeout(files)
    if timeout is not None:
        tune.report(_failure_message(timeout))
        return
    if files.store is not None:
        files.path.mkdir(parents=True, exist_ok=True)
    try:
        with time_limit(files, shared.timeout_s):
            _trainer(assignment, shared).fit()
    except Exception as error:
        if _is_infrastructure(error):
            raise
        _report_failure(files, error)


def _is_infrastructure(error: Exception) -> bool:
    if isinstance(error, WorkerGroupError):
        # When a worker dies, those who waited for it fail too, of their own code as it seems.
        return any(hasattr(failure, "health_check_failure") for failure in error.worker_failures.values())
    return isinstance(error, (RayError, ControllerError))


def parse_epoch(result: Mapping[str, Any]) -> Epoch:
    """The epoch that a Tune result carries."""
    return Epoch(**{field.name: result[field.name] for field in dataclasses.fields(Epoch)})


def parse_failure(result: Mapping[str, Any]) -> Failure | None:
    """The failure that a Tune result carries, if it does."""
    return Failure(Reason(result[_REASON]), result[_MESSAGE]) if _REASON in result else None


def parse_storage_failure(result: Mapping[str, Any]) -> str | None:
    """What kept the trial from saving, if a Tune result says so."""
    return result.get(_STORAGE)


def explain_traceback(text: str) -> Failure:
    """What a traceback says was raised, the first line of it, and whether memory ran out."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    frames = [position for position, line in enumerate(lines) if line.startswith("  ")]
    raised = next(iter(lines[max(frames, default=-1) + 1 :]), lines[-1])
    reason = Reason.MEMORY if any(sign in raised for sign in _OUT_OF_MEMORY) else Reason.CODE
    return Failure(reason, raised[:500])


def _trainer(assignment: Assignment, shared: Shared) -> TorchTrainer:
    slot = shared.slot
    if slot.num_workers == 1:
        # Ray Train's local mode: the loop runs in this process, which Tune keeps warm from trial to trial.
        scaling, run = ScalingConfig(num_workers=0, use_gpu=slot.gpus > 0), RunConfig()
    else:
        os.environ.update(_QUICK_CONTROLLER)
        # What frees a pruned trial's workers looks for the cluster by this, or in the default temporary folder.
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        scaling = ScalingConfig(
            num_workers=slot.num_workers,
            use_gpu=slot.gpus > 0,
            resources_per_worker=slot.worker_resources,
            label_selector=dict(slot.node_labels) or None,  # type: ignore[call-arg]  # known to Train's second version
        )
        run = RunConfig(
            name=f"trial-{assignment.number}",
            storage_path=shared.experiment.ray_location,
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call, list-item]
        )
    return TorchTrainer(
        _train_loop,
        train_loop_config={"assignment": assignment, "shared": shared},
        scaling_config=scaling,
        run_config=run,
    )


def _train_loop(config: dict[str, Any]) -> None:
    """What each worker does: train on from the last checkpoint; the first worker saves what all of them report."""
    assignment: Assignment = config["assignment"]
    shared: Shared = config["shared"]
    torch.set_num_threads(shared.slot.threads_per_worker)
    # Of cuBLAS, which reads it when it is first used; the process is one of Ray's own.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(shared.deterministic)
    alone = shared.slot.num_workers == 1
    files = shared.experiment.here().trial(assignment.number)
    is_first = alone or train.get_context().get_world_rank() == 0
    training = _resume(assignment, shared, files, is_first=is_first)
    report: Callable[[dict[str, Any]], None] = tune.report if alone else train.report
    for epoch in list(training.history):
        report(dataclasses.asdict(epoch))
    try:
        for epoch in training.epochs():
            if is_first:
                _save(training, files, shared)
            report(dataclasses.asdict(epoch))
    except DivergedError as error:
        report(_failure_message(Failure(Reason.DIVERGED, str(error))))


def _make_training(assignment: Assignment, shared: Shared) -> Trainable:
    hyperparameters = dict(assignment.hyperparameters)
    plan = TrainingPlan(
        network=hyperparameters.pop(MODEL),
        hyperparameters=hyperparameters,
        num_epochs=shared.num_epochs,
        seed=derive_seed(shared.seed, assignment.number),
        precision=shared.precision,
    )
    pretrained = shared.pretrained.get(hyperparameters.get("weights", "none"))
    return shared.make_training(
        plan,
        ray.get(shared.data),
        device=get_device() if shared.slot.gpus else torch.device("cpu"),
        pretrained=None if pretrained is None else ray.get(pretrained),
    )


def _resume(assignment: Assignment, shared: Shared, files: TrialFiles, *, is_first: bool) -> Trainable:
    """The training as its last checkpoint left it, or at its beginning if there is none that can be read.

    The first worker completes what a crash may have left unwritten beside that checkpoint.
    """
    training = _make_training(assignment, shared)
    try:
        files.fetch()
        if not files.last.exists():
            return training
        training.load_state_dict(load_checkpoint(files.last))
        if is_first:
            files.send(*_save_beside(training, files, shared))
    except (OSError, ExperimentError) as error:  # it may be readable the next time
        raise _not_saved(files, error) from error
    except (CheckpointError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if explain_traceback(f"{type(error).__qualname__}: {error}").reason == Reason.MEMORY:
            raise
        if is_first:
            files.remove_checkpoints()
        return _make_training(assignment, shared)  # not the one that may be half of each
    return training


def _save(training: Trainable, files: TrialFiles, shared: Shared) -> None:
    """Saves the trial as it is after its newest epoch, before anyone is told of it."""
    try:
        save_checkpoint(files.last, training.state_dict())
        files.send(files.last, *_save_beside(training, files, shared))
    except (OSError, ExperimentError) as error:
        raise _not_saved(files, error) from error


def _not_saved(files: TrialFiles, error: OSError | ExperimentError) -> StorageError:
    return StorageError(f"{files.path}: {error.strerror or error}" if isinstance(error, OSError) else str(error))


def _save_beside(training: Trainable, files: TrialFiles, shared: Shared) -> list[Path]:
    """What follows from a checkpoint: the table of its epochs, and the weights if the newest epoch is the best. Gives
    what was written."""
    *before, newest = (epoch.metric(shared.metric) for epoch in training.history)
    is_best = all(is_better(newest, value, metric=shared.metric) for value in before)
    if is_best:
        save_weights(files.best, training.model.state_dict())
    write_aside(files.epochs, format_epochs(training.history, dataset=shared.dataset))
    return [files.best, files.epochs] if is_best else [files.epochs]


def _report_failure(files: TrialFiles, error: Exception) -> None:
    """Keeps the traceback in the trial's folder and reports what was raised, with the reason."""
    if isinstance(error, WorkerGroupError):
        texts = [str(failure) for failure in error.worker_failures.values()] or [str(error)]
    else:
        texts = ["".join(traceback.format_exception(error))]
    # When one worker fails for a reason of its own, the others fail because they waited for it.
    text = next((text for text in texts if explain_traceback(text).message.startswith(_STORAGE_ERROR)), texts[0])
    failure = explain_traceback(text)
    if failure.message.startswith(_STORAGE_ERROR):
        tune.report({_STORAGE: failure.message.removeprefix(_STORAGE_ERROR)})
        return
    try:
        write_aside(files.error, text)
        files.send(files.error)
    except (OSError, ExperimentError) as problem:
        tune.report({_STORAGE: str(_not_saved(files, problem))})
    else:
        tune.report(_failure_message(failure))


def _failure_message(failure: Failure) -> dict[str, str]:
    return {_REASON: failure.reason.value, _MESSAGE: failure.message}
