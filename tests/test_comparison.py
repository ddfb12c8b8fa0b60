"""Experiments beside each other, and the test of whether two of them differ by more than luck."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_experiment import FAILED, make_experiment
from scipy.stats import binomtest, chi2
from torchvision.datasets import FashionMNIST

from fmnist_models.classes import CLASS_NAMES
from fmnist_models.mcnemar import mcnemar
from fmnist_models.metrics import score
from search.cli import main
from search.configuration.config import parse_config
from search.errors import SelectionError
from search.records.evaluation_file import Evaluation
from search.records.experiment import Experiment
from search.records.predictions import Predictions, format_predictions
from search.records.record import list_trials
from search.review.comparison import compare

CONFIG: dict[str, Any] = {
    "dataset": "synthetic",
    "space": {"model": {"choice": ["customnet", "resnet18"]}, "lr": {"float": [1e-4, 1e-1], "log": True}},
    "max_trials": 3,
    "max_epochs": 2,
    "pruner": "none",
}
NUM_IMAGES = 200


def test_the_classes_are_torchvisions() -> None:
    assert list(CLASS_NAMES) == FashionMNIST.classes


# McNemar's test


def correct(both: int, only_first: int, only_second: int, neither: int) -> tuple[Any, Any]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@given(only_first=st.integers(0, 300), only_second=st.integers(0, 300), both=st.integers(1, 9))
def test_mcnemars_test_is_scipys_binomial_or_chi_square(only_first: int, only_second: int, both: int) -> None:
    test = mcnemar(*correct(both, only_first, only_second, 2))
    discordant = only_first + only_second
    assert (test.only_first, test.only_second) == (only_first, only_second)
    if discordant < 25:
        expected = binomtest(only_first, discordant).pvalue if discordant else 1.0
        assert test.method == "exact binomial"
    else:
        expected = chi2.sf(max(0, abs(only_first - only_second) - 1) ** 2 / discordant, df=1)
        assert test.method == "chi-square with continuity correction"
    assert test.p_value == pytest.approx(expected, rel=1e-9)
    back = mcnemar(*reversed(correct(both, only_first, only_second, 2)))
    assert (back.p_value, back.only_first) == (test.p_value, only_second)


def test_a_published_example() -> None:
    """Agresti, "Categorical Data Analysis", 2nd edition, table 10.1: 150 and 86 who changed their minds, p < 0.001;
    (|150 - 86| - 1)² / 236 = 16.82."""
    test = mcnemar(*correct(794, 150, 86, 570))
    assert test.p_value == pytest.approx(chi2.sf(63**2 / 236, df=1))
    assert test.p_value < 0.001


def test_results_of_different_images_are_refused() -> None:
    for a, b in ((np.ones(3, bool), np.ones(2, bool)), (np.ones(0, bool), np.ones(0, bool))):
        with pytest.raises(ValueError, match="same images"):
            mcnemar(a, b)


# Experiments


def make(path: Path, curves: list[Any], **changes: Any) -> Experiment:
    return make_experiment(path, parse_config(CONFIG | changes, where="test"), curves)


def put_result(experiment: Experiment, num_wrong: int, *, first: int = 0, num_images: int = NUM_IMAGES) -> None:
    """As `fmnist evaluate` leaves it, with so many images wrong from the first one on."""
    labels = np.arange(num_images) % 10
    predicted = labels.copy()
    predicted[first : first + num_wrong] = (predicted[first : first + num_wrong] + 1) % 10
    probabilities = np.full((num_images, 10), 0.01, np.float32)
    probabilities[np.arange(num_images), predicted] = 0.91
    text = format_predictions(Predictions(labels, probabilities), class_names=CLASS_NAMES, dataset="synthetic")
    experiment.evaluation.predictions.write_text(text)
    evaluation = Evaluation(
        experiment=experiment.name,
        dataset="synthetic",
        trial=0,
        epoch=1,
        metric="val_accuracy",
        value=0.5,
        rule="as told",
        hyperparameters={"model": "customnet"},
        scores=score(labels, predicted, class_names=CLASS_NAMES),
    )
    experiment.evaluation.summary.write_text(json.dumps(evaluation.to_dict()))


@pytest.fixture
def two(tmp_path: Path) -> list[Experiment]:
    a = make(tmp_path / "a", [[0.5, 0.75], FAILED, [0.625, 0.5]])
    b = make(tmp_path / "b", [[0.5, 0.875], [0.5]], seed=1, space={**CONFIG["space"], "dropout": 0.25})
    put_result(a, 40)
    put_result(b, 10, first=30)
    return [a, b]


@pytest.fixture
def fmnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fmnist", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        return int(ended.value.code or 0), captured.out + captured.err

    return run


def test_results_settings_and_parameters_stand_beside_each_other(two: list[Experiment]) -> None:
    found = compare(two)
    a, b = found.sides
    assert (a.best_value, a.best_trial, a.trials) == (0.75, 0, {"complete": 2, "failed": 1})
    assert (b.best_value, b.best_trial, b.trials) == (0.875, 0, {"complete": 1, "running": 1})
    assert found.settings == {"seed": [0, 1], "space.dropout": [None, 0.25]}
    best = [list_trials(experiment)[0].params for experiment in two]
    assert set(found.parameters) == {name for name in ("model", "lr") if best[0][name] != best[1][name]}
    assert a.test is not None
    assert (a.test.accuracy, a.test.num_images) == (0.8, NUM_IMAGES)
    assert 0 < a.search_s < 60
    assert a.trials_per_hour == pytest.approx(3 / a.search_s * 3600)


def test_the_time_of_a_search_counts_parallel_trials_once_and_pauses_not_at_all(two: list[Experiment]) -> None:
    lines = [json.loads(line) for line in two[0].journal.read_text().splitlines()]
    spans = [("10:00:00", "10:01:00"), ("10:00:30", "10:02:00"), ("11:00:00", "11:00:10")]
    started = iter([f"2026-01-01T{start}+00:00" for start, _ in spans])
    for line in lines:
        if line["op_code"] == 4:
            line["datetime_start"] = next(started)
        if line["op_code"] == 6:
            line["datetime_complete"] = f"2026-01-01T{spans[line['trial_id']][1]}+00:00"
    two[0].journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    begun = [datetime.fromisoformat(f"2026-01-01T{time}+00:00").astimezone() for time in ("09:59:00", "10:59:00")]
    two[0].versions.write_text(json.dumps([{"time": f"{moment:%Y-%m-%d %H:%M:%S}"} for moment in begun]))
    side = compare(two).sides[0]
    assert side.search_s == 120 + 10
    assert side.trials_per_hour == pytest.approx(3 / 130 * 3600)


def test_a_pair_on_the_same_images_is_tested(two: list[Experiment], fmnist: Any) -> None:
    [pair] = compare(two).pairs
    assert pair.test is not None
    assert (pair.test.only_first, pair.test.only_second) == (0, 30)
    code, said = fmnist("experiments", "compare", "a", "b")
    assert code == 0
    assert "a and b: the difference is more than luck: p = 1.19e-07 (0 images right for a alone, 30 for b alone" in said
    value = json.loads(fmnist("experiments", "compare", "a", "b", "--json")[1])
    assert [side["name"] for side in value["experiments"]] == ["a", "b"]
    assert value["pairs"][0]["test"]["only_second"] == 30
    assert (value["pairs"][0]["first"], value["pairs"][0]["second"]) == ("a", "b")


def test_what_may_be_luck_is_said_to_be(two: list[Experiment], fmnist: Any) -> None:
    put_result(two[1], 44)
    assert "the difference may well be luck: p = 0.125 (4 images right" in fmnist("experiments", "compare", "a", "b")[1]


def _remove(b: Experiment) -> None:
    b.evaluation.predictions.unlink()


def _shorten(b: Experiment) -> None:
    put_result(b, 10, num_images=100)


def _shuffle(b: Experiment) -> None:
    text = b.evaluation.predictions.read_text()
    b.evaluation.predictions.write_text(text.replace("\n0,T-shirt/top,", "\n0,Bag,"))


def _damage(b: Experiment) -> None:
    b.evaluation.predictions.write_text("image\n\x1b[2J")


def _rename_images(b: Experiment) -> None:
    b.config.write_text(b.config.read_text().replace("dataset: synthetic", "dataset: fashion-mnist"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_remove, "b has no predictions.csv; `fmnist evaluate b` writes it"),
        (_shorten, "the test images differ: 200 and 100 of synthetic"),
        (_shuffle, "the test images differ: they are not of the same classes"),
        (_damage, "is no table of predictions"),
        (_rename_images, "the test images differ: synthetic and fashion-mnist"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_pair_that_cannot_be_tested_says_why_and_the_others_are(
    two: list[Experiment], tmp_path: Path, fmnist: Any, change: Callable[[Experiment], None], why: str
) -> None:
    c = make(tmp_path / "c", [[0.5, 0.5]])
    put_result(c, 50)
    change(two[1])
    pairs = compare([*two, c]).pairs
    assert [pair.test is None for pair in pairs] == [True, False, True]
    assert why in (pairs[0].refused or "")
    code, said = fmnist("experiments", "compare", "a", "b", "c")
    assert code == 0
    assert f"a and b: cannot be tested: {why}" in said or why in said


def test_an_experiment_without_trials_or_results_is_compared_too(two: list[Experiment], tmp_path: Path) -> None:
    empty = make(tmp_path / "empty", [])
    two[1].evaluation.summary.write_text('{"scores": {"accuracy": "high"}}')
    a, b, c = compare([*two, empty]).sides
    assert (c.best_value, c.trials, c.search_s, c.trials_per_hour, c.test) == (None, {}, 0.0, None, None)
    assert c.no_test == "empty has not been tested; `fmnist evaluate empty` does"
    assert b.no_test == f"{two[1].evaluation.summary} is no test result: experiment is missing or of another kind"
    assert a.no_test is None


def test_fewer_than_two_experiments_are_refused(two: list[Experiment], fmnist: Any) -> None:
    for some in (two[:1], [two[0], two[0]]):
        with pytest.raises(SelectionError, match="two or more different experiments"):
            compare(some)
    assert fmnist("experiments", "compare", "a")[0] == 2
    assert fmnist("experiments", "compare", "a", "nobody")[0] == 2


def test_settings_that_json_does_not_have_are_shown_as_text(two: list[Experiment], fmnist: Any) -> None:
    two[0].config.write_text(two[0].config.read_text() + "x: .nan\n'\\e[2J': [.inf]\n".replace("\\e", "z"))
    value = json.loads(fmnist("experiments", "compare", "a", "b", "--json")[1])
    assert value["settings"]["x"] == ["nan", None]
    assert fmnist("experiments", "compare", "a", "b")[0] == 0
