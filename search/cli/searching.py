"""`fmnist search`: run, check, continue and repeat searches."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from search.cli.exits import RAY_ENDS, interruption_told
from search.cli.options import (
    AsJson,
    ConfigFile,
    DataDir,
    Enqueue,
    ExperimentReference,
    ExperimentsDir,
    Overrides,
    Preset,
    RayAddress,
)
from search.cli.running import Request, describe_run, prepare_search, print_notes, run_request
from search.cli.show import find, print_json

search_app = typer.Typer(help="Run, check, continue and repeat searches.", no_args_is_help=True)


@search_app.command("run")
def search_run(
    config_file: ConfigFile = None,
    preset: Preset = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment; the preset's or file's if left out.")] = None,
    overrides: Overrides = None,
    enqueue: Enqueue = None,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="EXPERIMENT", help="One whose trials the sampler learns from.", show_default=False),
    ] = None,
    address: RayAddress = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Search, train, and test the best trial once; an experiment that exists is continued."""
    from search.configuration.config import load_config
    from search.records.experiment import experiments_dir as resolve_experiments_dir
    from search.records.experiment import new_experiment

    config, default_name = load_config(config_file, preset=preset, overrides=overrides or ())
    directory = resolve_experiments_dir(experiments_dir)
    wanted = default_name if name is None else name
    experiment = new_experiment(wanted, directory=directory, study_storage=config.study_storage)
    run_request(
        Request(
            experiment=experiment,
            config=config,
            enqueue=enqueue,
            warm_start=find(warm_start, experiments_dir) if warm_start is not None else None,
            address=address,
            data_dir=data_dir,
            as_json=as_json,
            mlflow=config.mlflow.target if config.mlflow else None,
        )
    )


@search_app.command("resume")
def search_resume(
    experiment: ExperimentReference,
    trials: Annotated[
        int | None, typer.Option(help="How many the study shall hold, those it has among them.", show_default=False)
    ] = None,
    time_budget_s: Annotated[
        float | None,
        typer.Option(help="Seconds after which this run, and any later one, ends; 0: no limit.", show_default=False),
    ] = None,
    address: RayAddress = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Continue an experiment: trials that were running first, each from its last epoch, then new ones."""
    from search.configuration.config import parse_config, read_config
    from search.records.tracking import TRACKING_URI_VARIABLE, is_named

    found = find(experiment, experiments_dir)
    raw = read_config(found).model_dump()
    if trials is not None:
        raw["max_trials"] = trials
    if time_budget_s is not None:
        raw["time_budget_s"] = time_budget_s or None
    config = parse_config(raw, where=f"{found.name}, continued")
    target = config.mlflow.target if config.mlflow else None
    if target is not None and not is_named(target):  # the folder alone, a stranger's maybe, is not enough
        named = f"set {TRACKING_URI_VARIABLE} to {target.tracking_uri}"
        typer.echo(f"MLflow is not told of it; {named} if it should be", err=True)
        target = None
    run_request(
        Request(
            experiment=found,
            config=config,
            enqueue=None,
            warm_start=None,
            address=address,
            data_dir=data_dir,
            as_json=as_json,
            mlflow=target,
        )
    )


@search_app.command("replay")
def search_replay(
    experiment: ExperimentReference,
    trial: Annotated[int, typer.Option(help="Its number.", show_default=False)],
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Train one trial again and say whether it got the same curve (exit code 0) or another (1)."""
    from rich.console import Console

    from cluster.session import local_ray
    from search.configuration.config import read_config
    from search.review.display import replay_table
    from search.running.slots import local_resources
    from search.workflows.replay import find_replayable, replay_trial

    found, resources = find(experiment, experiments_dir), local_resources()
    recorded = find_replayable(found, trial)
    anywhere = read_config(found).model_copy(update={"accelerator_type": None, "node_labels": {}})
    prepared, slots = prepare_search(anywhere, data_dir, nodes=[resources], before=anywhere)
    with (
        interruption_told(lambda: "interrupted", tell=lambda text: typer.echo(text, err=True), waits_for=RAY_ENDS),
        local_ray(num_cpus=resources.cpus, num_gpus=resources.gpus),
    ):
        replay = replay_trial(found, recorded, prepared, slots)
    if as_json:
        print_json(replay.to_dict())
    else:
        console = Console()
        console.print(replay_table(replay, title=f"trial {trial} of {found.name}, trained again"))
        console.print(replay.verdict, style="bold green" if replay.is_same else "bold red", highlight=False)
    if not replay.is_same:
        raise typer.Exit(1)


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

    from search.configuration.config import load_config
    from search.running.slots import local_resources

    config, _ = load_config(config_file, preset=preset, overrides=overrides or ())
    resources = local_resources()
    prepared, slots = prepare_search(config, data_dir, nodes=[resources])
    resolved = prepared.config
    num_train, num_validation = prepared.num_images
    images = {"dataset": resolved.dataset, "train": num_train, "validation": num_validation}
    if as_json:
        print_json(
            {
                "config": resolved.model_dump(),
                "images": images,
                "resources": dataclasses.asdict(resources),
                "slots": dataclasses.asdict(slots),
                "num_confirming": resolved.confirm.num_trainings + 1 if resolved.confirm else 0,
                "notes": prepared.notes,
            }
        )
        return
    console = Console()
    print_notes(prepared.notes, console)
    console.print(resolved.to_yaml(), highlight=False, markup=False)
    console.print("space", style="bold")
    for key, dimension in resolved.space.dimensions.items():
        console.print(f"  {key}: {dimension}", highlight=False, markup=False)
    console.print("resources", style="bold")
    console.print(f"  {resources} on this machine", highlight=False, markup=False)
    console.print("would run", style="bold")
    console.print(f"  {describe_run(prepared, slots)}", highlight=False, markup=False)
