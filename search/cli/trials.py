"""`fmnist trials`: lists an experiment's trials; `show` and `diff` look closer at one and at two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from search.cli.options import AsJson, ExperimentReference, ExperimentsDir, expanded
from search.cli.show import find, print_json, say

if TYPE_CHECKING:
    from search.review.listing import Listing

_LIST = "list"


class _ListingFirst(TyperGroup):
    """A group whose first word is an experiment to list, unless it is one of its commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_command = bool(args) and args[0] in self.commands and args[0] != _LIST
        return super().parse_args(ctx, args if is_command else [_LIST, *args])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return (None if name == _LIST else name), command, rest


trials_app = typer.Typer(cls=_ListingFirst, help="List an experiment's trials, or look closer: `show`, `diff`.")


@trials_app.command(_LIST)
def trials_list(
    experiment: ExperimentReference,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", help="complete, pruned, failed or running; repeatable.", show_default=False),
    ] = None,
    all_states: Annotated[bool, typer.Option("--all", help="Trials of every state.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(help="A condition, repeatable: 'model=resnet18', 'lr<0.01'; = != < <= > >=.", show_default=False),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN[:asc|desc]", help="Best first if left out.", show_default=False)
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Only these, in this order.", show_default=False)
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="No more trials than that.", show_default=False)] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="table, csv, json, markdown or parquet.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write, - for standard output; Parquet needs one.", show_default=False, callback=expanded
        ),
    ] = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """List an experiment's trials, best first; no cluster needed.

    Tables and Markdown show complete trials and count the others; CSV, JSON
    and Parquet hold all. `--state` and `--all` say otherwise.

    Columns: trial, state, value (of best_epoch, in the search's metric),
    best_epoch, last_value (of last_epoch), last_epoch, epochs (trained),
    duration_s (without pauses), curve (the value of each epoch; only with
    --columns), folds (complete, where trials have some), every parameter
    (unfreeze names the stages), reason and message (of a failure), dataset.
    CSV, JSON, Parquet, trials.csv and Python's load_experiment(...).trials
    have the same columns.

    `fmnist trials show EXPERIMENT N` shows one trial and `fmnist trials diff
    EXPERIMENT A B` compares two. An experiment that is called show or diff is
    found by its path, as in `./experiments/show`.
    """
    from search.review.listing import Question, read_listing
    from search.review.listing_formats import FOR_PEOPLE

    chosen = _check_format(format_, as_json, output)
    found = find(experiment, experiments_dir)
    question = Question(
        states=None if all_states or not states else states,
        complete_only=not all_states and chosen in FOR_PEOPLE,
        where=where or (),
        sort=sort,
        columns=columns,
        top=top,
    )
    _write(read_listing(found, question), chosen, output)


@trials_app.command("show")
def trials_show(
    experiment: ExperimentReference,
    number: Annotated[int, typer.Argument(metavar="N", help="The trial's number.", show_default=False)],
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one trial: its parameters, learning curve, files, and the end of its log."""
    from rich.console import Console

    from search.review.trial_detail import read_details
    from search.review.trial_detail_text import describe_trial

    [detail] = read_details(find(experiment, experiments_dir), [number])
    if as_json:
        print_json(detail.to_dict())
    else:
        Console().print(describe_trial(detail), soft_wrap=True)


@trials_app.command("diff")
def trials_diff(
    experiment: ExperimentReference,
    first: Annotated[int, typer.Argument(metavar="A", help="A trial's number.", show_default=False)],
    second: Annotated[int, typer.Argument(metavar="B", help="Another's.", show_default=False)],
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare two trials: the parameters in which they differ, their values, and their curves side by side."""
    from rich.console import Console

    from search.review.trial_detail import differing, read_details
    from search.review.trial_detail_text import describe_difference

    a, b = read_details(find(experiment, experiments_dir), [first, second])
    if as_json:
        print_json({"differing": differing(a.parameters, b.parameters), "trials": [a.to_dict(), b.to_dict()]})
    else:
        Console().print(describe_difference(a, b), soft_wrap=True)


def _check_format(name: str | None, as_json: bool, output: Path | None) -> str:
    from fmnist_models.output import STANDARD_OUTPUT
    from search.errors import SelectionError
    from search.review.listing_formats import FORMATS

    chosen = name or ("json" if as_json else "table")
    if chosen not in FORMATS:
        raise SelectionError(f"there is no format {chosen!r}; valid: {', '.join(FORMATS)}")
    if as_json and chosen != "json":
        raise SelectionError(f"--json is --format json, but --format is {chosen}; give one of them")
    if chosen == "parquet" and (output is None or (output == STANDARD_OUTPUT and sys.stdout.isatty())):
        raise SelectionError("Parquet is not for a terminal; name a file with --output, or - with a pipe")
    return chosen


def _write(listing: Listing, chosen: str, output: Path | None) -> None:
    from rich.console import Console

    from fmnist_models.output import STANDARD_OUTPUT, describe_output, write_output
    from search.review import listing_formats

    console = Console(stderr=output == STANDARD_OUTPUT)
    formatted: str | bytes
    if chosen == "table":
        ascii_only = output is None and console.options.ascii_only
        table = listing_formats.format_table(listing, width=console.width, ascii_only=ascii_only)
        if output is None:
            console.print(table, soft_wrap=True)
            return
        formatted = f"{table.plain}\n"
    elif chosen == "parquet":
        formatted = listing_formats.format_parquet(listing)
    else:
        format_as = {
            "csv": listing_formats.format_csv,
            "json": listing_formats.format_json,
            "markdown": listing_formats.format_markdown,
        }
        formatted = format_as[chosen](listing)
    if output is not None:
        write_output(output, formatted)
        say(f"wrote {len(listing.rows):,} trials to {describe_output(output)}", console)
    else:
        typer.echo(formatted, nl=False)
