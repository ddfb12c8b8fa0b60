"""The folder that holds a study and all it produced: the one place that knows the name of every file in it."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fmnist_models.paths import expand_home
from search.errors import ExperimentError
from search.records.store import Store, check_study_storage, is_address, parse_store

EXPERIMENTS_DIR_VARIABLE = "FMNIST_EXPERIMENTS_DIR"
CONFIRMATION, FINAL = "confirmation", "final"
"""Parts of an experiment: where its best trials are confirmed, and where the winner is trained on all images."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Experiment:
    """An experiment's folder; may not exist yet.

    ``study_storage``: the database that the configuration of whoever runs it names; nobody else's counts. ``store``: of
    an experiment on object storage, whose copy on this machine ``path`` then is. ``whole``: what this one is a part of.
    """

    path: Path
    study_storage: str | None = None
    store: Store | None = None
    whole: Experiment | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def location(self) -> str:
        """Where it is, for a person."""
        return str(self.path) if self.store is None else self.store.address_of(self.path)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def versions(self) -> Path:
        return self.path / "versions.json"

    @property
    def journal(self) -> Path:
        return self.path / "study.journal"

    @property
    def reference(self) -> Path:
        """Says where the study is, if it is in a database."""
        return self.path / "study.json"

    @property
    def log(self) -> Path:
        return self.path / "search.log"

    @property
    def trials_table(self) -> Path:
        return self.path / "trials.csv"

    @property
    def report(self) -> Path:
        """The page about it all."""
        return self.path / "report.html"

    @property
    def warm_start(self) -> Path:
        """The finished trials of another experiment that the sampler learned from."""
        return self.path / "warm_start.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def evaluation(self) -> EvaluationFiles:
        return EvaluationFiles(self.path)

    @property
    def test_looks(self) -> Path:
        """The log of looks at the test images, a line of JSON each at its beginning and at its end."""
        return self.path / "test_looks.jsonl"

    @property
    def cross_validation(self) -> Path:
        """What the folds of a cross-validation came to; ``cross_validation_table`` has the same as a table."""
        return self.path / "crossval.json"

    @property
    def cross_validation_table(self) -> Path:
        return self.path / "crossval.csv"

    @property
    def out_of_fold(self) -> Path:
        """What was said of every training image by the fold that had not seen it."""
        return self.path / "out_of_fold.csv"

    @property
    def best_weights(self) -> Path:
        return self.path / "best" / "model.safetensors"

    @property
    def best_config(self) -> Path:
        return self.path / "best" / "config.json"

    @property
    def ray_files(self) -> Path:
        """Ray Tune's own files while a search runs; nothing here is ever read."""
        return self.path / ".ray"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    def trial(self, number: int) -> TrialFiles:
        return TrialFiles(self.trials / f"{number:05d}", self.store)

    def part(self, name: str) -> Experiment:
        """One of the experiments inside this one, which hold trainings that belong to it; may not exist."""
        if self.store is None:
            return Experiment(self.path / name, self.study_storage, whole=self)
        store = Store(self.store.address_of(self.path))
        return Experiment(store.local / name, self.study_storage, store, whole=self)

    @property
    def parts(self) -> tuple[Experiment, ...]:
        return self.part(CONFIRMATION), self.part(FINAL)

    def here(self) -> Experiment:
        """The same on this machine, when it was located on another one."""
        return self if self.store is None else dataclasses.replace(self, path=self.store.local / self.name)

    def fetch(self) -> None:
        """Of an experiment on object storage, makes the copy current; files of trials are fetched when needed.

        A copy in which a search runs is the newest there is, and stays as it is.
        """
        if self.store is not None and not self.is_held():
            self.store.fetch(self.path)

    def send(self) -> None:
        """Of an experiment on object storage, sends what stands beside the trials."""
        if self.store is not None:
            self.store.send(*(path for path in sorted(self.path.glob("[!.]*")) if path.is_file()))

    def send_best(self) -> None:
        """Of an experiment on object storage, sends the best model, which was just written."""
        if self.store is not None:
            self.store.send(self.best_weights, self.best_config)

    def fetch_best(self) -> None:
        """Of an experiment on object storage, makes the copy of the best model current."""
        if self.store is not None and not self.is_held():
            self.store.fetch(self.best_weights.parent)

    def is_held(self) -> bool:
        """Whether a process of this machine runs the experiment."""
        try:
            lock = os.open(self.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        finally:
            os.close(lock)
        return False

    def remove_ray_files(self) -> None:
        shutil.rmtree(self.ray_files, ignore_errors=True)
        if self.store is not None:
            self.store.remove_folder(self.ray_files)

    @property
    def ray_location(self) -> str:
        """The same as all machines see it."""
        return str(self.ray_files) if self.store is None else self.store.address_of(self.ray_files)

    def study_file(self) -> Path:
        """The file by which the study is found: the reference, or else the journal."""
        return self.reference if os.path.isfile(self.reference) else self.journal

    def exists(self) -> bool:
        return os.path.isfile(self.study_file())  # unlike Path.is_file, False for a name too long to be one

    def check_files(self) -> None:
        """Makes sure that everything in the folder is a file or a folder of its own; the folder itself may be a link.

        A stranger's link, or pipe, would lead what is read and written elsewhere.

        Raises:
            ExperimentError: something is not; or a folder cannot be read.
        """
        folders = [str(self.path)]
        of_ray = {str(one.ray_files) for one in (self, *self.parts)}
        of_locks = tuple(f"{one.journal}.lock" for one in (self, *self.parts))
        while folders:
            try:
                entries = list(os.scandir(folders.pop()))
            except (FileNotFoundError, NotADirectoryError):  # a search that runs removes files
                continue
            except OSError as error:
                raise ExperimentError(f"{error.filename} cannot be read: {error.strerror}") from error
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders += [entry.path] if entry.path not in of_ray else []
                elif not entry.is_file(follow_symlinks=False) and not entry.path.startswith(of_locks):
                    raise ExperimentError(f"{entry.path} is a link or a special file, which an experiment never holds")

    def create(self) -> None:
        """Makes the folder and that of its trials, if they are not there.

        Raises:
            ExperimentError: it cannot be written to.
        """
        try:
            self.trials.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ExperimentError(
                f"the experiment folder {self.path} is not writable ({error.strerror}); "
                f"choose another with --experiments-dir or ${EXPERIMENTS_DIR_VARIABLE}"
            ) from error


@dataclass(frozen=True)
class TrialFiles:
    """The files of one trial; may not exist yet."""

    path: Path
    store: Store | None = None

    @property
    def location(self) -> str:
        """Where they are, for a person."""
        return str(self.path) if self.store is None else self.store.address_of(self.path)

    @property
    def epochs(self) -> Path:
        return self.path / "epochs.csv"

    @property
    def last(self) -> Path:
        """Model, optimiser, schedule and history after the last finished epoch."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The model's weights after its best epoch."""
        return self.path / "best.safetensors"

    @property
    def error(self) -> Path:
        return self.path / "error.txt"

    @property
    def timeout(self) -> Path:
        """Where a trial that hung was standing."""
        return self.path / "timeout.txt"

    @property
    def evaluation(self) -> EvaluationFiles:
        return EvaluationFiles(self.path)

    def remove_unfinished(self) -> None:
        """Removes what a killed process was writing; to be called when no process writes."""
        for path in self.path.glob(".*.part"):
            path.unlink(missing_ok=True)

    def remove_checkpoints(self) -> None:
        self.remove(self.last, self.best)

    def remove(self, *paths: Path) -> None:
        """Removes some of them; those that are gone already do no harm."""
        if self.store is not None:
            self.store.remove(*paths)
        for path in paths:
            path.unlink(missing_ok=True)

    def fetch(self) -> None:
        """Of an experiment on object storage, makes the copy current; ``timeout`` is of this machine alone."""
        if self.store is not None:
            self.store.fetch(self.path, besides=self.timeout)

    def fetch_epochs(self) -> None:
        """Of an experiment on object storage, makes the copy of ``epochs`` current."""
        if self.store is not None:
            self.store.fetch_file(self.epochs)

    def send(self, *paths: Path) -> None:
        """Of an experiment on object storage, sends some of them, in this order."""
        if self.store is not None:
            self.store.send(*paths)


@dataclass(frozen=True)
class EvaluationFiles:
    """The files of one trial's meeting with the test set."""

    path: Path

    @property
    def summary(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def per_class(self) -> Path:
        return self.path / "per_class.csv"

    @property
    def predictions(self) -> Path:
        """What the model said of every test image."""
        return self.path / "predictions.csv"

    @property
    def confusion_matrix(self) -> Path:
        return self.path / "confusion_matrix.csv"

    @property
    def confusion_picture(self) -> Path:
        return self.path / "confusion_matrix.png"

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.predictions, self.per_class, self.confusion_matrix, self.confusion_picture, self.summary)


def experiments_dir(explicit: str | None = None) -> Path | Store:
    """Where experiments live: ``explicit``, else ``$FMNIST_EXPERIMENTS_DIR``, else ``./experiments``.

    Raises:
        ExperimentError: it is an address, but of no object storage.
    """
    text = explicit or os.environ.get(EXPERIMENTS_DIR_VARIABLE) or "experiments"
    return parse_store(text) if is_address(text) else expand_home(text)


def check_name(name: str) -> str:
    """The name again, which a folder of experiments can hold.

    Raises:
        ExperimentError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ExperimentError(
            f"{name!r} cannot name an experiment; valid: up to 100 letters, digits, '.', '_' and '-', "
            "the first a letter or digit"
        )
    return name


def locate_experiment(name: str, *, directory: Path | Store, study_storage: str | None = None) -> Experiment:
    """The experiment of that name, whatever there is of it; looks at no file."""
    if isinstance(directory, Store):
        return Experiment(directory.local / name, study_storage, directory)
    return Experiment((directory / name).absolute(), study_storage)


def new_experiment(name: str, *, directory: Path | Store, study_storage: str | None = None) -> Experiment:
    """The experiment of that name, whether it is there already or not; makes nothing.

    ``study_storage``: the database that the person's own configuration names.

    Raises:
        ExperimentError: the name is not one that a folder inside ``directory`` can have, or the folder holds links.
        ConfigError: ``directory`` is on object storage, and the study would not be in a database.
    """
    experiment = locate_experiment(check_name(name), directory=directory, study_storage=study_storage)
    check_study_storage(experiment.store, study_storage)
    experiment.fetch()
    experiment.check_files()
    return experiment


def find_experiment(reference: str, *, directory: Path | Store) -> Experiment:
    """The existing experiment that a name, a relative or a full path, or an address on object storage refers to.

    Raises:
        ExperimentError: there is none (names those there are), or its folder holds links.
    """
    if is_address(reference):
        address, _, reference = reference.rstrip("/").rpartition("/")
        directory = parse_store(address)
    if isinstance(directory, Store):
        candidates = [locate_experiment(reference, directory=directory)] if _NAME.fullmatch(reference) else []
    else:
        candidates = [
            Experiment(Path(os.path.expanduser(reference)).absolute()),  # one of an unknown home folder is not there
            locate_experiment(reference, directory=directory),
        ]
    for experiment in candidates:
        experiment.fetch()
        if experiment.exists():
            experiment.check_files()
            return experiment
    if isinstance(directory, Store):
        names, where = directory.names(), directory.address
    else:
        names = sorted(path.name for path in directory.glob("*") if Experiment(path).exists())
        where = str(directory.absolute())
    known = f"valid: {', '.join(names[:20])}" if names else f"there is none in {where} yet"
    raise ExperimentError(f"there is no experiment {reference!r}; {known}")
