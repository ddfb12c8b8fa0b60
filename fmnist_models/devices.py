"""The device of a training: check that torch can use its GPU, and give its name."""

from __future__ import annotations

import os
import platform
import warnings
from pathlib import Path

import torch

from fmnist_models.errors import DeviceError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def count_gpus() -> int:
    """How many CUDA devices torch can use in this process, without using one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.device_count() if torch.cuda.is_available() else 0  # a driver too old for torch counts them


def find_cuda_problem() -> str | None:
    """Why torch cannot use a CUDA device in this process, in one line; ``None`` if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it raises afterwards
            torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # a build without CUDA, no driver, no device, or a device that does not answer
        said = " ".join(str(error).split())[:300] or type(error).__name__
        visible = os.environ.get(_VISIBLE)
        return f"{said} ({_VISIBLE} is {'not set' if visible is None else repr(visible)})"
    return None


def check_cuda() -> None:
    """Makes sure that torch can use a CUDA device in this process, which holds a GPU of the cluster.

    Raises:
        DeviceError: it cannot; says on which node, and what torch says.
    """
    problem = find_cuda_problem()
    if problem is not None:
        raise DeviceError(describe_cuda_problem(problem))


def describe_cuda_problem(problem: str) -> str:
    """The message for a process on this node that holds a GPU of the cluster, which torch cannot use."""
    return f"a worker on {platform.node()} holds a GPU, but torch sees no CUDA device there: {problem}"


def device_name(device: torch.device) -> str:
    """``cpu``, or what the GPU's driver calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def processor_name() -> str:
    """The model of this machine's CPU, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
