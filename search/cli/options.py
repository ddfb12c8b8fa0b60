"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fmnist_models.paths import expand_home


def expanded(paths: Any) -> Any:
    """The callback of every option and argument that is a path: replaces a leading ``~``."""
    if isinstance(paths, Path):
        return expand_home(paths)
    return None if paths is None else [expand_home(path) for path in paths]


ConfigFile = Annotated[
    Path | None,
    typer.Argument(help="YAML file; see `--preset` for ready ones.", show_default=False, callback=expanded),
]
Preset = Annotated[
    str | None,
    typer.Option(help="quickstart (the default), paper-customnet, paper-resnet18 or full.", show_default=False),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the config, repeatable; space.lr=0.01 reaches inside.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder that holds FashionMNIST/raw [$FMNIST_DATA_DIR, else a cache folder].", callback=expanded),
]
Enqueue = Annotated[
    Path | None,
    typer.Option(help="YAML list of configurations to try first.", show_default=False, callback=expanded),
]
ExperimentsDir = Annotated[
    str | None, typer.Option(help="A folder, or s3://… or gs://… [$FMNIST_EXPERIMENTS_DIR, else ./experiments].")
]
ExperimentReference = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name, path, s3:// or gs:// address.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Of a Ray cluster, host:port, or auto within one of its jobs; a Ray of its own if left out.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output instead of text.")]
