"""One run of a contestant: a program of its own that does a job, watched from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from benchmarks.peers.job import Job

_ROOT = Path(__file__).resolve().parents[1]
_POLL_S = 0.2
_SAMPLE_S = 1.0
_SHARE = 0.01  # of one core's time, which adding up memory may take from what is measured
_END_S = 60.0
_TAIL = 3_000  # characters


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """``seconds``: from the program's start to its end, or until the target was reached. ``best``: (seconds, validation
    accuracy) each time when a better one was reported, without a target the last one. ``peak_memory_bytes``: the
    largest sum of the proportional shares of memory of all its processes, sampled each second, or each hundred times as
    long as that takes. ``mean_accuracy``: of the trials' last epochs. ``began``
    and ``load_average``: when it began, and how busy the machine had been before."""

    seconds: float
    num_epochs: int
    best: list[tuple[float, float]]
    mean_accuracy: float
    peak_memory_bytes: int
    began: str
    load_average: tuple[float, ...]

    def seconds_to(self, target: float) -> float | None:
        return next((seconds for seconds, accuracy in self.best if accuracy >= target), None)


def run(module: str, job: Job, *, python: Path | None = None, target: float | None = None) -> MeasuredRun:
    """Runs ``python -m module JOB`` to its end, or until a validation accuracy of at least ``target`` is reported. No
    process of it is left.

    Raises:
        RuntimeError: it failed, or reported fewer trials than it was given; with the end of what it printed.
    """
    command = [str(python or sys.executable), "-m", module, str(job.write())]
    output, best = Path(job.folder, "output.txt"), list[tuple[float, float]]()
    began, load = time.strftime("%Y-%m-%dT%H:%M:%S%z"), os.getloadavg()
    with _exiting_when_terminated(), output.open("wb") as file:
        start_s = time.perf_counter()
        tree = _Tree(_start(command, job, file))
        try:
            reached, seconds = False, 0.0
            while not reached and tree.is_running():
                time.sleep(_POLL_S)
                tree.sample()
                seconds = time.perf_counter() - start_s
                if target is not None:
                    _note(best, job, at_s=seconds)
                    reached = bool(best) and best[-1][1] >= target
            if not reached:
                seconds = time.perf_counter() - start_s
        finally:
            tree.end()
    if not reached:
        _note(best, job, at_s=seconds)
    reports = job.reports()
    failed = not reached and (tree.status != 0 or len({r["number"] for r in reports}) < len(job.configurations))
    if failed:
        text = output.read_text("utf-8", "replace")[-_TAIL:]
        raise RuntimeError(f"{' '.join(command)} ended with status {tree.status} after {len(reports)} epochs:\n{text}")
    return MeasuredRun(
        seconds=seconds,
        num_epochs=len(reports),
        best=best,
        mean_accuracy=mean_last_accuracy(reports),
        peak_memory_bytes=tree.peak_bytes,
        began=began,
        load_average=tuple(round(each, 1) for each in load),
    )


def mean_last_accuracy(reports: Sequence[Mapping[str, Any]]) -> float:
    """The mean of the validation accuracies of all trials' last epochs."""
    ordered = sorted(reports, key=lambda report: report["epoch"])
    return statistics.fmean({report["number"]: report["val_accuracy"] for report in ordered}.values())


@contextlib.contextmanager
def _exiting_when_terminated() -> Iterator[None]:
    """So that the program that is measured ends with this one."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _note(best: list[tuple[float, float]], job: Job, *, at_s: float) -> None:
    newest = max((report["val_accuracy"] for report in job.reports()), default=None)
    if newest is not None and (not best or newest > best[-1][1]):
        best.append((at_s, newest))


def _start(command: list[str], job: Job, output: BinaryIO) -> subprocess.Popen[bytes]:
    """In a session of its own, where Ctrl-C ends it: a program that a shell started in the background ignores that.
    What a person has set for the project's own commands, or for the number of threads, is no contestant's."""
    kept = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS" and not k.startswith("FMNIST_")}
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=output,
        cwd=job.folder,
        env=kept | {"PYTHONPATH": str(_ROOT)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


class _Tree:
    """A program with all processes that it started."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program
        self._seen: set[psutil.Process] = {psutil.Process(program.pid)}
        self._next_sample_s = 0.0
        self.peak_bytes = 0

    @property
    def status(self) -> int | None:
        return self._program.returncode

    def is_running(self) -> bool:
        return self._program.poll() is None

    def sample(self) -> None:
        """Adds up their memory, if it is time to."""
        if time.perf_counter() < self._next_sample_s:
            return
        start_s = time.thread_time()
        self._look()
        total = 0
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        self.peak_bytes = max(self.peak_bytes, total)
        taken_s = time.thread_time() - start_s
        self._next_sample_s = time.perf_counter() + max(_SAMPLE_S, taken_s / _SHARE)

    def end(self) -> None:
        """Interrupts the program if it still runs, waits for it and for all that it started, and kills what is left."""
        self._look()
        if self.is_running():
            self._program.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._program.wait(_END_S)
        if self.is_running():
            self._program.kill()
        self._program.wait()
        _, left = psutil.wait_procs(self._seen, timeout=5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)

    def _look(self) -> None:
        for process in list(self._seen):
            with contextlib.suppress(psutil.Error):
                self._seen.update(process.children(recursive=True))
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.getsid(process.pid) == self._program.pid:  # its parent may be gone
                    self._seen.add(process)
        self._seen = {process for process in self._seen if process.is_running()}
