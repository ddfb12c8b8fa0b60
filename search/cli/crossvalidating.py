"""`fmnist crossval`: one configuration, trained on K folds as parallel trials."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.exits import RAY_ENDS, errors_told, interruption_told
from search.cli.options import AsJson, DataDir, ExperimentsDir, Overrides, RayAddress
from search.cli.running import prepare_search, print_notes
from search.cli.show import find, print_json, say

if TYPE_CHECKING:
    from rich.console import Console

    from search.records.cross_validation import CrossValidation
    from search.workflows.crossvalidating import Subject

_CONFIG_ENDINGS = (".yaml", ".yml")


def crossval(
    subject: Annotated[
        str, typer.Argument(metavar="CONFIG|EXPERIMENT", help="A .yaml file, or an experiment.", show_default=False)
    ],
    trial: Annotated[
        int | None, typer.Option(help="Of the experiment; its best one if left out.", show_default=False)
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=100, help="How many parts the images have.")] = 10,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the new experiment [EXPERIMENT-trial-N-10-folds or CONFIG-10-folds].", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    address: RayAddress = None,
    data_dir: DataDir = None,
    experiments_dir: ExperimentsDir = None,
    as_json: AsJson = False,
) -> None:
    """Cross-validate one configuration: train it K times, each time with another part of the images held out.

    All training images take part, stratified by class; validation_fraction
    does not matter. Of an experiment, a trial's configuration is trained for
    its best number of epochs; of a file, whose space must be all fixed values,
    for max_epochs. The folds are trials of a new experiment.

    Shows and saves, in crossval.json and crossval.csv, mean, standard
    deviation and a 95 % interval over folds of each metric, and in
    out_of_fold.csv what was said of each image by the fold that had not seen
    it. The interval is rather too narrow, as folds share training images; and
    where a search on some of these images chose the configuration and its
    number of epochs, the values are a little optimistic.

    The same command again goes on with what was interrupted.
    """
    from rich.console import Console

    from search.errors import SelectionError

    console = Console(stderr=as_json)
    is_config = subject.endswith(_CONFIG_ENDINGS)
    if is_config and trial is not None:
        raise SelectionError(f"--trial {trial}: {subject} is a configuration and has no trials; valid: an experiment")
    if not is_config and overrides:
        raise SelectionError(
            f"--set {overrides[0]}: {subject} is an experiment; valid: with a configuration, a .yaml file"
        )
    chosen, default_name = _choose(subject, trial, experiments_dir, overrides or [])
    wanted = name or f"{default_name}-{folds}-folds"
    told = "interrupted; everything so far is saved, the same command goes on"
    with interruption_told(lambda: told, tell=lambda text: say(text, console), waits_for=RAY_ENDS):
        found = _run(chosen, wanted, folds, address, data_dir, experiments_dir, console)
    if found is None:
        say("out of time; the same command goes on", console)
        raise typer.Exit(1)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(found, console)


def _choose(subject: str, trial: int | None, experiments_dir: str | None, overrides: list[str]) -> tuple[Subject, str]:
    from fmnist_models.paths import expand_home
    from search.configuration.config import load_config
    from search.records.address import check_trust
    from search.workflows.crossvalidating import subject_of_config, subject_of_trial

    if subject.endswith(_CONFIG_ENDINGS):
        config, stem = load_config(expand_home(subject), overrides=overrides)
        return subject_of_config(config, where=subject), stem
    experiment = find(subject, experiments_dir)
    chosen = subject_of_trial(experiment, trial)
    if chosen.config.study_storage is not None:
        check_trust(experiment, chosen.config.study_storage, to_write=True)
    return chosen, f"{experiment.name}-trial-{chosen.of_trial}"


def _run(
    subject: Subject,
    name: str,
    num_folds: int,
    address: str | None,
    data_dir: Path | None,
    experiments_dir: str | None,
    console: Console,
) -> CrossValidation | None:
    from cluster.processes import MARK
    from cluster.session import connected_ray, local_ray, ray_log
    from fmnist_models.data import data_root, load_images
    from fmnist_models.folds import FoldedImages, check_folds
    from search.configuration.config import read_config
    from search.records.experiment import experiments_dir as resolve_experiments_dir
    from search.records.experiment import new_experiment
    from search.records.lock import hold_experiment
    from search.running.progress import SearchProgress
    from search.running.retention import check_room
    from search.running.slots import cluster_resources, local_resources
    from search.workflows.crossvalidating import check_same, cross_validate, with_folds
    from search.workflows.repeating import are_trained, check_configuration

    directory = resolve_experiments_dir(experiments_dir)
    experiment = new_experiment(name, directory=directory, study_storage=subject.config.study_storage)
    if subject.source is not None:  # its maker named the database, not this person
        experiment = dataclasses.replace(experiment, study_storage=None)
    wanted = subject.repetitions(num_folds)
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold_experiment(experiment))
        check_same(experiment, wanted)
        before = read_config(experiment) if experiment.exists() else subject.config if subject.source else None
        if address is not None:
            stack.enter_context(connected_ray(address))
            stack.enter_context(errors_told())
        nodes = [local_resources()] if address is None else cluster_resources()
        may_grow = address is not None and MARK not in os.environ
        prepared, slots = prepare_search(
            subject.config,
            data_dir,
            nodes=nodes,
            on_cluster=address is not None,
            may_grow=may_grow,
            before=before,
        )
        config, root = prepared.config, data_root(data_dir)
        images = load_images(config.dataset, "train", root=root, size=config.train_size)
        check_folds(images, folds=num_folds)
        print_notes(prepared.notes, console)
        prepared = with_folds(prepared, FoldedImages(images, folds=num_folds, seed=config.seed))
        check_configuration(experiment, prepared)
        kept = {"keep_checkpoints": num_folds, "max_trials": num_folds}
        check_room(experiment, config.model_copy(update=kept), num_slots=slots.count)
        if address is not None:
            stack.enter_context(ray_log(experiment.log))
        elif not are_trained(experiment, wanted):
            stack.enter_context(local_ray(num_cpus=nodes[0].cpus, num_gpus=nodes[0].gpus, log=experiment.log))
        with SearchProgress(console, config, []) as progress:
            return cross_validate(experiment, subject, prepared, slots, progress=progress, is_held=True)


def _show(found: CrossValidation, console: Console) -> None:
    from search.records.cross_validation import describe_limits
    from search.review.display import cross_validation_table

    console.print(cross_validation_table(found, width=console.width))
    scores = found.pooled
    say(
        f"out-of-fold accuracy {scores.accuracy:.2%} on {scores.num_images:,} {found.dataset} training images; "
        f"{describe_limits(found)}",
        console,
    )
