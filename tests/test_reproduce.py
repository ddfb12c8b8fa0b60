"""Published tables: what they say, how ours are compared with them, and small trainings on the real images."""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from epochs import make_epoch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fmnist_models.data import CLASS_NAMES, LabelledImages, load_images
from fmnist_models.errors import WeightsError
from fmnist_models.metrics import thresholded_micro
from fmnist_models.networks import NETWORKS
from fmnist_models.training import Training
from search.cli import app
from search.errors import ConfigError, ExperimentError
from search.records.experiment import Experiment
from search.reproduce import reproduction
from search.reproduce.comparison import compare
from search.reproduce.cost import Cost, check_costs, format_duration, measure_seconds
from search.reproduce.document import Document
from search.reproduce.findings import (
    corrected,
    corrected_numbers,
    find,
    implied_predictions,
    precision_and_recall,
)
from search.reproduce.protocol import Protocol
from search.reproduce.published import PRINTED_PRECISION, PRINTED_RECALL, TABLES, PublishedTable, load_table
from search.reproduce.reproduction import Order, reproduce
from search.reproduce.runs import RunFiles, RunResult, Subject, read_result, run
from search.reproduce.searched import read_searched

PAPER, BLOG = (load_table(name) for name in TABLES)
CPU = torch.device("cpu")


def made_run(seed: int, accuracy: float) -> RunResult:
    """A run whose every number is ``accuracy``."""
    metrics = ("accuracy", "training accuracy", "macro precision", "micro precision at 0.5", "micro recall at 0.5")
    return RunResult(
        seed=seed,
        tested_epoch=30,
        train_s=60.0,
        numbers=dict.fromkeys(metrics, accuracy),
        classes={"precision": (accuracy,) * 10, "recall": (accuracy / 2,) * 10},
        confusion=tuple(tuple(int(row == column) for column in range(10)) for row in range(10)),
        machine={"processor": "an abacus"},
        versions={"torch": "0"},
    )


def garments(count: int) -> LabelledImages:
    return load_images("synthetic", "train", root=Path("unused"), size=count)


# What was published


@pytest.mark.parametrize("table", [PAPER, BLOG], ids=TABLES)
def test_every_number_says_where_it_stands_and_every_model_can_be_trained(table: PublishedTable) -> None:
    for model in table.models:
        numbers = [*model.numbers.values(), *(number for column in model.classes.values() for number in column)]
        assert all(0 < number.value < 1 and number.where for number in numbers)
        assert model.network in NETWORKS
        Subject(network=model.network, hyperparameters=model.hyperparameters, protocol=table.protocol).plan(0)
    assert table.source
    assert table.stated
    assert table.assumed


def test_the_paper_has_both_models_and_the_blog_four_in_its_order() -> None:
    assert [(model.network, model.numbers["accuracy"].value) for model in PAPER.models] == [
        ("customnet", 0.88),
        ("resnet18", 0.68),
    ]
    assert [(model.title, *(number.value for number in model.numbers.values())) for model in BLOG.models] == [
        ("ResNet", 0.9111, 0.9133, 0.9096),
        ("AlexNet", 0.9060, 0.9104, 0.9010),
        ("LSTM", 0.8959, 0.9047, 0.8884),
        ("LeNet", 0.8882, 0.8960, 0.8839),
    ]


def test_an_unknown_table_or_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no table 'table-2'; valid: paper-table-1, blog-table"):
        load_table("table-2")
    with pytest.raises(ConfigError, match=r"'lstm'.*valid: customnet, resnet18"):
        PAPER.choose(("lstm",))


# The findings


def test_table_1_has_its_columns_swapped() -> None:
    """From Figure 11 alone: rounded, each precision is what is printed as recall, and the other way round."""
    [customnet] = [model for model in PAPER.models if model.confusion is not None]
    assert customnet.confusion is not None
    precision, recall = precision_and_recall(customnet.confusion)
    assert [round(float(value), 2) for value in precision] == [n.value for n in customnet.classes[PRINTED_RECALL]]
    assert [round(float(value), 2) for value in recall] == [n.value for n in customnet.classes[PRINTED_PRECISION]]
    assert corrected(customnet)["precision"] == customnet.classes[PRINTED_RECALL]
    assert corrected(customnet)["recall"] == customnet.classes[PRINTED_PRECISION]


