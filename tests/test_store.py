"""Experiments on object storage, on a real S3 server (moto's), seen from machines that share no file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import optuna
import pytest
from epochs import make_epoch
from moto.server import ThreadedMotoServer
from optuna.trial import TrialState, create_trial
from PIL import Image

from search.configuration.config import parse_config
from search.errors import ExperimentError
from search.records.address import STUDY_STORAGE_VARIABLE
from search.records.confirmation import plan_confirmation, read_confirmation
from search.records.experiment import CONFIRMATION, Experiment, TrialFiles, find_experiment, new_experiment
from search.records.lock import hold_experiment
from search.records.looks import begin_look, end_look, list_looks
from search.records.record import Reason, list_trials, open_study
from search.records.removal import remove_experiments
from search.records.runs import read_runs
from search.records.store import Store, parse_store
from search.review.trial_detail import read_details
from search.running.continuation import begin_run
from search.running.retention import Retention
from search.running.time_limit import read_timeout
from search.study.search_study import SearchStudy

REPOSITORY = Path(__file__).parent.parent
BUCKET = "fmnist"
SEARCH = {
    "dataset": "synthetic",
    "train_size": 300,
    "test_size": 100,
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}},
    "max_trials": 3,
    "max_epochs": 4,
    "pruner": "none",
    "keep_checkpoints": 1,
    "max_concurrent_trials": 2,
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty folder of an empty bucket, and this machine's copy of it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket = boto3.resource("s3").Bucket(BUCKET)
    bucket.create()
    bucket.objects.delete()
    return Store(f"s3://{BUCKET}/experiments")


def keys() -> list[str]:
    return sorted(found.key for found in boto3.resource("s3").Bucket(BUCKET).objects.all())


def fmnist(machine: Path, *arguments: str, code: int = 0) -> str:
    """Runs the command line on a machine of its own, as far as files go; gives what it writes."""
    done = subprocess.run(
        [sys.executable, "-m", "search.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(machine), "COLUMNS": "200"},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.mark.parametrize("text", ["s3://", "s3://b/../x", "file:///etc", "http://x/y", "s3://bucket/a b", "s3:///x"])
def test_what_is_no_store_is_refused(text: str) -> None:
    with pytest.raises(ExperimentError, match="valid: a path, s3://bucket"):
        parse_store(text)


def test_a_copy_becomes_what_the_store_has_and_nothing_else(store: Store) -> None:
    folder = store.local / "x"
    folder.mkdir(parents=True)
    for name in ("kept", "changed", "gone"):
        (folder / name).write_text(name)
    store.send(*sorted(folder.iterdir()))
    (folder / "changed").write_text("otherwise here")
    (folder / "new").write_text("not in the store")
    (folder / ".lock").write_text("this machine's own")
    store.remove(folder / "gone")
    boto3.resource("s3").Bucket(BUCKET).put_object(Key="experiments/x/deeper/file", Body=b"of another folder")
    boto3.resource("s3").Bucket(BUCKET).put_object(Key="experiments/x/..", Body=b"no name")
    store.fetch(folder)
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {"kept": "kept", "changed": "changed", ".lock": "this machine's own"}
    assert store.names() == ["x"]
    assert store.find(folder / "deeper") == [folder / "deeper" / "file"]
    store.remove_folder(folder)
    assert keys() == []


@pytest.mark.usefixtures("store")
def test_what_fails_says_where_and_why() -> None:
    elsewhere = Store("s3://no-such-bucket/x")
    elsewhere.local.mkdir(parents=True)
    (elsewhere.local / "file").write_text("text")
    with pytest.raises(ExperimentError, match=r"s3://no-such-bucket/x cannot be used: .*bucket does not exist"):
        elsewhere.send(elsewhere.local / "file")
    with pytest.raises(ExperimentError, match=r"gs://bucket/x needs pip install 'fmnist-search\[gcs\]'"):
        Store("gs://bucket/x").names()


def test_an_experiment_there_needs_a_database(store: Store, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(json.dumps(SEARCH))
    said = fmnist(tmp_path / "a", "search", "run", str(config), "--experiments-dir", store.address, code=2)
    assert "study_storage: experiments on s3://fmnist/experiments need it" in said
    assert keys() == []


@pytest.mark.timeout(800)
def test_where_a_trial_hung_is_known_after_its_files_were_fetched(store: Store) -> None:
    """Its process fetches them while its time is running, and is ended from within."""
    files = TrialFiles(store.local / "x" / "trials" / "00000", store)
    script = (
        "import sys, time; from pathlib import Path; from search.records.experiment import TrialFiles; "
        "from search.records.store import Store; from search.running.time_limit import time_limit\n"
        "files = TrialFiles(Path(sys.argv[1]), Store(sys.argv[2]))\n"
        "with time_limit(files, 2.0): files.fetch(); time.sleep(60)"
    )
    files.path.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", script, str(files.path), store.address]
    assert subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True).returncode == 1
    failure = read_timeout(files)
    assert failure is not None
    assert failure.reason == Reason.TIMEOUT


def test_who_reads_a_trial_leaves_alone_what_a_process_here_is_writing(store: Store, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/study.db"
    config = parse_config(SEARCH | {"study_storage": database}, where="test")
    experiment = new_experiment("x", directory=store, study_storage=database)
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        assert study.next_assignment() is not None
        study.report(0, make_epoch(1, 0.5))
        experiment.send()
        best = experiment.trial(0).best
        best.parent.mkdir(exist_ok=True)
        best.write_bytes(b"not sent yet")
        epochs = experiment.trial(0).epochs
        epochs.write_text("of a worker elsewhere")
        store.send(epochs)
        epochs.unlink()
        read_details(experiment, [0])
        assert best.read_bytes() == b"not sent yet"
        assert epochs.read_text() == "of a worker elsewhere"
        experiment.trial(0).last.write_bytes(b"of a worker here")
        epochs.write_text("newer")
        read_details(experiment, [0])
        assert epochs.read_text() == "newer"
    read_details(experiment, [0])
    assert not best.exists()


def test_a_search_begun_on_one_machine_is_continued_and_read_on_others(store: Store, tmp_path: Path) -> None:
    """The first machine is killed in the middle of it; the database is the only file that all of them see."""
    config, database = tmp_path / "small.yaml", f"sqlite:///{tmp_path}/study.db"
    config.write_text(json.dumps(SEARCH | {"study_storage": database, "train_size": 800}))
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    process = subprocess.Popen(
        [sys.executable, "-m", "search.cli", "search", "run", str(config), "--experiments-dir", store.address],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(first)},
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end_s = time.monotonic() + 300
    while not (begun := [key for key in keys() if key.endswith("epochs.csv")]):
        assert time.monotonic() < end_s
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {key: boto3.resource("s3").Object(BUCKET, key).get()["Body"].read() for key in begun}
    said = fmnist(second, "search", "run", str(config), "--experiments-dir", store.address)
    assert "continues with 2 trials" in said
    assert f"everything is in {store.address}/small" in said
    after = {key: boto3.resource("s3").Object(BUCKET, key).get()["Body"].read() for key in begun}
    assert all(after[key].startswith(before[key]) for key in begun), "finished epochs are not trained again"
    names = {key.removeprefix("experiments/small/") for key in keys()}
    assert {"config.yaml", "study.json", "trials.csv", "evaluation.json", "best/model.safetensors"} <= names
    assert [name for name in names if name.endswith(".pt") or "/." in name or name.startswith(".ray")] == []
    assert len([name for name in names if name.endswith("best.safetensors")]) == 1  # keep_checkpoints
    rows = json.loads(fmnist(third, "trials", f"{store.address}/small", "--json"))["trials"]
    assert [row["state"] for row in rows] == ["complete"] * 3
    best = rows[0]["trial"]
    evaluated = json.loads(
        fmnist(third, "evaluate", "small", "--trial", str(best), "--experiments-dir", store.address, "--json")
    )
    assert evaluated["value"] == rows[0]["value"]
    Image.linear_gradient("L").resize((28, 28)).save(tmp_path / "garment.png")
    predicted = json.loads(fmnist(third, "predict", f"{store.address}/small", str(tmp_path / "garment.png"), "--json"))
    assert len(predicted["predictions"][0]["classes"]) == 3
    listed = json.loads(fmnist(third, "experiments", "--experiments-dir", store.address, "--json"))
    assert [(row["name"], row["state"], row["trials"]) for row in listed["experiments"]] == [("small", "finished", 3)]
    assert listed["experiments"][0]["size_bytes"] > 100_000
    refused = fmnist(third, "experiments", "--experiments-dir", store.address, "remove", "small", "--yes", code=2)
    assert "FMNIST_STUDY_STORAGE" in refused
    os.environ["FMNIST_STUDY_STORAGE"] = database
    try:
        fmnist(third, "experiments", "--experiments-dir", store.address, "remove", "small", "--yes")
    finally:
        del os.environ["FMNIST_STUDY_STORAGE"]
    assert [key for key in keys() if "small" in key] == []  # Ray leaves a marker of the folder above


def test_a_copy_is_found_by_its_store(store: Store) -> None:
    experiment = Experiment(store.local / "x", None, store)
    assert experiment.location == f"{store.address}/x"
    assert experiment.trial(7).location == f"{store.address}/x/trials/00007"
    assert Experiment(Path("/elsewhere/x")).location == "/elsewhere/x"


def test_a_long_search_is_continued_without_requests_for_each_of_its_trials(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(store.local / "long", None, store)
    trials = []
    for number in range(30):
        trials.append(create_trial(state=TrialState.COMPLETE, value=float(number)))
        trials[-1].number = number
    surplus = [experiment.trial(3).best, experiment.trial(28).last]
    for path in (*surplus, experiment.trial(29).best):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        store.send(path)
    asked: list[Path] = []
    remove = Store.remove

    def remove_and_note(self: Store, *paths: Path) -> None:
        asked.extend(paths)
        remove(self, *paths)

    monkeypatch.setattr(Store, "remove", remove_and_note)
    config = parse_config({"space": {"model": "customnet"}, "keep_checkpoints": 2}, where="test")
    Retention(experiment, config, trials)
    assert asked == surplus
    assert [key for key in keys() if "/long/" in key] == ["experiments/long/trials/00029/best.safetensors"]


def test_a_confirmation_there_is_found_from_another_machine_and_goes_with_its_experiment(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path}/study.db"
    wanted = {"study_storage": database, "confirm": {"top": 1, "seeds": 1}, "max_trials": 1, "max_epochs": 1}
    config = parse_config(SEARCH | wanted, where="test")
    experiment = new_experiment("a", directory=store, study_storage=database)
    repetitions = None
    for one in (experiment, experiment.part(CONFIRMATION)):
        with hold_experiment(one):
            begin_run(one, config)
            study = SearchStudy(
                open_study(one, study_storage=database, direction="maximize"), config, repetitions=repetitions
            )
            assert study.next_assignment() is not None
            study.report(0, make_epoch(1, 0.75 if repetitions is None else 0.5))
            one.send()
        repetitions = plan_confirmation(list_trials(one), metric="val_accuracy", top=1, num_seeds=1, seed=0)
    assert {"experiments/a/study.json", "experiments/a/confirmation/study.json"} <= set(keys())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, database)
    found = find_experiment("a", directory=store)
    confirmation = read_confirmation(found, config.model_dump(), list_trials(found))
    assert confirmation is not None
    assert (confirmation.winner, confirmation.trials[0].values) == (0, (0.5,))
    assert len(optuna.get_all_study_names(database)) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third, which has not read it"))
    found = find_experiment("a", directory=store)
    assert [gone.name for gone in remove_experiments([found], directory=store)] == ["a"]
    assert (keys(), optuna.get_all_study_names(database)) == ([], [])


def test_looks_at_the_test_images_are_logged_there_from_every_machine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv(STUDY_STORAGE_VARIABLE, database)
    config = parse_config(SEARCH | {"study_storage": database}, where="test")
    experiment = new_experiment("a", directory=store, study_storage=database)
    with hold_experiment(experiment):
        begin_run(experiment, config, num_slots=2)
        open_study(experiment, study_storage=database, direction="maximize")
        experiment.send()
    for machine in ("one", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        found = find_experiment("a", directory=store)
        look = begin_look(found, trial=0, command=machine, num_images=100)
        assert "experiments/a/test_looks.jsonl" in keys(), "before the look is taken"
    end_look(found, look, accuracy=0.5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third"))
    found = find_experiment("a", directory=store)
    assert [(look.command, look.accuracy) for look in list_looks(found)] == [("one", None), ("other", 0.5)]
    assert [run.num_slots for run in read_runs(found)] == [2]
