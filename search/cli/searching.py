"""`fmnist search`: run a search, or check what one would do."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.options import AsJson, ConfigFile, DataDir, ExperimentsDir, Overrides, Preset
from search.cli.show import print_evaluation, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from search.config import SearchConfig
    from search.experiment import Experiment
    from search.main_job import SearchResult
    from search.preparation import Prepared
    from search.slots import Slots

search_app = typer.Typer(help="Run a search, or check what one would do.", no_args_is_help=True)


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
        print_json(
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
        print_json({"path": str(experiment.path), "outcome": result.outcome.value, "evaluation": evaluation})
    else:
        _show_result(experiment, prepared, result, console)
    return 0 if result.evaluation else 1


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
        print_evaluation(result.evaluation, experiment.path, console)
