"""What a person can put right ends a command with a message and an exit code of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator

import typer

from cluster.errors import ClusterError, ClusterGoneError
from cluster.interruption import Interruption, Patience, interruptible
from fmnist_models.errors import UserError, printable

RAY_ENDS = "trials and Ray to end"
"""What an interrupted command that trains waits for."""

_WRONG, _CLUSTER_GONE = 2, 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Tells an error of the block as it leaves it.

    Raises:
        SystemExit: in the error's place.
    """
    try:
        yield
    except (UserError, ClusterError) as error:
        _tell(str(error))
        raise SystemExit(_CLUSTER_GONE if isinstance(error, ClusterGoneError) else _WRONG) from error
    except OSError as error:  # a disk that is full or read-only, a folder where a file should be
        if error.filename is None and error.errno not in _NO_ROOM:
            raise
        _tell(f"{error.filename or 'standard output'}: {error.strerror}")
        raise SystemExit(_WRONG) from error


def _tell(message: str) -> None:
    """Python would write what standard output did not take once more at its end, and fail with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    typer.echo(f"error: {printable(message)}", err=True)


@contextlib.contextmanager
def interruption_told(
    describe: Callable[[], str], *, tell: Callable[[str], None], waits_for: str | None = None
) -> Iterator[None]:
    """Ends a command that SIGINT or SIGTERM interrupts within the block with what ``describe`` gives, and with exit
    code 130 or 143.

    ``waits_for``: what may take long to end; it gets some seconds, and then the process ends all the same.

    Raises:
        typer.Exit: in place of ``KeyboardInterrupt``, and of whatever else libraries have made of it.
    """
    interruption = Interruption()
    patience = None if waits_for is None else Patience(what=waits_for, tell=tell, last_words=describe)
    try:
        with interruptible(interruption, patience=patience):
            yield
    except BaseException:
        if not interruption.signal:
            raise
        tell(describe())
        raise typer.Exit(interruption.exit_code) from None
