"""What mattered is found where it is known what did, and nothing is claimed where that cannot be told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch

from search.cli import main
from search.configuration.config import parse_config
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.review.importance import MIN_TRIALS, measure_importances
from search.running.continuation import open_experiment
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


def make(path: Path, num_trials: int, *, constant: bool = False) -> Experiment:
    """A search in which unfreezing layer4 is worth most, then the network, and nothing else anything."""
    experiment, config = Experiment(path), parse_config({**CONFIG, "max_trials": num_trials}, where="test")
    with open_experiment(experiment, config):
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
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["fmnist", "importance", str(made.path), *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    said, value = capsys.readouterr().out.split("{", 1)
    assert "rests on 60 complete trials" in said
    assert "trials: model=resnet18" in said
    shown = json.loads("{" + value)
    assert (shown["method"], shown["seed"], shown["num_trials"]) == ("fANOVA", 0, 60)


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
