"""`fmnist reproduce`: published tables, trained again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.exits import RAY_ENDS, interruption_told
from search.cli.options import AsJson, DataDir, ExperimentsDir, expanded
from search.cli.show import find, print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from search.reproduce.document import Document


def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="paper-table-1 or blog-table.")],
    seeds: Annotated[int, typer.Option(help="Trainings of each model, over which mean and deviation are.")] = 3,
    scale: Annotated[float, typer.Option(help="Share of images and epochs; less than 1 is said everywhere.")] = 1.0,
    model: Annotated[
        list[str] | None, typer.Option(help="A network of the table, repeatable; all if left out.", show_default=False)
    ] = None,
    weights: Annotated[
        str, typer.Option(help="The paper's imagenet, or the path of a torchvision resnet18 state dict.")
    ] = "imagenet",
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPERIMENT", help="An evaluated search to show beside it, repeatable.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder [./reproductions/TABLE, and the scale].", show_default=False, callback=expanded),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="However long it takes.")] = False,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Train a published table again under its protocol and compare; what is finished is not trained again."""
    from rich.console import Console

    from fmnist_models.data import data_root
    from fmnist_models.output import output_folder
    from search.reproduce.published import load_table
    from search.reproduce.reproduction import Order
    from search.reproduce.reproduction import reproduce as run

    name = table if scale == 1 else f"{table}-scale-{scale:g}"
    order = Order(
        table=load_table(table),
        num_seeds=seeds,
        scale=scale,
        networks=tuple(model or ()),
        weights=weights,
        folder=Path("reproductions", name) if output is None else output_folder(output),
        data_root=data_root(data_dir),
        insist=yes,
        beside=tuple(find(reference, experiments_dir) for reference in beside or ()),
    )
    errors = Console(stderr=True)
    told = "interrupted; the same command goes on from the last finished epoch"
    with interruption_told(lambda: told, tell=lambda text: say(text, errors), waits_for=RAY_ENDS):
        document, paths = run(order, tell=lambda text: say(text, errors, style="dim"))
    if as_json:
        print_json(document.to_dict())
        return
    console = Console()
    _print_document(document, console)
    for path in paths:
        say(str(path), console, style="dim")


def _print_document(document: Document, console: Console) -> None:
    from rich.table import Table

    from search.reproduce.document import AVERAGES, format_row
    from search.review.display import as_text

    say(document.title, console, style="bold")
    for number, finding in enumerate(document.findings, start=1):
        say(f"finding {number}: {finding}", console)
    say(f"tested epoch: {document.tested_epoch}", console)
    for comparison in document.models:
        say("\n" + document.heading(comparison.model.title, comparison.model.network), console, style="bold")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("metric", "class"):
            table.add_column(column)
        for column in ("ours", "published", "difference"):
            table.add_column(column, justify="right")
        for row in comparison.rows:
            table.add_row(as_text(row.metric), as_text(row.name), *format_row(row))
        console.print(table)
    for one in document.searched:
        say(
            f"\nbeside it: {one.experiment} ({one.network}), searched: test accuracy {one.accuracy:.4f} on "
            f"{one.num_images:,} {one.dataset} images (95 % interval {one.accuracy_low:.4f} to "
            f"{one.accuracy_high:.4f})",
            console,
            style="bold",
        )
    say(f"\nours: mean ± standard deviation over {len(document.seeds)} seed(s); {AVERAGES}", console, style="dim")
