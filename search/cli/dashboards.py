"""`fmnist dashboard`: experiments in optuna-dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import DataDir, ExperimentsDir
from search.cli.show import find

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
    from pathlib import Path

    from rich.console import Console

    from cluster.interruption import interruptible
    from search.cli.show import say
    from search.dashboard import Dashboard, DashboardServer

    console = Console(stderr=True)
    found = list(dict.fromkeys(find(reference, experiments_dir) for reference in experiments))
    with interruptible() as interruption, tempfile.TemporaryDirectory(prefix="fmnist-dashboard-") as folder:
        try:
            app = Dashboard(found, folder=Path(folder), data_dir=data_dir, tell=lambda text: say(text, console))
            with contextlib.closing(app), DashboardServer(app, host=host, port=port) as server:
                app.start()
                names = ", ".join(experiment.name for experiment in found)
                say(f"{names}: {server.address} (Ctrl-C ends it)", console)
                server.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit(interruption.exit_code) from None
