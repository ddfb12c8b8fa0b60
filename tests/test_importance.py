"""What mattered is found where it is known what did, and nothing is claimed where that cannot be told."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from epochs import make_epoch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.cli import main
from search.configuration.config import parse_config
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.report.importances import chart_importances
from search.report.items import Chart
from search.review.fanova import explain, place_evenly
from search.review.importance import MIN_TRIALS, NOISE, Importances, measure_importances
from search.review.review_text import describe_importances
from search.running.continuation import begin_run
from search.study.search_study import SearchStudy

CONFIG: dict[str, Any] = {
    "dataset": "synthetic",
    "space": {
        "model": {"choice": ["customnet", "resnet18"]},
        "lr": {"float": [1e-4, 1e-1], "log": True},
        "shift": {"int": [0, 3]},
        "unfreeze": {"subset": ["layer3", "layer4"]},
    },
    "max_epochs": 1,
    "sampler": "random",
    "pruner": "none",
}


def make(path: Path, num_trials: int, *, constant: bool = False, **changes: Any) -> Experiment:
    """A search in which unfreezing layer4 is worth most, then the network, and nothing else anything."""
    experiment, config = Experiment(path), parse_config({**CONFIG, "max_trials": num_trials, **changes}, where="test")
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        while (assignment := study.next_assignment()) is not None:
            chosen = assignment.hyperparameters
            worth = 0.3 * ("layer4" in chosen.get("unfreeze", ())) + 0.1 * (chosen["model"] == "resnet18")
            study.report(assignment.number, make_epoch(1, 0.5 if constant else 0.5 + worth))
    return experiment


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return make(tmp_path_factory.mktemp("experiments") / "mine", 60)


def test_what_mattered_is_found_and_each_stage_is_a_row_among_the_trials_that_have_it(made: Experiment) -> None:
    found = measure_importances(made)
    shares = {parameter.name: parameter.share for parameter in found.parameters}
    assert set(shares) == {"model", "lr", "shift", "unfreeze.layer3", "unfreeze.layer4"}
    assert all(share is not None for share in shares.values())
    assert max(shares, key=lambda name: shares[name] or 0) == "unfreeze.layer4"
    common = {p.name: p for p in found.parameters if p.where is None}
    assert set(common) == {"model", "lr", "shift"}
    assert max(common.values(), key=lambda parameter: parameter.share or 0).name == "model"
    assert sum(parameter.share or 0 for parameter in common.values()) == pytest.approx(1)
    stages = [parameter for parameter in found.parameters if parameter.name.startswith("unfreeze.")]
    assert {(stage.where, stage.num_trials) for stage in stages} == {("model=resnet18", stages[0].num_trials)}
    assert 0 < stages[0].num_trials < found.num_trials == 60
    assert (shares["unfreeze.layer4"] or 0) > 0.9


def test_the_same_trials_give_the_same_importances(made: Experiment) -> None:
    assert measure_importances(made) == measure_importances(made)


def test_the_command_says_what_the_numbers_rest_on(
    made: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["fmnist", "importance", str(made.path), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    said, value = capsys.readouterr().out.split("{", 1)
    assert "from 60 complete trials" in said
    assert "trials: model=resnet18" in said
    shown = json.loads("{" + value)
    assert (shown["method"], shown["seed"], shown["num_trials"]) == ("fANOVA", 0, 60)
    by_name = {row["name"]: row for row in shown["parameters"]}
    assert set(by_name["lr"]) == {
        *("name", "share", "low", "high", "shuffled", "is_noise", "num_trials", "where", "reason")
    }  # fmt: skip
    told = {line.split()[0]: NOISE in line for line in said.splitlines() if " trials" in line and "%" in line}
    assert {name: row["is_noise"] for name, row in by_name.items()} == {name: told[name] for name in by_name}
    assert (told["model"], told["unfreeze.layer4"], told["unfreeze.layer3"]) == (False, False, True)


def test_too_few_trials_and_trials_that_are_all_alike_are_refused(tmp_path: Path) -> None:
    few = make(tmp_path / "few", MIN_TRIALS - 1)
    with pytest.raises(ExperimentError, match=f"few has {MIN_TRIALS - 1} complete trials; .* {MIN_TRIALS} or more"):
        measure_importances(few)
    with pytest.raises(ExperimentError, match="nothing mattered"):
        measure_importances(make(tmp_path / "alike", MIN_TRIALS, constant=True))


def test_a_parameter_that_few_trials_have_has_no_number_but_a_reason(tmp_path: Path) -> None:
    found = measure_importances(make(tmp_path / "x", MIN_TRIALS + 2))
    [stage, _] = [parameter for parameter in found.parameters if parameter.name.startswith("unfreeze.")]
    assert stage.num_trials < MIN_TRIALS
    assert (stage.share, stage.reason) == (None, f"fewer than {MIN_TRIALS} complete trials have it")


# What cannot vary, and conditions


@pytest.mark.parametrize("lr", [{"choice": [1e-3]}, {"float": [0.2, 0.2]}, {"float": [0.2, 0.2], "step": 0.1}], ids=str)
def test_what_cannot_vary_has_no_importance_and_is_named(tmp_path: Path, lr: dict[str, Any]) -> None:
    space = CONFIG["space"] | {"lr": lr, "erase": {"choice": [0.1]}}
    experiment = make(tmp_path / "x", 16, space=space)
    found = measure_importances(experiment)
    assert list(found.cannot_vary) == ["lr", "erase"]
    assert {"lr", "erase"}.isdisjoint(one.name for one in found.parameters)
    assert found.to_dict()["cannot_vary"] == ["lr", "erase"]
    line = "not ranked, because the space allows only one value: lr, erase"
    assert line in describe_importances(found, width=120).plain
    charts = chart_importances(found)
    assert "Not ranked, because the space allows only one value: lr, erase." in str(charts[0])


@pytest.mark.parametrize("lr", [{"choice": [1e-3]}, 1e-3], ids=str)
def test_a_space_in_which_nothing_can_vary_says_so(tmp_path: Path, lr: Any) -> None:
    for num_trials in (1, MIN_TRIALS):
        experiment = make(tmp_path / str(num_trials), num_trials, space={"model": "customnet", "lr": lr})
        with pytest.raises(ExperimentError, match="has a single value, so there are no importances"):
            measure_importances(experiment)


def test_a_parameter_that_happened_to_stay_the_same_is_not_unimportant(tmp_path: Path) -> None:
    space = CONFIG["space"] | {"shift": {"choice": [0, 1]}}
    experiment = make(tmp_path / "x", 12, space=space)
    text = experiment.journal.read_text()
    experiment.journal.write_text(re.sub(r'"shift": ?1', '"shift":0', text))
    [shift] = [one for one in measure_importances(experiment).parameters if one.name == "shift"]
    assert (shift.share, shift.reason) == (None, "it is 0 in all of these trials")


def test_the_condition_is_that_of_the_space_whatever_the_trials_have_in_common(tmp_path: Path) -> None:
    """Each trial with momentum happens to have flip=True and no other one has."""
    space = {
        "flip": {"choice": [True, False]},
        "optimizer": {"choice": ["sgd", "adamw"]},
        "momentum": {"float": [0.1, 0.9]},
        "model": "customnet",
    }
    experiment, config = Experiment(tmp_path / "x"), parse_config(CONFIG | {"space": space, "max_trials": 24}, where="")
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        kinds = ({"flip": True, "optimizer": "sgd"}, {"flip": False, "optimizer": "adamw"})
        study.enqueue([kind | {"momentum": n / 24} if kind["flip"] else kind for n in range(6, 18) for kind in kinds])
        while (assignment := study.next_assignment()) is not None:
            study.report(assignment.number, make_epoch(1, assignment.number / 24))
    [momentum] = [one for one in measure_importances(experiment).parameters if one.name == "momentum"]
    assert (momentum.where, momentum.num_trials) == ("optimizer=sgd", 12)


# Noise


def draw_points(generator: np.random.Generator, num_trials: int) -> npt.NDArray[np.float64]:
    """Two ranges, a pair of options and four options."""
    options = [(generator.integers(count, size=num_trials) + 0.5) / count for count in (2, 4)]
    return np.column_stack([*generator.random((2, num_trials)), *options])


def test_pure_noise_is_told_apart_from_noise_almost_nowhere() -> None:
    generator = np.random.default_rng(0)
    noise = [
        share.is_noise
        for num_trials in (MIN_TRIALS, 12, 30)
        for seed in range(2)
        for share in explain(draw_points(generator, num_trials), generator.normal(size=num_trials), seed=seed)
    ]
    assert len(noise) == 24
    assert noise.count(False) <= 2


def test_a_strong_effect_is_told_apart_from_noise_and_what_has_none_is_not() -> None:
    generator = np.random.default_rng(1)
    for seed in range(2):
        points = draw_points(generator, 30)
        effect, *others = explain(points, 3 * points[:, 0] + 0.3 * generator.normal(size=30), seed=seed)
        assert not effect.is_noise
        assert effect.low <= effect.share <= effect.high
        assert effect.share > 0.5
        assert sum(share.is_noise for share in others) >= 2


def test_shares_are_those_of_the_variance() -> None:
    """Of a + b / 2, with a and b evenly drawn from 0…1, a has 4 / 5 of the variance."""
    points = np.random.default_rng(2).random((250, 3))
    shares = [share.share for share in explain(points, points[:, 0] + points[:, 1] / 2, seed=0)]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([0.8, 0.2, 0.0], abs=0.05)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e308])
def test_values_of_any_size_are_judged(scale: float) -> None:
    points = np.random.default_rng(3).random((20, 2))
    [first, second] = explain(points, points[:, 0] * scale, seed=0)
    assert first.share > second.share
    with pytest.raises(ValueError, match="too much alike"):
        explain(points, np.full(20, scale), seed=0)


@pytest.mark.parametrize(
    ("distribution", "values", "places"),
    [
        (FloatDistribution(1.0, 3.0), [1.0, 1.5, 3.0], [0, 0.25, 1]),
        (FloatDistribution(1e-4, 1.0, log=True), [1e-4, 1e-2, 1.0], [0, 0.5, 1]),
        (FloatDistribution(0.0, 0.3, step=0.1), [0.0, 0.3], [0.125, 0.875]),
        (FloatDistribution(-1.7e308, 1.7e308), [-1.7e308, 0.0, 1.7e308], [0, 0.5, 1]),
        (IntDistribution(1, 4), [1, 4], [0.125, 0.875]),
        (IntDistribution(1, 100, log=True), [1, 10, 100], [0, 0.5, 1]),
        (CategoricalDistribution(("a", "b")), ["b", "a"], [0.75, 0.25]),
    ],
    ids=str,
)
def test_values_lie_evenly_on_the_scale_that_they_are_drawn_from(distribution: Any, values: Any, places: Any) -> None:
    assert list(place_evenly(values, distribution)) == pytest.approx(places)


def test_a_report_shows_intervals_beside_what_luck_gives(made: Experiment) -> None:
    found: Importances = measure_importances(made)
    everyone, _ = chart_importances(found)
    assert isinstance(everyone, Chart)
    bars, by_luck = everyone.traces
    told = [one.measured for one in found.parameters if one.where is None and one.measured is not None]
    assert bars["x"] == [round(share.share, 4) for share in told]
    assert by_luck["x"] == [round(share.shuffled, 4) for share in told]
    assert [round(x + e, 3) for x, e in zip(bars["x"], bars["error_x"]["array"], strict=True)] == pytest.approx(
        [share.high for share in told], abs=2e-3
    )
    noise = [one.name for one in found.parameters if one.where is None and one.is_noise]
    assert f"Not distinguishable from noise: {', '.join(noise)}." in everyone.note
    assert everyone.numbers is not None
    assert [row[0] for row in everyone.numbers.rows if row[-1] == NOISE] == noise
