"""`study_storage`: studies in SQLite and in a real PostgreSQL, what can go wrong there, and whose word it takes."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from epochs import make_epoch
from hypothesis import given
from hypothesis import strategies as st
from made_experiment import make_experiment
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState
from postgres import PostgreSQL
from sqlalchemy import event
from sqlalchemy.engine import Engine
from test_study_survives import make_config as make_repeatable
from test_study_survives import table, train
from tiny_disk import tiny_disk

from search.cli import main
from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError, DatabaseError, ExperimentError
from search.records import database, record
from search.records.address import STUDY_STORAGE_VARIABLE, Reference, parse_address, read_reference
from search.records.database import Access, open_database
from search.records.experiment import Experiment, find_experiment
from search.records.fingerprint import fingerprint
from search.records.inventory import State, summarise
from search.records.lock import hold_experiment
from search.records.mirror import Mirror
from search.records.record import PAUSES, Failure, Reason, read_study
from search.records.removal import find_removable, remove_experiments
from search.running.continuation import begin_run
from search.study.search_study import SearchStudy
from search.study.warm_start import read_warm_start

REPOSITORY = Path(__file__).parent.parent
CURVES = [[0.5, 0.75], [0.5, 0.625], [0.25]]
SECRET = "hunter2"
SOMEWHERE = "postgresql://me@db.example.org/studies"
in_databases = pytest.mark.parametrize("study_storage", ["sqlite", "postgresql"], indirect=True)
in_sqlite = pytest.mark.parametrize("study_storage", ["sqlite"], indirect=True)
in_postgresql = pytest.mark.parametrize("study_storage", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of experiments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path / "experiments"))
    (tmp_path / "experiments").mkdir()
    return tmp_path / "experiments"


def make_config(study_storage: str | None, **changes: Any) -> SearchConfig:
    raw = {
        "dataset": "synthetic",
        "train_size": 200,
        "test_size": 100,
        "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
        "max_trials": 3,
        "max_epochs": 2,
        "pruner": "none",
        "study_storage": study_storage,
    }
    return parse_config(raw | changes, where="test")


def make(folder: Path, study_storage: str | None, **changes: Any) -> Experiment:
    """Two trials complete, one that runs."""
    return make_experiment(folder, make_config(study_storage, **changes), CURVES)


def make_repeatable_search(path: Path, study_storage: str | None) -> tuple[Experiment, SearchConfig]:
    experiment = Experiment(path, study_storage)
    experiment.create()
    return experiment, make_repeatable(study_storage=study_storage, max_trials=9)


def fmnist(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Runs the command in this process; gives its exit code and all it says, on one line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fmnist", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), " ".join((captured.out + captured.err).split())


def states(experiment: Experiment) -> list[str]:
    return [trial.state.name for trial in read_study(experiment).get_trials()]


def studies_in(address: str) -> list[str]:
    return optuna.get_all_study_names(open_database(address, Access.READ))


def name_of(experiment: Experiment) -> str:
    reference = read_reference(experiment)
    assert reference is not None
    return reference.study


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("sqlite:////data/a b.db", "sqlite:////data/a b.db"),
        ("sqlite:////data/at@home:1.db", "sqlite:////data/at@home:1.db"),
        ("sqlite:////data/st #1 100%25.db", "sqlite:////data/st #1 100%25.db"),
        ("postgresql://host/studies", "postgresql://host/studies"),
        ("postgresql+psycopg://me@host:5433/studies", "postgresql://me@host:5433/studies"),
        ("postgresql://me@[::1]:5433/studies", "postgresql://me@[::1]:5433/studies"),
        ("postgresql://my_db.svc.cluster.local/a-b.c", "postgresql://my_db.svc.cluster.local/a-b.c"),
    ],
)
def test_an_address_has_one_form(text: str, address: str) -> None:
    config = make_config(text)
    assert config.study_storage == address
    assert parse_config(config.model_dump(), where="again") == config


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "study.db", "sqlite://", "sqlite:///relative.db", "sqlite:////a.db?mode=rwc"),
        *("sqlite:////a\n.db", "sqlite:////a\0", "sqlite:///:memory:", "sqlite+aiosqlite:////a.db", "sqlite:////"),
        *("mysql://host/studies", "redis://host", "http://host/x", "postgres://host/x", "postgresql+psycopg2://h/x"),
        *("postgresql://", "postgresql:///studies", "postgresql://host", "postgresql://host/", "postgresql://host/a/b"),
        *("postgresql://host/x?host=other", "postgresql://a,b/x", "postgresql://%2Ftmp/x", "postgresql://host:0/x"),
        *("postgresql://host:70000/x", "postgresql://host/{SCHEMA_VERSION}", "POSTGRESQL://host/x", "a" * 10**6),
        *(f"postgresql://me:{SECRET}@host/x", f"postgresql://:{SECRET}@host/x", f"mysql://me:{SECRET}@host/x"),
        *(f"postgresql://me:{SECRET}/@host/x", f"postgresql://host/x?password={SECRET}", 5, ["sqlite:////a.db"], True),
    ],
    ids=lambda text: str(text)[:40],
)
def test_what_is_no_address_is_refused_and_no_password_repeated(text: Any) -> None:
    with pytest.raises(ConfigError, match="test: study_storage: ") as caught:
        make_config(text)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 200
    if isinstance(text, str):
        assert "valid: " in str(caught.value)


def test_a_password_has_its_place() -> None:
    with pytest.raises(ConfigError, match=r"without a password; give it in \$PGPASSWORD or ~/\.pgpass"):
        make_config(f"postgresql://me:{SECRET}@host/x")


@given(st.text() | st.from_regex(r"(sqlite|postgresql)://.*"))
def test_any_text_is_an_address_or_none(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_address(parse_address(text)) == parse_address(text)


# A search


def test_a_search_is_the_same_wherever_its_study_is(study_storage: str | None, folder: Path) -> None:
    experiment, config = make_repeatable_search(folder / "here", study_storage)
    train(SearchStudy.open(experiment, config), seed=0, stop_after=17)
    train(SearchStudy.open(experiment, config), seed=1)
    there, config = make_repeatable_search(folder / "there", None)
    train(SearchStudy.open(there, config), seed=2)
    assert table(experiment) == table(there)
    here_trials, there_trials = read_study(experiment).get_trials(), read_study(there).get_trials()
    assert fingerprint(here_trials) == fingerprint(there_trials)
    assert [trial.distributions for trial in here_trials] == [trial.distributions for trial in there_trials]
    here_attributes, there_attributes = (
        [{key: value for key, value in trial.user_attrs.items() if key != PAUSES} for trial in trials]
        for trials in (here_trials, there_trials)
    )
    assert here_attributes == there_attributes
    assert all(trial.datetime_start and trial.datetime_complete for trial in here_trials)
    assert experiment.journal.exists() == (study_storage is None)


class Crash(BaseException):
    """What is not written yet never will be."""


@contextlib.contextmanager
def crash_before_commit(number: int) -> Iterator[None]:
    """As if the process were killed before it ends a transaction for the ``number``-th time."""
    count = itertools.count(1)

    def crash(connection: object) -> None:
        if next(count) == number:
            raise Crash

    event.listen(Engine, "commit", crash)
    try:
        with contextlib.suppress(Crash):
            yield
    finally:
        event.remove(Engine, "commit", crash)


@in_databases
def test_a_search_cut_off_before_any_write_is_the_same_search(study_storage: str, folder: Path) -> None:
    undisturbed, config = make_repeatable_search(folder / "undisturbed", None)
    train(SearchStudy.open(undisturbed, config), seed=0)
    experiment, config = make_repeatable_search(folder / "search", study_storage)
    finished, crashes = False, 0
    while not finished:
        crashes += 1
        with crash_before_commit(crashes), hold_experiment(experiment):
            begin_run(experiment, config)
            train(SearchStudy.open(experiment, config), seed=crashes)
            finished = True
    assert crashes > 10
    assert table(experiment) == table(undisturbed)


@in_databases
def test_a_study_that_was_made_before_a_crash_and_not_noted_is_made_again(
    study_storage: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object) -> None:
        raise Crash

    experiment, config = Experiment(folder / "x", study_storage), make_config(study_storage)
    with monkeypatch.context() as patch, hold_experiment(experiment):
        begin_run(experiment, config)
        patch.setattr(record, "write_reference", crash)
        with pytest.raises(Crash):
            SearchStudy.open(experiment, config)
    assert not experiment.exists()
    with hold_experiment(experiment):
        begin_run(experiment, config)
        SearchStudy.open(experiment, config)
    assert states(experiment) == []


@in_databases
@pytest.mark.slow
def test_a_search_killed_again_and_again_is_the_same_search(study_storage: str, folder: Path) -> None:
    undisturbed, config = make_repeatable_search(folder / "undisturbed", None)
    train(SearchStudy.open(undisturbed, config), seed=0)
    experiment, config = make_repeatable_search(folder / "search", study_storage)
    script = (
        "import sys; from pathlib import Path; import test_study_storage as t\n"
        "from search.study.search_study import SearchStudy\n"
        "experiment, config = t.make_repeatable_search(Path(sys.argv[1]), sys.argv[2])\n"
        "print('ready', flush=True); t.train(SearchStudy.open(experiment, config), seed=int(sys.argv[3]))"
    )
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    for kill in range(6):
        command = [sys.executable, "-c", script, str(experiment.path), study_storage, str(kill)]
        with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.2 + 0.13 * kill)
            process.kill()
    train(SearchStudy.open(experiment, config), seed=99)
    assert table(experiment) == table(undisturbed)


@in_databases
def test_experiments_of_one_name_do_not_meet_and_folders_can_be_renamed(study_storage: str, folder: Path) -> None:
    first, second = make(folder / "a" / "x", study_storage), make(folder / "b" / "x", study_storage, max_trials=5)
    first.path.rename(moved := folder / "moved")
    study = SearchStudy.open(Experiment(moved, study_storage), make_config(study_storage, max_trials=4))
    numbers = [assignment.number for _ in range(3) if (assignment := study.next_assignment())]
    assert numbers == [2, 3]
    assert states(Experiment(moved)) == ["COMPLETE", "COMPLETE", "RUNNING", "RUNNING"]
    assert states(second) == ["COMPLETE", "COMPLETE", "RUNNING"]


@in_databases
def test_where_a_study_is_may_not_change(study_storage: str, folder: Path) -> None:
    experiment = make(folder / "x", study_storage)
    for other in (None, SOMEWHERE):
        with pytest.raises(ConfigError, match="study_storage: "), hold_experiment(experiment):
            begin_run(experiment, make_config(other))
        with pytest.raises(ExperimentError, match="but its configuration says study_storage: "):
            SearchStudy.open(experiment, make_config(other))
    journal = make(folder / "y", None)
    with pytest.raises(ExperimentError, match=r"the study of y is in .*study\.journal, but .* study_storage: "):
        SearchStudy.open(journal, make_config(study_storage))


@in_databases
def test_an_experiment_in_a_database_can_be_learned_from_tested_and_listed(
    study_storage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make(folder / "x", study_storage)
    assert len(read_warm_start(experiment, make_config(None)).trials) == 2
    assert fmnist(capsys, "trials", "x")[0] == 0
    code, said = fmnist(capsys, "trials", "x", "--json")
    assert (code, len(json.loads(said)["trials"])) == (0, 3)
    assert fmnist(capsys, "evaluate", "x") == (
        2,
        "error: trial 0 of x has no weights; after a search only the best 3 (keep_checkpoints) have",
    )
    code, said = fmnist(capsys, "experiments", "--json")
    assert code == 0
    assert [(row["state"], row["trials"]) for row in json.loads(said)["experiments"]] == [("interrupted", 2)]


def test_the_mirror_of_a_study_misses_no_way_of_writing() -> None:
    writing = {name for name in vars(BaseStorage) if name.startswith(("set_", "create_new_trial", "delete_"))}
    assert writing <= set(vars(Mirror))
    assert writing <= set(vars(InMemoryStorage))


def test_reading_journals_does_not_load_what_databases_need(folder: Path) -> None:
    make(folder / "x", None)
    script = (
        "import sys; sys.argv[:] = ['fmnist', 'trials', 'x']; from search.cli import main; import contextlib\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "assert not {'sqlalchemy', 'alembic', 'psycopg', 'torch', 'ray'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)


# Two at a time


def test_a_study_on_a_server_is_held_by_one_process_whatever_its_machine(postgresql_address: str, folder: Path) -> None:
    experiment, config = make(folder / "x", postgresql_address), make_config(postgresql_address, max_trials=9)
    copy = Experiment(shutil.copytree(experiment.path, folder / "copy"), postgresql_address)
    hold = (
        "import sys; from pathlib import Path; from search.records.experiment import Experiment; "
        "from search.records.record import open_study; path, address = sys.argv[1:]; "
        "study = open_study(Experiment(Path(path), address), study_storage=address, direction='maximize'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    gc.collect()  # what this process held
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(experiment.path), postgresql_address],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DatabaseError, match=r"study x-\w+ is being run by another process"):
            SearchStudy.open(copy, config)
        assert read_study(copy).get_trials()  # reading is for everybody
        holder.kill()
    SearchStudy.open(copy, config)


def test_a_copy_of_a_folder_is_noticed_before_both_write(sqlite_address: str, folder: Path) -> None:
    experiment, config = make(folder / "x", sqlite_address), make_config(sqlite_address, max_trials=9)
    copy = Experiment(shutil.copytree(experiment.path, folder / "copy"), sqlite_address)
    here, there = SearchStudy.open(experiment, config), SearchStudy.open(copy, config)
    for _ in range(2):  # the interrupted one, and one more
        here.next_assignment()
    there.next_assignment()
    with pytest.raises(DatabaseError, match="another process writes to it too; is there a copy"):
        there.next_assignment()
    here.report(2, make_epoch(2, 0.5))
    with pytest.raises(DatabaseError, match="another process writes to it too"):
        there.report(2, make_epoch(2, 0.5))


# Threads share the filters that a search, in a process of its own, sets for a moment.
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_two_searches_can_make_the_tables_at_the_same_moment(postgresql: PostgreSQL, folder: Path) -> None:
    postgresql.ask("CREATE DATABASE fresh")
    address = postgresql.address.replace("/postgres", "/fresh")
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda number: make(folder / f"x{number}", address), range(4)))
    assert [states(experiment) for experiment in made] == [["COMPLETE", "COMPLETE", "RUNNING"]] * 4


# What can go wrong


def write_on(study: SearchStudy) -> None:
    """Trains until something goes wrong; the study has no end."""
    while (assignment := study.next_assignment()) is not None:
        for epoch in (1, 2):
            study.report(assignment.number, make_epoch(epoch, 0.5))


@in_databases
def test_a_study_that_is_gone_is_missed_and_not_made_anew(study_storage: str, folder: Path) -> None:
    experiment, config = make(folder / "x", study_storage), make_config(study_storage, max_trials=9)
    study = SearchStudy.open(experiment, config)
    database.delete_study(Reference(study_storage, name_of(experiment)))
    with pytest.raises(DatabaseError, match=r"study x-.* in the database: it is gone"):
        write_on(study)
    for use in (read_study, lambda gone: SearchStudy.open(gone, config)):
        with pytest.raises(ExperimentError, match="holds no study x-"):
            use(experiment)
    assert name_of(experiment) not in studies_in(study_storage)


def test_a_file_that_is_gone_is_missed_and_not_made_anew(tmp_path: Path, folder: Path) -> None:
    address = f"sqlite:///{tmp_path}/own.db"
    experiment, config = make(folder / "x", address), make_config(address, max_trials=9)
    study = SearchStudy.open(experiment, config)
    (tmp_path / "own.db").rename(tmp_path / "moved.db")
    with pytest.raises(DatabaseError, match=r"own\.db cannot be used: unable to open database file"):
        write_on(study)
    for use in (read_study, lambda gone: SearchStudy.open(gone, config)):
        with pytest.raises(DatabaseError, match=r"own\.db cannot be (read: No such file|used: unable to open)"):
            use(experiment)
    assert not (tmp_path / "own.db").exists()
    (tmp_path / "moved.db").rename(tmp_path / "own.db")
    write_on(SearchStudy.open(experiment, config))
    assert states(experiment) == ["COMPLETE"] * 9


def test_on_a_full_disk_nothing_is_lost(tmp_path: Path, folder: Path) -> None:
    with tiny_disk(tmp_path / "disk", kibibytes=400) as disk:
        address, filler = f"sqlite:///{disk}/own.db", disk / "filler"
        experiment, config = make(folder / "x", address), make_config(address, max_trials=300, sampler="random")
        study = SearchStudy.open(experiment, config)
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 40 * 2**10))
        with pytest.raises(DatabaseError, match=r"full|disk I/O error"):
            write_on(study)
        before = read_study(experiment).get_trials()
        assert len(before) > 3
        filler.unlink()
        write_on(SearchStudy.open(experiment, make_config(address, max_trials=len(before) + 2, sampler="random")))
        assert states(experiment) == ["COMPLETE"] * (len(before) + 2)


@in_sqlite
def test_a_file_that_another_process_holds_is_named(
    study_storage: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_WAIT_S", 0.1)
    experiment, config = make(folder / "x", study_storage), make_config(study_storage)
    study = SearchStudy.open(experiment, config)
    with contextlib.closing(sqlite3.connect(study_storage.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        start_s = time.monotonic()
        with pytest.raises(DatabaseError, match=r"studies\.db cannot be used: database is locked"):
            write_on(study)
        with pytest.raises(DatabaseError, match=r"studies\.db cannot be used: database is locked"):
            read_study(experiment)
        assert time.monotonic() - start_s < 5, "Optuna would try five times"
    write_on(SearchStudy.open(experiment, config))
    assert states(experiment) == ["COMPLETE"] * 3


@in_postgresql
def test_a_server_that_stops_ends_a_search_in_order_and_one_that_is_back_is_used_again(
    study_storage: str, folder: Path, postgresql: PostgreSQL
) -> None:
    experiment, config = make(folder / "x", study_storage), make_config(study_storage, max_trials=9)
    study = SearchStudy.open(experiment, config)
    postgresql.stop()
    start_s = time.monotonic()
    for use in (lambda: write_on(study), lambda: read_study(experiment), lambda: SearchStudy.open(experiment, config)):
        with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:.* cannot be used: .*refused"):
            use()
    assert time.monotonic() - start_s < 5
    summary = summarise(experiment)
    assert (summary.state, summary.progress) == (State.UNREACHABLE, None)
    assert "refused" in str(summary.message)
    postgresql.start()
    study = SearchStudy.open(experiment, config)
    assignment = study.next_assignment()
    assert assignment is not None
    postgresql.stop()  # between two writes
    postgresql.start()
    study.fail(assignment.number, Failure(Reason.CODE, "x"))
    write_on(study)
    assert states(experiment) == ["COMPLETE", "COMPLETE", "FAIL", *["COMPLETE"] * 6]


@in_postgresql
def test_a_connection_that_breaks_in_a_transaction_loses_only_that(
    study_storage: str, folder: Path, postgresql: PostgreSQL
) -> None:
    experiment, config = make(folder / "x", study_storage), make_config(study_storage, max_trials=9)
    study = SearchStudy.open(experiment, config)
    before = states(experiment)

    broken = []

    def break_it(connection: object) -> None:
        if not broken:
            where = "application_name = 'fmnist-search'"
            broken.append(postgresql.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {where}"))

    study.next_assignment()
    event.listen(Engine, "commit", break_it)
    with pytest.raises(DatabaseError, match=r"cannot be used: .*(terminat|closed)"):
        study.next_assignment()
    event.remove(Engine, "commit", break_it)
    assert states(experiment) == before
    write_on(SearchStudy.open(experiment, config))
    assert states(experiment) == ["COMPLETE"] * 9


@in_postgresql
def test_what_is_wrong_with_a_server_is_said_without_the_password(
    study_storage: str, folder: Path, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make(folder / "x", study_storage)
    postgresql.ask("CREATE DATABASE empty")
    postgresql.ask(f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
    base = study_storage.rpartition("/")[0]
    reader = study_storage.replace("searcher@", "reader@")
    for password, address, expected in (
        (postgresql.password, f"{base}/nowhere", 'database "nowhere" does not exist'),
        (postgresql.password, f"{base}/empty", "it holds none of Optuna's tables"),
        (SECRET, reader, "permission denied"),
        (SECRET, study_storage, r"password authentication failed .* give it in \$PGPASSWORD or ~/\.pgpass"),
        (None, study_storage, r"no password supplied; give it in \$PGPASSWORD or ~/\.pgpass"),
        (SECRET, "postgresql://nobody.invalid/x", "nobody.invalid"),
    ):
        if password is None:
            monkeypatch.delenv("PGPASSWORD")
        else:
            monkeypatch.setenv("PGPASSWORD", password)
        experiment.reference.write_text(json.dumps({"storage": address, "study": name_of(experiment)}))
        with pytest.raises(DatabaseError, match=expected) as caught:
            read_study(Experiment(experiment.path, address))
        assert f"the database {address} cannot be used" in str(caught.value)
        assert SECRET not in str(caught.value)
        assert postgresql.password not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", postgresql.password)
    assert postgresql.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database="empty") == [(0,)]
    monkeypatch.setenv("PGPASSWORD", SECRET)
    with pytest.raises(DatabaseError, match="permission denied"):
        make(folder / "y", f"{base}/empty".replace("searcher@", "reader@"))


def test_the_tables_of_another_optuna_are_refused(tmp_path: Path, folder: Path) -> None:
    address = f"sqlite:///{tmp_path}/own.db"
    experiment = make(folder / "x", address)
    with contextlib.closing(sqlite3.connect(tmp_path / "own.db")) as there:
        there.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
        there.commit()
    before = (tmp_path / "own.db").read_bytes()
    for use in (read_study, lambda other: SearchStudy.open(other, make_config(address))):
        with pytest.raises(DatabaseError, match=r"own\.db cannot be used: .*no longer compatible"):
            use(experiment)
    assert (tmp_path / "own.db").read_bytes() == before


def test_a_missing_driver_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError, match=r"pip install 'fmnist-search\[postgres\]'"):
        make(folder / "x", SOMEWHERE)


# Reading makes nothing


@in_databases
def test_reading_changes_nothing(study_storage: str, folder: Path, postgresql: PostgreSQL, tmp_path: Path) -> None:
    experiment = make(folder / "x", study_storage)
    study = read_study(experiment)
    with pytest.raises(DatabaseError, match=r"read-?only"):
        study.set_user_attr("note", 1)
    with pytest.raises(DatabaseError, match=r"read-?only"):
        study.tell(2, state=TrialState.FAIL)
    assert states(experiment) == ["COMPLETE", "COMPLETE", "RUNNING"]
    own = tmp_path / "own"
    own.mkdir()
    experiment = make(folder / "y", f"sqlite:///{own}/a.db")
    before = (own / "a.db").stat()
    states(experiment)
    assert [entry.name for entry in own.iterdir()] == ["a.db"]
    assert (own / "a.db").stat().st_mtime_ns == before.st_mtime_ns


def test_what_a_killed_process_left_of_a_write_is_no_riddle(tmp_path: Path, folder: Path) -> None:
    address = f"sqlite:///{tmp_path}/own.db"
    experiment, config = make(folder / "x", address), make_config(address)
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size=1')\n"
        "c.execute('BEGIN'); c.execute('CREATE TABLE t(x)')\n"
        "c.executemany('INSERT INTO t VALUES (?)', [('x' * 999,)] * 99); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "own.db")])
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(DatabaseError, match="a process was killed while it wrote there; continuing its search puts"):
        read_study(experiment)
    SearchStudy.open(experiment, config)
    assert states(experiment) == ["COMPLETE", "COMPLETE", "RUNNING"]


# Strangers


@pytest.fixture
def server() -> Iterator[tuple[str, Callable[[], bool]]]:
    """The address of a server that waits for passwords, and whether somebody has come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.3)

        def was_asked() -> bool:
            try:
                listening.accept()[0].close()
            except TimeoutError:
                return False
            return True

        yield f"postgresql://me@127.0.0.1:{listening.getsockname()[1]}/studies", was_asked


