"""The command line. Everything heavy is imported where it is used, so that `fmnist --help` answers at once."""

from __future__ import annotations

import sys

import typer

from cluster.errors import ClusterError, ClusterGoneError
from fmnist_models.errors import UserError, printable
from search.cli.clusters import cluster_app
from search.cli.experiments import experiments_app
from search.cli.images import data_app
from search.cli.jobs import jobs_app, submit
from search.cli.reporting import report
from search.cli.reviewing import evaluate, trials
from search.cli.searching import search_app

app = typer.Typer(
    name="fmnist",
    help="Search hyperparameters of Fashion-MNIST classifiers: Ray runs the trials, an Optuna study records them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(search_app, name="search")
app.command("trials")(trials)
app.command("evaluate")(evaluate)
app.command("report")(report)
app.add_typer(experiments_app, name="experiments")
app.add_typer(data_app, name="data")
app.add_typer(cluster_app, name="cluster")
app.command("submit")(submit)
app.add_typer(jobs_app, name="jobs")


def main() -> None:
    """Runs the command line; what a person can put right ends with its message and exit code 2."""
    try:
        app()
    except (UserError, ClusterError) as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(3 if isinstance(error, ClusterGoneError) else 2)
    except OSError as error:  # a disk that is full or read-only, a folder where a file should be
        if error.filename is None:
            raise
        typer.echo(f"error: {printable(f'{error.filename}: {error.strerror}')}", err=True)
        sys.exit(2)
