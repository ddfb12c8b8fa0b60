"""What a trial tells the driver, in results of Ray Tune: an epoch, or why there are no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fmnist_models.epoch import Epoch
from fmnist_models.errors import DeviceError
from search.records.record import Failure, Reason

# What Python, torch and CUDA say when there is no more memory.
_OUT_OF_MEMORY = ("MemoryError", "DefaultCPUAllocator: ", "CUDA error: out of memory", "CUDA out of memory")
# How a traceback names what a worker raises that holds a GPU and cannot use it.
_DEVICE_ERROR = f"{DeviceError.__module__}.{DeviceError.__qualname__}: "
_DEVICE = "device"
_REASON = "failure_reason"
_MESSAGE = "failure_message"
_STORAGE = "storage_failure"
_PROCESSOR_S = "processor_s"
_BEGUN = "has_begun"


def parse_epoch(result: Mapping[str, Any]) -> Epoch:
    """The epoch that a Tune result carries."""
    return Epoch(**{field.name: result[field.name] for field in dataclasses.fields(Epoch)})


def add_processor_s(message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The message with processor seconds that the trial is charged, besides those that it carries already."""
    return {**message, _PROCESSOR_S: message.get(_PROCESSOR_S, 0.0) + seconds}


def parse_processor_s(result: Mapping[str, Any]) -> float:
    """Processor seconds that the trial is charged since its last Tune result."""
    return float(result.get(_PROCESSOR_S, 0.0))


def parse_failure(result: Mapping[str, Any]) -> Failure | None:
    """The failure that a Tune result carries, if it does."""
    return Failure(Reason(result[_REASON]), result[_MESSAGE]) if _REASON in result else None


def parse_device(result: Mapping[str, Any]) -> str | None:
    """The name of the device that the trial trains on, if a Tune result carries it."""
    return result.get(_DEVICE)


def parse_storage_failure(result: Mapping[str, Any]) -> str | None:
    """What kept the trial from saving, if a Tune result says so."""
    return result.get(_STORAGE)


def tells_of_begin(result: Mapping[str, Any]) -> bool:
    """Whether a Tune result says no more than that the trial's workers are at work."""
    return _BEGUN in result


def explain_traceback(text: str) -> Failure:
    """What a traceback says was raised, the first line of it, and whether memory ran out or a GPU cannot be used."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    frames = [position for position, line in enumerate(lines) if line.startswith("  ")]
    raised = next(iter(lines[max(frames, default=-1) + 1 :]), lines[-1] if lines else "an error without a message")
    if raised.startswith(_DEVICE_ERROR):
        return Failure(Reason.INFRASTRUCTURE, raised.removeprefix(_DEVICE_ERROR)[:500])
    reason = Reason.MEMORY if any(sign in raised for sign in _OUT_OF_MEMORY) else Reason.CODE
    return Failure(reason, raised[:500])


def failure_message(failure: Failure) -> dict[str, str]:
    """The result that says so."""
    return {_REASON: failure.reason.value, _MESSAGE: failure.message}


def with_device(message: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The result that also carries the name of the device that the trial trains on."""
    return {**message, _DEVICE: device}


def storage_message(problem: str) -> dict[str, str]:
    """The result that says what kept the trial from saving."""
    return {_STORAGE: problem}


def begin_message() -> dict[str, bool]:
    """The result that says that the trial's workers are at work."""
    return {_BEGUN: True}
