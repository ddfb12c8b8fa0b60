"""`fmnist data`: the images."""

from __future__ import annotations

import typer

from search.cli.options import AsJson, DataDir
from search.cli.show import print_json

data_app = typer.Typer(help="Images.", no_args_is_help=True)


@data_app.command("prepare")
def data_prepare(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Download Fashion-MNIST if it is not there, and check every file."""
    from fmnist_models.data import data_root, load_images

    root = data_root(data_dir)
    sizes = {part: len(load_images("fashion-mnist", part, root=root)) for part in ("train", "test")}
    if as_json:
        print_json({"dataset": "fashion-mnist", "root": str(root.absolute()), **sizes})
    else:
        typer.echo(f"Fashion-MNIST is complete in {root}: {sizes['train']:,} training, {sizes['test']:,} test images")
