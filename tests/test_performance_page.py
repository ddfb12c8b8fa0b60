"""The performance page: made of what the benchmarks kept, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.performance import FIGURES, as_markdown, collect, draw, main

ABOUT: dict[str, Any] = {"settings": {}, "machine": {}, "code": {}, "versions": {}, "written": ""}
PEERS = {
    **ABOUT,
    "settings": {"targets": [0.87, 0.88]},
    "is_standard": True,
    "ratios": [
        {
            "figure": "fixed: trials per hour",
            "against": "optuna_loop",
            "pairs": 2,
            "times_better": 3.25,
            "at_least": False,
        }
    ],
    "figures": {
        "fixed: trials per hour": {"ours": {"median": 400.0}, "optuna_loop": {"median": 123.0}},
        "fixed: peak memory, GB": {"ours": {"median": 2.5}},
    },
    "runs": [{"turn": {"what": "target", "contestant": "ours"}, "run": {"best": [[10.0, 0.8], [20.0, 0.88]]}}],
}


def measured(kept: dict[str, Any]) -> dict[str, str]:
    return {row["figure"]: row["measured"] for row in collect(kept)["rows"]}


def test_what_was_not_measured_has_a_row_that_says_so() -> None:
    rows = measured({})
    assert len(rows) == len(FIGURES) + 4 + 3 * 4 + 1
    assert set(rows.values()) == {"not measured"}


@pytest.mark.parametrize(("is_standard", "text"), [(True, "7.3"), (False, "7.3 (with other settings)")])
def test_a_figure_of_other_settings_is_marked(is_standard: bool, text: str) -> None:
    rows = measured({"frozen_prefix": {**ABOUT, "is_standard": is_standard, "fc": {"times_faster": 7.3}}})
    assert rows.pop("`fc`-only ResNet-18, features kept over not") == text
    assert set(rows.values()) == {"not measured"}


def test_peers_have_a_row_each_however_few_have_run() -> None:
    rows = measured({"peer_trials": PEERS})
    assert (
        rows.pop("Trials per hour on fixed work, times as good as (b) Optuna, one process") == "3.25 in 2 pairs of runs"
    )
    assert rows.pop("Peak memory on fixed work, GB") == "fmnist search run 2.5"
    assert set(rows.values()) == {"not measured"}


@pytest.mark.parametrize("kept", [{}, {"peer_trials": PEERS}], ids=["nothing", "some runs"])
def test_the_plot_is_drawn_of_what_there_is_and_is_the_same_each_time(kept: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(collect(kept)["runs"], tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_command_writes_both_files_and_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "peer_trials.json").write_text(json.dumps(PEERS))
    monkeypatch.setattr("sys.argv", ["performance", "--folder", str(tmp_path), "--output", str(tmp_path)])
    main()
    found = json.loads((tmp_path / "performance.json").read_text())
    assert capsys.readouterr().out == as_markdown(found["rows"])
    assert found["made_on"]["peer_trials"]["settings"] == {"targets": [0.87, 0.88]}
    assert (tmp_path / "performance.svg").stat().st_size > 1000
