"""`fmnist report`: everything about an experiment on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.options import DataDir, ExperimentReference, ExperimentsDir, expanded
from search.cli.show import find, say

if TYPE_CHECKING:
    from search.report.material import Material


def report(
    experiment: ExperimentReference,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write, - for standard output [report.html in the experiment].",
            show_default=False,
            callback=expanded,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again as trials finish, until the search ends.")
    ] = False,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
) -> None:
    """Write one HTML page about an experiment, also while it runs; no cluster and no network needed."""
    from rich.console import Console

    from fmnist_models.output import STANDARD_OUTPUT, describe_output
    from search.report import watch_report, write_report

    found = find(experiment, experiments_dir)
    console = Console(stderr=output == STANDARD_OUTPUT)
    where = describe_output(output) if output is not None else f"{found.location}/{found.report.name}"

    def tell(material: Material) -> None:
        state = f"{material.state.value}, {material.num_ended:,} of {material.settings['max_trials']:,} trials ended"
        say(f"{where} is written ({state})", console)

    if not watch:
        tell(write_report(found, output, data_dir=data_dir))
        return
    watch_report(found, output, data_dir=data_dir, told=tell)
