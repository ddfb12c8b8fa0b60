"""Ctrl-C and SIGTERM: the first asks a program to end in order, the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SILENT_S = 4.0  # after which a person wants to know why the program has not ended
_SAY_S = 1.0  # for the last words, before the process ends
_SHOW_CURSOR = b"\x1b[?25h"  # a live display hides it


@dataclass
class Interruption:
    """``signal``: the number of the signal that came, 0 if none has."""

    signal: int = 0

    @property
    def exit_code(self) -> int:
        """What a program ends with that a signal ended: 130 of SIGINT, 143 of SIGTERM."""
        return 128 + self.signal


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long an interrupted program may take to end in order. After some seconds ``tell`` is told that the program
    waits for ``what``; after ``limit_s`` seconds it is told the ``last_words``, and the process ends, also where
    ``tell`` fails or hangs."""

    what: str
    tell: Callable[[str], None]
    last_words: Callable[[], str]
    limit_s: float = 20.0


@contextlib.contextmanager
def interruptible(interruption: Interruption, *, patience: Patience | None = None) -> Iterator[None]:
    """Within the block, which is to be the main thread's, the first SIGINT or SIGTERM raises ``KeyboardInterrupt`` and
    is noted in ``interruption``.

    The second ends the process at once, as does the end of ``patience``, also where the main thread hangs inside a
    library; a Ray that the process started dies with it. A signal that the process ignores stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not interruption.signal:
            interruption.signal = number
            raise KeyboardInterrupt

    with _watched(patience):
        before = {number: signal.signal(number, interrupt) for number in _heeded_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _heeded_signals() -> list[signal.Signals]:
    """SIGINT and SIGTERM, except a signal that is ignored: a script ignores SIGINT for a process started with ``&``."""
    return [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


@contextlib.contextmanager
def _watched(patience: Patience | None) -> Iterator[None]:
    """A thread hears of each signal within the block, whatever the main thread does; it ends with the block."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(target=_watch, args=(reading, patience), name="interruption", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # Python writes a signal's number to it
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)


def _watch(reading: int, patience: Patience | None) -> None:
    number = _next_signal(reading, None)
    if not number:
        return
    start_s = time.monotonic()
    second = _next_signal(reading, None if patience is None else min(_SILENT_S, patience.limit_s))
    if second is None and patience is not None:
        waits = f"waiting for {patience.what}, {patience.limit_s:g} s at most; a second Ctrl-C ends the program at once"
        _say_aside(lambda: patience.tell(waits), wait_s=0.0)
        second = _next_signal(reading, max(0.0, start_s + patience.limit_s - time.monotonic()))
        if second is None:
            _say_aside(lambda: patience.tell(patience.last_words()), wait_s=_SAY_S)
    if second != 0:
        if os.isatty(1):
            _say_aside(lambda: os.write(1, _SHOW_CURSOR), wait_s=_SAY_S)
        os._exit(128 + (second or number))


def _say_aside(say: Callable[[], object], *, wait_s: float) -> None:
    """Says something in a thread of its own, which fails or hangs where a pipe is broken or full, or where the main
    thread hangs and holds the screen's lock; waits for it for ``wait_s`` seconds at most."""

    def run() -> None:
        with contextlib.suppress(BaseException):
            say()

    thread = threading.Thread(target=run, name="aside", daemon=True)
    with contextlib.suppress(RuntimeError):  # there may be no more threads
        thread.start()
        thread.join(wait_s)


def _next_signal(reading: int, timeout_s: float | None) -> int | None:
    """The number of the next signal that asks the program to end; 0 when no more can come, ``None`` if none came."""
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
        if not select.select([reading], [], [], left_s)[0]:
            return None
        number = next(iter(os.read(reading, 1)), 0)
        if not number or number in _SIGNALS:
            return number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """For a whole program: a SIGINT or SIGTERM within the block, but not within an ``interruptible`` one, ends it with
    the exit code 130 or 143. A signal that the process ignores stays ignored.

    Raises:
        SystemExit: in place of whatever else the signal led to, such as an import that failed for it.
    """
    interruption = Interruption()

    def end(number: int, frame: FrameType | None) -> None:
        interruption.signal = number
        raise SystemExit(interruption.exit_code)

    before = {number: signal.signal(number, end) for number in _heeded_signals()}
    try:
        yield
    except BaseException as error:
        if interruption.signal:
            raise SystemExit(interruption.exit_code) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
