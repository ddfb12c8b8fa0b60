"""The page about an experiment, as a file: what it says, how large it is, and that nothing of a stranger's acts."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from made_experiment import make_experiment
from reported import Page, add_trials, make_reported, options, read_page

from fmnist_models.data import CLASS_NAMES
from fmnist_models.metrics import wilson_interval
from search.cli import main
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.records.inventory import State
from search.records.lock import lock_experiment
from search.records.predictions import Predictions
from search.report import watch_report, write_report
from search.report.calibration import bin_predictions, expected_error
from search.report.classes import estimate_classes
from search.report.images import load_searched_images
from search.report.importances import chart_importances, ranked, read_importances
from search.report.items import Chart
from search.report.material import read_material
from search.report.parallel import chart_parallel
from search.report.trials import tabulate_trials
from search.review.importance import measure_importances

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = Path("/nowhere/fashion-mnist")
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>%{y}&amp;$\\frac$\u202e\x1b[2J"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reported(tmp_path_factory.mktemp("finished") / "theirs").path


@pytest.fixture
def experiment(finished: Path, tmp_path: Path) -> Experiment:
    """A copy of a finished search."""
    return Experiment(Path(shutil.copytree(finished, tmp_path / "theirs")))


@pytest.fixture
def bare(experiment: Experiment) -> Experiment:
    """The same without a test result, a model and images, which saves drawing them."""
    for path in experiment.evaluation.all:
        path.unlink()
    shutil.rmtree(experiment.path / "best")
    experiment.config.write_text(experiment.config.read_text().replace("dataset: synthetic", "dataset: fashion-mnist"))
    return experiment


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_report(Experiment(finished), path)
    return read_page(path)


def write(experiment: Experiment) -> Page:
    write_report(experiment, data_dir=NOWHERE)
    return read_page(experiment.report)


def test_the_page_says_what_was_searched_and_what_won(page: Page, finished: Path) -> None:
    best = json.loads((finished / "evaluation.json").read_text())
    assert "This search tried 14 configurations of " in page.text
    assert "CustomNet" in page.text
    assert "SYNTHETIC" in page.text
    assert f"Trial {best['trial']} won: " in page.text
    assert f"{best['scores']['accuracy']:.1%} right" in page.text
    assert "This search is finished" in page.text


def test_the_page_shows_everything_that_it_should(page: Page) -> None:
    charts = page.data["charts"]
    wanted = {"history", "curves", "timeline", "parallel", "slice-0", "classes", "calibration"}
    assert wanted | {"labels-training", "labels-test"} <= set(charts)
    titles = ["Confusion matrix", "Wrong with the highest confidence", "Examples of each class"]
    titles += ["The first layer's filters", "The tenth feature map of every convolution", "All trials"]
    assert [title for title in titles if title not in page.texts] == []
    history = {trace["name"]: trace for trace in charts["history"]["traces"]}
    assert history["complete"]["marker"]["symbol"] != history["pruned"]["marker"]["symbol"]
    assert history["best so far"]["y"] == sorted(history["best so far"]["y"])
    assert len(page.all("img")) == 7


def test_every_chart_is_one_that_plotly_draws_and_is_told_in_words(page: Page) -> None:
    placed = {attributes["data-chart"]: attributes for attributes in page.all("div") if "data-chart" in attributes}
    assert set(placed) == set(page.data["charts"])
    for key, chart in page.data["charts"].items():
        drawn = json.loads(re.sub(r'"--[a-z0-9]+"', '"#123456"', json.dumps(chart)))
        go.Figure(drawn["traces"], drawn["layout"])  # raises on anything that Plotly does not know
        assert placed[key]["role"] == "img"
        assert len(placed[key]["aria-label"] or "") > 30
    for picture in page.all("img"):
        assert len(picture["alt"] or "") > 30


def test_the_page_loads_nothing_and_is_not_let_to(page: Page) -> None:
    policy = next(a["content"] or "" for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    without_plotly = page.html.replace(page.scripts["plotly"], "")
    assert not re.search(r"https?://|@import|url\(", without_plotly)


def test_the_table_holds_every_trial_best_first(experiment: Experiment) -> None:
    table = tabulate_trials(read_material(experiment))
    names = [column.name for column in table.columns]
    assert names[:5] == ["trial", "state", "val_accuracy", "best_epoch", "last_value"]
    assert names[5:9] == ["last_epoch", "epochs", "seconds", "model"]
    assert not any(" " in name for name in names)  # the filter splits words at blanks
    curves = {str(trial.number): trial.intermediate_values for trial in read_material(experiment).trials}
    ended = [row for row in table.rows if row[5]]
    assert [float(row[4]) for row in ended] == pytest.approx([curves[row[0]][int(row[5])] for row in ended])
    assert [int(row[5]) for row in ended] == [max(curves[row[0]]) for row in ended]
    assert {"lr", "dropout", "unfreeze", "reason", "message"} <= set(names)
    assert sorted(int(row[0]) for row in table.rows) == list(range(14))
    complete = [float(row[2]) for row in table.rows if row[1] == "complete"]
    assert complete == sorted(complete, reverse=True)
    assert table.rows[-1][1] == "failed"
    assert "code" in table.rows[-1]


def test_nothing_that_a_stranger_named_acts(experiment: Experiment) -> None:
    add_trials(
        experiment,
        [
            {
                "params": {NASTY: 0, "model": 0, "lr": 0, f"{NASTY}{value}": value},
                "distributions": {NASTY: options(NASTY), "model": options(NASTY), "lr": options(NASTY)}
                | {f"{NASTY}{value}": options("a", "b")},
                "value": 0.9 + value / 100,
                "intermediate_values": {"1": 0.9},
                "user_attrs": {"reason": NASTY, "message": NASTY},
            }
            for value in (0, 1)
        ],
    )
    evaluation = json.loads(experiment.evaluation.summary.read_text())
    evaluation["scores"]["classes"][0]["name"] = NASTY
    experiment.evaluation.summary.write_text(json.dumps(evaluation))
    folder = Experiment(experiment.path.rename(experiment.path.with_name("<script>alert(3)<")))
    page = write(folder)
    assert set(page.scripts) == {"data", "plotly", "program"}
    assert len(page.all("script")) == 3
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert not re.search("[\x1b\u202e]", page.html)
    assert "alert(1)" in page.text
    for chart in page.data["charts"].values():
        shown = json.dumps(
            {**chart, "traces": [{k: v for k, v in t.items() if k != "customdata"} for t in chart["traces"]]}
        )
        assert "<script" not in shown
        assert "<img" not in shown
        assert not any(
            "%{y}" in (trace.get("hovertemplate") or "") and "alert" in trace["hovertemplate"]
            for trace in chart["traces"]
        )


def test_a_page_without_a_test_result_and_images_names_the_commands(bare: Experiment) -> None:
    page = write(bare)
    assert "it has not been tested yet" in page.text
    assert "fmnist evaluate theirs" in page.texts
    assert f"Fashion-MNIST is not under {NOWHERE}." in page.text
    assert "fmnist data prepare" in page.texts
    assert not NOWHERE.exists()
    assert page.all("img") == []


@pytest.mark.parametrize(
    "damage",
    [
        {"evaluation.json": '{"scores": {"classes": [{"name": 1}], "confusion": [[1e999]]}}', "best/config.json": "{}"},
        {"evaluation.json": "[" * 5_000, "best/model.safetensors": "x"},
        {"predictions.csv": "image\n1\n", "trials/00013/epochs.csv": "epoch\nx\n", "best/config.json": "[]"},
    ],
)
def test_a_damaged_file_costs_its_part_of_the_page_only(experiment: Experiment, damage: dict[str, str]) -> None:
    for name, content in damage.items():
        (experiment.path / name).write_text(content)
    page = write(experiment)
    assert {"history", "curves", "parallel"} <= set(page.data["charts"])
    assert "Traceback" not in page.html


def test_values_of_any_size_are_drawn(bare: Experiment) -> None:
    kinds = {
        "lr": json.dumps({"name": "FloatDistribution", "attributes": {"low": 1e-300, "high": 1.5e308, "log": True}})
    }
    trials = [
        {"params": {"lr": lr}, "distributions": kinds, "value": value, "intermediate_values": {"1": value}}
        for lr, value in ((1e-300, 1.7e308), (1.5e308, -1.7e308), (1.0, 5e-324), (2.0, 1e200), (3.0, 0.0))
    ]
    add_trials(bare, trials)
    assert "history" in write(bare).data["charts"]


def test_ten_thousand_trials_fit_in_a_page_that_can_be_mailed(experiment: Experiment) -> None:
    rng = np.random.default_rng(0)
    kinds = {
        f"p{i}": json.dumps({"name": "FloatDistribution", "attributes": {"low": 0.0, "high": 1.0}}) for i in range(12)
    }
    trials = [
        {"params": dict(zip(kinds, rng.random(12).tolist(), strict=True)), "distributions": kinds}
        | {"state": 1 if number % 3 else 2, "value": rng.random()}
        | {"intermediate_values": {str(epoch): rng.random() for epoch in range(1, 4)}}
        for number in range(10_000)
    ]  # fmt: skip
    add_trials(experiment, trials)
    page = write(experiment)
    assert len(page.data["rows"]) == 10_014
    assert sum(len(trace["x"]) for trace in page.data["charts"]["history"]["traces"]) < 3_000
    assert "trials between the points shown left out." in page.text


def test_a_search_that_runs_gives_a_page_that_says_so(bare: Experiment) -> None:
    with lock_experiment(bare):
        page = write(bare)
    assert re.search(
        r"still running when this page was written, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: 14 of 14", page.text
    )
    assert "leads so far" in page.text
    bare.config.write_text(bare.config.read_text().replace("max_trials: 14", "max_trials: 20"))
    assert "not at its end" in write(bare).text


def test_watching_writes_the_page_until_the_search_ends(bare: Experiment) -> None:
    pages: list[tuple[State, int]] = []
    is_written = threading.Event()

    def watch() -> None:
        def tell(material: Any) -> None:
            pages.append((material.state, material.num_ended))
            is_written.set()

        watch_report(bare, data_dir=NOWHERE, told=tell, pause_s=0.02)

    thread = threading.Thread(target=watch)
    with lock_experiment(bare):
        thread.start()
        assert is_written.wait(60)
        is_written.clear()
        add_trials(bare, [{"intermediate_values": {"1": 0.5}}])
        assert is_written.wait(60)
    thread.join(60)
    assert not thread.is_alive()
    assert pages == [(State.RUNNING, 14), (State.RUNNING, 15), (State.FINISHED, 15)]
    assert list(bare.path.glob(".*.part")) == []


def test_ctrl_c_ends_watching(bare: Experiment) -> None:
    with lock_experiment(bare):
        watching = subprocess.Popen(
            [sys.executable, "-m", "search.cli", "report", str(bare.path), "--watch", "--data-dir", str(NOWHERE)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            until = time.monotonic() + 120
            while not bare.report.exists() and time.monotonic() < until:
                time.sleep(0.1)
            time.sleep(0.5)
            watching.send_signal(signal.SIGINT)
            said, _ = watching.communicate(timeout=60)
        finally:
            watching.kill()
    assert watching.returncode == 130
    assert "Traceback" not in said
    read_page(bare.report)


def test_the_command_says_where_the_page_is(bare: Experiment, tmp_path: Path, capsys: Any) -> None:
    for arguments, code, wanted in (
        (["--output", str(tmp_path / "page.html")], 0, "page.html is written (finished, 14 of 14"),
        (["--output", str(tmp_path / "no" / "such" / "page.html")], 2, "make it first"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["fmnist", "report", str(bare.path), "--data-dir", str(NOWHERE), *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        captured = capsys.readouterr()
        assert int(ended.value.code or 0) == code
        assert wanted in (captured.out + captured.err).replace("\n", "")
    assert not bare.report.exists()


def test_intervals_are_those_of_images() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    predicted = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 3, 300))
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    estimates = estimate_classes(confusion, ["a", "b", "c"])
    samples = []
    for _ in range(2_000):
        drawn = rng.integers(0, 300, 300)
        hits = [(labels[drawn] == i) & (predicted[drawn] == i) for i in range(3)]
        sums = [(labels[drawn] == i).sum() + (predicted[drawn] == i).sum() for i in range(3)]
        samples.append([2 * hit.sum() / total for hit, total in zip(hits, sums, strict=True)])
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    for i, one in enumerate(estimates):
        assert math.isclose(one.f1.low, low[i], abs_tol=0.015)
        assert math.isclose(one.f1.high, high[i], abs_tol=0.015)
        assert one.f1.low < one.f1.value < one.f1.high
        assert (one.recall.low, one.recall.high) == wilson_interval(int(confusion[i, i]), int(confusion[i].sum()))
        assert (one.precision.low, one.precision.high) == wilson_interval(
            int(confusion[i, i]), int(confusion[:, i].sum())
        )
    unseen = estimate_classes(np.asarray([[5, 0], [0, 0]]), ["a", "b"])[1]
    assert (unseen.recall.low, unseen.recall.high, unseen.support) == (0.0, 1.0, 0)


def test_the_calibration_error_is_the_mean_gap() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([0.4] * 4, 500).astype(np.float32)
    predictions = Predictions(rng.integers(0, 4, 500), probabilities)
    expected = 0.0
    for k in range(10):
        mine = [i for i in range(500) if k / 10 < predictions.confidence[i] <= (k + 1) / 10]
        if mine:
            right = np.mean([predictions.predicted[i] == predictions.labels[i] for i in mine])
            expected += len(mine) / 500 * abs(right - np.mean(predictions.confidence[mine]))
    assert math.isclose(expected_error(bin_predictions(predictions)), expected, abs_tol=1e-5)


def test_the_importances_are_those_that_the_terminal_shows(experiment: Experiment) -> None:
    rng = np.random.default_rng(4)
    kinds = {name: json.dumps({"name": "FloatDistribution", "attributes": {"low": 0.0, "high": 1.0}}) for name in "ab"}
    kinds["model"] = options("x", "y")
    trials = []
    for _ in range(60):
        a, b, model = rng.random(), rng.random(), int(rng.integers(2))
        params = {"a": a, "b": b, "model": model} | ({"own": int(b > 0.5)} if model else {})
        own = {"own": options(False, True)} if model else {}
        trials.append({"params": params, "distributions": kinds | own, "value": a + 0.1 * b + (params.get("own", 0))})
    experiment.journal.write_text(experiment.journal.read_text().splitlines()[0] + "\n")
    add_trials(experiment, trials)
    found = read_importances(read_material(experiment))
    assert not isinstance(found, str)
    assert found == measure_importances(experiment)
    shares = {one.name: one.share or 0 for one in found.parameters}
    everyone, those_with_own = chart_importances(found)
    assert isinstance(everyone, Chart)
    assert isinstance(those_with_own, Chart)
    assert (everyone.title, those_with_own.title) == ("Importances: all complete trials", "Importances: model=y")
    assert set(shares) == {"a", "b", "model", "own"}
    assert everyone.traces[0]["x"] == [round(shares[name], 4) for name in ranked(found) if name != "own"]
    assert those_with_own.traces[0]["x"] == [round(shares["own"], 4)]
    assert ranked(found) == sorted(shares, key=lambda name: -shares[name])
    charts = write(experiment).data["charts"]
    for key, chart in (("importances-0", everyone), ("importances-1", those_with_own)):
        assert charts[key]["traces"][0]["x"] == chart.traces[0]["x"]
        go.Figure(*json.loads(re.sub(r'"--[a-z0-9]+"', '"#123456"', json.dumps([chart.traces, chart.layout]))))


def test_what_was_not_asked_for_is_said_with_its_condition(tmp_path: Path) -> None:
    space = {
        "model": {"choice": ["customnet", "resnet18"]},
        "optimizer": {"choice": ["adamw", "sgd"]},
        "momentum": {"float": [0.5, 0.9]},
        "lr": {"float": [1e-4, 1e-1], "log": True},
    }
    config = parse_config({"dataset": "synthetic", "space": space, "max_epochs": 1, "max_trials": 12}, where="test")
    experiment = make_experiment(tmp_path / "x", config, [[number / 12] for number in range(12)])
    chart = chart_parallel(read_material(experiment), ["lr", "momentum", "optimizer"])
    assert isinstance(chart, Chart)
    assert chart.note == "Not asked: momentum only with optimizer=sgd."
    write_report(experiment)
    assert "Not asked: momentum only with optimizer=sgd." in read_page(experiment.report).text
    stages = {"model": space["model"], "unfreeze": {"subset": ["layer4"]}, "lr": space["lr"]}
    config = parse_config({"dataset": "synthetic", "space": stages, "max_epochs": 1, "max_trials": 12}, where="test")
    chart = chart_parallel(
        read_material(make_experiment(tmp_path / "y", config, [[number / 12] for number in range(12)])),
        ["lr", "unfreeze.layer4"],
    )
    assert isinstance(chart, Chart)
    assert chart.note == "Not asked: unfreeze.layer4 only with model=resnet18."


def test_importances_that_cannot_be_told_cost_their_chart_only(bare: Experiment) -> None:
    bare.journal.write_text("\n".join(bare.journal.read_text().splitlines()[:1]) + "\n")
    kinds = {"model": options("x", "y")}
    few = [{"value": n / 10, "intermediate_values": {"1": n / 10}, "params": {"model": n % 2}} for n in range(9)]
    add_trials(bare, [one | {"distributions": kinds} for one in few])
    page = write(bare)
    assert "importances need 10 or more" in page.text
    assert "history" in page.data["charts"]


def test_real_images_are_the_first_ones_searched_on(experiment: Experiment, fashion_mnist_root: Path) -> None:
    experiment.config.write_text(experiment.config.read_text().replace("dataset: synthetic", "dataset: fashion-mnist"))
    images = load_searched_images(read_material(experiment), data_dir=fashion_mnist_root)
    assert not isinstance(images, str)
    assert (len(images.train), len(images.test), images.class_names) == (200, 150, CLASS_NAMES)
    write_report(experiment, data_dir=fashion_mnist_root)
    page = read_page(experiment.report)
    counts = page.data["charts"]["labels-training"]["traces"][0]["y"]
    assert sum(counts) == 200
    assert "The test images here are not those that it was tested on." in page.text