def test_figure_11_sums_up_to_the_labels_and_to_876(fashion_mnist_root: Path) -> None:
    labels = load_images("fashion-mnist", "test", root=fashion_mnist_root, size=1000).labels
    [customnet] = [model for model in PAPER.models if model.confusion is not None]
    assert np.asarray(customnet.confusion).sum(axis=1).tolist() == np.bincount(labels).tolist()
    assert corrected_numbers(customnet)["accuracy"].value == pytest.approx(0.876)
    swapped, rounded, residual = find(PAPER, labels)
    assert "are exactly the true label counts" in swapped
    assert "10 of 10 precisions are what Table I prints as Recall" in swapped
    assert "876 of 1,000 images right, 87.6%; the text prints it as 88%" in rounded
    assert "imply 997 predictions for 1,000 images, as printed 1018" in residual
    assert "are NOT" in find(PAPER, np.roll(labels, 1)[:999])[0]
    assert find(BLOG, labels) == []


@given(seed=st.integers(0, 1000))
def test_true_precision_and_recall_imply_as_many_predictions_as_there_are_images(seed: int) -> None:
    confusion = np.random.default_rng(seed).integers(1, 50, (10, 10))
    precision, recall = precision_and_recall(confusion.tolist())
    as_numbers = [[type(PAPER.models[0].numbers["accuracy"])(float(v), "") for v in c] for c in (precision, recall)]
    implied = implied_predictions(as_numbers[0], as_numbers[1], confusion.sum(axis=1))
    assert implied == pytest.approx(confusion.sum())


# The metrics that Keras has


@given(num_images=st.integers(1, 40), seed=st.integers(0, 1000), threshold=st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_micro_precision_and_recall_are_those_of_a_naive_loop(num_images: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, num_images)
    probabilities = rng.dirichlet(np.full(10, 0.3), num_images).astype(np.float32)
    hits = false_alarms = misses = 0
    for label, row in zip(labels, probabilities, strict=True):
        for column, probability in enumerate(row):
            if probability > threshold and column == label:
                hits += 1
            elif probability > threshold:
                false_alarms += 1
            elif column == label:
                misses += 1
    expected = (hits / (hits + false_alarms) if hits + false_alarms else 0.0, hits / (hits + misses))
    assert thresholded_micro(labels, probabilities, threshold=threshold) == pytest.approx(expected)


def test_exactly_one_half_is_no_prediction() -> None:
    halves = np.array([[0.5, 0.5], [0.4, 0.6]], dtype=np.float32)
    assert thresholded_micro(np.array([0, 1]), halves) == (1.0, 0.5)


# The protocol


@given(scale=st.floats(0.0001, 1.0))
def test_a_scaled_protocol_is_smaller_and_never_empty(scale: float) -> None:
    for table in (PAPER, BLOG):
        full, scaled = table.protocol, table.protocol.scaled(scale)
        assert 100 <= scaled.train_size <= full.train_size
        assert 100 <= scaled.test_size <= full.test_size
        assert 1 <= scaled.num_epochs <= full.num_epochs
        assert (scaled.patience is None) == (full.patience is None)
        assert (scaled.recipe, scaled.validation_fraction) == (full.recipe, full.validation_fraction)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan")])
def test_a_scale_outside_its_range_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="--scale must be above 0 and at most 1"):
        PAPER.protocol.scaled(scale)


def test_the_blog_holds_out_the_last_tenth_and_the_paper_nothing() -> None:
    images = garments(500)
    blog = BLOG.protocol.split(images)
    assert (len(blog.train), len(blog.validation)) == (450, 50)
    assert np.array_equal(blog.validation.images, images.images[450:])
    assert (blog.normalisation.mean, blog.normalisation.std) == (0.0, 1.0)
    paper = PAPER.protocol.split(images)
    assert len(paper.train) == 500
    assert np.array_equal(paper.validation.images, images.images[:100])
    assert paper.normalisation.mean == pytest.approx(images.images.mean() / 255)


