"""The log of every look at the test images: the more looks a result was picked from, the less it can be trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import stat
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded
from search.errors import ExperimentError
from search.records.experiment import EvaluationFiles, Experiment

_MAX_BYTES = 2**24
_OLDER = "an older version, which kept no log"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One time that predictions for the test images were compared with their labels.

    ``time``: local, ISO 8601. ``accuracy``: 0…1; ``None`` if the process ended before it was recorded.
    """

    id: str
    time: str
    trial: int
    command: str
    num_images: int
    accuracy: float | None = None


def begin_look(experiment: Experiment, *, trial: int, command: str, num_images: int) -> Look:
    """Records a look that is about to be taken, so that nothing that happens afterwards can hide it.

    Raises:
        ExperimentError: it cannot be recorded.
    """
    if experiment.store is not None:
        experiment.store.fetch_file(experiment.test_looks)
    before = [] if experiment.test_looks.exists() else _find_older(experiment)
    look = Look(id=secrets.token_hex(4), time=_now(), trial=trial, command=command, num_images=num_images)
    _append(experiment, *before, look, otherwise="the test images were not looked at")
    return look


def end_look(experiment: Experiment, look: Look, *, accuracy: float) -> None:
    """Records what a look has shown.

    Raises:
        ExperimentError: it cannot be recorded.
    """
    _append(
        experiment,
        dataclasses.replace(look, accuracy=accuracy),
        otherwise=f"the accuracy of this look at the test images, {accuracy:.2%}, is not recorded",
    )


def list_looks(experiment: Experiment) -> list[Look]:
    """All looks at the test images, in their order; of an experiment that has no log those that left a result.

    Raises:
        ExperimentError: the log cannot be read.
    """
    try:
        lines = read_bounded(experiment.test_looks, max_bytes=_MAX_BYTES).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return _find_older(experiment)
    except OSError as error:
        raise ExperimentError(f"{experiment.test_looks} cannot be read: {error.strerror}") from error
    except FileError as error:
        raise ExperimentError(str(error)) from error
    looks: dict[str, Look] = {}
    for line in lines:
        look = _parse(line)
        if look is not None:
            looks[look.id] = look
    return list(looks.values())


def find_looks(experiment: Experiment) -> list[Look] | str:
    """As ``list_looks``, or why the log cannot be read."""
    try:
        return list_looks(experiment)
    except ExperimentError as error:
        return str(error)


def looks_to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain values for JSON: ``test_looks``, or ``None`` and in ``no_test_looks`` why the log cannot be read."""
    found = find_looks(experiment)
    if isinstance(found, str):
        return {"test_looks": None, "no_test_looks": found}
    return {"test_looks": [dataclasses.asdict(look) for look in found], "no_test_looks": None}


def _append(experiment: Experiment, *looks: Look, otherwise: str) -> None:
    """``otherwise``: what it means if they cannot be written.

    Raises:
        ExperimentError: they cannot be written.
    """
    path = experiment.test_looks
    text = "".join(json.dumps(dataclasses.asdict(look)) + "\n" for look in looks)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        with open(descriptor, "r+b", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a plain file")
            if status.st_nlink > 1:
                raise OSError(errno.EMLINK, "it is hard-linked to another file, which would be changed too")
            is_cut = status.st_size > 0 and os.pread(descriptor, 1, status.st_size - 1) != b"\n"
            file.write(("\n" * is_cut + text).encode())
            os.fsync(descriptor)
    except OSError as error:
        raise ExperimentError(f"{path} cannot be written ({error.strerror}), so {otherwise}") from error
    if experiment.store is not None:
        experiment.store.send(path)


def _find_older(experiment: Experiment) -> list[Look]:
    """The looks that earlier versions took, as far as they left a result on this machine."""
    from search.records.evaluation_file import read_evaluation  # with pandas, for which not every reader shall wait

    looks: list[Look] = []
    for summary in [experiment.evaluation.summary, *sorted(experiment.trials.glob("*/evaluation.json"))]:
        with contextlib.suppress(OSError, ExperimentError):
            found = read_evaluation(EvaluationFiles(summary.parent))
            if found is not None:
                looks.append(
                    Look(
                        id=f"older-{len(looks)}",
                        time=datetime.fromtimestamp(summary.stat().st_mtime).isoformat(timespec="seconds"),
                        trial=found.trial,
                        command=_OLDER,
                        num_images=found.scores.num_images,
                        accuracy=found.scores.accuracy,
                    )
                )
    return looks


def _parse(line: str) -> Look | None:
    """What a line tells of; ``None`` of one that was cut short, or that a stranger wrote."""
    try:
        raw: Any = json.loads(line)
        look = Look(**raw)
    except (TypeError, ValueError, RecursionError):
        return None
    texts, counts = (look.id, look.time, look.command), (look.trial, look.num_images)
    is_sound = all(isinstance(text, str) for text in texts) and all(type(count) is int for count in counts)
    is_share = look.accuracy is None or (isinstance(look.accuracy, (int, float)) and 0 <= look.accuracy <= 1)
    return look if is_sound and is_share else None


def _now() -> str:
    return datetime.now().isoformat(timespec="milliseconds")
