"""Every look at the test images is in the log, whatever happens while it is taken."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from made_experiment import make_experiment
from typer.testing import CliRunner

from fmnist_models.checkpoint import save_weights
from fmnist_models.data import load_images, split_training
from fmnist_models.networks import build_network
from search.cli import app
from search.configuration.config import SearchConfig, parse_config
from search.errors import ExperimentError
from search.records import looks as looks_module
from search.records.experiment import Experiment
from search.records.looks import begin_look, end_look, find_looks, list_looks, looks_to_dict
from search.report.content import Content
from search.report.material import read_material
from search.review.comparison import compare
from search.review.looks_text import describe_looks, is_warning
from search.review.review_text import describe_comparison
from search.workflows import evaluation
from search.workflows.evaluation import evaluate_and_save, evaluate_winner

ROOT = Path("unused")
IMAGES = load_images("synthetic", "train", root=ROOT, size=200)
OPTIONS = {"data_root": ROOT, "data": split_training(IMAGES, validation_fraction=0.2, seed=0)}


def configure(max_trials: int = 2) -> SearchConfig:
    raw = {"dataset": "synthetic", "space": {"model": "customnet"}, "max_trials": max_trials, "max_epochs": 1}
    sizes = {"train_size": 200, "test_size": 50, "pruner": "none", "metric": "val_accuracy"}
    return parse_config(raw | sizes, where="test")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    made = make_experiment(tmp_path / "x", configure(), [[0.5], [0.6]])
    for number in (0, 1):
        torch.manual_seed(number)
        files = made.trial(number)
        files.path.mkdir(parents=True)
        save_weights(files.best, build_network("customnet", {}).state_dict())
    return made


def test_each_look_is_logged_with_what_it_showed(experiment: Experiment) -> None:
    assert list_looks(experiment) == []
    best = evaluate_and_save(experiment, configure(), None, **OPTIONS)
    named = evaluate_and_save(experiment, configure(), 0, **OPTIONS)
    found = [(look.trial, look.command, look.num_images, look.accuracy) for look in list_looks(experiment)]
    assert found == [(1, "evaluate", 50, best.scores.accuracy), (0, "evaluate --trial 0", 50, named.scores.accuracy)]


def test_a_look_that_was_cut_short_is_in_the_log(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "class_scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_and_save(experiment, configure(), None, **OPTIONS)
    [look] = list_looks(experiment)
    assert (look.trial, look.accuracy) == (1, None)


def test_what_cannot_be_logged_is_not_looked_at(experiment: Experiment) -> None:
    experiment.test_looks.mkdir()
    with pytest.raises(ExperimentError, match="so the test images were not looked at"):
        evaluate_and_save(experiment, configure(), None, **OPTIONS)
    assert not experiment.evaluation.summary.exists()


def test_the_log_of_looks_is_not_appended_to_under_another_name(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    os.link(tmp_path / "precious", experiment.test_looks)
    with pytest.raises(ExperimentError, match=r"hard-linked .* so the test images were not looked at"):
        evaluate_and_save(experiment, configure(), None, **OPTIONS)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_result_that_cannot_be_logged_is_not_said_to_be_no_look(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    look = begin_look(experiment, trial=4, command="search", num_images=10)
    experiment.test_looks.unlink()
    experiment.test_looks.mkdir()
    with pytest.raises(ExperimentError) as refused:
        end_look(experiment, look, accuracy=0.5)
    assert str(refused.value).endswith("so the accuracy of this look at the test images, 50.00%, is not recorded")


@pytest.mark.parametrize("damage", ["a folder", "too large", "no rights"])
def test_a_log_that_cannot_be_read_is_not_said_to_hold_no_look(
    experiment: Experiment, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if damage == "a folder":
        experiment.test_looks.mkdir()
    elif damage == "too large":
        experiment.test_looks.write_bytes(b"")
        os.truncate(experiment.test_looks, 2**24 + 1)
    else:
        monkeypatch.setattr(looks_module, "read_bounded", refuse)  # root may read everything
    with pytest.raises(ExperimentError, match=r"test_looks\.jsonl cannot be read: "):
        list_looks(experiment)
    looks = find_looks(experiment)
    assert is_warning(looks)
    assert "looked at is not known: " in describe_looks(looks, experiment)
    assert "test_looks.jsonl cannot be read: " in Content(read_material(experiment), None).winner().lead
    assert looks_to_dict(experiment) == {"test_looks": None, "no_test_looks": looks}
    other = make_experiment(experiment.path.parent / "y", configure(), [[0.5]])
    compared = compare([experiment, other])
    assert (compared.sides[0].num_test_looks, compared.sides[0].no_test_looks) == (None, looks)
    assert "unknown" in describe_comparison(compared, width=100).plain


def refuse(*arguments: object, **options: object) -> bytes:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_search_that_goes_on_tests_the_same_winner_once_and_another_one_again(experiment: Experiment) -> None:
    first = evaluate_winner(experiment, configure(), **OPTIONS)
    assert evaluate_winner(experiment, configure(), **OPTIONS) == first
    assert [look.command for look in list_looks(experiment)] == ["search"]
    (experiment.evaluation.predictions).unlink()
    assert evaluate_winner(experiment, configure(), **OPTIONS) == first
    assert len(list_looks(experiment)) == 2, "what is missing is made anew, which is a look"
    make_experiment(experiment.path, configure(max_trials=3), [[0.9]])
    experiment.trial(2).path.mkdir()
    save_weights(experiment.trial(2).best, build_network("customnet", {}).state_dict())
    assert evaluate_winner(experiment, configure(max_trials=3), **OPTIONS).trial == 2
    assert [look.trial for look in list_looks(experiment)] == [1, 1, 2]


def test_looks_of_versions_that_kept_no_log_count_as_far_as_they_left_a_result(experiment: Experiment) -> None:
    evaluate_and_save(experiment, configure(), None, **OPTIONS)
    evaluate_and_save(experiment, configure(), 0, **OPTIONS)
    experiment.test_looks.unlink()
    assert [look.trial for look in list_looks(experiment)] == [1, 0]
    evaluate_and_save(experiment, configure(), 0, **OPTIONS)
    assert [look.trial for look in list_looks(experiment)] == [1, 0, 0]


def test_lines_cut_short_or_strange_are_no_looks_and_hide_none(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    experiment.test_looks.write_text('7\n{"id": 3}\n{"id": "a", "ti')
    look = begin_look(experiment, trial=4, command="search", num_images=10)
    end_look(experiment, look, accuracy=0.5)
    assert [(one.trial, one.accuracy) for one in list_looks(experiment)] == [(4, 0.5)]


def test_the_number_of_looks_stands_with_the_result_and_warns_from_the_second_on(experiment: Experiment) -> None:
    runner = CliRunner()
    command = ["evaluate", str(experiment.path)]
    first, second = (runner.invoke(app, command, catch_exceptions=False).output for _ in range(2))
    assert "The test images have been looked at once." in " ".join(first.split())
    assert "have been looked at 2 times, for the same trial" in " ".join(second.split())
    told = json.loads(runner.invoke(app, [*command, "--trial", "0", "--json"]).stdout)
    assert [look["trial"] for look in told["test_looks"]] == [1, 1, 0]
    looks = list_looks(experiment)
    assert is_warning(looks)
    assert "3 times, for 2 trials" in describe_looks(looks, experiment)
    assert "3 times" in Content(read_material(experiment), None).winner().lead
    other = make_experiment(experiment.path.parent / "y", configure(), [[0.5]])
    assert [side.num_test_looks for side in compare([experiment, other]).sides] == [3, 0]
