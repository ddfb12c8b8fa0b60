"""The performance page: made of what the benchmarks kept, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.performance import DOCS, FIGURES, as_markdown, collect, draw, main

ABOUT: dict[str, Any] = {"settings": {}, "machine": {}, "code": {}, "versions": {}, "written": ""}
FIXED = {
    **ABOUT,
    "is_standard": True,
    "ratios": [
        {
            "figure": "fixed: trials per hour",
            "against": against,
            "pairs": pairs,
            "times_better": times,
            "at_least": False,
        }
        for against, pairs, times in (("optuna_loop", 2, 3.25), ("ray_nesting", 3, 5.0))
    ],
    "figures": {
        "fixed: trials per hour": {"ours": {"median": 400.0}, "optuna_loop": {"median": 123.0}},
        "fixed: peak memory, GB": {"ours": {"median": 2.5, "n": 3}, "ray_nesting": {"median": 5.25, "n": 2}},
    },
    "runs": [],
}
TO_TARGET = {
    **ABOUT,
    "settings": {"targets": [0.87, 0.88]},
    "is_standard": False,
    "ratios": [
        {
            "figure": "0.87: seconds",
            "against": "optuna_loop",
            "pairs": 2,
            "times_better": 2.5,
            "at_least": True,
            "reached": [1.0, 0.5],
        }
    ],
    "figures": {},
    "runs": [{"turn": {"what": "target", "contestant": "ours"}, "run": {"best": [[10.0, 0.8], [20.0, 0.88]]}}],
}
PEERS = {"peers_fixed": FIXED, "peers_target": TO_TARGET}


def measured(kept: dict[str, Any]) -> dict[str, str]:
    return {row["figure"]: row["measured"] for row in collect(kept)["rows"]}


def test_what_was_not_measured_has_a_row_that_says_so() -> None:
    rows = measured({})
    assert len(rows) == len(FIGURES) + 1 + 3 + 1
    assert set(rows.values()) == {"not measured"}


@pytest.mark.parametrize(("is_standard", "text"), [(True, "7.3"), (False, "7.3 (with other settings)")])
def test_a_figure_of_other_settings_is_marked(is_standard: bool, text: str) -> None:
    rows = measured({"frozen_prefix": {**ABOUT, "is_standard": is_standard, "fc": {"times_faster": 7.3}}})
    assert rows.pop("`fc`-only ResNet-18, features kept over not") == text
    assert set(rows.values()) == {"not measured"}


def test_peers_stand_in_one_row_however_few_have_run() -> None:
    rows = measured(PEERS)
    title = "Trials per hour on fixed work: how many times better than each peer"
    assert rows.pop(title) == "(a) 5.00, n=3; (b) 3.25, n=2"
    assert rows.pop("Peak memory on fixed work, GB") == "ours 2.5, n=3; (a) 5.2, n=2"
    title = "Time to a validation accuracy of 87.0%: how many times better than each peer"
    told = "(b) ≥ 2.50 (reached by 100% of our runs, 50% of theirs), n=2 (with other settings)"
    assert rows.pop(title) == told
    assert set(rows.values()) == {"not measured"}


@pytest.mark.parametrize("kept", [{}, PEERS], ids=["nothing", "some runs"])
def test_the_plot_is_drawn_of_what_there_is_and_is_the_same_each_time(kept: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(collect(kept)["runs"], tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_command_writes_both_files_and_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kept in PEERS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    monkeypatch.setattr("sys.argv", ["performance", "--folder", str(tmp_path), "--output", str(tmp_path)])
    main()
    found = json.loads((tmp_path / "performance.json").read_text())
    assert capsys.readouterr().out == as_markdown(found["rows"])
    assert found["made_on"]["peers_target"]["settings"] == {"targets": [0.87, 0.88]}
    assert (tmp_path / "performance.svg").stat().st_size > 1000


def test_the_readme_has_the_table_and_the_plot_of_the_page() -> None:
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    assert as_markdown(json.loads((DOCS / "performance.json").read_text("utf-8"))["rows"]) in readme
    assert "](docs/performance.svg)" in readme
