"""The study as read: what its trials say, and which of them is best. Neither Ray nor torch."""

from __future__ import annotations

import contextlib
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS, Direction
from fmnist_models.files import write_aside
from search.errors import ExperimentError
from search.records.address import Reference, check_trust, read_reference, write_reference
from search.records.experiment import Experiment
from search.records.fold_values import best_of, curve
from search.records.journal import JournalFile, check_lines, cut_torn_line, remove_lock
from search.records.journal_fold import fold_journal

REASON = "reason"
MESSAGE = "message"
NUM_EPOCHS = "num_epochs"
"""User attribute of a trial whose number of epochs was given to it: its last epoch counts, not its best, as choosing by
the values that it is judged by would be optimistic."""
FOLD = "fold"
"""User attribute of a trial that is one fold of a cross-validation: of the same configuration as the others, so that
none is better."""

DEVICE = "device"
"""User attribute of a trial: the name of the device that it trained on, ``cpu`` or a GPU's; of several, one after the
other, joined by ``DEVICE_SEPARATOR``."""
DEVICE_SEPARATOR = ", then "

PAUSES = "pauses"
"""User attribute of a trial that was interrupted and continued: when nobody trained it, as pairs of seconds
from its start."""
SECONDS = "seconds"
"""User attribute of a trial: what it took, in seconds. ``epochs``: wall-clock time of its epochs; ``processor``: CPU
time of its processes, including start, validation and saving."""

STATE_NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_MAX_NAME = 100  # characters of an experiment's name in that of its study
_SURROGATE = re.compile("[\ud800-\udfff]")


class Reason(StrEnum):
    """Why a trial failed."""

    DIVERGED = "diverged"
    MEMORY = "memory"
    CODE = "code"
    INFRASTRUCTURE = "infrastructure"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Failure:
    """A trial's failure: the reason to count by and a message to read."""

    reason: Reason
    message: str


def open_storage(journal: Path) -> JournalStorage:
    """The storage behind a journal, made if it is not there: without a study as long as nothing is written to it.

    Raises:
        ExperimentError: the journal is damaged or holds something else than one study, or cannot be made.
    """
    try:
        if not journal.exists():
            write_aside(journal, b"")
        is_new = not journal.stat().st_size
    except OSError as error:
        raise ExperimentError(f"{journal} cannot be made: {error.strerror}") from error
    storage = _read_storage(journal)
    if not is_new:
        name = _one_study(storage, journal)
        with _explained(journal):
            _validate_trials(storage, name)
    return storage


def repair_journal(journal: Path) -> None:
    """Puts right what a crash left in a journal; for the one process that holds the experiment.

    Raises:
        ExperimentError: it cannot be written, or is no journal.
    """
    try:
        remove_lock(journal)
        if journal.exists():
            cut_torn_line(journal)
    except OSError as error:
        raise ExperimentError(f"{error.filename or journal} cannot be put right: {error.strerror}") from error


def open_study(experiment: Experiment, *, study_storage: str | None, direction: Direction) -> optuna.Study:
    """The experiment's study, to write to, made if it is not there; for the one process that holds the experiment.

    ``study_storage``: the address of the database that it is to be in, or a journal.

    Raises:
        ExperimentError: it is somewhere else, damaged, or cannot be reached or written to.
    """
    reference = read_reference(experiment)
    if experiment.exists() and study_storage != (reference and reference.storage):
        raise ExperimentError(
            f"the study of {experiment.name} is in {reference.storage if reference else experiment.journal}, "
            f"but its configuration says study_storage: {study_storage or 'none'}"
        )
    if study_storage is not None:
        return _open_in_database(experiment, study_storage, reference, direction=direction)
    repair_journal(experiment.journal)
    storage = open_storage(experiment.journal)
    names = optuna.get_all_study_names(storage)
    return _create(storage, names[0] if names else experiment.name, direction=direction)


def read_study(experiment: Experiment) -> optuna.Study:
    """The experiment's study, to read from; its name need not be that of the folder, which may have been renamed.

    Its trials hold what trials of a search hold, so that nothing that is done with them stumbles.

    Raises:
        ExperimentError: there is no journal, it is damaged, or it holds no study or several; or the study is in a
            database that cannot be reached or may not be connected to.
    """
    reference = read_reference(experiment)
    if reference is not None:
        return _read_from_database(experiment, reference)
    storage = _read_storage(experiment.journal)
    name = _one_study(storage, experiment.journal)
    return optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler())


