"""One trial, as Ray Tune starts it: in its own warm process, or in the warm worker group of its slot."""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from ray import tune
from ray.exceptions import RayError
from ray.train import ControllerError, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from fmnist_models.files import write_aside
from search.errors import ExperimentError
from search.experiment import TrialFiles
from search.study import Assignment
from search.time_limit import read_timeout, time_limit
from search.trial_message import explain_traceback, failure_message, storage_message
from search.worker import STORAGE_ERROR, Shared, not_saved, train_assignment
from search.worker_group import WorkerGroup


class Workers(Protocol):
    """What trains the trials of a slot, one after the other."""

    @property
    def is_alive(self) -> bool: ...

    def run(self, assignment: Assignment, report: Callable[[dict[str, Any]], None]) -> None:
        """Trains a trial to its end and reports each epoch; what ``report`` raises ends it earlier."""


class ThisProcess:
    """The only worker of a slot, by Ray Train's local mode: this process, which Tune keeps from trial to trial."""

    is_alive = True

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def run(self, assignment: Assignment, report: Callable[[dict[str, Any]], None]) -> None:
        def loop(config: dict[str, Any]) -> None:
            train_assignment(assignment, self._shared, report=report)

        gpu = self._shared.slot.gpus > 0
        TorchTrainer(loop, train_loop_config={}, scaling_config=ScalingConfig(num_workers=0, use_gpu=gpu)).fit()


_workers: Workers | None = None  # of this process, which is one slot's


def run_trial(config: dict[str, Any], shared: Shared) -> None:
    """The Tune trainable.

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
        tune.report(failure_message(timeout))
        return
    if files.store is not None:
        files.path.mkdir(parents=True, exist_ok=True)
    try:
        with time_limit(files, shared.timeout_s):
            _find_workers(shared).run(assignment, tune.report)
    except Exception as error:
        if _is_infrastructure(error):
            raise
        _report_failure(files, error)


def _find_workers(shared: Shared) -> Workers:
    """Those that wait for the slot's next trial; new ones if they have ended."""
    global _workers
    if _workers is None or not _workers.is_alive:
        _workers = ThisProcess(shared) if shared.slot.num_workers == 1 else WorkerGroup(shared)
    return _workers


def _is_infrastructure(error: Exception) -> bool:
    if isinstance(error, WorkerGroupError):
        # When a worker dies, those who waited for it fail too, of their own code as it seems.
        return any(hasattr(failure, "health_check_failure") for failure in error.worker_failures.values())
    return isinstance(error, (RayError, ControllerError))


def _report_failure(files: TrialFiles, error: Exception) -> None:
    """Keeps the traceback in the trial's folder and reports what was raised, with the reason."""
    if isinstance(error, WorkerGroupError):
        texts = [str(failure) for failure in error.worker_failures.values()] or [str(error)]
    else:
        texts = ["".join(traceback.format_exception(error))]
    # When one worker fails for a reason of its own, the others fail because they waited for it.
    text = next((text for text in texts if explain_traceback(text).message.startswith(STORAGE_ERROR)), texts[0])
    failure = explain_traceback(text)
    if failure.message.startswith(STORAGE_ERROR):
        tune.report(storage_message(failure.message.removeprefix(STORAGE_ERROR)))
        return
    try:
        write_aside(files.error, text)
        files.send(files.error)
    except (OSError, ExperimentError) as problem:
        tune.report(storage_message(str(not_saved(files, problem))))
    else:
        tune.report(failure_message(failure))
