"""What a person can put right ends a command with a message and an exit code of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer

from cluster.errors import ClusterError, ClusterGoneError
from fmnist_models.errors import UserError, printable

_WRONG, _CLUSTER_GONE = 2, 3


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Tells an error of the block as it leaves it.

    Raises:
        SystemExit: in the error's place.
    """
    try:
        yield
    except (UserError, ClusterError) as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        raise SystemExit(_CLUSTER_GONE if isinstance(error, ClusterGoneError) else _WRONG) from error
    except OSError as error:  # a disk that is full or read-only, a folder where a file should be
        if error.filename is None:
            raise
        typer.echo(f"error: {printable(f'{error.filename}: {error.strerror}')}", err=True)
        raise SystemExit(_WRONG) from error
