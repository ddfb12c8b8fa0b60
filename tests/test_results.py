from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from epochs import make_epoch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from fmnist_models.epoch import Epoch
from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError, ExperimentError
from search.records.epochs_file import COLUMNS, format_epochs, parse_epochs
from search.records.experiment import (
    EXPERIMENTS_DIR_VARIABLE,
    Experiment,
    experiments_dir,
    find_experiment,
    new_experiment,
)
from search.records.lock import hold_experiment
from search.records.record import Failure, Reason
from search.records.results import compact_parameters, read_settings, read_trials
from search.review.display import per_class_table, plain_rows, trials_table
from search.running.continuation import begin_run, check_continuation, read_config
from search.study.search_study import SearchStudy

SPACE = {"model": "resnet18", "lr": {"float": [1e-7, 1e-6], "log": True}, "unfreeze": {"subset": ["stem", "layer4"]}}
MESSAGE = "RuntimeError: the shapes differ"
METRICS = ["val_accuracy", "val_loss"]


def make_config(**changes: Any) -> SearchConfig:
    base = {"space": SPACE, "max_trials": 6, "max_epochs": 3, "min_epochs": 2, "pruner": "halving"}
    return parse_config(base | changes, where="test")


def make_experiment(path: Path, *, message: str = MESSAGE, **changes: Any) -> Experiment:
    """Trial 0 is complete, 1 pruned, 2 failed, 3 complete and the best, 4 pruned, 5 runs."""
    experiment, config = Experiment(path), make_config(**changes)
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        for accuracies in (
            [0.625, 0.75, 0.6875],
            [0.125, 0.25],
            [0.99],
            [0.75, 0.8125, 0.875],
            [0.125, 0.375],
            [0.96875],
        ):
            assignment = study.next_assignment()
            assert assignment is not None
            for number, accuracy in enumerate(accuracies, start=1):
                study.report(assignment.number, make_epoch(number, accuracy))
            if assignment.number == 2:
                study.fail(2, Failure(Reason.CODE, message))
    return experiment


