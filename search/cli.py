"""The command line. Everything heavy is imported where it is used, so that `fmnist --help` answers at once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmnist_models.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from search.config import SearchConfig
    from search.evaluation import Evaluation
    from search.experiment import Experiment
    from search.main_job import SearchResult
    from search.preparation import Prepared
    from search.slots import Slots

app = typer.Typer(
    name="fmnist",
    help="Search hyperparameters of Fashion-MNIST classifiers: Ray runs the trials, an Optuna study records them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
search_app = typer.Typer(help="Run a search, or check what one would do.", no_args_is_help=True)
data_app = typer.Typer(help="Images.", no_args_is_help=True)
app.add_typer(search_app, name="search")
app.add_typer(data_app, name="data")

ConfigFile = Annotated[
    Path | None, typer.Argument(help="YAML file; see `--preset` for ready ones.", show_default=False)
]
Preset = Annotated[str | None, typer.Option(help="quickstart (the default), paper or full.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the config, repeatable; space.lr=0.01 reaches inside.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder that holds FashionMNIST/raw [$FMNIST_DATA_DIR, else a cache folder].")
]
ExperimentsDir = Annotated[Path | None, typer.Option(help="[$FMNIST_EXPERIMENTS_DIR, else ./experiments]")]
ExperimentReference = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name, relative or full path.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output instead of text.")]


@search_app.command("run")
def search_run(
    config_file: ConfigFile = None,
    preset: Preset = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment [the preset's or file's name].")] = None,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Search, train, and test the best trial once; an experiment that exists is continued."""
    from rich.console import Console

    from search.config import load_config
    from search.continuation import read_config
    from search.experiment import experiments_dir as resolve_experiments_dir
    from search.experiment import new_experiment

    config, default_name = load_config(config_file, preset=preset, overrides=overrides or ())
    experiment = new_experiment(
        default_name if name is None else name, directory=resolve_experiments_dir(experiments_dir)
    )
    console = Console(stderr=as_json)
    before = read_config(experiment) if experiment.exists() else None
    prepared, slots = _prepare(config, data_dir, before=before)
    exit_code = _run(experiment, prepared, slots, data_dir=data_dir, console=console, as_json=as_json)
    if exit_code:
        raise typer.Exit(exit_code)


