"""`fmnist trials`: which trials it lists, in which order and format, and what `show` and `diff` say of them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from epochs import make_epoch
from hypothesis import assume, given
from hypothesis import strategies as st
from made_experiment import FAILED, make_experiment

from search import load_experiment
from search.cli import main
from search.configuration.config import parse_config
from search.errors import SelectionError
from search.records.epochs_file import format_epochs
from search.records.experiment import Experiment
from search.records.numbers import is_close
from search.records.results import COLUMNS, read_trials
from search.review.condition import Condition, parse_condition
from search.review.listing import Question, read_listing
from search.review.listing_formats import format_table, notes, title
from search.review.text_curve import plot, sparkline
from search.review.text_table import text_table

CONFIG: dict[str, Any] = {
    "dataset": "synthetic",
    "space": {
        "model": {"choice": ["customnet", "resnet18"]},
        "lr": {"float": [1e-4, 1e-1], "log": True},
        "unfreeze": {"subset": ["layer3", "layer4"]},
        "flip": {"choice": [True, False]},
    },
    "max_trials": 6,
    "max_epochs": 4,
    "sampler": "random",
}
# Trials 0 and 3 are complete, 1 and 4 pruned after the first epoch, 2 has failed, 5 runs.
CURVES = [[0.5, 0.75, 0.625, 0.5], [0.25], FAILED, [0.625, 0.75, 0.875, 0.8125], [0.125], [0.75, 0.875]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    config = parse_config(CONFIG, where="test")
    experiment = make_experiment(tmp_path_factory.mktemp("experiments") / "mine", config, CURVES)
    experiment.trial(0).path.mkdir(exist_ok=True)
    epochs = [make_epoch(number, accuracy) for number, accuracy in enumerate([0.5, 0.75, 0.625, 0.5], start=1)]
    experiment.trial(0).epochs.write_text(format_epochs(epochs, dataset="synthetic"))
    experiment.trial(0).best.write_bytes(b"weights")
    experiment.trial(2).path.mkdir(exist_ok=True)
    experiment.trial(2).error.write_text("x" * 100_000 + "\nKeyError: \x1b[2J\n")
    return experiment


@pytest.fixture
def fmnist(
    made: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs the command in this process: its exit code and all it says."""
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(made.path.parent))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fmnist", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        return int(ended.value.code or 0), captured.out + captured.err

    return run


def numbers(said: str) -> list[int]:
    return [int(found) for found in re.findall(r"^ *(\d+)  ", said, flags=re.MULTILINE)]


# Which trials, and in which order


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [3, 0]),
        (["--all"], [3, 0, 1, 4, 5, 2]),
        (["--state", "pruned"], [1, 4]),
        (["--state", "pruned", "--state", "running"], [1, 4, 5]),
        (["--all", "--top", "2"], [3, 0]),
        (["--all", "--sort", "trial"], [0, 1, 2, 3, 4, 5]),
        (["--all", "--sort", "trial:desc", "--top", "3"], [5, 4, 3]),
        (["--all", "--sort", "value:asc"], [4, 1, 0, 3, 5, 2]),
        (["--all", "--sort", "val_accuracy"], [3, 5, 0, 1, 4, 2]),
        (["--all", "--sort", "last"], [5, 3, 0, 1, 4, 2]),
        (["--all", "--where", "val_accuracy>=0.75"], [3, 0, 5]),
        (["--all", "--where", "value>0.25", "--where", "value != 0.75"], [3, 5]),
        (["--where", "state=complete", "--where", "trial<1"], [0]),
        (["--all", "--where", "reason=code"], [2]),
        (["--all", "--where", "reason!=code"], [3, 0, 1, 4, 5]),
    ],
    ids=str,
)
def test_the_trials_that_are_asked_for_stand_in_the_order_asked_for(
    fmnist: Any, options: list[str], expected: list[int]
) -> None:
    code, said = fmnist("trials", "mine", *options)
    assert code == 0
    assert numbers(said) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--state", "done"], ["done", "complete, pruned, failed, running"]),
        (["--sort", "learning_rate"], ["learning_rate", "trial, state, value", "lr"]),
        (["--sort", "lr:up"], ["up", "lr:asc", "lr:desc"]),
        (["--columns", "trial,nothing"], ["nothing", "trial, state"]),
        (["--where", "model~resnet18"], ["model~resnet18", "!="]),
        (["--where", "nothing=1"], ["nothing", "trial, state"]),
        (["--where", "lr<fast"], ["fast", "no number"]),
        (["--where", "model<3"], ["model", "no number", "= and !="]),
        (["--format", "excel"], ["excel", "table, csv, json, markdown, parquet"]),
        (["--format", "parquet"], ["--output"]),
        (["--json", "--format", "csv"], ["--json", "csv"]),
    ],
    ids=str,
)
def test_what_there_is_not_is_one_message_that_names_what_there_is(
    fmnist: Any, options: list[str], words: list[str]
) -> None:
    code, said = fmnist("trials", "mine", *options)
    assert code == 2
    assert said.count("error: ") == said.count("\n") == 1
    assert [word for word in words if word not in said] == []


