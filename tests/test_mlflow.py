"""MLflow is told of a search: a real server, which may be slow or away, and gets everything once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from epochs import make_epoch
from made_experiment import FAILED, make_experiment

from cluster.ports import free_ports
from fmnist_models.checkpoint import save_checkpoint, save_weights
from fmnist_models.data import TrainingData, load_images
from fmnist_models.training import Training, TrainingPlan
from search import load_experiment
from search.cli import main
from search.configuration.config import parse_config
from search.errors import ConfigError, ExperimentError
from search.integrations.mlflow_runs import Sent, identify, send_experiment
from search.integrations.mlflow_sender import sending
from search.records.epochs_file import format_epochs
from search.records.experiment import Experiment
from search.records.lock import lock_experiment
from search.records.record import read_study
from search.records.tracking import Target
from search.study.search_study import SearchStudy
from search.workflows.evaluation import evaluate_and_save

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120
SECRET = "hunter2"
CONFIG = {
    "dataset": "synthetic",
    "train_size": 100,
    "test_size": 50,
    "space": {"model": {"choice": ["customnet"]}, "lr": {"float": [1e-4, 1e-1], "log": True}},
    "max_trials": 4,
    "max_epochs": 3,
    "pruner": "none",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server, started for these tests."""
    folder, (port,) = tmp_path_factory.mktemp("mlflow"), free_ports(1)
    stores = ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files")]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *stores, *address],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "said")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], said: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end_s, said.read_text()
            time.sleep(0.2)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sending sets, so that it is gone afterwards."""
    from search.integrations import mlflow_runs

    for name, value in mlflow_runs._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def finished(synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Trial 0 complete and the best, with a table of its epochs, 1 failed, 2 complete, 3 running; tested."""
    config = parse_config(CONFIG, where="test")
    curves = [[0.5, 0.75, 0.625], FAILED, [0.5, 0.625, 0.5], [0.5]]
    experiment = make_experiment(tmp_path_factory.mktemp("finished") / "mine", config, curves)
    plan = TrainingPlan(network="customnet", hyperparameters={}, num_epochs=2, seed=0)
    training = Training(plan, synthetic_data, device=torch.device("cpu"))
    save_weights(experiment.trial(0).best, training.model.state_dict())
    save_checkpoint(experiment.trial(0).last, training.state_dict())
    epochs = [make_epoch(number, accuracy) for number, accuracy in enumerate([0.5, 0.75, 0.625], start=1)]
    experiment.trial(0).epochs.write_text(format_epochs(epochs, dataset="synthetic"))
    evaluate_and_save(experiment, config, None, data_root=experiment.path, data=synthetic_data)
    return experiment


@pytest.fixture
def experiment(finished: Experiment, tmp_path: Path) -> Experiment:
    """A copy, under a name of its own."""
    return Experiment(Path(shutil.copytree(finished.path, tmp_path / tmp_path.name[:40].strip("_"))))


class Seen:
    """What the server has of an experiment."""

    def __init__(self, address: str, group: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(address, address)
        found = self.client.get_experiment_by_name(group)
        assert found is not None
        runs = self.client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])
        (self.parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == self.parent.info.run_id]
        assert len(children) == len(runs) - 1
        self.trials = {int(run.data.tags["fmnist_trial"]): run for run in children}

    def history(self, number: int, metric: str) -> list[tuple[int, float]]:
        found = self.client.get_metric_history(self.trials[number].info.run_id, metric)
        return sorted((entry.step, entry.value) for entry in found)

    def everything(self) -> Any:
        return {
            number: (
                run.data.params,
                run.data.tags,
                run.info.status,
                run.info.end_time,
                self.history(number, "val_loss"),
            )
            for number, run in self.trials.items()
        }


def test_a_search_that_is_still_to_be_confirmed_is_not_finished(server: str, tmp_path: Path) -> None:
    confirm = {"confirm": {"top": 1, "seeds": 1}, "max_trials": 2}
    experiment = make_experiment(tmp_path / "still", parse_config(CONFIG | confirm, where="test"), [[0.5] * 3] * 2)
    with lock_experiment(experiment):
        send_experiment(experiment, Target(server, "to be confirmed"))
        assert Seen(server, "to be confirmed").parent.info.status == "RUNNING"
    send_experiment(experiment, Target(server, "to be confirmed"))
    assert Seen(server, "to be confirmed").parent.info.status == "KILLED"


