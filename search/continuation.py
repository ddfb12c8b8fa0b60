"""Opening an experiment for a search: a new one, or one that exists and is continued with the same configuration."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator

from fmnist_models.files import write_aside
from search.config import SearchConfig, parse_config
from search.errors import ConfigError
from search.experiment import Experiment
from search.lock import lock_experiment
from search.versions import collect_versions
from search.yaml_file import read_yaml

# What may change between two runs of one experiment: its trials stay comparable.
_FREE = frozenset({"max_trials", "time_budget_s", "max_concurrent_trials"})


def read_config(experiment: Experiment) -> SearchConfig:
    """The configuration that the experiment was last run with.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    return parse_config(read_yaml(experiment.config), where=str(experiment.config))


def check_continuation(experiment: Experiment, config: SearchConfig) -> None:
    """Refuses to continue an experiment with a configuration whose trials could not be compared with those it has.

    Raises:
        ConfigError: shows each key that differs, with both values.
    """
    if not experiment.exists():
        return
    old, new = read_config(experiment).model_dump(), config.model_dump()
    different = [key for key in new if key not in _FREE and new[key] != old[key]]
    if different:
        changes = "\n".join(f"  {key}: {old[key]} there, {new[key]} now" for key in different)
        raise ConfigError(
            f"experiment {experiment.name} exists with another configuration:\n{changes}\n"
            f"valid: the same configuration (only {', '.join(sorted(_FREE))} may change), or another --name"
        )


@contextlib.contextmanager
def open_experiment(experiment: Experiment, config: SearchConfig) -> Iterator[None]:
    """Holds the experiment for this process: makes its folder, or takes the one there is, and notes what runs in it.

    Raises:
        ConfigError: the experiment exists with a configuration that does not go with this one.
        ExperimentError: the folder is not writable, or another process runs the experiment.
    """
    check_continuation(experiment, config)
    experiment.create()
    with lock_experiment(experiment):
        if not experiment.exists():
            shutil.rmtree(experiment.trials, ignore_errors=True)  # of a study that is gone
        runs = json.loads(experiment.versions.read_text(encoding="utf-8")) if experiment.versions.exists() else []
        runs.append({"time": time.strftime("%Y-%m-%d %H:%M:%S"), **collect_versions()})
        write_aside(experiment.config, config.to_yaml())
        write_aside(experiment.versions, json.dumps(runs, indent=2) + "\n")
        yield
