"""Opening an experiment for a search: a new one, or one that exists and is continued with the same configuration."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded, write_aside
from search.configuration.config import SearchConfig, read_config
from search.errors import ConfigError, ExperimentError
from search.records.experiment import Experiment
from search.records.runs import append_run
from search.study.warm_start import MAX_CHARS, WarmStart, dump_warm_start, parse_warm_start, read_warm_start

# What may change between two runs of one experiment: its trials stay comparable.
_FREE = frozenset(
    {
        "max_trials",
        "time_budget_s",
        "max_concurrent_trials",
        "max_cluster_share",
        "accelerator_type",
        "node_labels",
        "trial_timeout_s",
        "max_restarts",
        "keep_checkpoints",
        "max_disk_gb",
        "feature_cache_gb",
        "mlflow",
        "confirm",
    }
)

# A repeatable search draws trial k from the results up to k - max_concurrent_trials, and wants one kind of machine and
# of arithmetic.
_PARTS_OF_REPEATING = frozenset({"max_concurrent_trials", "accelerator_type", "node_labels", "feature_cache_gb"})

_MAX_WARM_START_BYTES = 4 * MAX_CHARS  # of UTF-8
_MAX_NOTED_BYTES = 2**24
_NO_WARM_START = WarmStart(trials=(), num_skipped=0, source="", notes=())


def check_continuation(experiment: Experiment, config: SearchConfig) -> None:
    """Refuses to continue an experiment with a configuration whose trials could not be compared with those it has.

    Raises:
        ConfigError: shows each key that differs, with both values.
    """
    if not experiment.exists():
        return
    old, new = _flatten(read_config(experiment)), _flatten(config)
    free = _FREE - _PARTS_OF_REPEATING if config.deterministic else _FREE
    different = [key for key in {**new, **old} if key not in free and new.get(key) != old.get(key)]
    if different:
        changes = "\n".join(f"  {key}: {old.get(key, 'none')} there, {new.get(key, 'none')} now" for key in different)
        raise ConfigError(
            f"experiment {experiment.name} exists with another configuration:\n{changes}\n"
            f"valid: the same configuration (only {', '.join(sorted(free))} may change), or another --name"
        )


def _flatten(config: SearchConfig) -> dict[str, Any]:
    """Key → value, with each dimension of the space under a key of its own."""
    settings = config.model_dump()
    return settings | {f"space.{name}": value for name, value in settings.pop("space").items()}


def read_noted(experiment: Experiment) -> dict[Path, bytes]:
    """What is noted of the runs so far, as ``undone_if_refused`` wants it."""
    noted = {}
    for path in (experiment.config, experiment.versions):
        with contextlib.suppress(OSError, FileError):  # one that is for people to read alone may be anything
            noted[path] = read_bounded(path, max_bytes=_MAX_NOTED_BYTES)
    return noted


@contextlib.contextmanager
def undone_if_refused(noted: dict[Path, bytes]) -> Iterator[None]:
    """An error in it leaves what is noted of the runs of the experiment, which this process holds, as it was."""
    try:
        yield
    except (ConfigError, ExperimentError):
        for path, content in noted.items():
            write_aside(path, content)
        raise


def begin_run(
    experiment: Experiment,
    config: SearchConfig,
    *,
    warm_start: Experiment | None = None,
    num_slots: int | None = None,
) -> WarmStart:
    """Notes what runs in the experiment, which this process holds.

    ``warm_start``: the experiment whose trials a new one's sampler shall learn from. ``num_slots``: how many trials the
    run trains at a time. Gives what it learns from, of this or of the experiment's first run.

    Raises:
        ConfigError: the experiment exists with a configuration or a warm start that does not go with this one.
    """
    warm = _decide_warm_start(experiment, config, warm_start)
    if not experiment.exists():
        _clear(experiment)
        if warm.trials:
            write_aside(experiment.warm_start, dump_warm_start(warm))
    for part in experiment.path.rglob(".*.part"):  # what a killed process was writing
        part.unlink(missing_ok=True)
    write_aside(experiment.config, config.to_yaml())
    append_run(experiment, num_slots=num_slots)
    return warm


def _decide_warm_start(experiment: Experiment, config: SearchConfig, wanted: Experiment | None) -> WarmStart:
    """What a new experiment is to learn from, or an existing one learned from: it may not change, nor the rest."""
    if not experiment.exists():
        return read_warm_start(wanted, config) if wanted is not None else _NO_WARM_START
    check_continuation(experiment, config)
    there = _NO_WARM_START
    if experiment.warm_start.is_file():
        text = read_bounded(experiment.warm_start, max_bytes=_MAX_WARM_START_BYTES).decode(errors="replace")
        there = parse_warm_start(text, where=str(experiment.warm_start), config=config)
    if wanted is not None and wanted.location != there.source:
        raise ConfigError(
            f"--warm-start {wanted.location}: experiment {experiment.name} exists and learned from "
            f"{there.source or 'no other'}; valid: the same, or another --name"
        )
    return there


def _clear(experiment: Experiment) -> None:
    """Removes what is left of a study that is gone, or never came to be."""
    for part in experiment.parts:
        shutil.rmtree(part.path, ignore_errors=True)
    shutil.rmtree(experiment.trials, ignore_errors=True)
    experiment.trials.mkdir(exist_ok=True)
    experiment.warm_start.unlink(missing_ok=True)