def test_a_run_for_the_search_and_one_a_trial(experiment: Experiment, server: str) -> None:
    target = Target(server, "all of it")
    sent = send_experiment(experiment, target)
    assert sent == Sent(num_trials=4, num_new=4, model_version="1")
    seen = Seen(server, "all of it")
    assert seen.parent.info.run_name == experiment.name
    assert seen.parent.data.params["max_epochs"] == "3"
    assert seen.parent.data.metrics["best_val_accuracy"] == 0.75
    assert seen.parent.data.metrics["num_failed"] == 1
    assert seen.parent.info.status == "KILLED"
    files = {file.path for file in seen.client.list_artifacts(seen.parent.info.run_id)}
    assert {"confusion_matrix.png", "per_class.csv", "evaluation.json", "config.yaml"} <= files
    assert [seen.trials[number].info.status for number in range(4)] == ["FINISHED", "FAILED", "FINISHED", "RUNNING"]
    assert seen.history(0, "val_accuracy") == [(1, 0.5), (2, 0.75), (3, 0.625)]
    assert seen.history(0, "train_loss") == [(1, 0.5), (2, 0.25), (3, 0.375)]
    assert seen.history(2, "val_accuracy") == [(1, 0.5), (2, 0.625), (3, 0.5)]
    trials = read_study(experiment).trials
    for trial in trials:
        assert seen.trials[trial.number].data.params == {name: str(value) for name, value in trial.params.items()}
    tags = seen.trials[1].data.tags
    assert (tags["state"], tags["reason"], tags["message"]) == ("failed", "code", "KeyError: 'x'")
    assert seen.trials[0].data.tags["checkpoint"] == str(experiment.trial(0).best)
    assert seen.trials[0].data.metrics["best_epoch"] == 2
    evaluation = load_experiment(experiment.path).evaluation
    assert evaluation is not None
    assert seen.trials[0].data.metrics["test_accuracy"] == evaluation.scores.accuracy
    assert trials[0].datetime_complete is not None
    assert seen.trials[0].info.end_time == int(trials[0].datetime_complete.timestamp() * 1000)


