"""Ctrl-C and SIGTERM always end a program, in order if possible, and with the right exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from cluster.interruption import Interruption, ended_by_signals, interruptible
from search.cli.exits import interruption_told

ROOT = Path(__file__).parent.parent
# A mutex locked twice is what a library looks like that hangs: no signal handler of Python runs meanwhile.
HANGS = """
import contextlib, ctypes, sys
from cluster import interruption
from cluster.interruption import Interruption, Patience, interruptible

interruption._SILENT_S = 0.2
limit_s = float(sys.argv[1])
say = lambda text: print(text, flush=True)
patience = Patience(what="a library", tell=say, last_words=lambda: "it hangs", limit_s=limit_s)
mutex = ctypes.create_string_buffer(256)

def hang():
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

with interruptible(Interruption(), patience=patience):
    with contextlib.suppress(KeyboardInterrupt):  # of a signal that comes before it hangs
        say("begins")
        hang()
    hang()
"""


# What Ray does while it starts: its own handler, which ends the program, takes SIGTERM.
TERMINATED_IN_RAY = """
import signal, sys
from cluster.interruption import Interruption, Patience, interruptible
from cluster.session import _keeping_signals

patience = Patience(what="Ray", tell=print, last_words=lambda: "it hangs", limit_s=1000.0)
interruption = Interruption()
try:
    with interruptible(interruption, patience=patience), _keeping_signals():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    print("interrupted by", interruption.signal)
"""


def start_hanging(limit_s: float, *, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(limit_s)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=stdout,
        text=True,
    )
    if process.stdout is not None:
        assert process.stdout.readline() == "begins\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_hangs_says_what_it_waits_for_and_ends_at_its_deadline(number: signal.Signals) -> None:
    process = start_hanging(1.0)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    first, last = said.splitlines()
    assert first == "waiting for a library, 1 s at most; a second Ctrl-C ends the program at once"
    assert last == "it hangs"


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")
    os.set_blocking(pipe, True)


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_a_program_that_hangs_ends_at_its_deadline_although_nobody_hears_it(reader: str) -> None:
    """Ctrl-C ends the reader of ``fmnist search run | tee log`` too; Ctrl-S stops a terminal."""
    reading, writing = os.pipe()
    process = start_hanging(1.0, stdout=writing)
    with open(reading, encoding="ascii") as told:
        assert told.readline() == "begins\n"
        if reader == "gone":
            told.close()
        else:
            fill(writing)
        os.close(writing)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()
            process.wait()


def test_the_second_signal_ends_a_program_that_hangs_at_once() -> None:
    process = start_hanging(1000.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def raise_in_library(number: signal.Signals, *, raised: type[BaseException], becomes: type[BaseException]) -> None:
    """What is ``raised`` for the signal leaves the library as something else."""
    try:
        signal.raise_signal(number)
    except raised:
        raise becomes from None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("becomes", [KeyboardInterrupt, ImportError, RuntimeError])
def test_what_libraries_make_of_an_interruption_is_still_one(
    number: signal.Signals, becomes: type[BaseException]
) -> None:
    """An extension module whose import is interrupted raises ``ImportError``."""
    told: list[str] = []
    with pytest.raises(typer.Exit) as ended, interruption_told(lambda: "interrupted", tell=told.append):
        raise_in_library(number, raised=KeyboardInterrupt, becomes=becomes)
    assert (ended.value.exit_code, told) == (128 + number, ["interrupted"])


def test_an_error_of_ones_own_is_no_interruption() -> None:
    told: list[str] = []
    with pytest.raises(ValueError, match="mine"), interruption_told(lambda: "interrupted", tell=told.append):
        raise ValueError("mine")
    assert told == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_and_after_a_commands_own_handling_ends_it_with_its_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    for becomes in (SystemExit, ImportError):
        with pytest.raises(SystemExit) as ended, ended_by_signals():
            raise_in_library(number, raised=SystemExit, becomes=becomes)
        assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before


def test_one_sigterm_while_ray_starts_counts_as_one() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TERMINATED_IN_RAY],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.stdout, ended.returncode) == (f"interrupted by {signal.SIGTERM.value}\n", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """A script ignores SIGINT for what it starts with ``&``, which its own Ctrl-C is not meant for."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with ended_by_signals():
            signal.raise_signal(number)
            with interruptible(interruption):
                signal.raise_signal(number)
            assert signal.getsignal(number) == signal.SIG_IGN
        assert interruption.signal == 0
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_tests_own_children_can_be_interrupted_also_from_the_background() -> None:
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
