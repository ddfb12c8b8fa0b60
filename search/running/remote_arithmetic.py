"""Which arithmetic a search's networks are trained in, found out where its trials will run."""

from __future__ import annotations

import ray
from ray.exceptions import RayError

from fmnist_models.devices import check_cuda
from fmnist_models.errors import DeviceError
from search.configuration.config import SearchConfig
from search.running.arithmetic import decide_precision
from search.running.slots import Slot

_TIMEOUT_S = 60.0  # for a place and the measurement: a cluster can be full of other work


def decide_on_cluster(
    config: SearchConfig, notes: list[str], *, slot: Slot, num_train: int, timeout_s: float = _TIMEOUT_S
) -> str | dict[str, str]:
    """``decide_precision``, but by a task with the resources of a trial's worker: this process may well be on a head
    node that has another processor, or no GPU. Where none is free in time, it is decided here.

    Raises:
        DeviceError: the task holds a GPU, and torch sees none there; trials would fail.
    """
    resources = slot.worker_resources
    others = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    task = _decide.options(
        num_cpus=resources["CPU"],
        num_gpus=resources.get("GPU", 0),
        resources=others or None,
        label_selector=dict(slot.node_labels) or None,
        max_retries=0,
    ).remote(config, num_train)
    try:
        found, told, problem = ray.get(task, timeout=timeout_s)
    except RayError as error:
        ray.cancel(task, force=True)
        notes.append(f"precision: chosen on this machine: no worker responded ({_first_line(error)})")
        return decide_precision(config, notes, num_train=num_train)
    if problem is not None:
        raise DeviceError(f"gpus_per_trial: {problem}")
    notes.extend(told)
    return found


@ray.remote
def _decide(config: SearchConfig, num_train: int) -> tuple[str | dict[str, str], list[str], str | None]:
    """The precision by network, notes, and what keeps this worker from using the GPU that it holds."""
    notes: list[str] = []
    try:
        if config.gpus_per_trial:
            check_cuda()
        return decide_precision(config, notes, num_train=num_train), notes, None
    except DeviceError as error:
        return {}, notes, str(error)


def _first_line(error: RayError) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
