"""Removing experiments: none that runs, and each so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from search.errors import DatabaseError, ExperimentError
from search.records.address import Reference, check_trust, read_reference
from search.records.experiment import Experiment
from search.records.inventory import find_holder, list_experiments
from search.records.lock import lock_experiment
from search.records.store import Store

_LEFTOVER = ".removed-"
_MAX_NAMES_SHOWN = 20


def find_removable(names: Sequence[str], *, directory: Path | Store) -> list[Experiment]:
    """The experiments of these names, which must be in ``directory`` itself and at rest.

    Raises:
        ExperimentError: a name is a path, there is no such experiment, or somebody runs it.
    """
    where = str(directory.absolute()) if isinstance(directory, Path) else directory.address
    there = {experiment.name: experiment for experiment in list_experiments(directory)}
    for name in names:
        if os.path.basename(name) != name:
            raise ExperimentError(f"{name!r} is a path; valid: the name of an experiment in {where}")
        if name not in there:
            known = ", ".join(repr(known)[1:-1] for known in list(there)[:_MAX_NAMES_SHOWN])
            valid = f"valid: {known}" if known else "there is none at all"
            raise ExperimentError(f"there is no experiment {name!r} in {where}; {valid}")
        _check_at_rest(there[name])
    return [there[name] for name in dict.fromkeys(names)]


def remove_experiments(experiments: Sequence[Experiment], *, directory: Path | Store) -> Iterator[Experiment]:
    """Removes experiments of ``directory``, all of them held until the last one is gone; gives each once it is.

    Of one that is a symbolic link, the link. A study in a database goes with its experiment. What a removal that was
    cut short left behind goes too.

    Raises:
        ExperimentError: somebody runs one of them, or a study is in a database that nobody named (then none is
            removed), or one cannot be removed.
    """
    with contextlib.ExitStack() as locks:
        for experiment in experiments:
            if experiment.path.is_symlink():
                _check_at_rest(experiment)
            else:
                locks.enter_context(lock_experiment(experiment))
                for one in (experiment, *experiment.parts):
                    one.fetch()  # this machine may never have seen the parts
                    _find_study(one)
        for experiment in experiments:
            _remove(experiment)
            yield experiment
    local = directory if isinstance(directory, Path) else directory.local
    for leftover in local.glob(f"{_LEFTOVER}*"):
        with contextlib.suppress(DatabaseError):
            _delete_study(Experiment(leftover))
            shutil.rmtree(leftover, ignore_errors=True)


def _check_at_rest(experiment: Experiment) -> None:
    try:
        holder = find_holder(experiment)
    except OSError as error:
        raise _cannot_be_removed(experiment, error) from error
    if holder is not None:
        raise ExperimentError(f"experiment {experiment.name!r} is being run by {holder}; wait for it, or end it")


def _find_study(experiment: Experiment) -> Reference | None:
    """Where the study to be deleted is; ``None`` if in the folder, or if the folder no longer says where.

    Raises:
        DatabaseError: nobody said that this database may be written to.
    """
    try:
        reference = read_reference(experiment)
    except ExperimentError:
        return None
    if reference is not None:
        try:
            check_trust(experiment, reference.storage, to_write=True)
        except DatabaseError as error:
            raise DatabaseError(f"{error}; or delete the folder by hand, which leaves the study there") from error
    return reference


def _delete_study(experiment: Experiment) -> None:
    for one in (*experiment.parts, experiment):
        reference = _find_study(one)
        if reference is not None:
            from search.records.database import delete_study

            delete_study(reference)


def _remove(experiment: Experiment) -> None:
    if experiment.store is not None:
        # The study first: files that a crash leaves without it are no experiment that could be continued.
        _delete_study(experiment)
        for part in experiment.parts:
            shutil.rmtree(part.path, ignore_errors=True)
        experiment.store.remove_folder(experiment.path)
        shutil.rmtree(experiment.path, ignore_errors=True)
        return
    aside = experiment.path.with_name(f"{_LEFTOVER}{uuid.uuid4().hex}")
    try:
        if experiment.path.is_symlink():
            experiment.path.unlink()
            return
        experiment.path.rename(aside)  # so that half an experiment never looks like one
    except OSError as error:
        raise _cannot_be_removed(experiment, error) from error
    try:
        _delete_study(Experiment(aside))
    except BaseException:
        aside.rename(experiment.path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    if os.path.lexists(aside):
        raise ExperimentError(f"experiment {experiment.name!r} was removed, but not all of {aside} could be deleted")


def _cannot_be_removed(experiment: Experiment, error: OSError) -> ExperimentError:
    return ExperimentError(f"experiment {experiment.name!r} cannot be removed: {error.strerror}: {error.filename}")
