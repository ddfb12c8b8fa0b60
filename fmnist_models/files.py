"""Files that are whole or not there, and reading those of strangers: never more than they may hold."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fmnist_models.errors import FileError

_MAX_JSON_BYTES = 2**24

Content = str | bytes | memoryview


def write_aside(path: Path, content: Content, *, like: Path | None = None) -> None:
    """Writes a whole file or none: to a temporary one beside it, synced to disk, which is then renamed.

    Makes the file's folder if it is not there, but not the folders above it: where they have vanished, a lone file
    would look like an experiment. Text is written as UTF-8. The mode and, where permitted, the owner are those of the
    file ``like``, if it exists.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with _written_aside(path, content, like=like) as temporary, _naming(path):
        os.replace(temporary, path)
    _sync_folder(path.parent)


def write_together(contents: Mapping[Path, Content]) -> None:
    """Writes several files of one result, the last of which readers look for first. That one is absent while the
    others are replaced, so that a reader never gets files of two results, wherever this process is killed.

    Raises:
        OSError: one of them cannot be written; where the disk is full, all that were there before still are.
    """
    last = list(contents)[-1]
    with contextlib.ExitStack() as stack:
        temporaries = {path: stack.enter_context(_written_aside(path, content)) for path, content in contents.items()}
        with _naming(last):
            last.unlink(missing_ok=True)
        _sync_folder(last.parent)
        for path, temporary in temporaries.items():
            with _naming(path):
                os.replace(temporary, path)
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


@contextlib.contextmanager
def _written_aside(path: Path, content: Content, *, like: Path | None = None) -> Iterator[Path]:
    """A temporary file beside ``path`` with this content, synced to disk; removed at the end if it is still there."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _naming(path):
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:  # "x" follows no link that a stranger put there
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                if like is not None:
                    _take_over(file.fileno(), like)
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Has an error name the file that a person knows; that of a write names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_bounded(path: Path, *, max_bytes: int) -> bytes:
    """The content of a plain file of at most ``max_bytes``.

    Raises:
        OSError: there is no such file, or it cannot be read.
        FileError: it is larger, or no plain file.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for someone to write to it
        raise FileError(f"{path} cannot be read: it is not a plain file")
    if found.st_size > max_bytes:
        raise FileError(f"{path} cannot be read: it has {found.st_size:,} bytes, more than {max_bytes:,}")
    with path.open("rb") as file:
        return file.read(found.st_size)


def read_json(path: Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: it cannot be read, is larger than 16 MiB or not JSON.
    """
    try:
        return json.loads(read_bounded(path, max_bytes=_MAX_JSON_BYTES))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON: {error}") from error


def _take_over(descriptor: int, like: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = like.stat()
        with contextlib.suppress(PermissionError):  # only root gives a file to another user
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))


def _sync_folder(folder: Path) -> None:
    """A renamed file is there after a power failure only if its folder was synced too."""
    with contextlib.suppress(OSError):  # not every network's file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
