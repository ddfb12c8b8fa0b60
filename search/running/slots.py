"""Slots: the resources that one trial holds, and how many of them a cluster has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.configuration.config import SearchConfig
from search.errors import ConfigError

# A trial of several workers is itself only a caller. Ray refuses a trial that holds nothing, and CPUs held by it
# would be missing to its own workers, so it holds one byte of memory.
_CALLER = {"CPU": 0.0, "memory": 1.0}
_ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class Resources:
    """What a node has: CPUs, GPUs, the types of its accelerators as Ray calls them, and its labels.

    ``gpu_problem``: why torch cannot use a GPU there; ``None`` if it can, or where that is not known.
    """

    cpus: int
    gpus: int
    accelerator_types: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    gpu_problem: str | None = None

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What one trial holds: ``cpus`` and ``gpus`` over all its workers, on nodes with that accelerator and labels."""

    num_workers: int
    cpus: float
    gpus: float
    accelerator_type: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def threads_per_worker(self) -> int:
        """torch threads: at least one, else never more than CPUs held."""
        return max(1, int(self.cpus / self.num_workers))

    @property
    def worker_resources(self) -> dict[str, float]:
        """What each Ray Train worker asks for."""
        # Rounded down to what Ray counts in, or the shares could add up to more than the CPUs there are.
        share = {"CPU": math.floor(self.cpus / self.num_workers * 1e4 + 1e-6) / 1e4}
        return share | ({"GPU": self.gpus / self.num_workers} if self.gpus else {}) | self._accelerator

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Ray Tune reserves for the trial itself; its worker group, if any, reserves its own."""
        if self.num_workers > 1:
            return _CALLER
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {}) | self._accelerator

    def count_workers(self, node: Resources) -> int:
        """How many workers fit on a node; a fraction of a GPU lies on one GPU."""
        if not self.node_labels.items() <= node.labels.items():
            return 0
        if self.accelerator_type is not None and self.accelerator_type not in node.accelerator_types:
            return 0
        fit = math.inf if not self.cpus else node.cpus * self.num_workers / self.cpus
        if self.gpus:
            share = self.gpus / self.num_workers
            fit = min(fit, node.gpus / share if share >= 1 else node.gpus * int(1 / share + 1e-9))
        return int(fit + 1e-9)

    @property
    def _accelerator(self) -> dict[str, float]:
        # A thousandth of the resource by which Ray marks such nodes is what it takes itself for `accelerator_type`.
        return {f"{_ACCELERATOR}{self.accelerator_type}": 0.001} if self.accelerator_type else {}

    def __str__(self) -> str:
        wishes = [f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"]
        wishes += [f"accelerator_type {self.accelerator_type}"] if self.accelerator_type else []
        wishes += [f"node label {key}={value}" for key, value in self.node_labels.items()]
        return ", ".join(wishes)


@dataclass(frozen=True)
class Slots:
    """``count`` slots side by side."""

    slot: Slot
    count: int

    def __str__(self) -> str:
        workers = f" in {self.slot.num_workers} workers" if self.slot.num_workers > 1 else ""
        gpus = f" and {self.slot.gpus:g} GPU" if self.slot.gpus else ""
        cpus = f"{self.slot.cpus:g} CPU{'s' if self.slot.cpus != 1 else ''}"
        return f"{self.count} trial{'s' if self.count != 1 else ''} at a time with {cpus}{gpus}{workers} each"


def plan_slots(config: SearchConfig, nodes: Sequence[Resources], *, may_grow: bool = False) -> Slots:
    """As many slots as fit on the nodes, at most ``config.max_cluster_share`` of them and
    ``config.max_concurrent_trials``.

    ``may_grow``: nodes may join later, so that ``config.max_concurrent_trials`` is taken at its word, unless only a
    share of the cluster is wanted and there is something to take a share of; trials then wait for them.

    Raises:
        ConfigError: not even one fits; says what was asked and what is there.
    """
    slot = Slot(
        num_workers=config.workers_per_trial,
        cpus=config.cpus,
        gpus=config.gpus_per_trial,
        accelerator_type=config.accelerator_type,
        node_labels=config.node_labels,
    )
    asked = config.max_concurrent_trials
    if may_grow and asked is not None and config.max_cluster_share == 1:
        return Slots(slot, asked)
    fit = sum(slot.count_workers(node) for node in nodes) // slot.num_workers
    if fit < 1 and may_grow and asked is not None:
        return Slots(slot, asked)
    if fit < 1:
        raise ConfigError(_explain_misfit(config, slot, nodes, may_grow=may_grow))
    count = max(1, int(fit * config.max_cluster_share + 1e-9))
    return Slots(slot, min(count, asked or count))


def _explain_misfit(config: SearchConfig, slot: Slot, nodes: Sequence[Resources], *, may_grow: bool) -> str:
    grow = "; for a cluster that grows by itself, max_concurrent_trials says how far" if may_grow else ""
    num_fitting = sum(slot.count_workers(node) for node in nodes)
    if num_fitting:
        return (
            f"workers_per_trial: a trial asks for {slot.num_workers} workers that have {slot} together, but there are "
            f"{' + '.join(map(str, nodes[:4]))}{' + …' * (len(nodes) > 4)}; valid: up to {num_fitting} workers like "
            f"these{grow}"
        )
    cpus, gpus = max((node.cpus for node in nodes), default=0), max((node.gpus for node in nodes), default=0)
    if slot.cpus > cpus * slot.num_workers:
        key = "workers_per_trial" if config.cpus_per_trial is None else "cpus_per_trial"
    elif slot.gpus > gpus * slot.num_workers:
        key = "gpus_per_trial"
    elif slot.accelerator_type or slot.node_labels:
        key = "accelerator_type" if slot.accelerator_type else "node_labels"
    else:
        key = "gpus_per_trial"
    there = f"there are {nodes[0]}" if len(nodes) == 1 else f"of {len(nodes)} nodes none has that together"
    if key == "gpus_per_trial" and len(nodes) == 1 and nodes[0].gpu_problem:
        there += f" that torch can use: {nodes[0].gpu_problem}"
    who, each = ("trial", "trial") if slot.num_workers == 1 else (f"trial of {slot.num_workers} workers", "worker")
    return f"{key}: a {who} asks for {slot}, but {there}; valid: up to {cpus:g} CPUs and {gpus:g} GPUs a {each}{grow}"


def cluster_resources() -> list[Resources]:
    """What each living node of the connected Ray cluster has."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [_parse_node(node) for node in nodes if node["Alive"]]


def _parse_node(node: Mapping[str, Any]) -> Resources:
    amounts = node["Resources"]
    types = tuple(name.removeprefix(_ACCELERATOR) for name in amounts if name.startswith(_ACCELERATOR))
    return Resources(int(amounts.get("CPU", 0)), int(amounts.get("GPU", 0)), types, node["Labels"])


def local_resources() -> Resources:
    """CPUs and GPUs of this machine that this process may use; GPUs that torch cannot use count for nothing."""
    from fmnist_models.devices import count_gpus, find_cuda_problem

    gpus = count_gpus()
    return Resources(_count_cpus(), gpus, gpu_problem=None if gpus else find_cuda_problem())


def _count_cpus() -> int:
    """CPUs that this process may use: fewer than the machine's under an affinity or in a container with a quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
