"""The machine that a result was made on."""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch

from fmnist_models.devices import device_name, processor_name
from fmnist_models.precision import resolve_precision


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What trains and in which arithmetic, processor, cores, threads of torch, memory in GiB."""
    return {
        "device": device_name(device),
        "precision": resolve_precision("auto", device),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
