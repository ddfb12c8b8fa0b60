"""Files and folders that a person names for a command to write."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import TextIO

from fmnist_models.errors import OutputError
from fmnist_models.files import write_aside

STANDARD_OUTPUT = Path("-")


def write_output(path: Path, content: str | bytes) -> None:
    """Write ``content`` to the path that a person named.

    A regular file, or a new one, is written beside itself and renamed: it is whole or as before, and keeps its mode and
    owner. A link is followed. A pipe or a character device is written into. ``-`` is standard output. Text becomes
    UTF-8.

    Raises:
        OutputError: the path cannot be written; says why.
        BrokenPipeError: the process reading from standard output has ended.
    """
    data = content.encode() if isinstance(content, str) else content
    stream = _own_stream(path)
    try:
        if stream is not None:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
        elif (target := replaced_file(path)) is not None:
            write_aside(target, data, like=target)
        else:
            with open(os.open(path, os.O_WRONLY | os.O_NOCTTY), "wb", buffering=0) as file:
                _write_all(file.fileno(), data)
    except BrokenPipeError:
        if stream is not None:
            raise
        raise OutputError(f"{path} cannot be written: the process reading from it has ended") from None
    except OSError as error:
        raise OutputError(f"{describe_output(path)} cannot be written: {error.strerror}") from error


def replaced_file(path: Path) -> Path | None:
    """The file that ``write_output`` would make or replace, after links; ``None`` if it would write into the path.

    Raises:
        OutputError: ``write_output`` would refuse the path.
    """
    if _own_stream(path) is not None:
        return None
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        target = Path(os.path.realpath(path))
        _check_parent(path, target)
        return target
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a null character
        raise OutputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode):
        return None
    if stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{path} cannot be written: it is a folder; valid: a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{path} cannot be written; valid: a file, a pipe, a character device or - (standard output)")
    return Path(os.path.realpath(path))


def output_folder(path: Path) -> Path:
    """The folder to write to, after links: one that exists, or a new one in a folder that exists.

    Raises:
        OutputError: the path is something else, or the folder above it is missing.
    """
    target = Path(os.path.realpath(path))
    if path == STANDARD_OUTPUT:
        raise OutputError("- is standard output, but a folder is to be written; valid: a folder, or ./- of that name")
    if not target.is_dir():
        if os.path.lexists(target):
            raise OutputError(f"{path} cannot be written: it is not a folder")
        _check_parent(path, target)
    return target


def describe_output(path: Path) -> str:
    """The path as a message names it."""
    return "standard output" if path == STANDARD_OUTPUT else str(path)


def _check_parent(path: Path, target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {target.parent}; make it first")


def _own_stream(path: Path) -> TextIO | None:
    """Standard output or error if the path leads there, as ``/dev/stdout`` does: another process may have the same file
    open, which replacing would leave it with.

    Raises:
        OutputError: standard output is meant, but closed.
    """
    if path == STANDARD_OUTPUT:
        if sys.stdout is None:
            raise OutputError("standard output cannot be written: it is closed; valid: a file, or ./- of that name")
        return sys.stdout
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return stream
    return None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
