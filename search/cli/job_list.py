"""The jobs of a cluster with the progress that each of them made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from rich.table import Table

from cluster.errors import ClusterError
from cluster.jobs import Job
from fmnist_models.errors import UserError
from search.cli.submitting import parse_request
from search.records.experiment import EXPERIMENTS_DIR_VARIABLE, check_name, experiments_dir, locate_experiment
from search.records.inventory import Progress, summarise
from search.records.store import is_address
from search.review.display import as_text
from search.yaml_file import parse_yaml


def as_row(job: Job) -> dict[str, Any]:
    """A job as plain values for JSON: ``trials``, ``max_trials`` and ``best_value`` are the job's own, see
    ``read_progress``."""
    progress = read_progress(job)
    return {
        "id": job.id,
        "experiment": job.metadata["experiment"],
        "experiments_dir": job.metadata.get("experiments_dir"),
        "state": job.state,
        "user": job.metadata.get("user"),
        "config_hash": job.metadata.get("config_hash"),
        "trials": progress and progress.num_ended,
        "max_trials": progress and progress.max_trials,
        "metric": progress and progress.metric,
        "best_value": progress and progress.best_value,
        "started": job.started and job.started.isoformat(timespec="seconds"),
        "ended": job.ended and job.ended.isoformat(timespec="seconds"),
        "exit_code": job.exit_code,
    }


def read_progress(job: Job) -> Progress | None:
    """How far the job's experiment is, or was when the job ended: what another job or a person has continued since is
    not this job's. ``None`` if the experiment cannot be read from here, or began after the job's end.

    Fetches from no store but one's own, as somebody else may have submitted the job.
    """
    told = job.metadata.get("experiments_dir")
    if not told or (is_address(told) and told != os.environ.get(EXPERIMENTS_DIR_VARIABLE)):
        return None
    try:
        directory = experiments_dir(told)
        experiment = locate_experiment(check_name(job.metadata["experiment"]), directory=directory)
        experiment.fetch()
    except UserError:
        return None
    if not experiment.exists():
        return None
    progress = summarise(experiment, until=job.ended).progress
    max_trials = _read_max_trials(job)
    return progress if progress is None or max_trials is None else replace(progress, max_trials=max_trials)


def _read_max_trials(job: Job) -> int | None:
    """As many as this job was to come to; a later one may have been asked for more."""
    with contextlib.suppress(ClusterError, UserError):
        settings = parse_yaml(parse_request(job.metadata, where=job.id).config, where=job.id)
        value = settings.get("max_trials") if isinstance(settings, dict) else None
        return value if type(value) is int else None
    return None


def as_table(jobs: Sequence[Job]) -> Table:
    """The jobs as a table for a terminal, in their order."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("id", overflow="fold")
    for name in ("experiment", "user"):
        table.add_column(name)
    table.add_column("state", no_wrap=True)
    table.add_column("trials", justify="right", no_wrap=True)
    table.add_column("best", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    styles = {"running": "green", "failed": "red", "stopped": "yellow", "pending": "dim"}
    for job in jobs:
        progress = read_progress(job)
        best = progress.best_value if progress else None
        table.add_row(
            as_text(job.id),
            as_text(job.metadata["experiment"]),
            as_text(job.metadata.get("user", "")),
            job.state,
            f"{progress.num_ended}/{progress.max_trials}" if progress else "",
            f"{best:.4f}" if best is not None else "",
            _age(job),
            style=styles.get(job.state, ""),
        )
    return table


def _age(job: Job) -> str:
    """Since it was started, in the two largest units."""
    if job.started is None:
        return ""
    minutes, seconds = divmod(int((datetime.now().astimezone() - job.started).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (max(0, seconds), "s")]
    first = next((index for index, (amount, _) in enumerate(units) if amount), len(units) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in units[first : first + 2])
