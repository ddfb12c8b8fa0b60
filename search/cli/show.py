"""What several commands show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from search.records.evaluation_file import Evaluation
    from search.records.experiment import Experiment


def find(reference: str, directory: str | None) -> Experiment:
    from search.records.experiment import experiments_dir, find_experiment

    return find_experiment(reference, directory=experiments_dir(directory))


def print_evaluation(evaluation: Evaluation, experiment: Experiment, folder: str, console: Console) -> None:
    from search.records.looks import find_looks
    from search.review.choice_text import read_remarks
    from search.review.display import confirmation_table, per_class_table
    from search.review.looks_text import describe_looks, is_warning

    if evaluation.confirmation is not None:
        console.print(confirmation_table(evaluation.confirmation))
    scores = evaluation.scores
    title = (
        f"\ntrial {evaluation.trial} ({evaluation.hyperparameters['model']}) on {evaluation.dataset}, "
        f"epoch {evaluation.epoch}: {evaluation.metric} {evaluation.value:.4f}"
    )
    console.print(per_class_table(evaluation.per_class(), title=title))
    console.print(f"chosen by: {evaluation.rule}", style="dim", highlight=False)
    console.print(
        f"test accuracy {scores.accuracy:.2%} on {scores.num_images:,} {evaluation.dataset} images "
        f"(95 % interval {scores.accuracy_low:.2%} to {scores.accuracy_high:.2%})",
        style="bold green",
        highlight=False,
    )
    for remark in read_remarks(experiment, evaluation):
        say(remark, console, style="yellow")
    looks = find_looks(experiment)
    say(describe_looks(looks, experiment), console, style="bold yellow" if is_warning(looks) else "dim")
    say(f"everything is in {folder}", console)


def say(text: str, console: Console, *, style: str = "") -> None:
    """One line as it is, which may name what strangers named."""
    from search.review.display import as_text

    console.print(as_text(text, style=style), soft_wrap=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
