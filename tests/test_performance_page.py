"""The performance page: made of what the benchmarks kept, and of nothing else."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.performance import DOCS, FIGURES, as_markdown, collect, draw, main
from benchmarks.results import show_range

ABOUT: dict[str, Any] = {
    "settings": {},
    "machine": {},
    "code": {"commit": "1" * 40, "changes": ""},
    "versions": {},
    "written": "then",
    "is_standard": True,
}


def ratio(figure: str, against: str, values: list[float], **changes: Any) -> dict[str, Any]:
    sides = {"ours": [1.0] * len(values), "theirs": values}
    row = {"at_least": [False] * len(values), "reached": [1.0, 1.0], "seconds": sides, "values": values}
    return {"figure": figure, "against": against, **row, **changes}


FIXED = {
    **ABOUT,
    "ratios": [
        ratio("fixed: trials per hour", "optuna_loop", [3.25, 3.5]),
        ratio("fixed: trials per hour", "ray_nesting", [5.04, 4.0, 12.84]),
    ],
    "figures": {"fixed: peak memory, GB": {"ours": {"values": [2.5, 2.6]}, "ray_nesting": {"values": [5.25]}}},
}
TO_TARGET = {
    **ABOUT,
    "settings": {"targets": [0.87, 0.88]},
    "is_standard": False,
    "ratios": [ratio("0.87: seconds", "optuna_loop", [2.5, 9.0], at_least=[False, True], reached=[1.0, 0.5])],
    "figures": {},
    "runs": [{"turn": {"what": "target", "contestant": "ours"}, "run": {"best": [[10.0, 0.8], [20.0, 0.88]]}}],
}
PEERS = {"peers_fixed": FIXED, "peers_target": TO_TARGET}
FIXED_TITLE = "Trials per hour on fixed work: how many times better than each peer"
FEATURES_TITLE = "`fc`-only ResNet-18, features kept over not"
FEATURES = {**ABOUT, "fc": {"times_faster": {"values": [7.31, 7.0, 7.62]}}}


def measured(kept: dict[str, Any]) -> dict[str, str]:
    return {row["figure"]: row["measured"] for row in collect(kept)["rows"]}


def test_what_was_not_measured_has_a_row_that_says_so() -> None:
    rows = measured({})
    assert len(rows) == len(FIGURES) + 1 + 3 + 1
    assert set(rows.values()) == {"not measured"}


@pytest.mark.parametrize(
    ("is_standard", "text"), [(True, "7.3, 7.0–7.6, n=3"), (False, "7.3, 7.0–7.6, n=3 (with other settings)")]
)
def test_a_figure_of_other_settings_is_marked(is_standard: bool, text: str) -> None:
    rows = measured({"frozen_prefix": {**FEATURES, "is_standard": is_standard}})
    assert rows.pop(FEATURES_TITLE) == text
    assert set(rows.values()) == {"not measured"}


def test_peers_stand_in_one_row_however_few_have_run() -> None:
    rows = measured(PEERS)
    not_measured = "(b2) not measured; (c) not measured; (d) not measured"
    assert rows.pop(FIXED_TITLE) == f"(a) 5.0, 4.0–12.8, n=3; (b) 3.4, 3.2–3.5, n=2; {not_measured}"
    assert rows.pop("Peak memory on fixed work, GB") == "ours 2.5, 2.5–2.6, n=2; (a) 5.2, n=1"
    title = "Time to a validation accuracy of 87.0%: how many times better than each peer"
    loop = "(b) ≥ 5.8, 2.5–≥ 9.0 (reached by 100% of our runs, 50% of theirs), n=2"
    assert rows.pop(title) == f"(a) not measured; {loop}; {not_measured} (with other settings)"
    assert set(rows.values()) == {"not measured"}


def test_what_is_measured_again_replaces_its_own_figures_and_no_others() -> None:
    before = collect({**PEERS, "frozen_prefix": FEATURES})
    assert collect({}, before) == before

    code = {"commit": "2" * 40, "changes": "abc"}
    again = [ratio("fixed: trials per hour", who, [2.0, 2.0]) for who in ("tune_expert", "optuna_loop")]
    page = collect({"peers_fixed": {**FIXED, "ratios": again, "code": code, "written": "now"}}, before)
    rows = {row["figure"]: row for row in page["rows"]}
    told = "(a) 5.0, 4.0–12.8, n=3; (b) 2.0, 2.0–2.0, n=2; (b2) not measured; (c) not measured; (d) 2.0, 2.0–2.0, n=2"
    assert rows[FIXED_TITLE]["measured"] == told
    assert rows[FEATURES_TITLE] == {row["figure"]: row for row in before["rows"]}[FEATURES_TITLE]
    assert set(page["made_on"]) == {"frozen_prefix then", "peers_fixed then", "peers_fixed now", "peers_target then"}
    table = as_markdown(page["rows"])
    assert "| 1111111, 2222222 (several commits, uncommitted code) | `peer_trials fixed` |" in table
    assert "n=3 | 1111111 | `frozen_prefix` |" in table


@pytest.mark.parametrize("kept", [{}, PEERS], ids=["nothing", "some runs"])
def test_the_plot_is_drawn_of_what_there_is_and_is_the_same_each_time(kept: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(collect(kept), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_command_writes_both_files_and_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kept in PEERS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    monkeypatch.setattr("sys.argv", ["performance", "--folder", str(tmp_path), "--output", str(tmp_path)])
    main()
    page = (tmp_path / "performance.json").read_text()
    table = as_markdown(json.loads(page)["rows"])
    assert capsys.readouterr().out == table
    assert (tmp_path / "performance.svg").stat().st_size > 1000

    for name in PEERS:
        (tmp_path / f"{name}.json").unlink()
    main()
    assert capsys.readouterr().out == table
    assert (tmp_path / "performance.json").read_text() == page


def test_the_readme_has_the_table_and_the_plot_of_the_page() -> None:
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    assert as_markdown(json.loads((DOCS / "performance.json").read_text("utf-8"))["rows"]) in readme
    assert "](docs/performance.svg)" in readme


def test_every_figure_of_the_page_says_what_it_comes_from() -> None:
    """Single values, unless only their median was kept, which then is said; n, commit and settings."""
    page = json.loads((DOCS / "performance.json").read_text("utf-8"))
    sources = [source for row in page["rows"] for source in row["sources"]]
    assert len(sources) > 20
    for source in sources:
        if source["values"] is None:
            assert "single values were not kept" in source["remark"]
        else:
            assert len(source["values"]) == source["n"]
            assert source["median"] == pytest.approx(statistics.median(source["values"]))
        assert len(source["commit"]) == 40
        assert source["settings"]
        assert source["made_on"] in page["made_on"]
        if "seconds" in source:
            pairs = zip(source["seconds"]["theirs"], source["seconds"]["ours"], strict=True)
            assert source["values"] == pytest.approx([theirs / ours for theirs, ours in pairs], rel=0.01)


@pytest.mark.parametrize(
    ("values", "at_least", "text"),
    [
        ([5.31, 12.77, 7.3], None, "7.3, 5.3–12.8"),
        ([0.0364, 0.035, 0.04], None, "0.036, 0.035–0.040"),
        ([313.4, 290, 350], None, "310, 290–350"),
        ([9.96], None, "10"),
        ([0.0], None, "0.0"),
        ([3.1, 5.8, 9.8], [False, False, True], "5.8, 3.1–≥ 9.8"),  # the median is the same however large the last is
        ([4.2, 7.7, 7.9], [False, True, True], "≥ 7.7, 4.2–≥ 7.9"),
        ([2.0, 5.0, 7.0], [True, False, False], "≥ 5.0, ≥ 2.0–≥ 7.0"),  # the bound may be of the largest
        ([2.0, 4.0], [False, True], "≥ 3.0, 2.0–≥ 4.0"),
    ],
)
def test_a_range_has_the_digits_that_its_median_has(
    values: list[float], at_least: list[bool] | None, text: str
) -> None:
    assert show_range(values, at_least) == text
