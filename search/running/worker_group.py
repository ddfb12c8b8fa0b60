"""A Ray Train worker group that outlives its trials: its workers train one after the other."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import threading
import traceback
from collections.abc import Callable
from typing import Any

import ray
from ray import train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from torch import distributed as dist

from fmnist_models.devices import describe_cuda_problem, find_cuda_problem
from fmnist_models.errors import DeviceError
from search.running.mailbox import Mailbox
from search.running.processor_time import charge_group_s
from search.running.trial_message import add_processor_s
from search.running.worker import PeerLostError, Shared, WorkerError, train_assignment
from search.study.search_study import Assignment

_SECONDS_BETWEEN_LOOKS = 0.5
_PEER = re.compile(r"gloo|NCCL|by peer", re.IGNORECASE)
# How often the group's controller looks after its workers: by default every 2 s.
_CONTROLLER = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


class WorkerGroup:
    """The workers of this process's slot; they start with the first trial and end with this process.

    A worker that dies, or whose training raises anything but that it diverged, ends the group: the others may be
    waiting for it inside an operation that they do together.
    """

    def __init__(self, shared: Shared) -> None:
        os.environ.update(_CONTROLLER)
        self._num_workers = shared.slot.num_workers
        calls = 2 * self._num_workers + 10  # at once: each worker waits in one
        self._mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, max_concurrency=calls).remote()
        self._trainer = _Trainer(
            _serve,
            train_loop_config={"shared": shared, "mailbox": self._mailbox},
            torch_config=_CheckedTorchConfig(),
            scaling_config=ScalingConfig(
                num_workers=shared.slot.num_workers,
                use_gpu=shared.slot.gpus > 0,
                resources_per_worker=shared.slot.worker_resources,
                label_selector=dict(shared.slot.node_labels) or None,  # type: ignore[call-arg]  # known to Train's v2
            ),
            run_config=RunConfig(
                name=f"group-{ray.get_runtime_context().get_actor_id()}",
                storage_path=shared.experiment.ray_location,
                # What happens to a group is the slot's to know: one begun anew would find the mailbox of the old one.
                failure_config=FailureConfig(max_preemption_failures=0),  # type: ignore[call-arg]  # as above
            ),
        )
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="worker-group", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wait_until_ready(self) -> None:
        """Waits until all workers have started, for which the cluster must have room.

        Raises:
            WorkerGroupError: one of them could not.
        """
        self._wait(self._mailbox.wait_for.remote(self._num_workers))

    def run(self, assignment: Assignment, report: Callable[[dict[str, Any]], None]) -> None:
        """Has the workers train, and reports each epoch; what ``report`` raises ends the trial, not the group.

        Raises:
            WorkerGroupError: a worker died or raised something; the group has ended.
        """
        turn = ray.get(self._mailbox.assign.remote(dataclasses.asdict(assignment)))
        try:
            while (message := self._wait(self._mailbox.take.remote())) is not None:
                report(message)
                self._mailbox.grant.remote(turn)
        except BaseException:
            self._mailbox.stop.remote(turn)
            raise

    def _wait(self, answer: Any) -> Any:
        while not ray.wait([answer], timeout=_SECONDS_BETWEEN_LOOKS)[0]:
            if not self.is_alive:
                raise self._error or RuntimeError("the worker group has ended")
        return ray.get(answer)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            self._error = error


class _CheckedTorchBackend(_TorchBackend):
    """Looks at the workers' devices before nccl, whose error would be taken for one that may pass."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        if worker_group.get_resources_per_worker().get("GPU", 0):
            for problem in worker_group.execute(_describe_problem):
                if problem is not None:
                    raise DeviceError(problem)
        super().on_start(worker_group, backend_config)


class _CheckedTorchConfig(TorchConfig):
    @property
    def backend_cls(self) -> type[_CheckedTorchBackend]:
        return _CheckedTorchBackend


def _describe_problem() -> str | None:
    """What keeps this worker, which holds a GPU, from using it."""
    problem = find_cuda_problem()
    return None if problem is None else describe_cuda_problem(problem)


class _Trainer(TorchTrainer):
    """Without the process that Ray Train starts with every group, which never ends and which asks the dashboard: a
    placement group that a killed process leaves behind is the leak watch's."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


def _serve(config: dict[str, Any]) -> None:
    """What each worker does until its process is ended: one trial after the other."""
    mailbox, shared = config["mailbox"], config["shared"]
    is_first, turn = train.get_context().get_world_rank() == 0, 0
    while True:
        turn, assignment = ray.get(mailbox.next_assignment.remote(turn))
        steps = itertools.count(1)

        def report(message: dict[str, Any], turn: int = turn, steps: itertools.count[int] = steps) -> None:
            charge = charge_group_s()
            if is_first:
                mailbox.post.remote(turn, add_processor_s(message, charge))
            if not ray.get(mailbox.may_go_on.remote(turn, next(steps))):
                raise _StoppedError

        try:
            train_assignment(Assignment(**assignment), shared, report=report, is_first=is_first)
        except _StoppedError:
            continue
        except Exception as error:
            # Ray Train passes on what was raised without where.
            kind = PeerLostError if _is_loss_of_a_peer(error) else WorkerError
            raise kind(traceback.format_exc()) from None
        if is_first:
            mailbox.post.remote(turn, None)


def _is_loss_of_a_peer(error: Exception) -> bool:
    """Whether an operation that the workers do together failed, as it does when another one is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(_PEER.search(str(error))))


class _StoppedError(Exception):
    """The slot wants no more of this trial."""
