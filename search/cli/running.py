"""Running what a person asked of a search, from its preparation to its result on the screen."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from search.cli.exits import RAY_ENDS, errors_told, interruption_told
from search.cli.show import print_evaluation, print_json, say

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.console import Console

    from search.configuration.config import SearchConfig
    from search.records.cost import Cost
    from search.records.experiment import Experiment
    from search.records.tracking import Target
    from search.running.preparation import Prepared
    from search.running.runner import Outcome
    from search.running.slots import Resources, Slots
    from search.workflows.main_job import SearchResult


_PRELOADED = ("ray.tune", "ray.train.torch")  # which takes torch along


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asked of a search; ``address``: of the Ray cluster to run on, one of its own if left out;
    ``mlflow``: the server that is to be told of it."""

    experiment: Experiment
    config: SearchConfig
    enqueue: Path | None
    warm_start: Experiment | None
    address: str | None
    data_dir: Path | None
    as_json: bool
    mlflow: Target | None

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(stderr=self.as_json)

    @property
    def resume(self) -> str:
        """The command that continues the search."""
        from cluster.jobs import JOB_ID_VARIABLE

        job_id = os.environ.get(JOB_ID_VARIABLE)
        if job_id:
            return f"fmnist jobs resubmit {job_id}"
        where = f" --address {self.address}" if self.address is not None else ""
        return f"fmnist search resume {_reference_to(self.experiment)}{where}"


