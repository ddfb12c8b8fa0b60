"""Writing the page again and again while a search goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fmnist_models.errors import OutputError
from fmnist_models.output import describe_output, replaced_file
from search.records.experiment import Experiment
from search.records.inventory import State
from search.report.material import Material, read_material
from search.report.page import write_report

_PAUSE_S = 2.0


def watch_report(
    experiment: Experiment,
    output: Path | None = None,
    *,
    data_dir: Path | None = None,
    told: Callable[[Material], None],
    pause_s: float = _PAUSE_S,
) -> Material:
    """Writes the page at once and whenever a trial has ended, until the search has.

    ``told`` hears of every page that was written; between two looks at the study there are ``pause_s`` seconds. A
    search on another machine that this one sees no lock of has ended when all its trials have.

    Raises:
        ConfigError, ExperimentError: as `write_report`.
        OutputError: ``output`` cannot be written, or is a pipe or a device, which would take one page after another.
    """
    if output is not None and replaced_file(output) is None:
        raise OutputError(f"--watch writes a file again and again, but got {describe_output(output)}; valid: a file")
    while True:
        material = write_report(experiment, output, data_dir=data_dir)
        told(material)
        if not _goes_on(material):
            return material
        while _is_as(material, read_material(experiment)):
            time.sleep(pause_s)
            experiment.fetch()


def _goes_on(material: Material) -> bool:
    if material.experiment.store is None:
        return material.state == State.RUNNING
    return material.state != State.FINISHED


def _is_as(before: Material, now: Material) -> bool:
    return (before.num_ended, before.state) == (now.num_ended, now.state)