def test_training_ends_after_its_patience_or_with_its_last_epoch() -> None:
    patient = dataclasses.replace(BLOG.protocol, num_epochs=6, patience=2)
    losses = [0.9, 0.5, 0.6, 0.5, 0.4]
    history = [make_epoch(number, 1 - loss) for number, loss in enumerate(losses, start=1)]
    assert [patient.is_over(history[:count]) for count in range(5)] == [False, False, False, False, True]
    without = dataclasses.replace(patient, patience=None)
    assert not without.is_over(history)
    assert without.is_over([*history, history[0]])


# The comparison


@given(accuracies=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6))
def test_ours_is_mean_and_deviation_over_seeds_and_the_difference_is_to_what_is_published(
    accuracies: list[float],
) -> None:
    model = PAPER.models[0]
    rows = compare(model, [made_run(seed, value) for seed, value in enumerate(accuracies)]).rows
    first = rows[0]
    assert (first.metric, first.name) == ("accuracy", "")
    assert first.mean == pytest.approx(statistics.fmean(accuracies))
    assert first.std == pytest.approx(statistics.stdev(accuracies))
    assert first.published == pytest.approx(0.876)
    assert first.difference == pytest.approx(statistics.fmean(accuracies) - 0.876)
    [trouser] = [row for row in rows if (row.metric, row.name) == ("precision", "Trouser")]
    assert (trouser.published, trouser.where) == (0.99, "Table I, column Recall")
    assert [row.difference for row in rows if row.metric == "macro precision"] == [None]


def test_one_seed_has_no_deviation() -> None:
    assert {row.std for row in compare(BLOG.models[0], [made_run(0, 0.9)]).rows} == {None}


def made_document(**changes: Any) -> Document:
    runs = [made_run(0, 0.9), made_run(1, 0.8)]
    values: dict[str, Any] = {
        "table": PAPER,
        "protocol": PAPER.protocol,
        "seeds": (0, 1),
        "deviations": (),
        "substitutes": {},
        "findings": ("one", "two"),
        "models": tuple(compare(model, runs) for model in PAPER.models),
    }
    return Document(**(values | changes))


def test_a_document_holds_the_protocol_the_findings_and_every_number() -> None:
    text = made_document().to_markdown()
    for part in (
        "1. one",
        "2. two",
        "an abacus",
        "torch 0",
        PAPER.source,
        "assumed: Adam",
        "the last of the 30 epochs",
    ):
        assert part in text
    assert "| accuracy | 0.8500 ± 0.0707 | 0.876 | -0.0260 | Figure 11; printed as 88%" in text
    assert "NOT THE PUBLISHED" not in text
    rows = list(csv.DictReader(made_document().to_csv().splitlines()))
    assert len(rows) == 2 * (5 + 20)
    assert (rows[0]["mean"], rows[0]["published"], rows[0]["seeds"]) == ("0.85", "0.876", "2")


def test_every_heading_says_in_what_it_is_not_the_published_protocol() -> None:
    document = made_document(deviations=("scale 0.1",), substitutes={"resnet18": "other weights"})
    headings = [line for line in document.to_markdown().splitlines() if line.startswith("#")]
    about_results = [line for line in headings if "Findings" not in line and "Machine" not in line]
    assert len(about_results) == 8
    assert all("NOT THE PUBLISHED PROTOCOL: scale 0.1" in line for line in about_results)
    assert ["other weights" in line for line in about_results] == [True, True, *([False] * 3), *([True] * 3)]
    assert {row["not the published protocol"] for row in csv.DictReader(document.to_csv().splitlines())} == {
        "scale 0.1",
        "scale 0.1; other weights",
    }


# What it costs


