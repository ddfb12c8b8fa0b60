"""`fmnist experiments`: what there is, what differs, and removing what is no longer needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.comparing import compare
from search.cli.options import AsJson, ExperimentsDir
from search.cli.show import print_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from search.records.inventory import Progress, Summary

experiments_app = typer.Typer()
experiments_app.command("compare")(compare)


@experiments_app.callback(invoke_without_command=True)
def experiments(context: typer.Context, experiments_dir: ExperimentsDir = None, as_json: AsJson = False) -> None:
    """List the experiments with their state, trials, best value and size; or compare or remove some."""
    context.obj = experiments_dir
    if context.invoked_subcommand is None:
        _list(experiments_dir, as_json=as_json)


@experiments_app.command("remove")
def experiments_remove(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Of experiments; no paths.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    experiments_dir: ExperimentsDir = None,
) -> None:
    """Remove experiments with all their files; shows them and asks first."""
    from rich.console import Console

    from search.records.experiment import experiments_dir as resolve_experiments_dir
    from search.records.inventory import summarise
    from search.records.removal import find_removable, remove_experiments

    directory = resolve_experiments_dir(experiments_dir or context.obj)
    found = find_removable(names, directory=directory)
    console = Console()
    for experiment in found:
        say(_describe(summarise(experiment), experiment.path), console)
    if not yes and not _confirm(len(found)):
        say("nothing was removed", console)
        raise typer.Exit(1)
    for removed in remove_experiments(found, directory=directory):
        say(f"removed {_on_one_line(removed.name)}", console)


def _list(experiments_dir: str | None, *, as_json: bool) -> None:
    from rich.console import Console

    from search.records.experiment import EXPERIMENTS_DIR_VARIABLE
    from search.records.experiment import experiments_dir as resolve_experiments_dir
    from search.records.inventory import list_experiments, summarise

    directory = resolve_experiments_dir(experiments_dir)
    where = str(directory.absolute()) if isinstance(directory, Path) else directory.address
    summaries = [summarise(experiment) for experiment in list_experiments(directory)]
    if as_json:
        print_json({"experiments_dir": where, "experiments": [_as_row(summary) for summary in summaries]})
        return
    console = Console()
    if not summaries:
        told = f"there is no experiment in {where}; `fmnist search run` makes one, and --experiments-dir or "
        say(f"{told}${EXPERIMENTS_DIR_VARIABLE} name another folder", console)
        return
    console.print(_table(summaries))
    for summary in summaries:
        if summary.message is not None:
            say(f"{_on_one_line(summary.name)}: {summary.message}", console, style="red")


def _as_row(summary: Summary) -> dict[str, Any]:
    progress = summary.progress
    return {
        "name": summary.name,
        "state": summary.state.value,
        "holder": summary.holder,
        "trials": progress and progress.num_ended,
        "max_trials": progress and progress.max_trials,
        "dataset": progress and progress.dataset,
        "metric": progress and progress.metric,
        "best_value": progress and progress.best_value,
        "changed": summary.changed and summary.changed.isoformat(timespec="seconds"),
        "size_bytes": summary.size_bytes,
        "message": summary.message,
    }


def _table(summaries: Sequence[Summary]) -> Table:
    from rich import filesize
    from rich.table import Table

    from fmnist_models.epoch import DIRECTIONS
    from search.review.display import as_text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("experiment", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("trials", justify="right", no_wrap=True)
    table.add_column("best", min_width=max(map(len, DIRECTIONS)))
    table.add_column("changed", min_width=len("2026-01-01"))
    table.add_column("size", justify="right", no_wrap=True, min_width=len("100.0 MB"))
    styles = {"running": "green", "damaged": "red", "interrupted": "yellow"}
    for summary in summaries:
        progress = summary.progress
        table.add_row(
            as_text(_on_one_line(summary.name)),
            summary.state.value,
            "" if progress is None else f"{progress.num_ended}/{progress.max_trials}",
            as_text("" if progress is None else _describe_best(progress)),
            "" if summary.changed is None else f"{summary.changed:%Y-%m-%d %H:%M}",
            filesize.decimal(summary.size_bytes),
            style=styles.get(summary.state.value, ""),
        )
    return table


def _describe_best(progress: Progress) -> str:
    if progress.best_value is None:
        return ""
    on = "" if progress.dataset == "fashion-mnist" else f"{progress.dataset} "
    return f"{progress.best_value:.4f} {on}{progress.metric}"


def _describe(summary: Summary, path: Path) -> str:
    from rich import filesize

    if path.is_symlink():
        return f"{_on_one_line(summary.name)}: a link to {path.resolve()}, which stays"
    progress = summary.progress
    trials = "damaged" if progress is None else f"{progress.num_ended} of {progress.max_trials} trials"
    return f"{_on_one_line(summary.name)}: {trials}, {filesize.decimal(summary.size_bytes)}"


def _confirm(num_experiments: int) -> bool:
    from search.errors import ExperimentError

    if not sys.stdin.isatty():
        raise ExperimentError("nothing was removed, as there is no terminal to ask at; --yes removes without asking")
    what = "this experiment" if num_experiments == 1 else f"these {num_experiments} experiments"
    return typer.confirm(f"remove {what} with all files?", default=False)


def _on_one_line(name: str) -> str:
    """The name of a folder, which may hold line breaks."""
    return name.replace("\n", r"\n")