def test_the_best_model_is_registered_and_predicts(experiment: Experiment, server: str, tmp_path: Path) -> None:
    target = Target(server, "models")
    assert send_experiment(experiment, target).model_version == "1"
    assert send_experiment(experiment, target).model_version is None
    images = load_images("synthetic", "test", root=tmp_path, size=20).images
    np.save(tmp_path / "images.npy", images)
    script = f"""
import mlflow, numpy as np
mlflow.set_tracking_uri({server!r})
model = mlflow.pyfunc.load_model("models:/{experiment.name}/1")
print(model.metadata.signature)
np.save("probabilities.npy", model.predict(np.load("images.npy")))
import fmnist_models
assert "site-packages" not in fmnist_models.__file__ and {str(ROOT)!r} not in fmnist_models.__file__
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "uint8" in done.stdout
    assert "(-1, 28, 28)" in done.stdout
    assert "(-1, 10)" in done.stdout
    model = load_experiment(experiment.path).load_model()
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), model(torch.from_numpy(images)), atol=1e-6)


def test_sent_again_nothing_is_there_twice(experiment: Experiment, server: str) -> None:
    target = Target(server, "again")
    send_experiment(experiment, target)
    before = Seen(server, "again").everything()
    assert send_experiment(experiment, target) == Sent(num_trials=4, num_new=0, model_version=None)
    assert Seen(server, "again").everything() == before
    moved = Experiment(Path(shutil.move(experiment.path, experiment.path.with_name("moved"))))
    with lock_experiment(moved):
        study = SearchStudy.open(moved, parse_config(CONFIG, where="test"))
        study.next_assignment()
        study.report(3, make_epoch(2, 0.25))
        assert send_experiment(moved, target).num_new == 1
        seen = Seen(server, "again")
        assert seen.history(3, "val_accuracy") == [(1, 0.5), (2, 0.25)]
        assert (seen.trials[3].info.status, seen.parent.info.status) == ("RUNNING", "RUNNING")
        study.report(3, make_epoch(3, 0.125))
        assert send_experiment(moved, target).num_new == 1
    seen = Seen(server, "again")
    assert seen.history(3, "val_accuracy") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert (seen.trials[3].info.status, seen.parent.info.status) == ("FINISHED", "FINISHED")


def test_what_was_cut_short_is_completed(experiment: Experiment, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    send_experiment(experiment, Target(server, "whole"))
    whole = Seen(server, "whole").everything()
    calls = {"left": 0}
    for name in ("create_run", "log_batch", "set_terminated"):
        send = getattr(MlflowClient, name)

        def may_fail(*arguments: Any, send: Any = send, **named: Any) -> Any:
            calls["left"] -= 1
            if calls["left"] == 0:
                raise ConnectionError("cut short")
            return send(*arguments, **named)

        monkeypatch.setattr(MlflowClient, name, may_fail)
    num_failures = 0
    for left in (2, 3, 2, 4, 3, 0):
        calls["left"] = left
        try:
            send_experiment(experiment, Target(server, "in parts"))
        except ExperimentError as error:
            num_failures += "cut short" in str(error)
    assert num_failures >= 4
    assert Seen(server, "in parts").everything().keys() == whole.keys()
    assert Seen(server, "in parts").history(0, "val_loss") == whole[0][-1]
    parts = Seen(server, "in parts").everything()
    for number, (params, _, status, end_time, history) in whole.items():
        assert (parts[number][0], *parts[number][2:]) == (params, status, end_time, history)


def test_two_experiments_of_one_name_are_two(tmp_path: Path) -> None:
    made = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        made.append(make_experiment(tmp_path / folder / "same", parse_config(CONFIG, where="test"), [[0.5]]))
    assert identify(made[0]) != identify(made[1])


def test_a_search_is_told_of_while_it_runs(experiment: Experiment, server: str) -> None:
    told: list[str] = []
    with (
        lock_experiment(experiment),
        sending(experiment, Target(server, "live"), tell=told.append, patience_s=PATIENCE_S),
    ):
        study = SearchStudy.open(experiment, parse_config(CONFIG, where="test"))
        study.next_assignment()
        study.report(3, make_epoch(2, 0.25))
        study.report(3, make_epoch(3, 0.125))
    assert told == []
    seen = Seen(server, "live")
    assert seen.parent.info.status == "FINISHED"
    assert seen.history(3, "val_accuracy") == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_a_server_that_is_away_is_said_once_and_stops_nothing(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("search", "fmnist_models", "torch", "json"):  # what the process that tells is not to import
        (tmp_path / f"{module}.py").write_text("raise SystemExit('the wrong module')")
    (port,) = free_ports(1)
    told: list[str] = []
    start_s = time.monotonic()
    with sending(experiment, Target(f"http://127.0.0.1:{port}"), tell=told.append, patience_s=PATIENCE_S):
        assert time.monotonic() - start_s < 5
    (only,) = told
    assert f"MLflow at http://127.0.0.1:{port} did not take it" in only
    assert f"`fmnist mlflow {experiment.name}` sends it again" in only


def test_a_server_that_never_answers_is_waited_for_no_longer_than_said(experiment: Experiment) -> None:
    told: list[str] = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with sending(experiment, Target(uri), tell=told.append, patience_s=3):
            start_s = time.monotonic()
        assert time.monotonic() - start_s < 15
    assert told == [f"MLflow did not get all of it; `fmnist mlflow {experiment.name}` sends the rest"]


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{SECRET}@127.0.0.1:5000",
        f"http://{SECRET}@127.0.0.1",
        f"http://127.0.0.1/?key={SECRET}",
        f"{SECRET}.db",
        f"file:///{SECRET}",
        f"http://[{SECRET}",
        f"http://127.0.0.1:99999/{SECRET}",
    ],
)
def test_passwords_and_other_addresses_are_refused_and_not_repeated(
    uri: str, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ({"tracking_uri": uri}, {"tracking_uri": uri, "experiment": 1}, uri, {"uri": uri}):
        with pytest.raises(ConfigError) as caught:
            parse_config({**CONFIG, "mlflow": wrong}, where="test")
        assert SECRET not in str(caught.value)
        assert "mlflow" in str(caught.value)
    for arguments in (["--tracking-uri", uri], []):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert fmnist(monkeypatch, "mlflow", str(experiment.path), *arguments) == 2
        said = capsys.readouterr().err
        assert "user and password go in $MLFLOW_TRACKING_USERNAME" in said.replace("\n", " ")
        assert SECRET not in said


def fmnist(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fmnist", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_address_in_an_experiment_is_not_enough(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_config({**CONFIG, "mlflow": {"tracking_uri": server, "experiment": "mine"}}, where="test")
    experiment = make_experiment(tmp_path / "theirs", config, [[0.5]])
    assert fmnist(monkeypatch, "mlflow", str(experiment.path)) == 2
    assert f"MLFLOW_TRACKING_URI to {server}, if you trust it" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert fmnist(monkeypatch, "mlflow", str(experiment.path)) == 0
    assert f"1 trials are in mine at {server}, 1 of them new" in capsys.readouterr().out.replace("\n", " ")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert fmnist(monkeypatch, "mlflow", str(experiment.path)) == 2
    assert "pip install 'fmnist-search[mlflow]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_search_is_there_at_its_end(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["dataset=synthetic", "max_trials=2", "max_epochs=2", "train_size=200", "test_size=50"]
    settings += [f"mlflow.tracking_uri={server}", "mlflow.experiment=real", "min_epochs=1", "space={model: customnet}"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "search.cli", "search", "run", "--preset", "quickstart", "--name", "real"]
    subprocess.run([*command, "--experiments-dir", str(tmp_path), *overrides], check=True, timeout=280)
    seen = Seen(server, "real")
    assert seen.parent.info.status == "FINISHED"
    assert {run.info.status for run in seen.trials.values()} <= {"FINISHED", "KILLED"}
    assert len(seen.history(0, "train_loss")) == 2
    assert seen.client.search_model_versions("name = 'real'")