def shown(table: Table, *, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(cell_len(line) for line in text.splitlines()) <= width
    return str(text)


def enter(experiment: Experiment, config: SearchConfig) -> None:
    with hold_experiment(experiment):
        begin_run(experiment, config)


@pytest.mark.parametrize("metric", METRICS)
def test_trials_stand_best_first_then_pruned_running_and_failed(tmp_path: Path, metric: str) -> None:
    table = read_trials(make_experiment(tmp_path / "x", metric=metric))
    assert list(table["trial"]) == [3, 0, 4, 1, 5, 2]
    assert list(table["state"]) == ["complete", "complete", "pruned", "pruned", "running", "failed"]
    accuracies = [0.875, 0.75, 0.375, 0.25, 0.96875, 0.99]
    values = accuracies if metric == "val_accuracy" else [1 - accuracy for accuracy in accuracies]
    assert list(table["value"]) == pytest.approx(values), "each the best of its epochs"
    assert list(table["best_epoch"]) == [3, 2, 2, 2, 1, 1]
    assert list(table["epochs"]) == [3, 3, 2, 2, 1, 1]


def test_the_table_of_trials_has_a_column_for_each_parameter_between_the_fixed_ones(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "x")
    table = read_trials(experiment)
    fixed = ["trial", "state", "value", "best_epoch", "last_value", "last_epoch", "epochs", "duration_s"]
    columns = list(table.columns)
    assert (columns[:8], columns[-3:]) == (fixed, ["reason", "message", "dataset"])
    assert set(columns[8:-3]) == {"lr", "unfreeze"}
    drawn = {t.number: t for t in SearchStudy.open(experiment, make_config()).study.get_trials()}
    for row in table.to_dict("records"):
        hyperparameters = make_config().space.suggest(drawn[row["trial"]])
        assert (row["lr"], row["unfreeze"]) == (hyperparameters["lr"], "+".join(hyperparameters["unfreeze"]))
        assert math.isnan(row["duration_s"]) if row["state"] == "running" else row["duration_s"] >= 0
    failed = table[table["state"] == "failed"]
    assert failed[["reason", "message"]].to_numpy().tolist() == [["code", MESSAGE]]
    assert table["reason"].notna().sum() == 1


def test_a_study_without_trials_gives_an_empty_table(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        begin_run(experiment, make_config())
        SearchStudy.open(experiment, make_config())
    table = read_trials(experiment)
    assert len(table) == 0
    assert "value" in table.columns
    assert "none yet" in shown(trials_table(table, title="none yet", metric="val_loss"))


@pytest.mark.parametrize(
    ("params", "compact"),
    [
        ({"lr": 0.1, "unfreeze.layer3": False, "unfreeze.layer4": True}, {"lr": 0.1, "unfreeze": "layer4+fc"}),
        ({"unfreeze.layer3": False, "unfreeze.layer4": False}, {"unfreeze": "fc"}),
        ({"model": "customnet", "weights": "a.b.pt"}, {"model": "customnet", "weights": "a.b.pt"}),
        ({}, {}),
    ],
)
def test_drawn_stages_are_shown_as_one_parameter(params: dict[str, Any], compact: dict[str, Any]) -> None:
    assert compact_parameters(params) == compact


def test_plain_rows_hold_the_studys_numbers_exactly_and_none_for_what_is_missing(tmp_path: Path) -> None:
    table = read_trials(make_experiment(tmp_path / "x"))
    rows = plain_rows(table)
    assert [row["trial"] for row in rows] == list(table["trial"])
    assert [row["value"] for row in rows] == list(table["value"])
    assert (rows[0]["reason"], rows[4]["duration_s"]) == (None, None)
    assert [row["lr"] for row in rows] == list(table["lr"])


def test_the_table_of_trials_shows_values_epochs_parameters_and_failures_in_80_columns(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "x")
    text = shown(trials_table(read_trials(experiment), title="six trials", metric="val_accuracy"))
    words = ["six trials", "val_accuracy", "0.8750", "3/3", "2/3", "0.9688", "unfreeze=", "lr=", "failed", "code:"]
    assert [word for word in words if word not in text] == []


def test_a_failures_message_is_shown_as_it_is_brackets_and_all(tmp_path: Path) -> None:
    """rich takes words in brackets for markup: it would hide `[batch, classes]` and stumble over `[/classes]`."""
    message = "RuntimeError: the shapes [batch, classes] and [/classes] differ :cross_mark:"
    table = trials_table(read_trials(make_experiment(tmp_path / "x", message=message)), title="x", metric="val_loss")
    assert message in shown(table, width=200)


def test_the_table_per_class_shows_every_class_and_the_averages_in_80_columns() -> None:
    classes = ["T-shirt/top", "Ankle boot", "macro average", "weighted average"]
    rows = [
        {"class": c, "precision": 0.125, "recall": 0.25, "f1": i / 16, "support": 100 + i}
        for i, c in enumerate(classes)
    ]
    text = shown(per_class_table(pd.DataFrame(rows), title="trial 3"))
    words = [*classes, "trial 3", "precision", "0.125", "0.250", "0.188", "103"]
    assert [word for word in words if word not in text] == []


def test_settings_are_plain_values_and_something_else_is_refused(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "x")
    assert read_settings(experiment)["space"] == SPACE
    experiment.config.write_text("metric: accuracy\n")
    with pytest.raises(ExperimentError, match=r"config\.yaml"):
        read_settings(experiment)
    experiment.config.unlink()
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_trials(experiment)


numbers = st.floats(allow_nan=False)
epochs = st.builds(Epoch, epoch=st.integers(1, 10_000), **dict.fromkeys(COLUMNS[1:-1], numbers))


@settings(deadline=None)
@given(written=st.lists(epochs, max_size=5))
def test_epochs_survive_being_written_and_read(written: list[Epoch]) -> None:
    assert parse_epochs(format_epochs(written, dataset="synthetic")) == written


@settings(deadline=None)
@given(text=st.text(max_size=80) | st.text(',\n\r"e01.-', max_size=40))
@example(text="")
@example(text="hello")
@example(text="epoch\r1")
@example(text="epoch\n1\n")
@example(text='"' + ",".join(COLUMNS))
@example(text=",".join(COLUMNS) + "\n1,2\n")
@example(text=",".join(COLUMNS) + "\n1" + ",x" * 7 + "\n")
@example(text=",".join(COLUMNS) + "\n1.5" + ",1" * 7 + "\n")
@example(text=",".join(COLUMNS) + "\n1" + ",1" * 6 + "\n")
@example(text=",".join(COLUMNS) + "\n1" + ",1" * 8 + "\n")
@example(text=",".join(COLUMNS) + ",more\n1" + ",1" * 8 + "\n")
@example(text=",".join(COLUMNS) + "\n1" + "," * 7 + "\n")
def test_what_is_no_table_of_epochs_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (any message)
        parse_epochs(text)


def test_an_experiment_is_found_by_name_relative_and_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "experiments"
    made = make_experiment(directory / "mine")
    monkeypatch.chdir(tmp_path)
    for reference in ("mine", "experiments/mine", "./experiments/../experiments/mine", str(made.path), f"{made.path}/"):
        found = find_experiment(reference, directory=directory)
        assert found.path.samefile(made.path)
        assert found.name == "mine"
    monkeypatch.chdir(made.path)
    assert find_experiment("../mine", directory=tmp_path).path.samefile(made.path)


@pytest.mark.parametrize("reference", ["yours", "", "..", "mine/config.yaml", "x" * 300, "~nobody_here/mine", "a\nb"])
def test_an_unknown_experiment_is_refused_and_the_known_ones_are_named(tmp_path: Path, reference: str) -> None:
    for name in ("mine", "other"):
        make_experiment(tmp_path / name)
    (tmp_path / "no-experiment").mkdir()
    with pytest.raises(ExperimentError) as caught:
        find_experiment(reference, directory=tmp_path)
    assert repr(reference) in str(caught.value)
    assert "valid: mine, other" in str(caught.value)


def test_where_there_are_no_experiments_yet_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"there is none in .*nowhere"):
        find_experiment("mine", directory=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["a/b", "/a", "..", ".", "", ".hidden", "-x", "a\\b", "a b", "a\n", "a\0", "x" * 101, "ä", "~", "a:b"]
)
def test_a_name_that_is_not_one_plain_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        new_experiment(name, directory=tmp_path)
    assert repr(name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(name=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z"), number=st.integers(0, 1_000_000))
def test_every_path_of_an_experiment_is_its_own_and_inside_its_folder(name: str, number: int) -> None:
    experiment = new_experiment(name, directory=Path("somewhere"))
    assert experiment.path == Path.cwd() / "somewhere" / name
    parts = [experiment, experiment.trial(number), experiment.trial(number + 1)]
    paths = [
        getattr(part, key) for part in parts for key, kind in vars(type(part)).items() if isinstance(kind, property)
    ]
    paths = [path for path in paths if isinstance(path, Path)]
    assert len(paths) > 10
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(experiment.path) and ".." not in path.parts for path in paths)


def test_the_experiments_folder_is_the_one_named_then_the_variables_then_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EXPERIMENTS_DIR_VARIABLE, raising=False)
    assert experiments_dir() == Path("experiments")
    monkeypatch.setenv(EXPERIMENTS_DIR_VARIABLE, "/variable")
    assert (experiments_dir(), experiments_dir("named")) == (Path("/variable"), Path("named"))


def test_an_experiment_is_continued_with_the_same_config_and_with_what_may_change(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "x")
    changed = make_config(max_trials=9, time_budget_s=60, max_concurrent_trials=2)
    for config in (make_config(), changed):
        with hold_experiment(experiment):
            begin_run(experiment, config)
            assert read_config(experiment) == config
    assert len(json.loads(experiment.versions.read_text())) == 3, "what each of the three runs was made with"
    assert len(read_trials(experiment)) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": SPACE | {"lr": {"float": [0.5, 0.75]}}}, ["space", "1e-07", "0.75"]),
        ({"max_epochs": 12}, ["max_epochs", "3 there", "12 now"]),
        ({"metric": "val_loss", "seed": 5}, ["val_accuracy there", "val_loss now", "seed", "0 there", "5 now"]),
    ],
    ids=["space", "epochs", "two keys"],
)
def test_another_config_is_refused_with_both_values_and_nothing_is_overwritten(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    experiment = make_experiment(tmp_path / "x")
    before = {path: path.read_bytes() for path in experiment.path.rglob("[!.]*") if path.is_file()}
    for attempt in (check_continuation, enter):
        with pytest.raises(ConfigError) as caught:
            attempt(experiment, make_config(**changes))
        assert [word for word in ["experiment x", *words] if word not in str(caught.value)] == []
    assert {path: path.read_bytes() for path in experiment.path.rglob("[!.]*") if path.is_file()} == before


def test_a_folder_that_cannot_be_made_is_refused_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="file/x is not writable"):
        enter(Experiment(tmp_path / "file" / "x"), make_config())


