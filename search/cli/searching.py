"""`fmnist search`: run, check, continue and repeat searches."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.options import AsJson, ConfigFile, DataDir, ExperimentReference, ExperimentsDir, Overrides, Preset
from search.cli.show import find, print_evaluation, print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from search.config import SearchConfig
    from search.experiment import Experiment
    from search.main_job import SearchResult
    from search.preparation import Prepared
    from search.slots import Slots

search_app = typer.Typer(help="Run, check, continue and repeat searches.", no_args_is_help=True)


@search_app.command("run")
def search_run(
    config_file: ConfigFile = None,
    preset: Preset = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment; the preset's or file's if left out.")] = None,
    overrides: Overrides = None,
    enqueue: Annotated[
        Path | None, typer.Option(help="YAML list of configurations to try first.", show_default=False)
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="EXPERIMENT", help="One whose trials the sampler learns from.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Search, train, and test the best trial once; an experiment that exists is continued."""
    from search.config import load_config
    from search.experiment import experiments_dir as resolve_experiments_dir
    from search.experiment import new_experiment

    config, default_name = load_config(config_file, preset=preset, overrides=overrides or ())
    directory = resolve_experiments_dir(experiments_dir)
    experiment = new_experiment(default_name if name is None else name, directory=directory)
    _search(
        _Request(
            experiment=experiment,
            config=config,
            enqueue=enqueue,
            warm_start=find(warm_start, experiments_dir) if warm_start is not None else None,
            data_dir=data_dir,
            as_json=as_json,
            resume=f"fmnist search resume {_reference(experiment)}",
        )
    )


