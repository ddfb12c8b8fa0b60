"""The address of the database that a study is in, and whose word it takes to connect to it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from fmnist_models.errors import FileError
from fmnist_models.files import read_json, write_aside
from fmnist_models.paths import expand_home
from search.errors import ConfigError, DatabaseError, ExperimentError
from search.records.experiment import Experiment

STUDY_STORAGE_VARIABLE = "FMNIST_STUDY_STORAGE"
"""Names the one database that may be connected to wherever an experiment says that its study is there."""

_SQLITE, _POSTGRESQL = "sqlite:///", "postgresql://"
_VALID = f"valid: {_SQLITE}/absolute/file.db or {_POSTGRESQL}[user@]host[:port]/database"
_SCHEMES = ("postgresql", "postgresql+psycopg")  # which mean the same here
_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"
_HOST = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]"
_SERVER = re.compile(rf"(?:{_NAME}@)?(?:{_HOST})(?::(?P<port>[0-9]{{1,5}}))?/{_NAME}")
_FILE = re.compile(r"/[^?]{1,4000}")  # what follows a question mark other programs take for options
_MAX_STUDY_NAME = 512  # characters, as Optuna's tables have it


def parse_address(text: str) -> str:
    """The address, checked, in the one form in which addresses are compared.

    Raises:
        ValueError: it is none, or holds a password; says what is valid and quotes nothing.
    """
    if text.startswith(_SQLITE) and _FILE.fullmatch(text.removeprefix(_SQLITE)) and text.isprintable():
        return text
    if text.startswith(f"{_SQLITE}/") and "?" in text:
        raise ValueError(f"has a '?', which begins options in such an address; {_VALID}")
    scheme, _, rest = text.partition("://")
    if ":" in rest.rpartition("@")[0]:
        raise ValueError("holds a password; valid: without a password; give it in $PGPASSWORD or ~/.pgpass")
    server = _SERVER.fullmatch(rest)
    if scheme not in _SCHEMES or server is None:
        raise ValueError(f"is no address of a database; {_VALID}")
    if not 0 < int(server["port"] or 5432) < 2**16:
        raise ValueError("names a port that is none; valid: 1 to 65535")
    return f"{_POSTGRESQL}{rest}"


def expand_address(text: str) -> str:
    """The address with a leading ``~`` of a file of SQLite replaced by that home folder.

    Raises:
        PathError: the home folder is unknown.
    """
    file = text.removeprefix(_SQLITE)
    return f"{_SQLITE}{expand_home(file)}" if file != text and file.startswith("~") else text


def sqlite_file(address: str) -> Path | None:
    """The file of an address of SQLite; ``None`` for a server's."""
    return Path(address.removeprefix(_SQLITE)) if address.startswith(_SQLITE) else None


@dataclass(frozen=True)
class Reference:
    """Where an experiment's study is, if it is not in a journal: the database's address and the study's name in it."""

    storage: str
    study: str


def write_reference(experiment: Experiment, reference: Reference) -> None:
    """Makes it the experiment's study.

    Raises:
        OSError: it cannot be written.
    """
    write_aside(experiment.reference, json.dumps(asdict(reference), indent=2) + "\n")


def read_reference(experiment: Experiment) -> Reference | None:
    """Where the experiment's study is; ``None`` if not in a database.

    Raises:
        ExperimentError: the file that says it is damaged.
    """
    if not os.path.isfile(experiment.reference):
        return None
    try:
        content = read_json(experiment.reference)
    except (OSError, FileError) as error:
        raise ExperimentError(f"{experiment.reference} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.keys() != {"storage", "study"}:
        raise ExperimentError(f"{experiment.reference} does not say where a study is")
    storage, study = content["storage"], content["study"]
    if not isinstance(study, str) or not 0 < len(study) <= _MAX_STUDY_NAME or not study.isprintable():
        raise ExperimentError(f"{experiment.reference} does not name a study")
    try:
        return Reference(parse_address(storage if isinstance(storage, str) else ""), study)
    except ValueError as error:
        raise ExperimentError(f"{experiment.reference}: storage: {error}") from error


def check_trust(experiment: Experiment, address: str, *, to_write: bool = False) -> None:
    """Makes sure that a person named the database, and not only a folder, which may be a stranger's: that could have
    passwords sent to any server, and any file written to. To read a file of SQLite nobody needs to.

    Raises:
        DatabaseError: nobody did; says what to do.
        ConfigError: the environment names something else than a database.
    """
    if address in (experiment.study_storage, _named_by_environment()):
        return
    if to_write or sqlite_file(address) is None:
        what = "written to" if to_write else "read"
        raise DatabaseError(
            f"the study of {experiment.name} is in {address}; set {STUDY_STORAGE_VARIABLE} to that address to have it "
            f"{what}, if you trust who made {experiment.path}"
        )


def _named_by_environment() -> str | None:
    text = os.environ.get(STUDY_STORAGE_VARIABLE)
    try:
        return parse_address(expand_address(text)) if text else None
    except ValueError as error:
        raise ConfigError(f"${STUDY_STORAGE_VARIABLE} {error}") from error
