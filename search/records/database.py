"""Studies in a database, SQLite or PostgreSQL. Whatever goes wrong there is one kind of error; reading only reads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import weakref
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from search.errors import DatabaseError
from search.records.address import Reference, sqlite_file

_WAIT_S = 30  # for another process that has a file of SQLite locked
_CONNECT_TIMEOUT_S = 10
_GONE_AFTER_S = 30  # a server that does not answer
_MAX_VALUE_BYTES = 2**24
_MAX_REASON = 400  # characters
_SQLITE_HEADER = b"SQLite format 3\0"
_OFFSET_OF_VERSIONS = 18  # of the file format, to write and to read: 1 each, or 2 with a write-ahead log
_NOT_PLAIN = "SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'"
_ATTEMPTS = 3


class Access(StrEnum):
    """What is to be done with a database; as SQLite calls it."""

    READ = "ro"
    WRITE = "rw"
    CREATE = "rwc"
    """Write, and make the tables, and a file of SQLite, if they are not there."""


def open_database(address: str, access: Access) -> RDBStorage:
    """The database, to be used from one thread. Only ``Access.CREATE`` makes anything in it.

    Raises:
        DatabaseError: it cannot be reached or is none of Optuna's; from then on whatever goes wrong with it is one,
            but for a study or trial that is not there (KeyError).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = sqlite_file(address)
    if path is not None:
        _check_kind(path, address)
        if access == Access.READ:
            _check_file(path, address)
    options = _of_server(access) if path is None else _of_file(path, access)
    url = "sqlite://" if path is not None else address.replace("postgresql:", "postgresql+psycopg:", 1)
    with _explained(address):
        storage = _open(url, engine_kwargs=options, skip_table_creation=access != Access.CREATE)
    event.listen(storage.engine, "handle_error", partial(_explain, address))
    return storage


def hold_study(storage: RDBStorage, name: str) -> None:
    """Keeps other processes, on whichever machine, from holding the study while ``storage`` lives. A file of SQLite is
    on one machine, where the experiment's lock does that.

    Raises:
        DatabaseError: another process holds it.
    """
    if storage.engine.dialect.name == "postgresql":
        key = (str(storage.engine.url), name)
        hold = _holds.get(key) or _Hold(storage, name)
        _holds[key] = hold
        weakref.finalize(storage, hold.keep)


class _Hold:
    """A lock that PostgreSQL frees when its connection ends."""

    def __init__(self, storage: RDBStorage, name: str) -> None:
        connection = storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()  # or it would go back to the pool, lock and all
        weakref.finalize(self, connection.close)
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
            raise DatabaseError(f"study {name} is being run by another process, maybe on another machine; wait for it")

    def keep(self) -> None:
        """Does nothing; who would call it keeps the lock."""


_holds: weakref.WeakValueDictionary[tuple[str, str], _Hold] = weakref.WeakValueDictionary()


def delete_study(reference: Reference) -> None:
    """Deletes a study from its database, with all its trials; one that is gone already, or its file, is as good.

    Raises:
        DatabaseError: the database cannot be reached or written to, or a process runs the study.
    """
    path = sqlite_file(reference.storage)
    if path is not None and not path.exists():
        return
    storage = open_database(reference.storage, Access.WRITE)
    hold_study(storage, reference.study)
    with contextlib.suppress(KeyError):
        optuna.delete_study(study_name=reference.study, storage=storage)


class _Closing(RDBStorage):
    """Leaves no connection open, whether it could be made or not."""

    def __init__(self, url: str, **options: Any) -> None:
        try:
            super().__init__(url, **options)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise
        weakref.finalize(self, self.engine.dispose)


def _open(url: str, **options: Any) -> RDBStorage:
    """Tries again if another process makes the same tables at the same moment."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(IntegrityError, ProgrammingError):
            return _Closing(url, **options)
    return _Closing(url, **options)


def _of_server(access: Access) -> dict[str, Any]:
    return {
        "pool_pre_ping": True,
        "execution_options": {"postgresql_readonly": True} if access == Access.READ else {},
        "connect_args": {
            "application_name": "fmnist-search",
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "keepalives_idle": _GONE_AFTER_S // 3,
            "keepalives_interval": _GONE_AFTER_S // 3,
            "keepalives_count": 2,
            "tcp_user_timeout": 1000 * _GONE_AFTER_S,
        },
    }


def _of_file(path: Path, access: Access) -> dict[str, Any]:
    """A connection for each transaction: one that stays open would go on with a file that was deleted."""
    return {"creator": partial(_connect, path, access), "poolclass": NullPool}


def _connect(path: Path, access: Access) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={access}"
    connection = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _check_kind(path: Path, address: str) -> None:
    """That it is a file, or a new one in a folder that exists: opening a pipe would wait."""
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        if not path.parent.is_dir():
            raise DatabaseError(f"{address} cannot be used: there is no folder {path.parent}; make it first") from error
        return
    if not is_file:
        raise DatabaseError(f"{address} is not a plain file")


def _check_file(path: Path, address: str) -> None:
    """That it is what a search makes: a stranger may name any file, or craft one that takes for ever to read."""
    try:
        with path.open("rb") as file:
            header = file.read(_OFFSET_OF_VERSIONS + 2)
    except OSError as error:
        raise DatabaseError(f"{address} cannot be read: {error.strerror}") from error
    if not header.startswith(_SQLITE_HEADER):
        raise DatabaseError(f"{address} is no database of SQLite")
    if header[_OFFSET_OF_VERSIONS:] != b"\1\1":
        raise DatabaseError(f"{address} has a write-ahead log; valid: journal_mode=delete")
    with _explained(address), contextlib.closing(_connect(path, Access.READ)) as connection:
        strange = connection.execute(_NOT_PLAIN).fetchone()
    if strange is not None:
        raise DatabaseError(f"{address} holds something else than Optuna's tables: {strange[0]!r}")


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DatabaseError(
            f"{address} needs a driver that is not installed ({error}); pip install 'fmnist-search[postgres]'"
        ) from error
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error, RuntimeError) as error:
        raise _failure(address, error) from error


def _explain(address: str, context: ExceptionContext) -> None:
    """As soon as something goes wrong: Optuna itself would try to add a trial again and again, which after a commit
    that may or may not have been carried out can add it twice."""
    error = context.sqlalchemy_exception
    if error is not None and not isinstance(error, IntegrityError) and not context.is_pre_ping:
        raise _failure(address, error) from error


def _failure(address: str, error: BaseException) -> DatabaseError:
    if isinstance(error, StorageInternalError):
        error = error.__cause__ or error
    error = getattr(error, "orig", None) or error  # what the driver said
    reason = " ".join(str(error).split())[:_MAX_REASON]
    if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
        reason = "a process was killed while it wrote there; continuing its search puts that right"
    elif "version_info" in reason and ("no such table" in reason or "does not exist" in reason):
        reason = "it holds none of Optuna's tables"
    elif "password" in reason:
        reason += "; give it in $PGPASSWORD or ~/.pgpass"
    return DatabaseError(f"the database {address} cannot be used: {reason}")
