"""The command line. Everything heavy is imported where it is used, so that `fmnist --help` answers at once."""

from __future__ import annotations

import atexit
import gc

import typer

from cluster.interruption import ended_by_signals
from search.cli.clusters import cluster_app
from search.cli.crossvalidating import crossval
from search.cli.dashboards import dashboard, mlflow, tensorboard
from search.cli.exits import errors_told
from search.cli.experiments import experiments_app
from search.cli.images import data_app
from search.cli.jobs import jobs_app, submit
from search.cli.reporting import report
from search.cli.reproducing import reproduce
from search.cli.reviewing import evaluate, importance
from search.cli.searching import search_app
from search.cli.trials import trials_app
from search.cli.winner import export, predict

app = typer.Typer(
    name="fmnist",
    help="Search hyperparameters of Fashion-MNIST classifiers: Ray runs the trials, an Optuna study records them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(search_app, name="search")
app.add_typer(trials_app, name="trials")
app.command("importance")(importance)
app.command("evaluate")(evaluate)
app.command("crossval")(crossval)
app.command("predict")(predict)
app.command("export")(export)
app.command("reproduce")(reproduce)
app.command("dashboard")(dashboard)
app.command("tensorboard")(tensorboard)
app.command("mlflow")(mlflow)
app.command("report")(report)
app.add_typer(experiments_app, name="experiments")
app.add_typer(data_app, name="data")
app.add_typer(cluster_app, name="cluster")
app.command("submit")(submit)
app.add_typer(jobs_app, name="jobs")


def main() -> None:
    """Runs the command line."""
    atexit.register(gc.freeze)  # or the modules of a search are taken apart one by one, for a second and more
    with ended_by_signals(), errors_told():
        app()
