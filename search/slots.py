"""Slots: the resources that one trial holds, and how many of them a cluster has."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from search.config import SearchConfig
from search.errors import ConfigError

# A trial of several workers is itself only a caller. Ray refuses a trial that holds nothing, and CPUs held by it
# would be missing to its own workers, so it holds one byte of memory.
_CALLER = {"CPU": 0.0, "memory": 1.0}


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs that are there."""

    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What one trial holds: ``cpus`` and ``gpus`` over all its workers."""

    num_workers: int
    cpus: float
    gpus: float

    @property
    def threads_per_worker(self) -> int:
        """torch threads: at least one, else never more than CPUs held."""
        return max(1, int(self.cpus / self.num_workers))

    @property
    def worker_resources(self) -> dict[str, float]:
        """What each Ray Train worker asks for."""
        # Rounded down to what Ray counts in, or the shares could add up to more than the CPUs there are.
        share = {"CPU": math.floor(self.cpus / self.num_workers * 1e4 + 1e-6) / 1e4}
        return share | ({"GPU": self.gpus / self.num_workers} if self.gpus else {})

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Ray Tune reserves for the trial itself; its worker group, if any, reserves its own."""
        if self.num_workers > 1:
            return _CALLER
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


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


def plan_slots(config: SearchConfig, resources: Resources) -> Slots:
    """As many slots as fit, at most ``config.max_concurrent_trials``.

    Raises:
        ConfigError: not even one fits; says what was asked and what is there.
    """
    slot = Slot(num_workers=config.workers_per_trial, cpus=config.cpus, gpus=config.gpus_per_trial)
    fit = resources.cpus / slot.cpus
    if slot.gpus:
        fit = min(fit, _fit_gpus(slot, resources.gpus))
    count = int(fit + 1e-9)
    if count < 1:
        key = "cpus_per_trial" if slot.cpus > resources.cpus else "gpus_per_trial"
        if key == "cpus_per_trial" and config.cpus_per_trial is None:
            key = "workers_per_trial"
        raise ConfigError(
            f"{key}: a trial asks for {slot.cpus:g} CPUs and {slot.gpus:g} GPUs, but there are {resources}; "
            f"valid: up to {resources.cpus:g} CPUs and {resources.gpus:g} GPUs a trial"
        )
    return Slots(slot, min(count, config.max_concurrent_trials or count))


def _fit_gpus(slot: Slot, num_gpus: int) -> float:
    """How many slots the GPUs hold; a fraction lies on one GPU."""
    return num_gpus / slot.gpus if slot.gpus >= 1 else num_gpus * int(1 / slot.gpus + 1e-9)


def local_resources() -> Resources:
    """CPUs and GPUs of this machine that this process may use."""
    import torch

    return Resources(_count_cpus(), torch.cuda.device_count())


def _count_cpus() -> int:
    """CPUs that this process may use: fewer than the machine's under an affinity or in a container with a quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