def test_a_new_study_does_not_believe_the_trials_of_one_that_is_gone(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "x")
    experiment.trial(0).path.mkdir()
    experiment.trial(0).last.write_bytes(b"a checkpoint")
    enter(experiment, make_config())
    assert experiment.trial(0).last.exists(), "a continued study keeps them"
    experiment.journal.unlink()
    enter(experiment, make_config())
    assert list(experiment.trials.iterdir()) == []


def test_a_second_run_of_an_experiment_is_refused_and_names_the_first(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        begin_run(experiment, make_config())
        before = {path: path.read_bytes() for path in experiment.path.rglob("*") if path.is_file()}
        with pytest.raises(ExperimentError, match=f"x is being run by process {os.getpid()} on .* since 2"):
            enter(experiment, make_config())
        assert {path: path.read_bytes() for path in experiment.path.rglob("*") if path.is_file()} == before
    enter(experiment, make_config())


def test_a_journal_with_a_torn_last_line_is_read_and_continued(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "x")
    with experiment.journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"cut sho')
    before = read_trials(experiment)
    study = SearchStudy.open(experiment, make_config())
    assignment = study.next_assignment()
    assert assignment is not None
    study.report(assignment.number, make_epoch(2, 0.5))
    after = read_trials(experiment)
    assert sorted(before["trial"]) == sorted(after["trial"])
    assert after.set_index("trial").loc[assignment.number, "epochs"] == 2
