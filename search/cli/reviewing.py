"""`fmnist evaluate` and `fmnist importance`: what the test set says of a trial, and what mattered."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import AsJson, DataDir, ExperimentReference, ExperimentsDir
from search.cli.show import find, print_evaluation, print_json


def evaluate(
    experiment: ExperimentReference,
    trial: Annotated[
        int | None,
        typer.Option(help="Its number, if it still has a checkpoint; the best trial if left out.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Test a trial's best epoch on the test images, and save and show the result.

    Each look at the test images is logged in the experiment's
    test_looks.jsonl. From the second look on, the result comes with a warning:
    the best of several test results overestimates the model.
    """
    from rich.console import Console

    from fmnist_models.data import data_root
    from search.configuration.config import read_config
    from search.records.looks import looks_to_dict
    from search.running.preparation import load_training_data
    from search.workflows.evaluation import evaluate_and_save

    found = find(experiment, experiments_dir)
    config = read_config(found)
    root = data_root(data_dir)
    data = load_training_data(config, data_root=root)
    evaluation = evaluate_and_save(found, config, trial, data_root=root, data=data)
    if as_json:
        print_json({**evaluation.to_dict(), **looks_to_dict(found)})
    else:
        print_evaluation(evaluation, found, found.location if trial is None else found.trial(trial).location, Console())


def importance(
    experiment: ExperimentReference, experiments_dir: ExperimentsDir = None, as_json: AsJson = False
) -> None:
    """Show which hyperparameters mattered (fANOVA) and which are not distinguishable from noise; no cluster needed."""
    from rich.console import Console

    from search.review.importance import measure_importances
    from search.review.review_text import describe_importances

    found = measure_importances(find(experiment, experiments_dir))
    if as_json:
        print_json(found.to_dict())
    else:
        console = Console()
        console.print(describe_importances(found, width=console.width), soft_wrap=True)
