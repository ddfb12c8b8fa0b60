"""What a trial says of itself when it fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
import torch
from torch import nn

from search.records.record import Reason
from search.running.trial_message import explain_traceback


def no_memory_of_python() -> None:
    raise MemoryError("no more of it")


def no_memory_of_torch() -> None:
    torch.empty(10**15)


def error_of_many_lines() -> None:
    nn.Linear(1, 2).load_state_dict(nn.Linear(3, 4).state_dict())


@pytest.mark.parametrize(
    ("fail", "reason", "message"),
    [
        (no_memory_of_python, Reason.MEMORY, "MemoryError: no more of it"),
        (no_memory_of_torch, Reason.MEMORY, "RuntimeError: [enforce fail at alloc_cpu"),
        (error_of_many_lines, Reason.CODE, "RuntimeError: Error(s) in loading state_dict for Linear:"),
    ],
)
def test_a_traceback_is_told_by_its_first_line_and_memory_by_name(
    fail: Callable[[], None], reason: Reason, message: str
) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        fail()
    failure = explain_traceback("".join(traceback.format_exception(caught.value)))
    assert failure.reason == reason
    assert failure.message.startswith(message)
