"""`fmnist dashboard`: a real optuna-dashboard over HTTP, on studies that it cannot change."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
import pytest
from epochs import make_epoch
from made_experiment import FAILED, make_experiment

from fmnist_models.data import CLASS_NAMES, load_images
from fmnist_models.metrics import score
from search.cli import main
from search.configuration.config import parse_config
from search.integrations.dashboard import Dashboard, DashboardServer, _full_name, is_known_host
from search.records.evaluation_file import Evaluation
from search.records.experiment import Experiment
from search.records.lock import lock_experiment
from search.records.predictions import Predictions
from search.study.search_study import SearchStudy
from search.workflows.saved_evaluation import save_evaluation

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {
    "dataset": "synthetic",
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
    "max_trials": 5,
    "max_epochs": 2,
    "pruner": "none",
}
PNG = b"\x89PNG\r\n\x1a\n"
PATIENCE_S = 60


def made(path: Path) -> Experiment:
    """Trial 0 complete, 1 failed, 2 complete and the best, with a checkpoint and tested, 3 running."""
    config = parse_config(CONFIG, where="test")
    experiment = make_experiment(path, config, [[0.5, 0.625], FAILED, [0.5, 0.75], [0.25]])
    images = load_images("synthetic", "test", root=path, size=40)
    probabilities = np.full((40, 10), 0.01, np.float32)
    probabilities[np.arange(40), np.where(np.arange(40) < 30, images.labels, 0)] = 0.91
    predictions = Predictions(images.labels, probabilities)
    evaluation = Evaluation(
        experiment=path.name,
        dataset="synthetic",
        trial=2,
        epoch=2,
        metric="val_accuracy",
        value=0.75,
        rule="made up",
        hyperparameters={"model": "customnet"},
        scores=score(images.labels, predictions.predicted, class_names=CLASS_NAMES),
    )
    save_evaluation(evaluation, predictions, experiment.evaluation)
    experiment.trial(2).path.mkdir(exist_ok=True)
    experiment.trial(2).best.write_bytes(b"weights")
    return experiment


class Running:
    """A dashboard in a process of its own."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._log = folder / "said"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FMNIST_EXPERIMENTS_DIR": str(folder),
            "TMPDIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "search.cli", "dashboard", *names, "--port", "0"]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)
        self.address = self._wait_for_address()

    @property
    def said(self) -> str:
        return self._log.read_text()

    def _wait_for_address(self) -> str:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s and self.process.poll() is None:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", self.said):
                return found[0]
            time.sleep(0.1)
        raise AssertionError(self.said)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def study(self, number: int) -> dict[str, Any]:
        study: dict[str, Any] = json.loads(self.get(f"api/studies/{number}"))
        return study


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def attributes(trial: dict[str, Any]) -> dict[str, str]:
    return {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard")
    for name in ("mine", "other"):
        made(folder / name)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    running = Running(folder, "mine", "other", "mine")
    yield running
    running.process.kill()
    running.process.wait()


def test_it_shows_all_there_is_of_several_experiments(running: Running, folder: Path) -> None:
    assert b"<title>Optuna Dashboard</title>" in running.get("dashboard")
    studies = json.loads(running.get("api/studies"))["study_summaries"]
    assert [study["study_name"] for study in studies] == ["mine", "other"]
    study = running.study(0)
    assert (study["directions"], study["objective_names"]) == (["maximize"], ["val_accuracy"])
    states = [trial["state"] for trial in study["trials"]]
    assert states == ["Complete", "Fail", "Complete", "Running"]
    failed, best, begun = study["trials"][1:]
    assert attributes(failed)["reason"] == "code"
    assert attributes(failed)["message"] == "KeyError: 'x'"
    assert [parameter["name"] for parameter in best["params"]] == ["lr"]
    assert best["intermediate_values"] == [{"step": 1, "value": 0.5}, {"step": 2, "value": 0.75}]
    assert begun["intermediate_values"] == [{"step": 1, "value": 0.25}]
    said = attributes(best)
    assert said["best_epoch"] == "2"
    assert float(said["duration_s"]) > 0
    assert float(said["test_accuracy"]) >= 0.75
    assert said["checkpoint"] == str(folder / "mine" / "trials" / "00002" / "best.safetensors")
    assert study["best_trials"][0]["number"] == 2


def test_the_best_trial_has_its_pictures(running: Running) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while len(running.study(1)["trials"][2]["artifacts"]) < 2:
        assert time.monotonic() < end_s, running.said
        time.sleep(0.5)
    for number in (0, 1):
        trials = running.study(number)["trials"]
        assert [trial["number"] for trial in trials if trial["artifacts"]] == [2]
        trial = trials[2]
        names = [artifact["filename"] for artifact in trial["artifacts"]]
        assert names == ["confusion_matrix.png", "most_confident_errors.png"]
        for artifact in trial["artifacts"]:
            path = f"artifacts/{number}/{trial['trial_id']}/{artifact['artifact_id']}"
            assert running.get(path).startswith(PNG)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "api/studies/0"),
        ("POST", "api/studies/0/rename"),
        ("POST", "api/trials/3/tell"),
        ("PUT", "api/studies/0/note"),
    ],
)
def test_it_changes_nothing(running: Running, folder: Path, method: str, path: str) -> None:
    before = files_of(folder / "mine")
    body = {"study_name": "x", "state": "Fail", "body": "x", "version": 1}
    request = urllib.request.Request(
        f"{running.address}{path}", method=method, data=json.dumps(body).encode(), headers={"Content-Type": "text/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value as answer:
        assert (answer.code, b"read only" in answer.read()) == (403, True)
    assert len(running.study(0)["trials"]) == 4
    assert files_of(folder / "mine") == before


def test_it_follows_a_search_that_runs_and_ends_in_order(tmp_path: Path) -> None:
    experiment = made(tmp_path / "live")
    running = Running(tmp_path, "live")
    try:
        assert len(running.study(0)["trials"]) == 4
        with lock_experiment(experiment):
            study = SearchStudy.open(experiment, parse_config(CONFIG, where="test"))
            assignment = study.next_assignment()
            assert assignment is not None
            assert assignment.number == 3
            study.report(3, make_epoch(2, 0.875))
            study.next_assignment()
            end_s = time.monotonic() + PATIENCE_S
            while [trial["state"] for trial in running.study(0)["trials"][3:]] != ["Complete", "Running"]:
                assert time.monotonic() < end_s, running.said
                time.sleep(0.5)
            assert running.study(0)["best_trials"][0]["number"] == 3
        experiment.journal.rename(experiment.journal.with_name("gone"))
        time.sleep(3)
        for _ in range(2):
            assert len(running.study(0)["trials"]) == 5
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(PATIENCE_S) == 130
    finally:
        running.process.kill()
        running.process.wait()
    assert running.said.count("shows what it has") == 1
    assert "Traceback" not in running.said
    assert list(running.temporary.iterdir()) == []


@pytest.fixture
def fmnist(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process: its exit code and what it said."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fmnist", *arguments, "--experiments-dir", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def test_a_port_in_use_is_one_message(fmnist: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = fmnist("dashboard", "mine", "--port", str(port))
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; valid: another --port" in said.replace("\n", "")


def test_without_the_extra_it_says_what_to_install(fmnist: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    code, said = fmnist("dashboard", "mine")
    assert code == 2
    assert "pip install 'fmnist-search[dashboard]'" in said


def test_experiments_of_one_name_are_told_apart(tmp_path: Path) -> None:
    from search.integrations.reflection import reflect

    config = parse_config(CONFIG, where="test")
    folders = [tmp_path / one / "same" for one in ("a", "b")]
    for path in folders:
        path.parent.mkdir()
    both = [make_experiment(path, config, [[0.5]]) for path in folders]
    storage = reflect(both, extra=lambda experiment, number: {})
    assert [study.study_name for study in storage.get_all_studies()] == [str(path) for path in folders]


def answer(server: DashboardServer, *lines: str) -> str:
    """The first line of the answer to a request of these header lines."""
    with socket.create_connection(server.server_address[:2], timeout=30) as connection:
        connection.sendall(
            "\r\n".join(["GET /static/bundle.js HTTP/1.1", *lines, "Connection: close", "", ""]).encode()
        )
        found = b""
        while more := connection.recv(2**16):
            found += more
    return found.decode(errors="replace").splitlines()[0]


def test_only_names_of_this_machine_are_answered_and_no_header_is_taken_for_granted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    app = Dashboard([made(tmp_path / "one")], folder=tmp_path / "pictures", data_dir=None, tell=print)
    with DashboardServer(app, host="127.0.0.1", port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost."):
            for host in (name, f"{name}:{server.server_port}", f"{name}:1"):  # a tunnel has another port
                assert "200" in answer(server, f"Host: {host}", "Accept-Encoding: gzip"), host
                assert "200" in answer(server, f"Host: {host}"), host
        for host in (
            "evil.example",
            f"evil.example:{server.server_port}",
            "localhost.evil.example",
            "192.0.2.1",
            "",
            "[",
        ):
            assert "421" in answer(server, f"Host: {host}", "Accept-Encoding: gzip"), host
        assert "421" in answer(server)
        request = urllib.request.Request(server.address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.read().decode() == f"unknown host name; open {server.address}\n"
        server.shutdown()
    assert "Traceback" not in capfd.readouterr().err


def test_the_csv_of_a_study_has_no_formulas_and_keeps_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    weights = ["=1+1", "@SUM(1)", "+x", "-x"]
    config = {**CONFIG, "space": {"model": "resnet18", "lr": 0.1, "weights": {"choice": weights}}, "metric": "val_loss"}
    one = make_experiment(tmp_path / "one", parse_config(config, where="test"), [[0.5, 0.5], [0.25, 0.5]])
    app = Dashboard([one], folder=tmp_path / "pictures", data_dir=None, tell=print)
    environment: dict[str, Any] = {"PATH_INFO": "/csv/0", "REQUEST_METHOD": "GET"}
    setup_testing_defaults(environment)
    started: list[Any] = []
    text = b"".join(app(environment, lambda *words: started.append(words))).decode()
    assert started[0][0] == "200 OK"
    assert dict(started[0][1])["Content-Length"] == str(len(text.encode()))
    header, *rows = csv.reader(io.StringIO(text))
    of_weights = header.index("Param weights")
    assert len(rows) == 2
    assert {row[of_weights] for row in rows} <= {f"'{weight}" for weight in weights}
    assert all(float(row[header.index("val_loss")]) > 0 for row in rows)


def test_a_dashboard_that_others_reach_answers_the_machines_full_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _full_name.cache_clear()
    monkeypatch.setattr(socket, "getfqdn", lambda: "Machine.lab.example.")
    assert is_known_host("machine.LAB.example:80", listening_on="0.0.0.0")
    assert not is_known_host("machine.lab.example:80", listening_on="127.0.0.1")
    _full_name.cache_clear()


def test_a_dashboard_that_others_reach_answers_addresses_and_its_own_name_alone() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "machine.example"):
        for name in ("localhost:1", "192.0.2.1:80", "[2001:db8::1]:80", f"{socket.gethostname()}:80"):
            assert is_known_host(name, listening_on=host)
        assert is_known_host("machine.example", listening_on=host) == (host == "machine.example")
        assert not is_known_host("evil.example", listening_on=host)