def list_trials(experiment: Experiment) -> list[FrozenTrial]:
    """The trials of the experiment's study, to read from: those that ``read_study`` has, some times as fast.

    Raises:
        ExperimentError: as ``read_study``.
    """
    reference = read_reference(experiment)
    if reference is not None:
        return _read_from_database(experiment, reference).get_trials(deepcopy=False)
    journal = experiment.journal
    with _explained(journal):
        check_lines(journal)
        studies = fold_journal(journal)
        for study in studies:
            _check_study(study.name, study.directions, study.trials)
    if len(studies) != 1:
        raise _not_one_study(journal, len(studies))
    return studies[0].trials


def copy_study(study: optuna.Study) -> optuna.Study:
    """A copy in memory, under the same name; what is done to it does nothing to the study."""
    storage = InMemoryStorage()
    study_id = storage.create_new_study(study.directions, study.study_name)
    for key, value in study.user_attrs.items():
        storage.set_study_user_attr(study_id, key, value)
    for trial in study.get_trials(deepcopy=False):
        storage.create_new_trial(study_id, trial)
    return optuna.load_study(study_name=study.study_name, storage=storage, sampler=RandomSampler())


def best_epoch(trial: FrozenTrial, metric: str) -> int | None:
    """The epoch with the trial's best value, the earliest of equals, of each fold if it has folds; ``None`` if it has
    not finished any. Of a trial with ``NUM_EPOCHS`` the last one."""
    values = curve(trial)
    return max(values, default=None) if NUM_EPOCHS in trial.user_attrs else best_of(values, metric)


def best_value(trial: FrozenTrial, metric: str) -> float | None:
    """The trial's value at its ``best_epoch``, with folds the mean over these; ``None`` if it has not finished any."""
    epoch = best_epoch(trial, metric)
    return None if epoch is None else curve(trial)[epoch]


def is_cross_validation(trials: Sequence[FrozenTrial]) -> bool:
    """Whether there are folds of a cross-validation among them."""
    return any(FOLD in trial.user_attrs for trial in trials)


def best_trial(trials: Sequence[FrozenTrial], metric: str) -> FrozenTrial | None:
    """The complete trial with the best value, the lowest number of equals; ``None`` if none is complete. A fold of a
    cross-validation is none."""
    return trials[min(ranked)[1]] if (ranked := _ranked(trials, metric)) else None


def best_trials(trials: Sequence[FrozenTrial], metric: str) -> list[FrozenTrial]:
    """The complete trials that are no folds of a cross-validation, best value first, of equals the lowest number
    first."""
    return [trials[number] for _, number in sorted(_ranked(trials, metric))]


def _ranked(trials: Sequence[FrozenTrial], metric: str) -> list[tuple[float, int]]:
    ranked = [one for one in trials if one.state == TrialState.COMPLETE and FOLD not in one.user_attrs]
    values = {trial.number: trial.value for trial in ranked}
    return [(_sign(metric) * value, number) for number, value in values.items() if value is not None]


def _sign(metric: str) -> int:
    """What turns the metric into one of which less is better."""
    return -1 if DIRECTIONS[metric] == "maximize" else 1


def _open_in_database(
    experiment: Experiment, address: str, reference: Reference | None, *, direction: Direction
) -> optuna.Study:
    from search.records.database import Access, hold_study, open_database

    check_trust(experiment, address, to_write=True)
    storage = open_database(address, Access.WRITE if reference else Access.CREATE)
    if reference is None:
        reference = Reference(address, f"{experiment.name[:_MAX_NAME]}-{secrets.token_hex(4)}")
        _create(storage, reference.study, direction=direction)
        write_reference(experiment, reference)  # last: a study that it names and that is not there is one that is lost
        _claim(experiment)
    hold_study(storage, reference.study)
    return _load(storage, reference)


