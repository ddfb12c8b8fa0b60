"""`fmnist experiments compare`: experiments beside each other."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import AsJson, ExperimentsDir
from search.cli.show import find, print_json


def compare(
    context: typer.Context,
    experiments: Annotated[
        list[str], typer.Argument(metavar="A B ...", help="Names, paths, s3:// or gs:// addresses.", show_default=False)
    ],
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare experiments: results, time, settings, and whether their test accuracies differ by more than luck."""
    from rich.console import Console

    from search.review.comparison import compare as compare_experiments
    from search.review.review_text import describe_comparison

    found = compare_experiments([find(name, experiments_dir or context.obj) for name in experiments])
    if as_json:
        print_json(found.to_dict())
    else:
        console = Console()
        console.print(describe_comparison(found, width=console.width), soft_wrap=True)