def test_every_condition_on_every_column_says_the_same_of_the_same_trials_as_a_filter_of_ones_own(
    made: Experiment,
) -> None:
    everything = read_listing(made, Question())
    for row in everything.rows:
        for column in everything.columns:
            value = row.get(column)
            if value is None or isinstance(value, list):
                continue
            same = read_listing(made, Question(where=[f"{column}={value}"]))
            assert [r["trial"] for r in same.rows] == [r["trial"] for r in everything.rows if r.get(column) == value], (
                f"{column}={value}"
            )


@given(value=st.floats(allow_nan=False) | st.integers(-9, 9), bound=st.floats(allow_nan=False))
def test_conditions_compare_as_numbers_do(value: float, bound: float) -> None:
    assume(isinstance(value, int) or value == bound or not is_close(value, bound))
    results = [Condition("x", operator, repr(bound)).is_met(value) for operator in ("<", "<=", "=", "!=", ">=", ">")]
    assert results == [
        value < bound, value <= bound, value == bound, value != bound, value >= bound, value > bound
    ]  # fmt: skip


@pytest.mark.parametrize("value", [0.3, 3 * 0.1, 0.1 + 0.2])
def test_floats_that_differ_by_rounding_alone_are_equal(value: float) -> None:
    met = {operator: Condition("x", operator, "0.3").is_met(value) for operator in ("<", "<=", "=", "!=", ">=", ">")}
    assert met == {"<": False, "<=": True, "=": True, "!=": False, ">=": True, ">": False}
    assert not Condition("x", "=", "0.3").is_met(0.30001)
    assert not Condition("x", "=", "10000000001").is_met(10_000_000_000), "whole numbers have no rounding"


def test_a_condition_is_read_with_and_without_blanks_and_truth_in_any_case() -> None:
    for text in ("x<=3", "x <= 3", " x<= 3 "):
        assert parse_condition(text, ["x"], aliases={}) == Condition("x", "<=", "3")
    assert Condition("flip", "=", "True").is_met(True)
    assert Condition("flip", "=", "false").is_met(False)
    assert not Condition("flip", "=", "1").is_met(True)
    assert parse_condition("y=layer3+fc", ["x"], aliases={"y": "x"}) == Condition("x", "=", "layer3+fc")
    with pytest.raises(SelectionError):
        parse_condition("=3", ["x"], aliases={})


# What is said of them


def test_a_condition_on_states_asks_for_them_and_what_it_leaves_out_is_counted(made: Experiment) -> None:
    def states(*where: str) -> tuple[set[str], dict[str, int]]:
        listing = read_listing(made, Question(complete_only=True, where=where))
        return {row["state"] for row in listing.rows}, dict(listing.left_out)

    whole = read_listing(made, Question())
    numbers = {state: sum(row["state"] == state for row in whole.rows) for state in whole.found_states}
    assert states() == ({"complete"}, {state: n for state, n in numbers.items() if state != "complete"})
    assert states("state=pruned") == ({"pruned"}, {})
    assert states("trial<0") == (set(), {})


def test_best_and_last_epoch_stand_apart_and_what_is_not_shown_is_said(made: Experiment) -> None:
    listing = read_listing(made, Question(states=["complete"]))
    assert title(listing) == "mine on synthetic: 2 complete of 6 trials"
    text = format_table(listing, width=120, ascii_only=False).plain
    assert re.search(r"trial +val_accuracy +best_epoch +last +last_epoch +seconds +parameters", text)
    assert re.search(r"^ +3 +0\.8750 +3 +0\.8125 +4 ", text, flags=re.MULTILINE)
    assert notes(listing) == [
        "not shown: 2 pruned, 1 failed, 1 running; --all shows them",
        "pruning saved 6 of 16 epochs (4 ended trials, max_epochs 4): those that 2 pruned trials did not train",
    ]
    assert title(read_listing(made, Question(top=1))) == "mine on synthetic: 6 trials, the first 1"
    assert title(read_listing(made, Question(where=["trial>1"]))) == "mine on synthetic: 4 of 6 trials"


def test_a_running_trial_is_shown_with_its_curve_so_far(made: Experiment) -> None:
    text = format_table(read_listing(made, Question()), width=120, ascii_only=False).plain
    assert "▁█" in next(line for line in text.splitlines() if " running " in line)
    assert "curve" not in format_table(read_listing(made, Question(states=["complete"])), width=120, ascii_only=False)
    format_table(read_listing(made, Question()), width=120, ascii_only=True).plain.encode("ascii")


