"""`fmnist trials` and `fmnist evaluate`: what a search produced."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import AsJson, DataDir, ExperimentReference, ExperimentsDir
from search.cli.show import find, print_evaluation, print_json


def trials(experiment: ExperimentReference, experiments_dir: ExperimentsDir = None, as_json: AsJson = False) -> None:
    """The trials of an experiment, best first; no cluster needed."""
    from rich.console import Console

    from search.display import plain_rows, trials_table
    from search.fingerprint import fingerprint
    from search.record import read_study
    from search.results import read_settings, read_trials

    found = find(experiment, experiments_dir)
    settings, table = read_settings(found), read_trials(found)
    if as_json:
        print_json(
            {
                "experiment": found.name,
                "dataset": settings["dataset"],
                "metric": settings["metric"],
                "fingerprint": fingerprint(read_study(found).get_trials(deepcopy=False)),
                "trials": plain_rows(table),
            }
        )
        return
    title = f"{found.name} on {settings['dataset']}: {len(table)} of {settings['max_trials']} trials, best first"
    Console().print(trials_table(table, title=title, metric=settings["metric"]))


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
    """Test a trial's best epoch on the test images, and save and show the result."""
    from rich.console import Console

    from fmnist_models.data import data_root
    from search.config import read_config
    from search.evaluation import evaluate_and_save
    from search.preparation import load_training_data

    found = find(experiment, experiments_dir)
    config = read_config(found)
    root = data_root(data_dir)
    normalisation = load_training_data(config, data_root=root).normalisation
    evaluation = evaluate_and_save(found, config, trial, data_root=root, normalisation=normalisation)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        print_evaluation(evaluation, found.location if trial is None else found.trial(trial).location, Console())