def _claim(experiment: Experiment) -> None:
    """Of an experiment on object storage, makes this study its study, and clears away what is left of an older one."""
    if experiment.store is None:
        return
    try:
        experiment.store.claim(experiment.reference)
    except ExperimentError:
        experiment.reference.unlink(missing_ok=True)
        raise
    for folder in (experiment.trials, *(experiment.path / part.name for part in experiment.parts)):
        experiment.store.remove_folder(folder)


def _read_from_database(experiment: Experiment, reference: Reference) -> optuna.Study:
    from search.records.database import Access, open_database

    check_trust(experiment, reference.storage)
    return _load(open_database(reference.storage, Access.READ), reference)


def _load(database: BaseStorage, reference: Reference) -> optuna.Study:
    from search.records.mirror import Mirror

    try:
        study_id = database.get_study_id_from_name(reference.study)
    except KeyError as error:
        raise ExperimentError(f"{reference.storage} holds no study {reference.study}") from error
    with _explained(f"study {reference.study} in {reference.storage}"):
        storage = Mirror(database, study_id)
        _check_studies(storage)
        _validate_trials(storage, reference.study)
    return optuna.load_study(study_name=reference.study, storage=storage, sampler=RandomSampler())


def _create(storage: BaseStorage, name: str, *, direction: Direction) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name=name, direction=direction, sampler=RandomSampler(), load_if_exists=True
    )


def _read_storage(journal: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _explained(journal):
        check_lines(journal)
        storage = JournalStorage(JournalFile(journal))
        _check_studies(storage)
    return storage


def _check_studies(storage: BaseStorage) -> None:
    for study in storage.get_all_studies():
        _check_study(study.study_name, study.directions, storage.get_all_trials(study._study_id, deepcopy=False))


def _check_study(name: object, directions: Sequence[StudyDirection], trials: Sequence[FrozenTrial]) -> None:
    if not isinstance(name, str) or len(directions) != 1:
        raise ValueError(f"a study {name!r} with {len(directions)} directions")
    for trial in trials:
        if not _is_sound(trial):
            raise ValueError(f"trial {trial.number} does not hold what a trial of a search holds")


def _validate_trials(storage: BaseStorage, name: str) -> None:
    for trial in storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False):
        trial._validate()  # as Optuna does with trials that are added; samplers rely on it


@contextlib.contextmanager
def _explained(source: Path | str) -> Iterator[None]:
    """A crafted study makes Optuna raise anything."""
    try:
        yield
    except ExperimentError:
        raise
    except OSError as error:
        raise ExperimentError(f"{source} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise ExperimentError(f"{source} is damaged or holds something else: {repr(error)[:300]}") from error


def _one_study(storage: JournalStorage, journal: Path) -> str:
    names = optuna.get_all_study_names(storage)
    if len(names) != 1:
        raise _not_one_study(journal, len(names))
    return names[0]


def _not_one_study(journal: Path, number: int) -> ExperimentError:
    return ExperimentError(f"{journal} should hold one study, but holds {number}")


def _is_sound(trial: FrozenTrial) -> bool:
    """Whether it holds what a search writes: named scalars, finite values by epoch, notes. Optuna takes any JSON."""
    parts = (trial.params, trial.intermediate_values, trial.user_attrs, trial.system_attrs)
    notes = [trial.user_attrs[key] for key in (REASON, MESSAGE, DEVICE) if key in trial.user_attrs]
    num_epochs = trial.user_attrs.get(NUM_EPOCHS, 1)
    return (
        trial.state != TrialState.WAITING
        and all(isinstance(part, dict) for part in parts)
        and all(_is_text(text) for text in (*trial.params, *notes))
        and type(num_epochs) is int
        and num_epochs > 0
        and all(_is_text(value) or _is_number(value) or isinstance(value, bool) for value in trial.params.values())
        and all(type(epoch) is int and 0 < epoch < 2**31 for epoch in trial.intermediate_values)
        and all(_is_number(value) for value in trial.intermediate_values.values())
        and (trial.values is None or (len(trial.values) == 1 and _is_number(trial.values[0])))
    )


def _is_text(value: object) -> bool:
    """Text that can be written to a file, as a lone half of a surrogate pair cannot."""
    return isinstance(value, str) and (value.isascii() or not _SURROGATE.search(value))


def _is_number(value: object) -> bool:
    """A finite number that fits a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max
