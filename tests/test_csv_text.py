"""No text of a CSV file is a formula to a spreadsheet, and every reader of ours gets back what was written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from command import fmnist
from hypothesis import given
from hypothesis import strategies as st
from made_experiment import FAILED, make_experiment

from search.configuration.config import parse_config
from search.records.csv_text import csv_text, plain_text, table_as_csv
from search.records.results import read_trials

STARTS = "=+-@\t\r\n"


@given(st.text(st.sampled_from(f"'{STARTS}a1 "), max_size=6) | st.text(max_size=4))
def test_any_text_comes_back_and_none_is_a_formula(text: str) -> None:
    cell = csv_text(text)
    assert not cell.startswith(tuple(STARTS))
    assert plain_text(cell) == text


@pytest.mark.parametrize("value", [-1, -0.5, 1e-4, None, True, "customnet", "1e-3", "a=b", "'quoted'", ""])
def test_numbers_and_other_texts_stay_as_they_are(value: object) -> None:
    assert csv_text(value) is value


def test_a_table_has_neither_cells_nor_columns_that_are_formulas_and_keeps_its_numbers() -> None:
    table = pd.DataFrame(
        {
            "trial": [0, 1],
            "value": [-0.5, 0.25],
            "best_epoch": pd.array([3, None], dtype="Int64"),
            "=weights": ["=cmd|'/c calc'!A0", "none"],
            "mixed": ["@SUM(A1)", -2],
            "message": [None, "-1 is negative"],
        }
    )
    text = table_as_csv(table)
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["trial", "value", "best_epoch", "'=weights", "mixed", "message"]
    assert rows[1] == ["0", "-0.5", "3", "'=cmd|'/c calc'!A0", "'@SUM(A1)", ""]
    assert rows[2] == ["1", "0.25", "", "none", "-2", "'-1 is negative"]
    assert list(table.columns)[3] == "=weights", "the table itself is as it was"


def test_neither_the_table_of_a_search_nor_a_listing_has_formulas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["=1+1", "@SUM(1)", "+2", "-x"]
    config = {
        "dataset": "synthetic",
        "space": {"model": "resnet18", "weights": {"choice": weights}},
        "max_trials": 3,
        "max_epochs": 1,
        "pruner": "none",
    }
    made = make_experiment(tmp_path / "x", parse_config(config, where="test"), [[0.5], [0.25], FAILED])
    table = table_as_csv(read_trials(made))
    code, listed, _ = fmnist(capsys, "trials", made.path, "--format", "csv")
    assert code == 0
    for text in (table, listed):
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len(rows) == 3
        for row in rows:
            assert row["weights"].startswith("'")
            assert plain_text(row["weights"]) in weights