def refer(experiment: Experiment, address: object, study: object = "x") -> None:
    """Makes it look as if its study were there; of its configuration too, if that is possible."""
    experiment.reference.write_text(json.dumps({"storage": address, "study": study}))
    with contextlib.suppress(ConfigError):
        experiment.config.write_text(make_config(str(address)).to_yaml())


def test_a_folder_alone_leads_to_no_server(
    server: tuple[str, Callable[[], bool]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, was_asked = server
    refer(make(folder / "x", None), address)
    (folder / "mine.yaml").write_text(make_config(None).to_yaml())
    told = f"in {address}; set {STUDY_STORAGE_VARIABLE} to that address"
    commands = ["trials x", "trials x --json", "evaluate x", "search resume x", "search replay x --trial 0"]
    for command in [*commands, "experiments remove x --yes", f"search run {folder}/mine.yaml --warm-start x"]:
        code, said = fmnist(capsys, *command.split())
        assert (code, told in said) == (2, True), said
    code, said = fmnist(capsys, "experiments")
    assert (code, "unreachable" in said, told in said) == (0, True, True)
    code, said = fmnist(capsys, "search", "run", f"{folder}/mine.yaml", "--name", "x")
    assert (code, f"study_storage: {address} there, None now" in said) == (2, True), said
    assert not was_asked()
    assert find_experiment("x", directory=folder).exists()


@pytest.mark.parametrize("named", ["another", "not at all"])
def test_only_the_address_that_the_environment_names_is_trusted(
    server: tuple[str, Callable[[], bool]], folder: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    address, was_asked = server
    refer(experiment := make(folder / "x", None), address)
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, address + "2" if named == "another" else "")
    with pytest.raises(DatabaseError, match="set FMNIST_STUDY_STORAGE to that address to have it read, if you trust"):
        read_study(experiment)
    assert not was_asked()
    monkeypatch.setattr(database, "_CONNECT_TIMEOUT_S", 1)
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, address.replace("postgresql:", "postgresql+psycopg:"))
    with pytest.raises(DatabaseError, match="cannot be used"):
        read_study(experiment)
    assert was_asked()


def test_an_environment_that_names_no_address_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refer(experiment := make(folder / "x", None), SOMEWHERE)
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, f"postgresql://me:{SECRET}@db.example.org/studies")
    with pytest.raises(ConfigError, match=r"\$FMNIST_STUDY_STORAGE holds a password; valid: ") as caught:
        read_study(experiment)
    assert SECRET not in str(caught.value)


