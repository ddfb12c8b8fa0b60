"""`fmnist predict` and `fmnist export`: using the model that won."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from search.cli.options import AsJson, DataDir, ExperimentsDir, expanded
from search.cli.show import print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from fmnist_models.image_file import GarmentImage

WinnerReference = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Name, path, s3:// or gs:// address; or a folder with a model.safetensors and its config.json.",
    ),
]


def predict(
    experiment: WinnerReference,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Files, each a picture of one garment.", callback=expanded)
    ],
    top: Annotated[int, typer.Option(min=1, max=10, help="How many classes to show of each.")] = 3,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what garments pictures show, with the best model of an experiment.

    PNG, JPEG, GIF, WebP, BMP and TIFF files of up to 67 million pixels are
    read, the first picture of each, turned as its EXIF orientation says.

    It is made grey (ITU-R 601) and, if its background is bright, inverted:
    the model knows bright garments on black. The background is the median of
    the border, a 28th of the longer side wide. Transparent parts become
    background; if half of the border is transparent, that is white, or black
    for a garment that is nearly white itself.

    The picture is not cropped: its longer side is resized to 28 pixels by
    area, the shorter one is filled up with background on both sides.

    Probabilities are calibrated: scores are divided by a temperature that
    was fitted on validation images (not after a search with folds).

    "does not look like the training images" means that a picture is farther
    from the nearest of 2,000 training images than 95 % of the validation
    images are: ignore its class.

    If one of the files is no such picture, or has almost no contrast, nothing
    is predicted.
    """
    import numpy as np
    from rich.console import Console

    from search.records.experiment import experiments_dir as resolve_experiments_dir
    from search.workflows.winner import find_winner

    garments = _read_all(images)
    winner = find_winner(experiment, directory=resolve_experiments_dir(experiments_dir))
    pixels = np.stack([garment.pixels for garment in garments])
    prediction, threshold = winner.classifier.predict(pixels), winner.config.distance_threshold
    distances = [None] * len(images) if prediction.distance is None else prediction.distance.tolist()
    rows = [
        {
            "image": str(path),
            "width": garment.width,
            "height": garment.height,
            "inverted": garment.is_inverted,
            "distance": distance,
            "looks_like_training_images": None if distance is None or threshold is None else distance <= threshold,
            "classes": [
                {"class": winner.config.class_names[code], "probability": float(row[code])}
                for code in np.argsort(-row, kind="stable")[:top]
            ],
        }
        for path, garment, row, distance in zip(images, garments, prediction.probabilities, distances, strict=True)
    ]
    if as_json:
        print_json(
            {
                "experiment": winner.name,
                "dataset": winner.config.dataset,
                "temperature": winner.config.temperature,
                "distance_threshold": threshold,
                "predictions": rows,
            }
        )
        return
    console = Console()
    _print_predictions(rows, f"{winner.name}, {winner.config.network} on {winner.config.dataset}", console)
    if threshold is not None and winner.config.temperature == 1:
        say(
            "The probabilities are not calibrated: the search left no model to fit a temperature with on images that "
            "the model was not trained on.",
            console,
        )
    if threshold is None:
        say(
            "This model was saved by an older version: its probabilities are not calibrated, and unusual pictures are "
            "not marked." + ("" if winner.experiment is None else f" `fmnist evaluate {winner.name}` adds both."),
            console,
        )


def export(
    experiment: WinnerReference,
    format_name: Annotated[
        Literal["onnx", "torch-export", "safetensors"],
        typer.Option("--format", help="onnx: a .onnx file; torch-export: a .pt2 file; safetensors: a folder."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File or folder to write, - for standard output [EXPERIMENT.onnx, .pt2 or -model here].",
            show_default=False,
            callback=expanded,
        ),
    ] = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Write the best model of an experiment so that it can be used without this project.

    A file of onnx or torch-export takes `images`, uint8 (N, 28, 28), bright
    garments on black, for any N, and gives `probabilities`, float32 (N, 10),
    and `distance`, float32 (N,), to the training images; torch-export returns
    the pair (probabilities, distance). Normalisation and temperature are
    applied inside; class names, data set, trial, versions, temperature and
    distance_threshold are in the metadata. safetensors is a folder with the
    weights and a config.json.

    The export is run on all test images of the experiment, and kept only if
    each image gets the same class as from the model here, probabilities that
    differ by at most 0.0001, and distances that differ by at most 0.01.

    An older export of that name is replaced.
    """
    from rich.console import Console

    from fmnist_models.data import data_root
    from fmnist_models.errors import OutputError
    from fmnist_models.export import Source, check_output, export_model
    from fmnist_models.output import STANDARD_OUTPUT, describe_output
    from search.records.experiment import experiments_dir as resolve_experiments_dir
    from search.workflows.winner import find_winner

    winner = find_winner(experiment, directory=resolve_experiments_dir(experiments_dir))
    ending = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": "-model"}[format_name]
    path = Path(winner.name + ending) if output is None else output
    check_output(format_name, path)
    if as_json and path == STANDARD_OUTPUT:
        raise OutputError("--json and --output - both write to standard output; valid: one of them")
    source = Source(
        model=winner.classifier.network,
        distance=winner.classifier.distance,
        config=winner.config,
        provenance=winner.provenance(),
        images=winner.test_images(data_root=data_root(data_dir)),
    )
    agreement = export_model(source, format_name, output=path)
    if as_json:
        print_json(
            {
                "experiment": winner.name,
                "dataset": winner.config.dataset,
                "format": format_name,
                "output": str(path),
                "num_images": agreement.num_images,
                "num_other_classes": agreement.num_other_classes,
                "max_difference": agreement.max_difference,
                "max_distance_difference": agreement.max_distance_difference,
            }
        )
        return
    say(
        f"{describe_output(path)}: the same class as here for all {agreement.num_images:,} "
        f"{winner.config.dataset} test images, probabilities differ by {agreement.max_difference:.1g} at most",
        Console(stderr=path == STANDARD_OUTPUT),
    )


def _read_all(paths: list[Path]) -> list[GarmentImage]:
    from fmnist_models.errors import ImageError
    from fmnist_models.image_file import read_garment

    garments, problems = [], []
    for path in paths:
        try:
            garments.append(read_garment(path))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise ImageError("\n".join(problems))
    return garments


def _print_predictions(rows: list[dict[str, Any]], title: str, console: Console) -> None:
    from rich.table import Table

    from search.review.display import as_text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    for row in rows:
        shown = [f"{entry['class']} {entry['probability']:.1%}" for entry in row["classes"]]
        doubt = "does not look like the training images" if row["looks_like_training_images"] is False else ""
        table.add_row(as_text(row["image"]), *map(as_text, shown), doubt, "inverted" if row["inverted"] else "")
    say(title, console, style="bold")
    console.print(table)
