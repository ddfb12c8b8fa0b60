"""Opening an experiment for a search: a new one, or one that exists and is continued with the same configuration."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded, read_json, write_aside
from search.config import SearchConfig, read_config
from search.errors import ConfigError
from search.experiment import Experiment
from search.lock import lock_experiment
from search.versions import collect_versions
from search.warm_start import MAX_CHARS, WarmStart, dump_warm_start, parse_warm_start, read_warm_start

# What may change between two runs of one experiment: its trials stay comparable.
_FREE = frozenset(
    {
        "max_trials",
        "time_budget_s",
        "max_concurrent_trials",
        "trial_timeout_s",
        "max_restarts",
        "keep_checkpoints",
        "max_disk_gb",
    }
)

_MAX_WARM_START_BYTES = 4 * MAX_CHARS  # of UTF-8
_NO_WARM_START = WarmStart(trials=(), num_skipped=0, source="", notes=())


def check_continuation(experiment: Experiment, config: SearchConfig) -> None:
    """Refuses to continue an experiment with a configuration whose trials could not be compared with those it has.

    Raises:
        ConfigError: shows each key that differs, with both values.
    """
    if not experiment.exists():
        return
    old, new = read_config(experiment).model_dump(), config.model_dump()
    # A repeatable search draws trial k from the results up to k - max_concurrent_trials.
    free = _FREE - {"max_concurrent_trials"} if config.deterministic else _FREE
    different = [key for key in new if key not in free and new[key] != old[key]]
    if different:
        changes = "\n".join(f"  {key}: {old[key]} there, {new[key]} now" for key in different)
        raise ConfigError(
            f"experiment {experiment.name} exists with another configuration:\n{changes}\n"
            f"valid: the same configuration (only {', '.join(sorted(free))} may change), or another --name"
        )


@contextlib.contextmanager
def open_experiment(
    experiment: Experiment, config: SearchConfig, *, warm_start: Experiment | None = None
) -> Iterator[WarmStart]:
    """Holds the experiment for this process: makes its folder, or takes the one there is, and notes what runs in it.

    ``warm_start``: the experiment whose trials a new one's sampler shall learn from. Gives what it learns from, of
    this or of the experiment's first run.

    Raises:
        ConfigError: the experiment exists with a configuration or a warm start that does not go with this one.
        ExperimentError: the folder is not writable, or another process runs the experiment.
    """
    check_continuation(experiment, config)
    is_new = not experiment.exists()
    warm = _check_warm_start(experiment, config, warm_start) if not is_new else _NO_WARM_START
    if is_new and warm_start is not None:
        warm = read_warm_start(warm_start, config)
    experiment.create()
    with lock_experiment(experiment):
        if is_new:
            shutil.rmtree(experiment.trials, ignore_errors=True)  # of a study that is gone
        experiment.trials.mkdir(exist_ok=True)
        runs = _read_runs(experiment)
        runs.append({"time": time.strftime("%Y-%m-%d %H:%M:%S"), **collect_versions()})
        if is_new and warm.trials:
            write_aside(experiment.warm_start, dump_warm_start(warm))
        write_aside(experiment.config, config.to_yaml())
        write_aside(experiment.versions, json.dumps(runs, indent=2) + "\n")
        yield warm


def _check_warm_start(experiment: Experiment, config: SearchConfig, wanted: Experiment | None) -> WarmStart:
    """The warm start of an experiment that exists; another one now would make its later trials another search's."""
    there = _NO_WARM_START
    if experiment.warm_start.is_file():
        text = read_bounded(experiment.warm_start, max_bytes=_MAX_WARM_START_BYTES).decode(errors="replace")
        there = parse_warm_start(text, where=str(experiment.warm_start), config=config)
    if wanted is not None and str(wanted.path) != there.source:
        raise ConfigError(
            f"--warm-start {wanted.path}: experiment {experiment.name} exists and learned from "
            f"{there.source or 'no other'}; valid: the same, or another --name"
        )
    return there


def _read_runs(experiment: Experiment) -> list[Any]:
    """The runs so far; they are for people to read, so nothing hangs on them."""
    try:
        runs = read_json(experiment.versions)
    except (FileNotFoundError, FileError):
        return []
    return runs if isinstance(runs, list) else []