def test_what_takes_too_long_is_refused_with_an_estimate() -> None:
    check_costs([Cost("LeNet", 3, 3600.0)], limit_s=3600.0)
    with pytest.raises(ExperimentError) as caught:
        check_costs([Cost("LeNet", 3, 3600.0), Cost("ResNet", 3, 1e6)], limit_s=43_200.0)
    for word in ("279 h", "LeNet: up to 60 min", "ResNet: up to 278 h", "12 h", "nothing was trained", "--yes", "GPU"):
        assert word in str(caught.value)


def test_the_estimate_grows_with_epochs_and_images_and_does_not_train_the_rest() -> None:
    subject = Subject(network="lenet5", hyperparameters={}, protocol=BLOG.protocol)
    one = measure_seconds(subject, garments(1000), pretrained=None, device=CPU)
    assert 0.01 < one < 10_000
    assert [format_duration(seconds) for seconds in (1.2, 600, 36_000, 3.6e6)] == ["1 s", "10 min", "10 h", "1,000 h"]


# Trainings


def small(name: str = "lenet5", **protocol: Any) -> Subject:
    values = {"train_size": 200, "test_size": 100, "num_epochs": 3, "recipe": {"batch_size": 32, "lr": 0.002}}
    return Subject(network=name, hyperparameters={}, protocol=Protocol(**(values | protocol)))


def test_an_interrupted_run_goes_on_and_a_finished_one_is_read_back(tmp_path: Path) -> None:
    subject, train, test = small(), garments(200), garments(300)
    parts: dict[str, Any] = {"train": train, "test": test, "pretrained": None, "device": CPU}
    straight = run(subject, 0, **parts, files=RunFiles(tmp_path / "a"), tell=lambda _: None)

    class PoweredOffError(Exception):
        pass

    def interrupt(epoch: Any) -> None:
        if epoch.epoch == 2:
            raise PoweredOffError

    files, heard = RunFiles(tmp_path / "b"), []
    with pytest.raises(PoweredOffError):
        run(subject, 0, **parts, files=files, tell=interrupt)
    assert files.checkpoint.exists()
    assert read_result(subject, files) is None
    again = run(subject, 0, **parts, files=files, tell=lambda epoch: heard.append(epoch.epoch))
    assert heard == [3]
    assert (again.numbers, again.confusion) == (straight.numbers, straight.confusion)
    assert not files.checkpoint.exists()
    assert read_result(subject, files) == again
    assert again.tested_epoch == 3
    assert np.sum(again.confusion) == 300


def test_a_result_of_another_protocol_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    subject, files = small(num_epochs=1), RunFiles(tmp_path / "a")
    run(
        subject,
        0,
        train=garments(200),
        test=garments(100),
        pretrained=None,
        device=CPU,
        files=files,
        tell=lambda _: None,
    )
    for other in (small(num_epochs=2), small("lstm", num_epochs=1), dataclasses.replace(subject, weights="x")):
        with pytest.raises(ExperimentError, match=r"another model, protocol or pretrained weights.*--output"):
            read_result(other, files)
    raw = json.loads(files.result.read_text())
    for damage in ({"classes": 3}, {"numbers": {"accuracy": "high"}}, {"confusion": [[None]]}, {"more": 1}):
        files.result.write_text(json.dumps(raw | damage))
        with pytest.raises(ExperimentError, match="not the result of a run"):
            read_result(subject, files)


