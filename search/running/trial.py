"""One trial, as Ray Tune starts it: in its own warm process, or in the warm worker group of its slot."""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import torch
from ray import tune
from ray.exceptions import RayError
from ray.train import ControllerError, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from fmnist_models.devices import device_name
from fmnist_models.errors import DeviceError
from fmnist_models.files import write_aside
from search.errors import ExperimentError
from search.records.experiment import TrialFiles
from search.running.processor_time import charge_s
from search.running.slots import Slot
from search.running.time_limit import read_timeout, time_limit
from search.running.trial_message import (
    add_processor_s,
    begin_message,
    explain_traceback,
    failure_message,
    storage_message,
    with_device,
)
from search.running.worker import STORAGE_ERROR, PeerLostError, Shared, not_saved, train_assignment
from search.study.search_study import Assignment


class Workers(Protocol):
    """What trains the trials of a slot, one after the other."""

    @property
    def is_alive(self) -> bool: ...

    def wait_until_ready(self) -> None:
        """Waits until they have started."""

    def run(self, assignment: Assignment, report: Callable[[dict[str, Any]], None]) -> None:
        """Trains a trial to its end and reports each epoch; what ``report`` raises ends it earlier."""


class ThisProcess:
    """The only worker of a slot, by Ray Train's local mode: this process, which Tune keeps from trial to trial."""

    is_alive = True

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def wait_until_ready(self) -> None: ...

    def run(self, assignment: Assignment, report: Callable[[dict[str, Any]], None]) -> None:
        def loop(config: dict[str, Any]) -> None:
            train_assignment(assignment, self._shared, report=report)

        gpu = self._shared.slot.gpus > 0
        TorchTrainer(loop, train_loop_config={}, scaling_config=ScalingConfig(num_workers=0, use_gpu=gpu)).fit()


_workers: Workers | None = None  # of this process, which is one slot's


def run_trial(config: dict[str, Any], shared: Shared) -> None:
    """The Tune trainable.

    What goes wrong in the training is the trial's result, and so is a GPU that a worker holds and cannot use: a restart
    would find the same. What goes wrong around it (a worker or its node is gone) is raised, and Tune restarts the
    trial, which continues from its last checkpoint. A trial that takes longer than ``shared.timeout_s`` ends its
    process.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"  # 2 s are little on a machine with other work
    shared = dataclasses.replace(shared, experiment=shared.experiment.here())
    assignment = Assignment(**config)
    files = shared.experiment.trial(assignment.number)
    timeout = read_timeout(files)
    if timeout is not None:
        _report(failure_message(timeout))
        return
    if files.store is not None:
        files.path.mkdir(parents=True, exist_ok=True)
    num_reports = 0

    def report(message: dict[str, Any]) -> None:
        nonlocal num_reports
        num_reports += 1
        _report(message)

    while True:
        workers, are_new = _find_workers(shared)
        try:
            workers.wait_until_ready()
            if shared.timeout_s is not None and shared.slot.num_workers > 1:
                tune.report(begin_message())
            with time_limit(files, shared.timeout_s):
                workers.run(assignment, report)
        except Exception as error:
            if isinstance(_cause(error), DeviceError) or not _may_pass(error):
                _report_failure(files, _cause(error), device=_find_device_name(shared.slot))
            elif are_new or num_reports:
                raise
            else:  # they may have died while they waited, which is no trial's
                _forget_workers()
                continue
        return


def _report(message: dict[str, Any]) -> None:
    tune.report(add_processor_s(message, charge_s()))


def _find_workers(shared: Shared) -> tuple[Workers, bool]:
    """Those that wait for the slot's next trial, and whether they are new, as the others have ended."""
    global _workers
    if _workers is not None and _workers.is_alive:
        return _workers, False
    if shared.slot.num_workers == 1:
        _workers = ThisProcess(shared)
    else:
        from search.running.worker_group import WorkerGroup

        _workers = WorkerGroup(shared)
    return _workers, True


def _forget_workers() -> None:
    global _workers
    _workers = None


def _cause(error: Exception) -> Exception:
    """The error itself, or of a worker group that could not start because of its workers' devices, what says so."""
    failure = error.controller_failure if isinstance(error, ControllerError) else None
    return failure if isinstance(failure, DeviceError) else error


def _may_pass(error: Exception) -> bool:
    """Whether it is no error of the training, so that a restart of the trial may succeed."""
    if isinstance(error, WorkerGroupError):
        # When a worker dies, those who waited for it fail too, and may be the first to be heard of.
        failures = error.worker_failures.values()
        return any(map(_is_death, failures)) or all(isinstance(failure, PeerLostError) for failure in failures)
    return isinstance(error, (RayError, ControllerError))


def _is_death(failure: Exception) -> bool:
    return isinstance(failure, RayError) or type(failure).__name__.startswith("WorkerHealthCheck")


def _find_device_name(slot: Slot) -> str | None:
    """The name of the device that the trial trained on, as far as this process knows."""
    if not slot.gpus:
        return device_name(torch.device("cpu"))
    return device_name(torch.device("cuda")) if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]


def _report_failure(files: TrialFiles, error: Exception, *, device: str | None) -> None:
    """Keeps the traceback in the trial's folder and reports what was raised, with the reason."""
    if isinstance(error, WorkerGroupError):
        texts = [str(failure) for failure in error.worker_failures.values()] or [str(error)]
    else:
        texts = ["".join(traceback.format_exception(error))]
    # When one worker fails for a reason of its own, the others fail because they waited for it.
    text = next((text for text in texts if explain_traceback(text).message.startswith(STORAGE_ERROR)), texts[0])
    failure = explain_traceback(text)
    if failure.message.startswith(STORAGE_ERROR):
        _report(storage_message(failure.message.removeprefix(STORAGE_ERROR)))
        return
    try:
        write_aside(files.error, text)
        files.send(files.error)
    except (OSError, ExperimentError) as problem:
        _report(storage_message(str(not_saved(files, problem))))
    else:
        message = failure_message(failure)
        _report(message if device is None else with_device(message, device))