@search_app.command("resume")
def search_resume(
    experiment: ExperimentReference,
    trials: Annotated[
        int | None, typer.Option(help="How many the study shall hold, those it has among them.", show_default=False)
    ] = None,
    time_budget_s: Annotated[
        float | None, typer.Option(help="Seconds after which this run ends.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Continue an experiment: trials that were running first, each from its last epoch, then new ones."""
    from search.config import parse_config, read_config

    found = find(experiment, experiments_dir)
    changes = {"max_trials": trials, "time_budget_s": time_budget_s}
    raw = read_config(found).model_dump() | {key: value for key, value in changes.items() if value is not None}
    _search(
        _Request(
            experiment=found,
            config=parse_config(raw, where=f"{found.name}, continued"),
            enqueue=None,
            warm_start=None,
            data_dir=data_dir,
            as_json=as_json,
            resume=f"fmnist search resume {_reference(found)}",
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

    from cluster.interruption import interruptible
    from cluster.session import local_ray
    from search.config import read_config
    from search.display import replay_table
    from search.replay import find_replayable, replay_trial
    from search.slots import local_resources

    found, resources = find(experiment, experiments_dir), local_resources()
    recorded = find_replayable(found, trial)
    prepared, slots = _prepare(read_config(found), data_dir)
    with interruptible() as interruption:
        try:
            with local_ray(num_cpus=resources.cpus, num_gpus=resources.gpus, dashboard=slots.slot.num_workers > 1):
                replay = replay_trial(found, recorded, prepared, slots)
        except KeyboardInterrupt:
            raise typer.Exit(interruption.exit_code) from None
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
    _print_notes(prepared.notes, console)
    console.print(resolved.to_yaml(), highlight=False, markup=False)
    console.print("space", style="bold")
    for key, dimension in resolved.space.dimensions.items():
        console.print(f"  {key}: {dimension}", highlight=False, markup=False)
    console.print("resources", style="bold")
    console.print(f"  {resources} on this machine", highlight=False, markup=False)
    console.print("would run", style="bold")
    console.print(f"  {_describe_run(prepared, slots)}", highlight=False, markup=False)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What a person asked of a search; ``resume`` is the command that continues it."""

    experiment: Experiment
    config: SearchConfig
    enqueue: Path | None
    warm_start: Experiment | None
    data_dir: Path | None
    as_json: bool
    resume: str

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(stderr=self.as_json)


def _search(request: _Request) -> None:
    """Runs a search and ends with its exit code."""
    from cluster.interruption import interruptible

    with interruptible() as interruption:
        try:
            result = _run(request)
        except KeyboardInterrupt:
            saved = request.experiment.exists()
            told = f"everything so far is saved, `{request.resume}` goes on" if saved else "nothing was started"
            say(f"interrupted; {told}", request.console)
            raise typer.Exit(interruption.exit_code) from None
    if result.evaluation is None:
        raise typer.Exit(1)


def _run(request: _Request) -> SearchResult:
    from cluster.session import local_ray
    from fmnist_models.data import data_root
    from search.config import read_config
    from search.continuation import open_experiment
    from search.enqueue import read_queue
    from search.main_job import run_search
    from search.progress import SearchProgress
    from search.retention import check_room
    from search.slots import local_resources
    from search.study import SearchStudy

    experiment, console = request.experiment, request.console
    before = read_config(experiment) if experiment.exists() else None
    prepared, slots = _prepare(request.config, request.data_dir, before=before)
    config, resources = prepared.config, local_resources()
    queue = read_queue(request.enqueue, config.space) if request.enqueue else ()
    check_room(experiment, config, num_slots=slots.count)
    with contextlib.ExitStack() as stack:
        warm = stack.enter_context(open_experiment(experiment, config, warm_start=request.warm_start))
        study = SearchStudy.open(experiment, config, warm=warm.trials)
        num_untried = study.enqueue(queue)
        trials = study.study.get_trials(deepcopy=False)
        _print_notes((*prepared.notes, *warm.notes), console)
        say(f"{experiment.name}: {_describe_run(prepared, slots)}", console)
        if warm.trials:
            skipped = f", {warm.num_skipped} that do not fit this space skipped" if warm.num_skipped else ""
            say(f"warm start: {len(warm.trials)} trials of {warm.source}{skipped}", console)
        if queue and num_untried:
            say(f"{num_untried} chosen configurations have no place among {config.max_trials} trials", console)
        if trials:
            than = "" if len(trials) <= config.max_trials else f", more than the {config.max_trials} asked for"
            say(f"continues with {len(trials)} trials already in the study{than}", console)
        if not study.is_finished():
            stack.enter_context(
                local_ray(
                    num_cpus=resources.cpus,
                    num_gpus=resources.gpus,
                    dashboard=slots.slot.num_workers > 1,
                    log=experiment.log,
                )
            )
        root = data_root(request.data_dir)
        with SearchProgress(console, config, trials) as progress:
            result = run_search(experiment, prepared, slots, study=study, progress=progress, data_root=root)
    if request.as_json:
        evaluation = result.evaluation.to_dict() if result.evaluation else None
        print_json(
            {
                "path": str(experiment.path),
                "outcome": result.outcome.value,
                "idle_share": result.idle_share,
                "evaluation": evaluation,
            }
        )
    else:
        _show_result(request, prepared, result)
    return result


def _prepare(
    config: SearchConfig, data_dir: Path | None, *, before: SearchConfig | None = None
) -> tuple[Prepared, Slots]:
    from fmnist_models.data import data_root
    from search.preparation import prepare
    from search.slots import local_resources, plan_slots

    slots = plan_slots(config, local_resources())
    if config.deterministic and config.max_concurrent_trials is None:
        # It decides what is drawn, so it is part of the configuration from now on.
        count = (before.max_concurrent_trials if before else None) or slots.count
        return _prepare(config.model_copy(update={"max_concurrent_trials": count}), data_dir, before=before)
    return prepare(config, data_root=data_root(data_dir), before=before), slots


def _reference(experiment: Experiment) -> str:
    """How to name an experiment on the command line: its name, unless it is somewhere else than usual."""
    from search.experiment import experiments_dir

    usual = experiments_dir().absolute() == experiment.path.parent
    return experiment.name if usual else shlex.quote(str(experiment.path))


def _print_notes(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        say(note, console, style="bold yellow")


def _describe_run(prepared: Prepared, slots: Slots) -> str:
    config, data = prepared.config, prepared.data
    return (
        f"{config.max_trials} trials of up to {config.max_epochs} epochs on {config.dataset}, {len(data.train):,} "
        f"training and {len(data.validation):,} validation images, {slots}"
    )


def _show_result(request: _Request, prepared: Prepared, result: SearchResult) -> None:
    from search.display import trials_table
    from search.fingerprint import fingerprint
    from search.record import read_study
    from search.results import read_trials
    from search.runner import Outcome

    experiment, console = request.experiment, request.console
    config, table = prepared.config, read_trials(experiment)
    title = f"\n{experiment.name} on {config.dataset}: {len(table)} trials, best first"
    console.print(trials_table(table, title=title, metric=config.metric))
    if result.outcome == Outcome.OUT_OF_TIME:
        told = f"out of time after {config.time_budget_s:g} s with {len(table)} of {config.max_trials} trials"
        say(f"{told}; `{request.resume}` goes on", console)
    if result.idle_share is not None:
        why = ", waiting for older trials so that the search repeats exactly" if config.deterministic else ""
        say(f"slots stood idle {result.idle_share:.0%} of the time{why}", console, style="dim")
    if config.deterministic:
        trials = read_study(experiment.journal).get_trials(deepcopy=False)
        say(f"fingerprint of the trials: {fingerprint(trials)}", console, style="dim")
    if result.evaluation is None:
        say(f"no trial is complete, so none was tested; all is in {experiment.path}", console)
    else:
        print_evaluation(result.evaluation, experiment.path, console)
