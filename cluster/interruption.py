"""Ctrl-C and SIGTERM: the first asks a program to end in order, the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interruption:
    """``signal``: the number of the signal that came, 0 if none has."""

    signal: int = 0

    @property
    def exit_code(self) -> int:
        """What a program ends with that a signal ended: 130 of SIGINT, 143 of SIGTERM."""
        return 128 + self.signal


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within the block, which is to be the main thread's, the first SIGINT or SIGTERM raises ``KeyboardInterrupt``.

    The second ends the process at once; a Ray that it started dies with it.
    """
    interruption = Interruption()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if interruption.signal:
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")  # a live display hides the cursor
            os._exit(128 + number)
        interruption.signal = number
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
