"""Where a local cluster is noted down: the one place that knows these files."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.paths import expand_home
from cluster.temporary import open_own

CLUSTERS_DIR_VARIABLE = "FMNIST_CLUSTERS_DIR"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")
_MARK = re.compile(r"[0-9a-f]{16}/")
_TEMPORARY = re.compile(r"/tmp/fmnist-cluster-[^/]+")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is written down about a cluster before it is started.

    ``host``: the machine that it is on; others may see the same home folder. ``mark``: what its processes are known by.
    ``address``: of Ray's control service, ``host:port``. ``dashboard``: URL of its web server. ``temporary_folder``:
    holds all of Ray's files. ``num_nodes``: nodes it was started with, number 0 the head.
    """

    host: str
    mark: str
    address: str
    dashboard: str
    temporary_folder: str
    num_nodes: int

    def __post_init__(self) -> None:
        texts = (self.mark, self.address, self.dashboard, self.temporary_folder)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.num_nodes, int):
            raise TypeError("a value is not of its kind")
        if not _MARK.fullmatch(self.mark):  # what it is a beginning of is killed
            raise ValueError(f"no cluster's processes have the mark {self.mark!r}")
        if not _TEMPORARY.fullmatch(self.temporary_folder):  # is removed
            raise ValueError(f"no cluster's temporary folder is {self.temporary_folder!r}")


@dataclass(frozen=True)
class ClusterFolder:
    """The files of one cluster; may not exist yet."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def token(self) -> Path:
        return self.path / "token"

    @property
    def _record(self) -> Path:
        return self.path / "cluster.json"

    def create(self, record: Record, *, token: str) -> None:
        """Writes everything down, for this user's eyes only.

        Raises:
            ClusterError: the folder is there and others can write in it.
        """
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._check_owner()
        for path, text in ((self.token, token), (self._record, json.dumps(dataclasses.asdict(record)))):
            aside = path.with_name(f".{path.name}")
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            aside.replace(path)

    def read(self) -> Record | None:
        """What is written down; ``None`` if there is no such cluster.

        Raises:
            ClusterError: the file is damaged, or may be another user's.
        """
        if os.path.isdir(self.path):  # a folder above may be closed
            self._check_owner()
        try:
            return Record(**json.loads(self._record.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, TypeError, ValueError) as error:
            raise ClusterError(
                f"{self._record} is damaged ({error}); if no Ray of yours runs any more, remove {self.path}"
            ) from error

    def read_token(self) -> str:
        """
        Raises:
            ClusterError: the file is damaged, or gone.
        """
        try:
            return self.token.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ClusterError(f"the token of cluster {self.name} cannot be read: {error}") from error

    @property
    def is_own(self) -> bool:
        """Whether this user alone can write in it: it names processes to end and a folder to remove."""
        status = self.path.lstat()
        return status.st_uid == os.getuid() and not status.st_mode & 0o022

    def _check_owner(self) -> None:
        if not self.is_own:
            raise ClusterError(f"others can write in {self.path}; ${CLUSTERS_DIR_VARIABLE} names another place")

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Only one process at a time starts or ends this cluster.

        Raises:
            ClusterError: another one does, or the folder cannot be made.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path = self.path.parent / f".{self.name}.lock"
                lock = stack.enter_context(os.fdopen(open_own(path, os.O_RDWR | os.O_CREAT), "r+"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ClusterError(f"cluster {self.name} is being started or ended by another process") from error
            except OSError as error:
                where = error.filename or self.path.parent
                raise ClusterError(
                    f"{where} cannot be used ({error.strerror}); ${CLUSTERS_DIR_VARIABLE} names another place"
                ) from error
            yield


def clusters_dir(explicit: Path | None = None) -> Path:
    """Where clusters are noted down: ``explicit``, else ``$FMNIST_CLUSTERS_DIR``, else in the user's state folder.

    Raises:
        ClusterError: the folder begins with ``~`` and the home folder is unknown.
    """
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return expand_home(explicit or os.environ.get(CLUSTERS_DIR_VARIABLE) or f"{state}/fmnist-search/clusters")


def cluster_folder(name: str, *, directory: Path) -> ClusterFolder:
    """The folder of the cluster of that name, whether it is there or not.

    Raises:
        ClusterError: no cluster can have that name.
    """
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} cannot name a cluster; valid: up to 50 letters, digits, '.', '_' and '-', the first a letter "
            "or digit"
        )
    return ClusterFolder(directory.absolute() / name)


def list_clusters(directory: Path) -> list[ClusterFolder]:
    """Those of this user that are noted down, by name."""
    folders = [ClusterFolder(path) for path in sorted(directory.glob("*")) if _NAME.fullmatch(path.name)]
    return [folder for folder in folders if folder.is_own and folder.read() is not None]