def test_a_folder_alone_has_no_file_written_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"sqlite:///{tmp_path}/mine.db"
    make(folder / "x", address)
    before = (tmp_path / "mine.db").read_bytes()
    assert fmnist(capsys, "trials", "x")[0] == 0
    for command in ("search resume x", "experiments remove x --yes"):
        code, said = fmnist(capsys, *command.split())
        assert (code, f"set {STUDY_STORAGE_VARIABLE} to that address to have it written to" in said) == (2, True), said
    assert (tmp_path / "mine.db").read_bytes() == before
    assert states(Experiment(folder / "x")) == ["COMPLETE", "COMPLETE", "RUNNING"]
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, address)
    assert fmnist(capsys, "experiments", "remove", "x", "--yes")[0] == 0
    assert studies_in(address) == []


@pytest.mark.parametrize(
    "content",
    [
        *(
            "",
            "[]",
            "null",
            "{",
            "[" * 10**6,
            '"x"',
            "{}",
            '{"storage": "sqlite:////a.db"}',
            b"\xff\xfe",
            b"\0" * 20 * 2**20,
        ),
        json.dumps({"storage": "sqlite:////a.db", "study": "x", "more": 1}),
        *(json.dumps({"storage": "sqlite:////a.db", "study": study}) for study in ("", 5, None, "x" * 513, "a\nb", [])),
        *(json.dumps({"storage": at, "study": "x"}) for at in ("", 5, None, [], "sqlite:///a.db", "//:" * 10**6)),
        json.dumps({"storage": f"postgresql://me:{SECRET}@h/x", "study": "x"}),
    ],
    ids=lambda content: repr(content[:50]),
)
def test_a_damaged_reference_is_named_and_can_be_removed(folder: Path, content: str | bytes) -> None:
    experiment = make(folder / "x", None)
    experiment.reference.write_bytes(content if isinstance(content, bytes) else content.encode())
    start_s = time.monotonic()
    with pytest.raises(ExperimentError, match=r"study\.json") as caught:
        read_study(experiment)
    assert len(str(caught.value)) < 400
    assert SECRET not in str(caught.value)
    assert summarise(experiment).state == State.DAMAGED
    assert [gone.name for gone in remove_experiments(find_removable(["x"], directory=folder), directory=folder)] == [
        "x"
    ]
    assert time.monotonic() - start_s < 5


FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i"


STRANGE = (
    ("DROP TABLE studies", "no such table: studies"),
    ("DROP TABLE version_info", "none of Optuna's tables"),
    (f"DROP TABLE version_info; CREATE VIEW version_info AS {FOREVER} FROM n", "something else .* 'version_info'"),
    ("CREATE TRIGGER t AFTER INSERT ON trials BEGIN SELECT 1; END", "something else .* 't'"),
    ("CREATE VIRTUAL TABLE v USING fts5(x)", "something else than Optuna's tables"),
    ("PRAGMA journal_mode=WAL", "write-ahead log"),
    ("UPDATE trials SET number = 7 WHERE number = 1", "a trial 7 in the place of trial 1"),
    ("UPDATE trials SET number = 0", "damaged or holds something else|does not hold"),
    ("UPDATE trials SET number = 'x' WHERE number = 1", "damaged"),
    ("UPDATE trials SET number = NULL", "damaged"),
    ("UPDATE trials SET state = 'EXPLODED'", "damaged"),
    ("UPDATE trials SET state = 'WAITING' WHERE number = 2", "does not hold"),
    ("UPDATE trials SET datetime_start = 'tomorrow'", "damaged"),
    ("UPDATE trial_values SET objective = 5", "damaged"),
    ("UPDATE trial_values SET value = 'x'", "does not hold|damaged"),
    ("UPDATE trial_values SET value = NULL, value_type = 'INF_POS'", "does not hold"),
    ("UPDATE trial_intermediate_values SET intermediate_value = NULL, intermediate_value_type = 'NAN'", "not hold"),
    ("UPDATE trial_intermediate_values SET step = -step", "does not hold"),
    ("UPDATE trial_intermediate_values SET step = step * 5000000000", "does not hold"),
    ("UPDATE trial_params SET distribution_json = '{}'", "damaged"),
    ("UPDATE trial_params SET distribution_json = '[' || distribution_json", "damaged"),
    ("UPDATE trial_params SET param_value = 'x'", "damaged|does not hold"),
    ("INSERT INTO trial_user_attributes VALUES (1, 1, 'reason', '5')", "does not hold"),
    ("INSERT INTO trial_user_attributes VALUES (1, 1, 'note', '{')", "damaged"),
    ("INSERT INTO trial_user_attributes VALUES (1, 1, 'note', zeroblob(100000000))", "too big|cannot be used"),
    ("DELETE FROM study_directions", "damaged"),
    ("INSERT INTO study_directions VALUES (2, 'MAXIMIZE', 1, 1)", "2 directions"),
    ("UPDATE studies SET study_name = 'other'", "holds no study"),
)