def test_the_failed_trials_reason_and_message_are_shown(fmnist: Any) -> None:
    assert "code: KeyError: 'x'" in fmnist("trials", "mine", "--state", "failed")[1]


# Formats


def test_json_holds_what_a_data_frame_does(fmnist: Any, made: Experiment) -> None:
    code, said = fmnist("trials", "mine", "--json")
    value = json.loads(said)
    assert list(value) == ["experiment", "dataset", "metric", "fingerprint", "trials"]
    before = read_trials(made)
    assert [row["trial"] for row in value["trials"]] == list(before["trial"])
    assert list(value["trials"][0]) == list(before.columns)
    assert {"last_epoch", "last_value"} < set(before.columns)
    assert fmnist("trials", "mine", "--format", "json") == (code, said)


def test_csv_and_parquet_hold_the_same_trials(fmnist: Any, made: Experiment, tmp_path: Path) -> None:
    code, said = fmnist("trials", "mine", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(said)))
    assert code == 0
    path = tmp_path / "trials.parquet"
    assert fmnist("trials", "mine", "--format", "parquet", "--output", str(path))[0] == 0
    table = pyarrow.parquet.read_table(path).to_pylist()
    listed = read_listing(made, Question()).rows
    assert len(rows) == len(table) == len(listed) == 6
    for ours, text, stored in zip(listed, rows, table, strict=True):
        assert list(text) == list(stored)
        assert {name: ours.get(name) for name in stored} == stored
        assert {name: "" if ours.get(name) is None else str(ours[name]) for name in text} == text


def test_one_set_of_columns_and_values_everywhere(fmnist: Any, tmp_path: Path) -> None:
    """As `--format csv`, as JSON, in Python, and as a search writes them into `trials.csv`."""
    space = {"model": {"choice": ["lenet5", "resnet18"]}, "input_size": {"choice": [28, 227]}}
    config = parse_config(CONFIG | {"space": space, "max_trials": 8}, where="test")
    experiment = make_experiment(tmp_path / "x", config, [[0.5, 0.25], *[[0.5, 0.5, 0.75, 0.625]] * 6])
    csv_text = fmnist("trials", str(experiment.path), "--format", "csv")[1]
    table = load_experiment(experiment.path).trials
    assert table.to_csv(index=False) == csv_text
    rows = json.loads(fmnist("trials", str(experiment.path), "--json")[1])["trials"]
    assert list(rows[0]) == list(table.columns) == next(csv.reader(io.StringIO(csv_text)))
    assert [(row["last_value"], row["last_epoch"]) for row in rows if row["trial"] == 0] == [(0.25, 2)]
    sizes = {row["input_size"] for row in csv.DictReader(io.StringIO(csv_text))}
    assert "" in sizes
    assert sizes <= {"", "28", "227"}, "a whole number stays one where other trials have none"


@pytest.mark.parametrize("output", [".", "/", ""])
def test_an_output_that_is_a_folder_is_refused_in_one_line(fmnist: Any, output: str) -> None:
    code, said = fmnist("trials", "mine", "--format", "csv", "--output", output)
    assert (code, said.count("\n")) == (2, 1)
    assert "it is a folder; valid: a file in it" in said


def test_a_chosen_curve_is_a_list_in_parquet_and_numbers_in_csv(fmnist: Any, tmp_path: Path) -> None:
    path, columns = tmp_path / "curves.parquet", ("--columns", "trial,curve", "--state", "running")
    assert fmnist("trials", "mine", *columns, "--format", "parquet", "--output", str(path))[0] == 0
    assert pyarrow.parquet.read_table(path).to_pylist() == [{"trial": 5, "curve": [0.75, 0.875]}]
    assert fmnist("trials", "mine", *columns, "--format", "csv") == (0, "trial,curve\n5,0.75 0.875\n")


def test_markdown_is_one_table_with_what_could_break_it_escaped(fmnist: Any, tmp_path: Path) -> None:
    path = tmp_path / "trials.md"
    assert fmnist("trials", "mine", "--format", "markdown", "--output", str(path))[0] == 0
    lines = path.read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 2
    assert len({line.count("|") for line in table}) == 1
    assert r"val\_accuracy" in table[0]


def test_thousands_of_rows_are_aligned_and_wrapped_within_the_width() -> None:
    rows = [[str(n), "日本" if n % 2 else "ab", "name=value " * (n % 20)] for n in range(2_000)]
    text = text_table(["n", "x", "parameters"], rows, left=[1], styles=[""] * len(rows), width=60).plain
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 60
    assert [int(line.split()[0]) for line in lines[1:] if not line.startswith(" " * 6)] == list(range(2_000))


