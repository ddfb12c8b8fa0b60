"""A search as a job: what a person asked, kept with the job so that it can be asked again."""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import ClusterError
from cluster.jobs import Submission
from fmnist_models.data import DATA_DIR_VARIABLE
from fmnist_models.paths import expand_home
from search.configuration.config import SearchConfig
from search.records.experiment import EXPERIMENTS_DIR_VARIABLE, check_name, experiments_dir, find_experiment

_PACKAGES = ("cluster", "fmnist_models", "search")
_CONFIG, _QUEUE = "config.yaml", "queue.yaml"
_REQUEST = "request"
_WIDTH = 120  # columns of what a job writes


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A search that a cluster is to run; paths are the cluster's.

    ``config``: the whole configuration as YAML. ``data_dir``: the cluster's own if ``None``. ``queue``: YAML of
    configurations to try first.
    """

    experiment: str
    config: str
    experiments_dir: str
    data_dir: str | None
    queue: str | None
    warm_start: str | None

    def to_submission(self) -> Submission:
        options = {
            "--name": self.experiment,
            "--address": "auto",
            "--experiments-dir": self.experiments_dir,
            "--data-dir": self.data_dir,
            "--enqueue": None if self.queue is None else _QUEUE,
            "--warm-start": self.warm_start,
        }
        given = [word for option, value in options.items() if value is not None for word in (option, value)]
        return Submission(
            name=self.experiment,
            entrypoint=shlex.join(["python", "-m", "search.cli", "search", "run", _CONFIG, *given]),
            packages=_PACKAGES,
            files={_CONFIG: self.config} | ({} if self.queue is None else {_QUEUE: self.queue}),
            metadata={
                "experiment": self.experiment,
                "experiments_dir": self.experiments_dir,
                "config_hash": hashlib.sha256(self.config.encode()).hexdigest()[:12],
                "user": _user(),
                _REQUEST: json.dumps(dataclasses.asdict(self)),
            },
            variables={"COLUMNS": str(_WIDTH)},
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a bare user id, as containers have it
        return str(os.getuid())


def is_search(metadata: Mapping[str, str]) -> bool:
    """Whether a job is one of these; a cluster may run others."""
    return _REQUEST in metadata and "experiment" in metadata


def parse_request(metadata: Mapping[str, str], *, where: str) -> JobRequest:
    """What was asked of a job.

    Raises:
        ClusterError: it is no search, or of another version.
    """
    try:
        request = JobRequest(**json.loads(metadata[_REQUEST]))
        if not all(value is None or isinstance(value, str) for value in dataclasses.astuple(request)):
            raise TypeError("not all of it is text")
    except (KeyError, TypeError, ValueError) as error:
        raise ClusterError(f"{where} does not say what search it was: {error!r}") from error
    check_name(request.experiment)
    return request


def place(experiments_dir: str | None, data_dir: str | None, *, is_here: bool) -> tuple[str, str | None]:
    """Where a cluster shall keep experiments and finds images; ``is_here``: it shares this machine's files.

    Raises:
        ClusterError: it does not, and nobody said where, or not in full.
    """
    wanted = experiments_dir or os.environ.get(EXPERIMENTS_DIR_VARIABLE)
    images = data_dir or (os.environ.get(DATA_DIR_VARIABLE) if is_here else None)
    if is_here:
        images = str(expand_home(images).absolute()) if images else None
        return wanted if wanted and "://" in wanted else str(expand_home(wanted or "experiments").absolute()), images
    if not wanted:
        raise ClusterError(
            f"say where the cluster keeps experiments: --experiments-dir or ${EXPERIMENTS_DIR_VARIABLE}, a folder that "
            "all its nodes share"
        )
    for path in filter(None, (wanted, images)):
        _check_full(path)
    return wanted, images


def locate_weights(config: SearchConfig, *, is_here: bool) -> SearchConfig:
    """The configuration with the full paths of weights files; ``is_here``: the cluster shares this machine's.

    Raises:
        WeightsError: here they are not what they should be.
        ClusterError: on another machine's cluster a path is not full.
    """
    from fmnist_models.weights import load_pretrained
    from search.running.preparation import weights_files, with_full_paths

    for path in weights_files(config.space):
        if is_here:
            load_pretrained(path)
        else:
            _check_full(path)
    return config.model_copy(update={"space": with_full_paths(config.space)}) if is_here else config


def locate_warm_start(reference: str, *, directory: str, is_here: bool) -> str:
    """How the cluster finds the experiment to learn from; ``directory``: where it keeps experiments.

    Raises:
        ExperimentError: there is none here.
        ClusterError: on another machine's cluster it is neither a name nor a full path.
    """
    if is_here:
        return find_experiment(reference, directory=experiments_dir(directory)).location
    if "/" in reference:
        _check_full(reference)
    return reference


def _check_full(path: str) -> None:
    if not path.startswith("/") and "://" not in path:
        raise ClusterError(f"{path}: on another machine's cluster a full path is needed, beginning with /")