@pytest.mark.parametrize(("sql", "message"), STRANGE)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, folder: Path, sql: str, message: str) -> None:
    experiment = make(folder / "x", f"sqlite:///{tmp_path}/own.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "own.db")) as there:
        there.executescript(sql)
    start_s = time.monotonic()
    with pytest.raises(ExperimentError, match=message):
        read_study(Experiment(experiment.path))
    assert time.monotonic() - start_s < 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiments", "own.db"]
    assert summarise(Experiment(experiment.path)).state in (State.DAMAGED, State.UNREACHABLE)


@pytest.mark.parametrize("kind", ["text", "empty", "pipe", "folder", "device"])
def test_a_file_that_is_no_database_keeps_nobody_waiting(tmp_path: Path, folder: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "own.db"
    if kind in ("text", "empty"):
        path.write_text("hello" if kind == "text" else "")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    refer(experiment := make(folder / "x", None), f"sqlite:///{path}")
    with pytest.raises(DatabaseError, match=r"no database of SQLite|is not a plain file"):
        read_study(experiment)


@pytest.mark.parametrize("name", ["st #1.db", "100%.db", "%41.db", "a b", "&=;.db"])
def test_any_name_of_a_file_is_the_name_of_the_database(name: str, folder: Path, tmp_path: Path) -> None:
    experiment = make(folder / "x", f"sqlite:///{tmp_path}/{name}")
    assert (tmp_path / name).is_file()
    assert states(experiment) == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, name}


def test_a_database_is_written_neither_into_a_pipe_nor_where_there_is_no_folder(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatabaseError, match="is not a plain file"):
        make(folder / "x", f"sqlite:///{tmp_path}/pipe")
    with pytest.raises(DatabaseError, match=f"there is no folder {tmp_path / 'none'}; make it first"):
        make(folder / "y", f"sqlite:///{tmp_path}/none/x.db")


# Removal


@in_databases
def test_a_removed_experiment_leaves_nothing_in_the_database(
    study_storage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder / "x", study_storage)
    gone, kept = make(folder / "gone", study_storage), make(folder / "kept", study_storage)
    before, name = set(studies_in(study_storage)), name_of(gone)
    code, said = fmnist(capsys, "experiments", "remove", "gone", "--yes")
    assert (code, "removed gone" in said) == (0, True)
    assert before - set(studies_in(study_storage)) == {name}
    assert states(kept) == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert sorted(os.listdir(folder)) == ["kept", "x"]


@in_databases
def test_a_study_that_is_gone_does_not_keep_its_folder(study_storage: str, folder: Path) -> None:
    experiment = make(folder / "x", study_storage)
    database.delete_study(Reference(study_storage, name_of(experiment)))
    list(remove_experiments([experiment], directory=folder))
    assert os.listdir(folder) == []


def test_a_file_that_is_gone_does_not_keep_its_experiment(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"sqlite:///{tmp_path}/own.db"
    make(folder / "x", address)
    (tmp_path / "own.db").unlink()
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, address)
    list(remove_experiments([Experiment(folder / "x")], directory=folder))
    assert os.listdir(folder) == []
    assert not (tmp_path / "own.db").exists()


@in_postgresql
def test_an_experiment_whose_database_is_out_of_reach_stays_whole(
    study_storage: str, folder: Path, postgresql: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make(folder / "x", study_storage)
    postgresql.stop()
    code, said = fmnist(capsys, "experiments", "remove", "x", "--yes")
    assert (code, f"the database {study_storage} cannot be used" in said) == (2, True)
    before = experiment.config.read_text()
    (folder.parent / "new.yaml").write_text(make_config(study_storage).to_yaml())
    for command in ("search resume x --trials 99", f"search run {folder.parent}/new.yaml"):
        code, said = fmnist(capsys, *command.split())
        assert (code, f"the database {study_storage} cannot be used" in said) == (2, True)
    assert experiment.config.read_text() == before
    postgresql.start()
    assert os.listdir(folder) == ["x"]
    assert states(experiment) == ["COMPLETE", "COMPLETE", "RUNNING"]


@in_databases
def test_a_removal_cut_short_is_completed_by_the_next_one(
    study_storage: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, other = make(folder / "x", study_storage), make(folder / "other", study_storage)
    name = name_of(experiment)
    aside = experiment.path.rename(folder / ".removed-1")  # as far as it came
    list(remove_experiments([other], directory=folder))
    assert not aside.exists()
    assert name not in studies_in(study_storage)


# On Ray


def start_fmnist(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop(STUDY_STORAGE_VARIABLE)  # the configuration names it
    with (folder / "output").open("wb") as output:
        command = [sys.executable, "-m", "search.cli", *arguments]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


@in_postgresql
@pytest.mark.slow
def test_a_search_whose_server_stops_ends_in_order_and_is_continued(
    study_storage: str, tmp_path: Path, folder: Path, postgresql: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(study_storage, max_trials=4, max_epochs=9)
    (tmp_path / "garments.yaml").write_text(config.to_yaml())
    experiment = Experiment(folder / "garments", study_storage)
    process = start_fmnist(tmp_path, "search", "run", "garments.yaml")
    try:
        told = (tmp_path / "output").read_text
        sql = (
            "SELECT count(*) FROM trial_intermediate_values JOIN trials USING (trial_id) JOIN studies USING (study_id)"
        )
        while not experiment.exists() or postgresql.ask(f"{sql} WHERE study_name LIKE 'garments-%'")[0][0] <= 3:
            assert process.poll() is None, told()
            time.sleep(0.1)
        postgresql.stop()
        assert process.wait(60) == 2, told()
        said = " ".join(told().split())
        assert f"the search had to stop: the database {study_storage} cannot be used: " in said
        assert "`fmnist search resume` continues it" in said
        assert "Traceback" not in said
        postgresql.start()
        before = [trial.intermediate_values for trial in read_study(experiment).get_trials()]
        process = start_fmnist(tmp_path, "search", "run", "garments.yaml")
        assert process.wait(200) == 0, told()
    finally:
        process.kill()
        process.wait()
    now = [trial.intermediate_values for trial in read_study(experiment).get_trials()]
    assert all(then.items() <= there.items() for then, there in zip(before, now, strict=False))
    code, listed = fmnist(capsys, "trials", "garments", "--json")
    assert (code, [row["state"] for row in json.loads(listed)["trials"]]) == (0, ["complete"] * 4)
    assert fmnist(capsys, "evaluate", "garments")[0] == 0