@given(cells=st.lists(st.text(max_size=30), min_size=3, max_size=3))
def test_no_text_escapes_from_its_cell(cells: list[str]) -> None:
    text = text_table(["a", "b", "c"], [cells], left=[], styles=[""], width=40).plain
    assert all(character.isprintable() for line in text.split("\n") for character in line)


# Curves


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=100))
def test_a_sparkline_is_short_and_as_high_as_its_values(values: list[float]) -> None:
    for ascii_only in (False, True):
        line = sparkline(values, ascii_only=ascii_only)
        assert len(line) <= 16
        assert bool(line) == bool(values)
    if len(values) <= 16 and len(set(values)) > 1 and not math.isinf(max(values) - min(values)):
        assert line[values.index(max(values))] == "#"
        assert line[values.index(min(values))] == "_"


curves = st.dictionaries(st.integers(1, 2**31 - 1), st.floats(allow_nan=False, allow_infinity=False), max_size=20)


@given(a=curves, b=curves)
def test_a_drawing_stays_within_its_frame(a: dict[int, float], b: dict[int, float]) -> None:
    lines = plot({"a": a, "b": b}, width=40, height=8)
    assert len(lines) == (8 + 3 if a or b else 0)
    assert all(len(line) <= 40 + 40 for line in lines)
    assert bool(a) == any("o" in line for line in lines[:8])


def test_a_drawing_shows_each_epoch_in_its_place() -> None:
    lines = plot({"first": {1: 0.0, 2: 0.5, 3: 1.0}, "second": {1: 1.0}}, width=5, height=3)
    assert lines == ["1 |x   o", "  |  o", "0 |o", "  +-----", "   1   3  epoch", "   o first   x second"]


# One trial, and two


def test_a_trial_is_shown_with_all_that_is_known_of_it(fmnist: Any, made: Experiment) -> None:
    code, said = fmnist("trials", "show", "mine", "0")
    assert code == 0
    for words in (
        "trial 0 of mine on synthetic: complete",
        "val_accuracy 0.7500 at its best, in epoch 2; 0.5000 after the last one, 4",
        "x on training images",
        f"{made.trial(0).best}  best weights, 7 bytes",
    ):
        assert words in said
    shown = json.loads(fmnist("trials", "show", "mine", "0", "--json")[1])
    assert shown["curve"] == {"1": 0.5, "2": 0.75, "3": 0.625, "4": 0.5} == shown["training"]
    assert shown["parameters"].keys() <= {"model", "lr", "unfreeze", "flip"}


def test_of_a_failed_trial_the_end_of_its_log_is_shown(fmnist: Any) -> None:
    said = fmnist("trials", "show", "mine", "2")[1]
    assert "code: KeyError: 'x'" in said
    assert r"KeyError: \x1b[2J" in said
    assert len(said) < 20_000


@pytest.mark.parametrize("number", ["6", "99"])
def test_a_trial_that_is_not_there_is_refused(fmnist: Any, number: str) -> None:
    for command in (("show", "mine", number), ("diff", "mine", "0", number)):
        code, said = fmnist("trials", *command)
        assert (code, said) == (2, f"error: mine has no trial {number}; valid: 0 to 5\n")


def test_two_trials_differ_in_what_their_parameters_do(fmnist: Any, made: Experiment) -> None:
    value = json.loads(fmnist("trials", "diff", "mine", "0", "3", "--json")[1])
    a, b = (trial["parameters"] for trial in value["trials"])
    assert value["differing"] == {n: [a.get(n), b.get(n)] for n in {**a, **b} if a.get(n) != b.get(n)}
    assert "lr" in value["differing"]
    said = fmnist("trials", "diff", "mine", "0", "3")[1]
    assert re.search(r"^ +1 +0\.5000 +0\.6250 +\+0\.1250$", said, flags=re.MULTILINE)
    assert "o trial 0   x trial 3" in said
    assert "none" in fmnist("trials", "diff", "mine", "3", "3")[1]


# Names


@pytest.mark.parametrize("name", ["show", "diff", "list"])
def test_an_experiment_that_is_called_like_a_command_is_found_by_its_path(
    fmnist: Any, made: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(made.path, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path))
    assert f"{name} on synthetic" in fmnist("trials", f"./{name}")[1]
    assert f"trial 3 of {name}" in fmnist("trials", "show", name, "3")[1]


def test_options_may_come_first_and_the_help_is_that_of_the_list(fmnist: Any) -> None:
    assert numbers(fmnist("trials", "--top", "1", "mine")[1]) == [3]
    said = fmnist("trials", "--help")[1]
    assert [word for word in ["--where", "--sort", "trials show", "trials diff", *COLUMNS] if word not in said] == []
    assert fmnist("trials")[0] == 2
