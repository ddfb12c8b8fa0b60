"""The journal's file: Optuna reads and writes it line by line, and this keeps its lines whole."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from search.errors import ExperimentError

_MAX_LINE_BYTES = 2**24
_FIRST_LINE = b'{"op_code":'


class JournalFile(JournalFileBackend):
    """Optuna's journal as one process writes it: never made anew once it has vanished, never left with half a line.

    Within ``one_append`` lines are kept for its end, and read as if they were in the file.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal
        self._opened = _identity(os.stat(journal))
        self._writing = JournalFileSymlinkLock(str(journal))
        self._kept: list[bytes] = []
        self._keeps = False
        super().__init__(str(journal), lock_obj=self._writing)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The lines from a number on.

        Raises:
            FileNotFoundError: the file is gone, or another one stands in its place.
        """
        self._check(os.stat(self._path))
        if log_number_from <= self._num_read or not self._kept:
            yield from super().read_logs(log_number_from)
        for line in self._kept[max(0, log_number_from - self._num_read) :]:
            yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends whole lines and syncs them to disk, or leaves the file as it was.

        Raises:
            FileNotFoundError: the file is gone, or another one stands in its place.
            OSError: it cannot be written; the disk is full, say.
        """
        lines = [f"{json.dumps(log, separators=(',', ':'))}\n".encode() for log in logs]
        if self._keeps:
            self._kept += lines
            return
        with self._locked():
            self._write(lines)

    @contextlib.contextmanager
    def one_append(self) -> Iterator[None]:
        """Appends all lines of the block at its end, in their order and with one sync, also if it is left by an error.

        A crash leaves some of them, from the first one on, as it would if each were appended by itself.

        Raises:
            OSError: as ``append_logs``; the file has none of them until something more can be written, and never any if
                another process writes before.
        """
        with self._locked():
            self._keeps = True
            try:
                yield
            finally:
                self._keeps = False
                if self._kept:
                    self._write([])

    @property
    def _num_read(self) -> int:
        """Lines of the file that Optuna knows the places of."""
        return len(self._log_number_offset) - 1

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._writing.acquire()
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # the lock went with its folder, as who writes next will find
                self._writing.release()

    def _write(self, lines: list[bytes]) -> None:
        """Those that were kept, and then these."""
        kept, self._kept = self._kept, []  # whatever ends this, none is written twice
        known_end = self._log_number_offset.get(self._num_read)
        try:
            with open(self._path, "r+b", buffering=0) as file:  # unlike "a", makes no file
                found = os.fstat(file.fileno())
                self._check(found)
                if kept and found.st_size != known_end:
                    raise OSError(errno.EBUSY, "another process has written to it since an append failed", self._path)
                _append(file, b"".join([*kept, *lines]))
        except OSError:
            self._kept = kept
            raise
        for line in kept:  # lines that it did not read Optuna would look for from the first one on
            self._log_number_offset[self._num_read + 1] = self._log_number_offset[self._num_read] + len(line)

    def _check(self, found: os.stat_result) -> None:
        if _identity(found) != self._opened:
            raise FileNotFoundError(errno.ENOENT, "another file has taken its place", str(self._path))


@contextlib.contextmanager
def one_append(storage: BaseStorage) -> Iterator[None]:
    """What is written to a journal within the block goes there as one piece; to a database, as ever."""
    journal = storage._backend if isinstance(storage, JournalStorage) else None
    with journal.one_append() if isinstance(journal, JournalFile) else contextlib.nullcontext():
        yield


def check_lines(journal: Path) -> None:
    """Looks for a line without end, as a sparse file is one: Optuna would read it into memory.

    Raises:
        ExperimentError: there is one.
        OSError: the journal cannot be read.
    """
    with journal.open("rb") as file:
        while chunk := file.read(_MAX_LINE_BYTES):
            if len(chunk) == _MAX_LINE_BYTES and b"\n" not in chunk:
                raise ExperimentError(f"{journal} is no journal: it has a line of more than {len(chunk):,} bytes")


def cut_torn_line(journal: Path) -> None:
    """Cuts off a last line without an end: what is appended to it would be lost with it.

    Raises:
        ExperimentError: the file is not a journal's beginning, and nothing to be cut.
        OSError: the journal cannot be written.
    """
    with journal.open("r+b") as file:
        length = file.seek(0, os.SEEK_END)
        start = max(0, length - _MAX_LINE_BYTES)
        file.seek(start)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if not whole and (start or not _FIRST_LINE.startswith(content[: len(_FIRST_LINE)])):
            raise ExperimentError(f"{journal} is no journal: it does not have a single line")
        if start + whole < length:
            file.truncate(start + whole)


def remove_lock(journal: Path) -> None:
    """Removes the lock that Optuna puts beside a journal while it writes, and for which it would wait half a minute."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)


def _append(file: io.FileIO, content: bytes) -> None:
    length = file.seek(0, os.SEEK_END)
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except BaseException as error:
        file.truncate(length)  # or the next line would continue half of this one
        if isinstance(error, OSError):  # that of a write names no file
            raise OSError(error.errno, error.strerror, str(file.name)) from error
        raise


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
