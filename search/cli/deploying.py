"""`fmnist cluster render`: what `ray up`, KubeRay and `docker build` are given, from one settings file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import AsJson, expanded
from search.cli.show import print_json, say


def render(
    settings_file: Annotated[
        Path | None,
        typer.Argument(metavar="SETTINGS", help="YAML file; see `--example`.", show_default=False, callback=expanded),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder to write; one rendered before is replaced.", callback=expanded)
    ] = Path("fleet"),
    example: Annotated[bool, typer.Option("--example", help="Print a settings file with everything in it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the files that start a fleet: for `ray up`, for KubeRay, and a Dockerfile."""
    from rich.console import Console

    from cluster.deploy import example_settings, next_commands, read_settings
    from cluster.deploy import render as render_files
    from cluster.errors import ClusterError

    if example:
        typer.echo(example_settings(), nl=False)
        return
    if settings_file is None:
        raise ClusterError("name a settings file; `fmnist cluster render --example > fleet.yaml` makes one to change")
    settings = read_settings(settings_file)
    files = render_files(settings, output)
    commands = next_commands(settings, output)
    if as_json:
        print_json({"files": [str(path) for path in files], "commands": commands})
        return
    console = Console()
    for path in files:
        say(f"wrote {path}", console)
    for purpose, lines in commands.items():
        say(f"\n{purpose}:", console, style="bold")
        for line in lines:
            say(f"  {line}", console)
