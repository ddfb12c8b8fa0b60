"""`fmnist dashboard`, `tensorboard` and `mlflow`: experiments in the dashboards that people have."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.options import DataDir, ExperimentReference, ExperimentsDir, expanded
from search.cli.show import find

if TYPE_CHECKING:
    from search.records.experiment import Experiment
    from search.records.tracking import Target

_PAUSE_S = 10.0

ExperimentReferences = Annotated[
    list[str], typer.Argument(metavar="EXPERIMENT…", help="Names, paths, s3:// or gs:// addresses.")
]


def dashboard(
    experiments: ExperimentReferences,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine reach 0.0.0.0.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 for any that is free.", min=0, max=65535)] = 8080,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
) -> None:
    """Show experiments in optuna-dashboard, which follows searches that run, until Ctrl-C; it changes nothing."""
    import contextlib
    import tempfile

    from rich.console import Console

    from search.cli.show import say
    from search.integrations.dashboard import Dashboard, DashboardServer

    console = Console(stderr=True)
    found = list(dict.fromkeys(find(reference, experiments_dir) for reference in experiments))
    with tempfile.TemporaryDirectory(prefix="fmnist-dashboard-") as folder:
        app = Dashboard(found, folder=Path(folder), data_dir=data_dir, tell=lambda text: say(text, console))
        with contextlib.closing(app), DashboardServer(app, host=host, port=port) as server:
            app.start()
            names = ", ".join(experiment.name for experiment in found)
            say(f"{names}: {server.address} (Ctrl-C ends it)", console)
            server.serve_forever()


def tensorboard(
    experiment: ExperimentReference,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to [runs/ and the experiment's name].", show_default=False, callback=expanded
        ),
    ] = None,
    experiments_dir: ExperimentsDir = None,
) -> None:
    """Write the trials as TensorBoard's event files; again, while a search runs, to bring them up to date."""
    from rich.console import Console

    from fmnist_models.output import output_folder
    from search.cli.show import say
    from search.integrations.event_files import write_event_files

    found = find(experiment, experiments_dir)
    folder = Path("runs", found.name) if output is None else output_folder(output)
    written = write_event_files(found, folder)
    told = f"{written.num_trials} trials in {folder}, {written.num_new} of them new or longer than before"
    say(f"{told}; look at them with: tensorboard --logdir {shlex.quote(str(folder))}", Console())


def mlflow(
    experiment: ExperimentReference,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Of the server, http(s)://… [$MLFLOW_TRACKING_URI].", show_default=False)
    ] = None,
    mlflow_experiment: Annotated[
        str | None, typer.Option(help="Its experiment [the configuration's, else fmnist-search].", show_default=False)
    ] = None,
    experiments_dir: ExperimentsDir = None,
    until_closed: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Send an experiment to an MLflow server: what is missing there, however often."""
    from rich.console import Console

    from search.cli.show import say
    from search.integrations.mlflow_runs import send_experiment
    from search.records.results import read_target
    from search.records.tracking import choose_target

    found = find(experiment, experiments_dir)
    target = choose_target(read_target(found), explicit=tracking_uri, experiment=mlflow_experiment)
    if until_closed:
        _send_until_closed(found, target)
        return
    sent = send_experiment(found, target)
    model = f"; the best model is version {sent.model_version} of {found.name}" if sent.model_version else ""
    told = f"{sent.num_trials} trials are in {target.experiment} at {target.tracking_uri}"
    say(f"{told}, {sent.num_new} of them new or longer than before{model}", Console())


def _send_until_closed(experiment: Experiment, target: Target) -> None:
    """Sends now and then until standard input ends, and once more then; says once that it cannot."""
    import select
    import sys

    from fmnist_models.errors import UserError, printable
    from search.integrations.mlflow_runs import send_experiment

    is_over, is_told = False, False
    while not is_over:
        is_over = bool(select.select([sys.stdin], [], [], _PAUSE_S)[0])
        try:
            experiment.fetch()
            send_experiment(experiment, target, is_over=is_over)
            is_told = False
        except (UserError, OSError) as error:
            if is_over or not is_told:
                rest = f"; `fmnist mlflow {experiment.name}` sends it again" if is_over else "; the search goes on"
                typer.echo(printable(f"{error}{rest}").replace("\n", " "))
            is_told = True