def test_the_paper_on_the_real_images_at_a_tiny_scale(
    fashion_mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order(
        table=PAPER,
        num_seeds=2,
        scale=0.05,
        weights="none",
        folder=tmp_path / "out",
        data_root=fashion_mnist_root,
        insist=True,
    )
    told: list[str] = []
    document, paths = reproduce(order, tell=told.append)
    assert sorted(path.name for path in paths) == ["comparison.csv", "comparison.json", "comparison.md"]
    saved = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert saved == json.loads(json.dumps(document.to_dict()))
    assert saved["deviations"][0] == "scale 0.05"
    assert "ResNet-18, first and last layer from none in place of ImageNet's weights" in saved["deviations"][1]
    assert [model["network"] for model in saved["models"]] == ["customnet", "resnet18"]
    assert len(saved["findings"]) == 3
    for model in document.models:
        assert [run.tested_epoch for run in model.runs] == [2, 2]
        assert np.sum(model.confusion) == 200
    customnet = document.models[0].rows[0]
    assert customnet.mean > 0.3  # it has learned something

    def nothing(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Training, "epochs", nothing)
    told.clear()
    again, _ = reproduce(order, tell=told.append)
    assert again.to_dict() == document.to_dict()
    assert all("finished before" in line for line in told)


def test_missing_imagenet_weights_are_an_error_that_says_what_else_there_is(
    fashion_mnist_root: Path, tmp_path: Path
) -> None:
    order = Order(
        table=PAPER,
        networks=("resnet18",),
        weights=str(tmp_path / "none.pth"),
        folder=tmp_path / "out",
        data_root=fashion_mnist_root,
    )
    with pytest.raises(WeightsError, match="--weights"):
        reproduce(order, tell=print)
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_what_takes_too_long_and_makes_nothing(
    fashion_mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduction, "measure_seconds", lambda *_, **__: 100_000.0)
    arguments = ["reproduce", "blog-table", "--model", "lenet5", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ExperimentError)
    assert "LeNet: up to 83 h" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_and_saves_one_model_of_the_blog(fashion_mnist_root: Path, tmp_path: Path) -> None:
    arguments = ["reproduce", "blog-table", "--model", "lenet5", "--seeds", "1", "--scale", "0.005", "--output"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "LeNet [NOT THE PUBLISHED PROTOCOL: scale 0.005]" in result.output
    for metric in ("micro precision at 0.5", "micro recall at 0.5", "macro precision", "0.8839", "one seed"):
        assert metric in result.output
    assert (tmp_path / "out" / "comparison.md").is_file()
    assert (tmp_path / "out" / "lenet5" / "seed-0" / "predictions.csv").is_file()


# Beside it


def test_a_searched_result_stands_beside_it(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "mine")
    with pytest.raises(ExperimentError, match="fmnist evaluate mine"):
        read_searched(experiment)
    scores = {"accuracy": 0.91, "accuracy_low": 0.89, "accuracy_high": 0.93, "num_images": 1000}
    written = {"scores": scores, "dataset": "fashion-mnist", "hyperparameters": {"model": "<b>|x"}}
    experiment.path.mkdir()
    experiment.evaluation.summary.write_text(json.dumps(written))
    text = made_document(searched=(read_searched(experiment),)).to_markdown()
    assert "| mine | &lt;b&gt;\\|x | 0.9100 (0.8900 to 0.9300) | 1,000 | fashion-mnist |" in text
    for damage in ({"scores": None}, {"scores": scores | {"accuracy": float("nan")}}, {"hyperparameters": []}):
        experiment.evaluation.summary.write_text(json.dumps(written | damage))
        with pytest.raises(ExperimentError, match="no evaluation"):
            read_searched(experiment)


def test_classes_have_ten_names() -> None:
    assert all(len(column) == len(CLASS_NAMES) for model in PAPER.models for column in model.classes.values())


@pytest.mark.parametrize("table", ["paper-table-1", "blog-table"])
def test_the_readme_shows_training_accuracies_beside_those_of_the_test_as_they_were_made(table: str) -> None:
    """An agreement on the test images alone would hide that the trainings differ."""
    repository = Path(__file__).parent.parent
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for model in json.loads((repository / "docs" / "reproduced" / f"{table}.json").read_text())["models"]:
        rows = {row["metric"]: row for row in model["rows"] if not row["name"]}
        cells = [_cell(rows[metric]) for metric in ("accuracy", "training accuracy")]
        assert any(" | ".join(cells) in line for line in readme.splitlines()), cells


def _cell(row: dict[str, Any]) -> str:
    digits = 0 if row["published"] is not None and row["metric"] == "training accuracy" else 1
    published = "-" if row["published"] is None else f"{row['published']:.{digits}%}".replace("%", " %")
    return f"{published} | {100 * row['mean']:.1f} ± {100 * row['std']:.1f} %"
