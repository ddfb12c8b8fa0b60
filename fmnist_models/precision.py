"""Which arithmetic a network is trained with on a device."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

ARITHMETICS = {
    "fp32": torch.contiguous_format,
    "fp32-channels-last": torch.channels_last,
    "bf16": torch.channels_last,
    "bf16-contiguous": torch.contiguous_format,
}
"""Each precision with the layout that is usually the fastest with it, and with the other one; a layout changes the
order in which numbers are added up, and so their last digits."""

PRECISIONS = ("auto", *ARITHMETICS)


def resolve_precision(precision: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` is ``bf16`` where the device has instructions for it (AMX, AVX512-BF16, a GPU)."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products run in ``precision``, one of ``ARITHMETICS``."""
    if precision.startswith("fp32"):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def memory_format(precision: str) -> torch.memory_format:
    """The layout of images and weights in ``precision``, one of ``ARITHMETICS``."""
    return ARITHMETICS[precision]
