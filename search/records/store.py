"""Experiments on object storage: this machine works on a copy of their files, fetched and sent through fsspec."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fmnist_models.paths import cache_folder
from search.errors import ConfigError, ExperimentError

_EXTRAS = {"s3": "s3", "gs": "gcs"}
_ADDRESS = re.compile(r"(s3|gs)://[a-z0-9][a-z0-9._-]{1,62}(/[A-Za-z0-9._=-]+)*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_FILE_BYTES = 2**30
_MAX_REASON = 300  # characters


@dataclass(frozen=True)
class Store:
    """A folder of experiments on object storage, such as ``s3://bucket/experiments``.

    Where it is and who may use it is what its library takes from the environment (``AWS_…``, ``GOOGLE_…``). Whatever
    goes wrong with it is an ``ExperimentError``. Paths are those of this machine's copy.
    """

    address: str

    @property
    def local(self) -> Path:
        """The folder of this machine's copies."""
        return cache_folder() / "stores" / hashlib.sha256(self.address.encode()).hexdigest()[:16]

    def address_of(self, path: Path) -> str:
        return "/".join([self.address, *path.relative_to(self.local).parts])

    def names(self) -> list[str]:
        """Of what is in the store, experiments as a rule."""
        with self._explained():
            return sorted(entry["name"].rpartition("/")[2] for entry in self._list(self.local, kind="directory"))

    def measure(self, folder: Path) -> tuple[int, datetime | None]:
        """What the files below a folder take in the store, in bytes, and when the last of them was changed."""
        with self._explained():
            found = _files(self.address).find(self.address_of(folder), detail=True).values()
            changed = [entry[key] for entry in found for key in ("LastModified", "updated") if key in entry]
            return sum(entry["size"] for entry in found), max(map(_as_time, changed), default=None)

    def find(self, folder: Path) -> list[Path]:
        """The files below a folder of the store, as they would be in the copy."""
        with self._explained():
            start = len(self.address_of(self.local).partition("://")[2]) + 1
            return [self.local / name[start:] for name in _files(self.address).find(self.address_of(folder))]

    def fetch(self, folder: Path, *, besides: Path | None = None) -> None:
        """Makes the files that are directly in ``folder`` those that the store has there, and no others ``besides``."""
        with self._explained():
            there = {entry["name"].rpartition("/")[2]: entry["size"] for entry in self._list(folder, kind="file")}
            names = [name for name in there if _FILE_NAME.fullmatch(name)]
            for name in names:
                if there[name] > _MAX_FILE_BYTES:
                    raise ExperimentError(f"{self.address_of(folder / name)} is larger than any file of an experiment")
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                is_ours = path.is_file() and _FILE_NAME.fullmatch(path.name) and path != besides
                if is_ours and path.name not in names:
                    path.unlink()
            for name in names:
                self._get(folder / name)

    def fetch_file(self, path: Path) -> None:
        """Makes one file that of the store, if it is there and no larger than any of an experiment."""
        with self._explained():
            there = {entry["name"].rpartition("/")[2]: entry["size"] for entry in self._list(path.parent, kind="file")}
            if there.get(path.name, _MAX_FILE_BYTES + 1) <= _MAX_FILE_BYTES:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._get(path)

    def _get(self, path: Path) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        _files(self.address).get_file(self.address_of(path), str(part))
        part.replace(path)

    def send(self, *paths: Path) -> None:
        """Puts files of the copy into the store, in this order, each as a whole or not at all."""
        with self._explained():
            for path in paths:
                _files(self.address).put_file(str(path), self.address_of(path))

    def claim(self, path: Path) -> None:
        """Puts a file of the copy into the store, which must not have it yet: of several who try, one can.

        Raises:
            ExperimentError: it is there.
        """
        with self._explained():
            try:
                _files(self.address).pipe_file(self.address_of(path), path.read_bytes(), mode="create")
            except FileExistsError as error:
                raise ExperimentError(
                    f"{self.address_of(path)} was made by another process at this moment; try again"
                ) from error

    def remove(self, *paths: Path) -> None:
        """Removes files from the copy and the store; those that are gone already do no harm."""
        for path in paths:
            path.unlink(missing_ok=True)
        with self._explained():
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    _files(self.address).rm_file(self.address_of(path))

    def remove_folder(self, folder: Path) -> None:
        """Removes a folder with all that is in it from the store; the copy stays."""
        with self._explained(), contextlib.suppress(FileNotFoundError):
            _files(self.address).rm(self.address_of(folder), recursive=True)

    def _list(self, folder: Path, *, kind: str) -> list[dict[str, Any]]:
        try:
            entries = _files(self.address).ls(self.address_of(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        return [entry for entry in entries if entry["type"] == kind]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ExperimentError:
            raise
        except ImportError as error:
            extra = _EXTRAS[self.address.partition(":")[0]]
            raise ExperimentError(f"{self.address} needs pip install 'fmnist-search[{extra}]' ({error})") from error
        except Exception as error:  # its library has many kinds
            reason = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
            raise ExperimentError(f"{self.address} cannot be used: {reason}") from error


def is_address(text: str) -> bool:
    """Whether a person means a store and not a folder."""
    return "://" in text


def parse_store(text: str) -> Store:
    """The store of that address.

    Raises:
        ExperimentError: it is none.
    """
    address = text.rstrip("/")
    if not _ADDRESS.fullmatch(address) or "/." in address:
        raise ExperimentError(f"{text!r} is no folder of experiments; valid: a path, s3://bucket/… or gs://bucket/…")
    return Store(address)


def check_study_storage(store: Store | None, study_storage: str | None) -> None:
    """Makes sure that the study of an experiment in a store is in a database: nothing can be appended to an object.

    Raises:
        ConfigError: it is not.
    """
    if store is not None and study_storage is None:
        raise ConfigError(
            f"study_storage: experiments on {store.address} need it, as a journal cannot grow there; valid: "
            "postgresql://[user@]host[:port]/database"
        )


@functools.cache
def _files_of_process(scheme: str, process: int) -> Any:
    import fsspec  # type: ignore[import-untyped]

    return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)


def _files(address: str) -> Any:
    """fsspec's file system; its connections must not cross a fork."""
    return _files_of_process(address.partition(":")[0], os.getpid())


def _as_time(value: datetime | str) -> datetime:
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone()