@search_app.command("validate")
def search_validate(
    config_file: ConfigFile = None,
    preset: Preset = None,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check a configuration with its images and weights, and show what would run; starts nothing."""
    from rich.console import Console

    from search.config import load_config
    from search.slots import local_resources

    config, _ = load_config(config_file, preset=preset, overrides=overrides or ())
    prepared, slots = _prepare(config, data_dir)
    resolved, resources = prepared.config, local_resources()
    images = {
        "dataset": resolved.dataset,
        "train": len(prepared.data.train),
        "validation": len(prepared.data.validation),
    }
    if as_json:
        _print_json(
            {
                "config": resolved.model_dump(),
                "images": images,
                "resources": dataclasses.asdict(resources),
                "slots": dataclasses.asdict(slots),
                "notes": prepared.notes,
            }
        )
        return
    console = Console()
    _print_notes(prepared, console)
    console.print(resolved.to_yaml(), highlight=False, markup=False)
    console.print("space", style="bold")
    for key, dimension in resolved.space.dimensions.items():
        console.print(f"  {key}: {dimension}", highlight=False, markup=False)
    console.print("resources", style="bold")
    console.print(f"  {resources} on this machine", highlight=False, markup=False)
    console.print("would run", style="bold")
    console.print(f"  {_describe_run(prepared, slots)}", highlight=False, markup=False)


@app.command("trials")
def trials(experiment: ExperimentReference, experiments_dir: ExperimentsDir = None, as_json: AsJson = False) -> None:
    """The trials of an experiment, best first; no cluster needed."""
    from rich.console import Console

    from search.display import plain_rows, trials_table
    from search.results import read_settings, read_trials

    found = _find(experiment, experiments_dir)
    settings, table = read_settings(found), read_trials(found)
    if as_json:
        rows = plain_rows(table)
        _print_json(
            {"experiment": found.name, "dataset": settings["dataset"], "metric": settings["metric"], "trials": rows}
        )
        return
    title = f"{found.name} on {settings['dataset']}: {len(table)} of {settings['max_trials']} trials, best first"
    Console().print(trials_table(table, title=title, metric=settings["metric"]))


@app.command("evaluate")
def evaluate(
    experiment: ExperimentReference,
    trial: Annotated[
        int | None, typer.Option(help="Its number, if it still has a checkpoint [the best trial].", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Test a trial's best epoch on the test images, and save and show the result."""
    from rich.console import Console

    from fmnist_models.data import data_root
    from search.continuation import read_config
    from search.evaluation import evaluate_and_save
    from search.preparation import load_training_data

    found = _find(experiment, experiments_dir)
    config = read_config(found)
    root = data_root(data_dir)
    normalisation = load_training_data(config, data_root=root).normalisation
    evaluation = evaluate_and_save(found, config, trial, data_root=root, normalisation=normalisation)
    if as_json:
        _print_json(evaluation.to_dict())
    else:
        _print_evaluation(evaluation, found.path if trial is None else found.trial(trial).path, Console())


@data_app.command("prepare")
def data_prepare(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Download Fashion-MNIST if it is not there, and check every file."""
    from fmnist_models.data import data_root, load_images

    root = data_root(data_dir)
    sizes = {part: len(load_images("fashion-mnist", part, root=root)) for part in ("train", "test")}
    if as_json:
        _print_json({"dataset": "fashion-mnist", "root": str(root.absolute()), **sizes})
    else:
        typer.echo(f"Fashion-MNIST is complete in {root}: {sizes['train']:,} training, {sizes['test']:,} test images")


def main() -> None:
    """Runs the command line; what a person can put right ends with its message and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _prepare(
    config: SearchConfig, data_dir: Path | None, *, before: SearchConfig | None = None
) -> tuple[Prepared, Slots]:
    from fmnist_models.data import data_root
    from search.preparation import prepare
    from search.slots import local_resources, plan_slots

    slots = plan_slots(config, local_resources())
    return prepare(config, data_root=data_root(data_dir), before=before), slots


def _run(
    experiment: Experiment, prepared: Prepared, slots: Slots, *, data_dir: Path | None, console: Console, as_json: bool
) -> int:
    """Runs the search and shows its result; gives the exit code."""
    from cluster.session import Session, local_ray
    from fmnist_models.data import data_root
    from search.continuation import open_experiment
    from search.main_job import run_search
    from search.progress import SearchProgress
    from search.runner import Outcome
    from search.slots import local_resources
    from search.study import SearchStudy

    config, resources = prepared.config, local_resources()
    with contextlib.ExitStack() as stack:
        stack.enter_context(open_experiment(experiment, config))
        study = SearchStudy.open(experiment, config)
        before = study.study.get_trials(deepcopy=False)
        _print_notes(prepared, console)
        console.print(f"{experiment.name}: {_describe_run(prepared, slots)}", highlight=False)
        if before:
            console.print(f"continues with {len(before)} trials already in the study", highlight=False)
        session = Session()
        try:
            if not study.is_finished():
                session = stack.enter_context(
                    local_ray(
                        num_cpus=resources.cpus,
                        num_gpus=resources.gpus,
                        dashboard=slots.slot.num_workers > 1,
                        log=experiment.log,
                    )
                )
            with SearchProgress(console, config, before) as progress:
                result = run_search(
                    experiment, prepared, slots, study=study, progress=progress, data_root=data_root(data_dir)
                )
            interrupted, num_trials = result.outcome == Outcome.INTERRUPTED, result.num_trials
        except KeyboardInterrupt:
            interrupted, num_trials = True, len(study.study.get_trials(deepcopy=False))
    if interrupted:
        console.print(f"interrupted with {num_trials} trials saved; the same command continues the search")
        return 128 + (signal.SIGTERM if session.terminated else signal.SIGINT)
    if as_json:
        evaluation = result.evaluation.to_dict() if result.evaluation else None
        _print_json({"path": str(experiment.path), "outcome": result.outcome.value, "evaluation": evaluation})
    else:
        _show_result(experiment, prepared, result, console)
    return 0 if result.evaluation else 1


def _find(reference: str, directory: Path | None) -> Experiment:
    from search.experiment import experiments_dir, find_experiment

    return find_experiment(reference, directory=experiments_dir(directory))


def _print_notes(prepared: Prepared, console: Console) -> None:
    for note in prepared.notes:
        console.print(note, style="bold yellow", highlight=False, markup=False)


def _describe_run(prepared: Prepared, slots: Slots) -> str:
    config, data = prepared.config, prepared.data
    return (
        f"{config.max_trials} trials of up to {config.max_epochs} epochs on {config.dataset}, {len(data.train):,} "
        f"training and {len(data.validation):,} validation images, {slots}"
    )


def _show_result(experiment: Experiment, prepared: Prepared, result: SearchResult, console: Console) -> None:
    from search.display import trials_table
    from search.results import read_trials
    from search.runner import Outcome

    config, table = prepared.config, read_trials(experiment)
    title = f"\n{experiment.name} on {config.dataset}: {len(table)} trials, best first"
    console.print(trials_table(table, title=title, metric=config.metric))
    if result.outcome == Outcome.OUT_OF_TIME:
        console.print(
            f"out of time after {config.time_budget_s:g} s with {len(table)} of {config.max_trials} trials; "
            "the same command continues the search",
            highlight=False,
        )
    if result.evaluation is None:
        told = f"no trial is complete, so none was tested; all is in {experiment.path}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    else:
        _print_evaluation(result.evaluation, experiment.path, console)


def _print_evaluation(evaluation: Evaluation, folder: Path, console: Console) -> None:
    from search.display import per_class_table

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
    console.print(f"everything is in {folder}", highlight=False, markup=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
