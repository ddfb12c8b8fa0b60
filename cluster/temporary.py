"""Temporary folders for Ray's files: private to this user, and removed only if they carry this program's mark."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cluster.processes import find_open_files

_ROOT = Path("/tmp")  # not $TMPDIR: the paths of sockets in a folder may have some 100 bytes
_MARK_FILE = "in-use"
_SESSION = "fmnist-search session\n"


def make_folder(prefix: str, *, mark: str) -> Path:
    """Makes a folder that this user alone can enter, with a file that holds ``mark``.

    Ray makes its own folder open to all users (mode 0777): give Ray a folder one level below.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_ROOT))
    with _create(folder / _MARK_FILE) as file:
        file.write(mark)
    return folder


def remove_folder(folder: Path, *, mark: str) -> None:
    """Removes what ``make_folder`` made; leaves a folder without this mark, or of another user, as it is."""
    with contextlib.suppress(OSError), _open_mark(folder) as file:
        if file.read() == mark:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def session_folder(prefix: str) -> Iterator[Path]:
    """Makes such a folder for the time of the block.

    Removes the folders of this prefix that killed sessions left behind.
    """
    for folder in _ROOT.glob(f"{prefix}*"):
        _remove_if_left(folder)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_ROOT))
    try:
        with _create(folder / _MARK_FILE) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the system frees it when this process ends, however it ends
            file.write(_SESSION)  # after the lock: without the lock, a marked folder belongs to no living session
            file.flush()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_own(path: str | Path, flags: int, *, dir_fd: int | None = None) -> int:
    """Opens a regular file of this user in a folder where other users may have put anything.

    Follows no link and waits for no pipe. A file that ``flags`` create has mode 0600.

    Raises:
        OSError: the file cannot be opened, is not regular, is another user's, or has a second name.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink != 1:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "not a regular file of this user with one name", str(path))
    return descriptor


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError), _open_mark(folder) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A killed Ray's last processes live on for a while, and would make the folder again to write their logs.
        if file.read() == _SESSION and find_open_files(folder) <= {_MARK_FILE}:
            shutil.rmtree(folder, ignore_errors=True)


def _create(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")


@contextlib.contextmanager
def _open_mark(folder: Path) -> Iterator[TextIO]:
    """
    Raises:
        OSError: the folder is no folder, is open to other users, or has no mark.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "not a private folder of this user", str(folder))
        mark = open_own(_MARK_FILE, os.O_RDONLY, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    with os.fdopen(mark, encoding="utf-8", errors="replace") as file:
        yield file