def run_request(request: Request) -> None:
    """Runs a search and ends with its exit code."""

    def describe() -> str:
        saved = request.experiment.exists()
        told = f"everything so far is saved, `{request.resume}` goes on" if saved else "nothing was started"
        return f"interrupted; {told}"

    with interruption_told(describe, tell=lambda text: say(text, request.console), waits_for=RAY_ENDS):
        result = _run(request)
    if result.evaluation is None:
        raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where trials will run. ``reach`` returns when it can be used."""

    nodes: Sequence[Resources]
    may_grow: bool
    reach: Callable[[], None]


def _run(request: Request) -> SearchResult:
    from search.records.lock import hold_experiment

    with contextlib.ExitStack() as stack:
        # Nobody else's until all that this process starts is gone.
        stack.enter_context(hold_experiment(request.experiment))
        place = _find_place(request, stack)  # what starts while the modules below are loaded
        from search.records.cost import measure_cost
        from search.records.looks import looks_to_dict
        from search.review.choice_text import read_remarks

        prepared, result = _search(request, place, stack)
    config = prepared.config
    cost = measure_cost(request.experiment, cpus=config.cpus, gpus=config.gpus_per_trial)
    if request.as_json:
        evaluation = result.evaluation.to_dict() if result.evaluation else None
        print_json(
            {
                "path": request.experiment.location,
                "outcome": result.outcome.value,
                "search_s": result.occupancy.search_s,
                "idle_share": result.occupancy.idle_share,
                "tail_share": result.occupancy.tail_share,
                "cost": dataclasses.asdict(cost),
                "evaluation": evaluation,
                **looks_to_dict(request.experiment),
                "remarks": read_remarks(request.experiment, result.evaluation) if result.evaluation else [],
            }
        )
    else:
        _show_result(request, prepared, result, cost)
    return result


def _find_place(request: Request, stack: contextlib.ExitStack) -> _Place:
    """The cluster that is asked for, or one of this process, until ``stack`` closes. The latter takes seconds to start:
    it begins at once for a new search, and when it is needed for one that may be finished."""
    from cluster.processes import MARK
    from cluster.session import BackgroundRay, connected_ray
    from search.running.slots import cluster_resources, local_resources

    if request.address is not None:
        stack.enter_context(connected_ray(request.address))
        stack.enter_context(errors_told())  # at once: leaving a cluster that is dying can take this process along
        # A cluster of `fmnist cluster up` has the nodes that it has.
        return _Place(nodes=cluster_resources(), may_grow=MARK not in os.environ, reach=lambda: None)
    here = local_resources()
    own = BackgroundRay(
        num_cpus=here.cpus,
        num_gpus=here.gpus,
        log=request.experiment.log,
        preload=preloaded_modules(request.config, here),
    )

    def leave() -> None:
        try:
            own.stop()
        except Exception as failure:  # the search's own end is what counts
            say(f"Ray did not end as it should: {failure}", request.console, style="yellow")

    stack.callback(leave)
    if not request.experiment.exists():
        own.start()
        stack.enter_context(errors_told())  # and not only when it has started and stopped
    return _Place(nodes=[here], may_grow=False, reach=own.wait)


def preloaded_modules(config: SearchConfig, here: Resources) -> tuple[str, ...]:
    """What the processes that Ray has waiting, one for each CPU, load meanwhile: what trials need, where each of them
    will have one, and none would hold as much memory as torch takes in vain.

    Raises:
        ConfigError: not even one trial fits here.
    """
    from search.running.slots import plan_slots

    num_taken = min(plan_slots(config, [here]).count, config.max_trials) if config.workers_per_trial == 1 else 0
    return _PRELOADED if num_taken >= here.cpus else ()


def _search(request: Request, place: _Place, stack: contextlib.ExitStack) -> tuple[Prepared, SearchResult]:
    from cluster.session import ray_log
    from fmnist_models.data import data_root
    from search.configuration.config import read_config
    from search.configuration.enqueue import read_queue
    from search.integrations.mlflow_sender import sending
    from search.records.confirmation import has_lost, is_settled
    from search.running.continuation import begin_run, read_noted, undone_if_refused
    from search.running.progress import SearchProgress
    from search.running.retention import check_room
    from search.study.search_study import SearchStudy
    from search.workflows.main_job import run_search

    experiment, console = request.experiment, request.console
    prepared, slots = prepare_search(
        request.config,
        request.data_dir,
        nodes=place.nodes,
        on_cluster=request.address is not None,
        may_grow=place.may_grow,
        before=read_config(experiment) if experiment.exists() else None,
        reach=place.reach,
    )
    config = prepared.config
    queue = read_queue(request.enqueue, config.space) if request.enqueue else ()
    check_room(experiment, config, num_slots=slots.count)
    noted = read_noted(experiment)
    warm = begin_run(
        experiment,
        config,
        warm_start=request.warm_start,
        num_slots=None if place.may_grow else min(slots.count, config.max_trials),  # of slots that may come: those used
    )
    with undone_if_refused(noted):
        study = SearchStudy.open(experiment, config, warm=warm.trials)
    experiment.send()
    num_untried = study.enqueue(queue)
    trials = study.study.get_trials(deepcopy=False)
    print_notes((*prepared.notes, *warm.notes), console)
    say(f"{experiment.name}: {describe_run(prepared, slots)}", console)
    if warm.trials:
        skipped = f", {warm.num_skipped} that do not fit this space skipped" if warm.num_skipped else ""
        say(f"warm start: {len(warm.trials)} trials of {warm.source}{skipped}", console)
    if queue and num_untried:
        say(f"{num_untried} chosen configurations have no place among {config.max_trials} trials", console)
    if trials:
        than = "" if len(trials) <= config.max_trials else f", more than the {config.max_trials} asked for"
        say(f"continues with {len(trials)} trials already in the study{than}", console)
    if (
        not study.is_finished()
        or not is_settled(experiment, config.model_dump(), trials)
        or has_lost(experiment, config.model_dump(), trials)
    ):
        place.reach()
        stack.enter_context(ray_log(experiment.log))
    root = data_root(request.data_dir)
    stack.enter_context(sending(experiment, request.mlflow, tell=lambda text: say(text, console, style="yellow")))
    with SearchProgress(console, config, trials) as progress:
        return prepared, run_search(experiment, prepared, slots, study=study, progress=progress, data_root=root)


def prepare_search(
    config: SearchConfig,
    data_dir: Path | None,
    *,
    nodes: Sequence[Resources],
    on_cluster: bool = False,
    may_grow: bool = False,
    before: SearchConfig | None = None,
    reach: Callable[[], None] = lambda: None,
) -> tuple[Prepared, Slots]:
    """``on_cluster``: this process is connected to the one that the trials will run on; ``reach`` returns when a Ray
    that is starting meanwhile, which keeps this machine busy, is there."""
    from fmnist_models.data import data_root
    from search.running.arithmetic import decide_precision
    from search.running.preparation import prepare
    from search.running.slots import plan_slots

    slots = plan_slots(config, nodes, may_grow=may_grow)
    if config.deterministic and config.max_concurrent_trials is None:
        # It decides what is drawn, so it is part of the configuration from now on.
        count = (before.max_concurrent_trials if before else None) or slots.count
        config = config.model_copy(update={"max_concurrent_trials": count})
        slots = plan_slots(config, nodes, may_grow=may_grow)

    def decide(config: SearchConfig, notes: list[str], *, num_train: int) -> str | dict[str, str]:
        if config.gpus_per_trial or slots.slot.threads_per_worker > 1:  # one thread is timed by its own CPU seconds
            reach()
        if on_cluster:
            from search.running.remote_arithmetic import decide_on_cluster

            return decide_on_cluster(config, notes, slot=slots.slot, num_train=num_train)
        return decide_precision(config, notes, num_train=num_train)

    return prepare(config, data_root=data_root(data_dir), before=before, decide=decide), slots


def _reference_to(experiment: Experiment) -> str:
    """How to name an experiment on the command line: its name, unless it is somewhere else than usual."""
    from search.records.experiment import experiments_dir, locate_experiment

    usual = locate_experiment(experiment.name, directory=experiments_dir())
    return experiment.name if usual.location == experiment.location else shlex.quote(experiment.location)


def print_notes(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        say(note, console, style="bold yellow")


def describe_run(prepared: Prepared, slots: Slots) -> str:
    config = prepared.config
    num_train, num_validation = prepared.num_images
    slots = dataclasses.replace(slots, count=min(slots.count, config.max_trials))
    confirm, num_all = config.confirm, f"{num_train + num_validation:,}"
    folds, each = ("", "") if config.folds is None else (f"{config.folds} folds of ", " in each fold")
    then = f"; then the best one on all {num_all} images" if config.folds else ""
    if confirm:
        then = (
            f"; then the best {confirm.top} with {confirm.seeds} fresh seed{'s' * (confirm.seeds > 1)} each "
            f"({confirm.num_trainings} in all), "
            f"and the winner on all {num_all} images"
        )
    return (
        f"{config.max_trials} trials of {folds}up to {config.max_epochs} epochs on {config.dataset}, {num_train:,} "
        f"training and {num_validation:,} validation images{each}, {slots}{then}"
    )


def _show_result(request: Request, prepared: Prepared, result: SearchResult, cost: Cost) -> None:
    from search.records.fingerprint import fingerprint
    from search.records.fold_values import describe_epochs
    from search.records.record import best_epoch, best_trial, read_study
    from search.records.results import read_trials
    from search.review.cost_text import describe_occupancy
    from search.review.display import trials_table
    from search.running.runner import Outcome

    experiment, console = request.experiment, request.console
    config, table = prepared.config, read_trials(experiment)
    trials = read_study(experiment).get_trials(deepcopy=False)
    best = best_trial(trials, config.metric)
    title = f"\n{experiment.name} on {config.dataset}: {len(table)} trials, best first"
    console.print(trials_table(table, title=title, metric=config.metric))
    if result.outcome == Outcome.OUT_OF_TIME:
        told = f"out of time after {config.time_budget_s:g} s with {len(table)} of {config.max_trials} trials"
        told += "" if config.confirm is None else " and not all of the confirmation"
        is_told = result.evaluation is None and best is not None  # with what was not tested, at the end
        say(told if is_told else f"{told}; `{request.resume}` goes on", console)
    if result.occupancy.idle_share is not None:
        say(describe_occupancy(result.occupancy, deterministic=config.deterministic), console, style="dim")
    say(f"all trials together took {cost}", console, style="dim")
    if config.deterministic:
        say(f"fingerprint of the trials: {fingerprint(trials)}", console, style="dim")
    if result.evaluation is not None:
        print_evaluation(result.evaluation, experiment, experiment.location, console)
    elif best is None:
        say(f"no trial is complete, so none was tested; all is in {experiment.location}", console)
        for line in describe_failures(trials):
            say(line, console, style="red")
    else:
        epochs = describe_epochs(best, best_epoch(best, config.metric))
        told = f"trial {best.number} leads with a {config.metric} of {best.value:.4f} ({epochs})"
        say(f"{told}; {describe_untested(config, result.outcome, resume=request.resume)}", console)


def describe_failures(trials: Sequence[FrozenTrial]) -> list[str]:
    """For each reason, how many trials failed, with the message of the first one."""
    from search.records.record import MESSAGE, REASON

    messages: dict[str, list[str]] = {}
    for trial in trials:
        if REASON in trial.user_attrs:
            messages.setdefault(trial.user_attrs[REASON], []).append(trial.user_attrs.get(MESSAGE, ""))
    return [
        f"{len(told)} trial{'s' * (len(told) > 1)} failed as {reason}: {told[0]}" for reason, told in messages.items()
    ]


def describe_untested(config: SearchConfig, outcome: Outcome, *, resume: str) -> str:
    """Why a search that is to be confirmed, or has folds, has tested nothing."""
    from search.running.runner import Outcome
    from search.workflows.evaluation import NONE_CONFIRMED

    if outcome == Outcome.FINISHED:
        return f"{NONE_CONFIRMED}, so nothing was tested"
    missing = "it is not confirmed yet" if config.confirm is not None else "no model was trained on all images yet"
    return f"{missing}, so nothing was tested; `{resume}` goes on"
