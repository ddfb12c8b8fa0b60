"""A real PostgreSQL server for tests, of Debian's packages: a folder, a port and a password of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

USER, DATABASE = "searcher", "postgres"
_SYSTEM_USER = "postgres"  # of Debian's packages; the server refuses to be root's
_START_S = 30
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # a server that is killed loses nothing by that, only a machine
    "shared_buffers": "16MB",
    "autovacuum": "off",
}


class PostgreSQL:
    """The server; stopped by its process number, and gone with this process at the latest."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.password = secrets.token_hex(8)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"
        self._binaries = binaries
        self._data, self._log = folder / "data", folder / "log"
        self._owner: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._owner = {"user": _SYSTEM_USER, "group": _SYSTEM_USER, "extra_groups": []}
            shutil.chown(folder, _SYSTEM_USER, _SYSTEM_USER)
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "password").write_text(self.password)
        command = [self._binaries / "initdb", "-D", self._data, "-U", USER, "--pwfile", folder / "password"]
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, **self._owner)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Does nothing if it is at work."""
        if self._process is not None:
            return
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        server: list[Any] = [self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *settings]
        server = ["setpriv", "--pdeathsig", "QUIT", *server]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(server, cwd=self._data.parent, stderr=log, stdout=log, **self._owner)
        ready = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        end_s = time.monotonic() + _START_S
        while subprocess.run(ready).returncode:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end_s, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as if it were killed: connections break, and the next start recovers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_START_S)
            self._process = None

    def ask(self, sql: str, *, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """What the server answers to a statement."""
        import psycopg

        with psycopg.connect(f"{self.address.rpartition('/')[0]}/{database}", autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def _server() -> Iterator[PostgreSQL]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="fmnist-postgresql-") as name:
        server = PostgreSQL(found[-1], Path(name))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def postgresql(_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> PostgreSQL:
    """The server that all tests share, at work; its password is in the environment."""
    _server.start()
    monkeypatch.setenv("PGPASSWORD", _server.password)
    return _server


@pytest.fixture
def postgresql_address(postgresql: PostgreSQL) -> str:
    return postgresql.address


@pytest.fixture(scope="session")
def sqlite_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that all tests share, as making its tables takes half a second."""
    return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/studies.db"


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def study_storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Where studies are, each kind in turn: ``None`` for journals, else an address that the environment names too."""
    if request.param == "journal":
        return None
    is_file = request.param == "sqlite"
    address = str(request.getfixturevalue("sqlite_address" if is_file else "postgresql_address"))
    monkeypatch.setenv("FMNIST_STUDY_STORAGE", address)
    return address
