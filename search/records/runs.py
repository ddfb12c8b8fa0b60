"""The runs of an experiment: each time that a process held it to train, with what, and on how many slots."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fmnist_models.errors import FileError
from fmnist_models.files import read_json, write_aside
from search.records.experiment import Experiment
from search.records.versions import collect_versions

_TIME, _SLOTS = "time", "slots"
_MAX_SLOTS = 20_000


@dataclass(frozen=True)
class Run:
    """One run: ``start`` in local time; ``num_slots``: how many trials it trained at a time, ``None`` if the record, of
    an older version, does not say."""

    start: datetime
    num_slots: int | None = None


def append_run(experiment: Experiment, *, num_slots: int | None) -> None:
    """Records that a run begins now; for the one process that holds the experiment."""
    now = datetime.now().isoformat(sep=" ", timespec="milliseconds")
    slots = {} if num_slots is None else {_SLOTS: num_slots}
    runs = [*_read(experiment), {_TIME: now, **slots, **collect_versions()}]
    write_aside(experiment.versions, json.dumps(runs, indent=2) + "\n")


def read_runs(experiment: Experiment) -> list[Run]:
    """The runs in their order; those that the file tells of in another way are left out."""
    runs = []
    for entry in _read(experiment):
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
            start, slots = datetime.fromisoformat(entry[_TIME]), entry.get(_SLOTS)
            is_count = type(slots) is int and 0 < slots <= _MAX_SLOTS
            runs.append(Run(start.replace(tzinfo=None), slots if is_count else None))
    return sorted(runs, key=lambda run: run.start)


def _read(experiment: Experiment) -> list[Any]:
    try:
        runs = read_json(experiment.versions)
    except (OSError, FileError):
        return []
    return runs if isinstance(runs, list) else []
