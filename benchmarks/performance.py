"""The performance page: what the other benchmarks have kept, as one table and one plot.

`python -m benchmarks.performance` writes `docs/performance.json` (each figure with its values, n, commit and settings,
and what it was measured on) and `docs/performance.svg`, and prints the README's table. What was not measured again is
taken from the page as it is, so that a few figures can be measured anew; a row that then is of several commits, or
was measured with uncommitted code or other settings, says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import images_per_second
from benchmarks.peer_trials import BARS, CONTESTANTS, SETTINGS, TARGET_BARS, TARGETS, file_name, seconds_to, show_times
from benchmarks.results import FOLDER, median, show_range
from fmnist_models.files import write_aside
from fmnist_models.output import output_folder
from fmnist_models.paths import expand_home

DOCS = Path(__file__).resolve().parents[1] / "docs"
_PAGE = "performance.json"
_NOT_MEASURED = "not measured"
_COLOURS = {
    "ours": "#0b6e4f",
    "ray_nesting": "#c44536",
    "optuna_loop": "#8a8a8a",
    "optuna_processes": "#4a6fa5",
    "syne_tune_local": "#b8860b",
    "tune_expert": "#7b4f9d",
}
_FIXED = "Trials per hour on fixed work: how many times better than each peer"
_MEMORY = "Peak memory on fixed work, GB"

Kept = Mapping[str, Any]
Source = dict[str, Any]
"""Where a row's figure comes from: ``who`` (a contestant, None in rows of a single figure), ``n``, ``median``,
``values`` (None where only their median was kept), ``commit``, ``is_committed``, ``is_standard``, ``settings`` and
``made_on``, a key of the page's ``made_on``; of ratios also ``at_least``, ``reached`` and ``seconds``, as in
`peer_trials.ratios`."""


@dataclass(frozen=True)
class Figure:
    """``path``: where in the file ``kept``, which ``command`` (the same, if left out) writes, a number or a summary
    is; ``unit``: what is printed after it (%: of a share)."""

    kept: str
    title: str
    bar: str
    path: tuple[str, ...]
    unit: str = ""
    command: str = ""


_AFTER_FIRST = "after the first trials"
_SEARCH_OVER_BARE, _OURS_OVER_PLAIN = "all cores: search over bare loops", "one core: ours over plain"
_OURS_OVER_EXPERT = "one core: ours over expert"
FIGURES = (
    Figure("no_work_trials", "No-work trial", "≤ 0.10 s", ("seconds_per_trial", _AFTER_FIRST, "ours"), " s"),
    Figure(
        "no_work_trials",
        "No-work trial, times as fast as Ray's nesting",
        "≥ 150",
        ("times_faster_than", _AFTER_FIRST, "nesting"),
    ),
    Figure(
        "no_work_trials",
        "No-work trial of two workers, worker group warm",
        "≤ 1 s",
        ("seconds_per_trial", _AFTER_FIRST, "ours-two-workers"),
        " s",
    ),
    Figure(
        images_per_second.file_name("all-cores"),
        "Images per second, a search from its first trial's start to its last one's end over bare loops on all cores",
        f"≥ {images_per_second.BARS[_SEARCH_OVER_BARE]:g}",
        ("figures", _SEARCH_OVER_BARE),
        command="images_per_second all-cores",
    ),
    Figure(
        images_per_second.file_name("all-cores"),
        "The same of the whole command, starting and testing included",
        "",
        ("figures", "all cores: whole command over bare loops"),
        command="images_per_second all-cores",
    ),
    Figure(
        images_per_second.file_name("one-core"),
        "Images per second on one core, our loop over a plain one with a `DataLoader`",
        f"≥ {images_per_second.BARS[_OURS_OVER_PLAIN]:g}",
        ("figures", _OURS_OVER_PLAIN),
        command="images_per_second one-core",
    ),
    Figure(
        images_per_second.file_name("one-core"),
        "Images per second on one core, our loop over an expert's in the same precision",
        f"≥ {images_per_second.BARS[_OURS_OVER_EXPERT]:g}",
        ("figures", _OURS_OVER_EXPERT),
        command="images_per_second one-core",
    ),
    Figure(
        images_per_second.file_name("one-core"),
        "Our loop's share of what the core reaches in matrix products",
        "",
        ("figures", "one core: ours, share of the arithmetic limit"),
        "%",
        "images_per_second one-core",
    ),
    Figure("frozen_prefix", "`fc`-only ResNet-18, features kept over not", "≥ 20", ("fc", "times_faster")),
    Figure(
        "frozen_prefix",
        "`layer4` and `fc` of ResNet-18, features kept over not",
        "≥ 1.8",
        ("layer4+fc", "times_faster"),
    ),
    Figure("many_trials_on_ray", "10,000 no-work trials: last 1,000 over first", "≤ 2", ("last_over_first",)),
    Figure(
        "many_trials_on_ray",
        "10,000 no-work trials: the driver's memory",
        "≤ 1.5 GB",
        ("driver_peak_memory_gb",),
        " GB",
    ),
    Figure(
        "many_trials_on_ray",
        "Epochs reported per second, of 20 no-work trials without pruning",
        "≥ 150",
        ("epochs_per_second",),
    ),
    Figure(
        "many_trials",
        "10,000 trials, study alone: a suggestion to the last 1,000",
        "≤ 50 ms",
        ("thousands", "from 9000", "ms_per_suggestion", "wall"),
        " ms",
    ),
    Figure(
        "many_trials",
        "10,000 trials, study alone: an epoch's report of the last 1,000 (150 a second are 6.7 ms)",
        "≤ 6.7 ms",
        ("thousands", "from 9000", "ms_per_epoch_reported", "wall"),
        " ms",
    ),
    Figure(
        "many_trials",
        "10,000 trials, study alone: resume to the first new trial",
        "≤ 20 s",
        ("seconds_from_resume_to_the_first_new_trial", "wall"),
        " s",
    ),
    Figure("list_trials", "`fmnist trials` of 10,000 trials of 10 epochs", "", ("wall_s",), " s"),
)


def collect(kept: Mapping[str, Kept], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The page: figures of what each benchmark has kept, else of the page ``before``; what each was measured on, and
    the runs for the plot."""
    before = before or {"rows": [], "made_on": {}, "runs": {"best": {}, "targets": []}}
    earlier = {row["figure"]: row["sources"] for row in before["rows"]}
    rows = [
        _row(
            figure.command or figure.kept,
            figure.title,
            figure.bar,
            _sources(kept.get(figure.kept), figure) or earlier.get(figure.title, []),
            unit=figure.unit,
        )
        for figure in FIGURES
    ]
    rows = [*rows[:3], *_peer_rows(kept, earlier), *rows[3:]]
    runs = _runs(kept.get(file_name("target")), before["runs"])
    made_on = {**before["made_on"], **{_key(name, content): _about(content) for name, content in kept.items()}}
    used = {source["made_on"] for row in rows for source in row["sources"]}
    return {
        "rows": [row | {"measured": _measured(row)} for row in rows],
        "runs": runs,
        "made_on": {key: about for key, about in made_on.items() if key in used},
    }


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of ``collect(...)["rows"]``."""
    cells = [[row["figure"], row["bar"], row["measured"], _commits(row), f"`{row['command']}`"] for row in rows]
    header = ["figure", "wanted", "measured: median, range, n", "commit", "`python -m benchmarks.…`"]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw(page: Mapping[str, Any], path: Path) -> None:
    """Left, how many times each peer's trials per hour of fixed work are ours, with the range of the repeats; right,
    the best validation accuracy by time, a line for each run."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture
    from matplotlib.lines import Line2D

    (fixed,) = (row["sources"] for row in page["rows"] if row["figure"] == _FIXED)
    by_peer = {source["who"]: source["values"] for source in fixed if source["values"]}
    runs = page["runs"]
    with mpl.rc_context({"svg.hashsalt": "fmnist", "font.size": 9}):
        picture = Picture(figsize=(9, 3.6), layout="constrained")
        left, right = picture.subplots(1, 2, width_ratios=[1, 1.25])
        names = [who for who in reversed(CONTESTANTS) if who in by_peer]
        for place, who in enumerate(names):
            values, (middle, _) = by_peer[who], median(by_peer[who])
            left.barh(place, middle, color=_COLOURS[who])
            left.plot([min(values), max(values)], [place, place], color="black", linewidth=1.2)
            left.text(max(values), place, f"  {show_range(values).split(',')[0]}", va="center")
        left.axvline(1, color=_COLOURS["ours"], linewidth=1.5)
        left.set_yticks([])
        left.set_xlabel("our trials an hour over the peer's, fixed work")
        left.margins(x=0.15)
        for who, found in runs["best"].items():
            for course in found["courses"]:
                right.step(*zip(*course, strict=True), where="post", color=_COLOURS[who], alpha=0.8)
        for target in runs["targets"]:
            right.axhline(target, color="black", linewidth=0.7, linestyle=":")
            right.set_ylim(max(runs["targets"]) - 0.1, max(runs["targets"]) + 0.03)
        right.set_xlabel("seconds from the start of the program")
        right.set_ylabel("best validation accuracy")
        handles = [Line2D([], [], color=_COLOURS[who], linewidth=4, label=title) for who, title in CONTESTANTS.items()]
        picture.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        picture.savefig(path, metadata={"Date": None})


def main() -> None:
    """Writes both files and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=expand_home, default=FOLDER, help="where the benchmarks' results are")
    parser.add_argument("--output", type=expand_home, default=DOCS, help="where the page's files are, and go")
    arguments = parser.parse_args()
    names = sorted({*map(file_name, SETTINGS), *(figure.kept for figure in FIGURES)})
    paths = {name: arguments.folder / f"{name}.json" for name in names}
    kept = {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}
    folder = output_folder(arguments.output)
    page = folder / _PAGE
    found = collect(kept, json.loads(page.read_text("utf-8")) if page.exists() else None)
    write_aside(page, json.dumps(found, indent=2) + "\n")
    draw(found, folder / "performance.svg")
    print(as_markdown(found["rows"]), end="")


def _row(command: str, figure: str, bar: str, sources: Sequence[Source], *, unit: str = "") -> dict[str, Any]:
    return {"figure": figure, "bar": bar, "command": command, "unit": unit, "sources": list(sources)}


def _sources(kept: Kept | None, figure: Figure) -> list[Source]:
    """One, or none where the figure was not measured."""
    value: Any = kept or {}
    for key in figure.path:
        if key not in value:
            return []
        value = value[key]
    assert kept is not None
    values = value["values"] if isinstance(value, dict) else [value]
    return [_source(figure.kept, kept, values=values)]


def _source(name: str, kept: Kept, *, values: Sequence[float] | None, who: str | None = None, **more: Any) -> Source:
    return {
        "who": who,
        "n": len(values or more["at_least"]),
        "median": median(values, more.get("at_least"))[0] if values else None,
        "values": values,
        **more,
        "commit": kept["code"]["commit"],
        "is_committed": not kept["code"]["changes"],
        "is_standard": kept["is_standard"],
        "settings": kept["settings"],
        "made_on": _key(name, kept),
    }


def _key(name: str, kept: Kept) -> str:
    return f"{name} {kept['written']}"


def _about(kept: Kept) -> dict[str, Any]:
    return {key: kept[key] for key in ("machine", "code", "versions", "written")}


def _measured(row: Mapping[str, Any]) -> str:
    """The cell of the table: of all peers with their letters, or of the one source."""
    if not row["sources"]:
        return _NOT_MEASURED
    if row["sources"][0]["who"] is None:
        text = _told(row["sources"][0], unit=row["unit"])
    else:
        by_who = {source["who"]: source for source in row["sources"]}
        wanted = [who for who in CONTESTANTS if who in by_who or (who in BARS and row["figure"] != _MEMORY)]
        told = (f"{_letter(who)} {_told(by_who[who]) if who in by_who else _NOT_MEASURED}" for who in wanted)
        text = "; ".join(told)
    standard = all(source["is_standard"] for source in row["sources"])
    return text if standard else f"{text} (with other settings)"


def _told(source: Source, *, unit: str = "") -> str:
    """Median, range and n; without a range where the single values were not kept."""
    factor = 100 if unit == "%" else 1
    if "reached" in source:
        text = show_times(source)
    else:
        values = source["values"] or [source["median"]]
        text = show_range([value * factor for value in values], unit=unit)
    return f"{text}, n={source['n']}"


def _commits(row: Mapping[str, Any]) -> str:
    """What the row was measured at, with a mark where it is of several commits or of uncommitted code."""
    commits = list(dict.fromkeys(source["commit"][:7] for source in row["sources"]))
    marks = ["several commits"] if len(commits) > 1 else []
    marks += ["uncommitted code"] if not all(source["is_committed"] for source in row["sources"]) else []
    return ", ".join(commits) + (f" ({', '.join(marks)})" if marks else "")


def _peer_rows(kept: Mapping[str, Kept], earlier: Mapping[str, Sequence[Source]]) -> list[dict[str, Any]]:
    """Ratios, all peers' in one row, and peak memory, of whatever pairs of runs there are."""
    name, ratio = file_name("fixed"), "fixed: trials per hour"
    rows = [_peer_row("fixed", _FIXED, _wanted(BARS), _ratio_sources(name, kept.get(name), ratio), earlier)]
    name = file_name("target")
    for target in TARGETS:
        title = f"Time to a validation accuracy of {target:.1%}: how many times better than each peer"
        sources = _ratio_sources(name, kept.get(name), seconds_to(target))
        rows.append(_peer_row("target", title, _wanted(TARGET_BARS), sources, earlier))
    rows.append(_peer_row("fixed", _MEMORY, "", _memory_sources(kept.get(file_name("fixed"))), earlier))
    return rows


def _wanted(bars: Mapping[str, float]) -> str:
    return "; ".join(f"{_letter(who)} ≥ {bar:g}" for who, bar in bars.items())


def _peer_row(
    what: str, title: str, bar: str, found: Iterator[Source], earlier: Mapping[str, Sequence[Source]]
) -> dict[str, Any]:
    """What was measured now, and of the contestants that were not, what the page had."""
    by_who = {source["who"]: source for source in (*earlier.get(title, ()), *found)}
    return _row(f"peer_trials {what}", title, bar, [by_who[who] for who in CONTESTANTS if who in by_who])


def _ratio_sources(name: str, kept: Kept | None, figure: str) -> Iterator[Source]:
    for row in (kept or {}).get("ratios", ()):
        if kept is not None and row["figure"] == figure:
            more = {key: row[key] for key in ("at_least", "reached", "seconds")}
            yield _source(name, kept, values=row["values"], who=row["against"], **more)


def _memory_sources(kept: Kept | None) -> Iterator[Source]:
    if kept is not None:
        for who, summary in kept["figures"].get("fixed: peak memory, GB", {}).items():
            yield _source(file_name("fixed"), kept, values=summary["values"], who=who)


def _letter(contestant: str) -> str:
    """``(a)``, as in the title of a peer; ``ours``."""
    return contestant if contestant == "ours" else CONTESTANTS[contestant].split()[0]


def _runs(to_target: Kept | None, before: Mapping[str, Any]) -> dict[str, Any]:
    """By contestant, the best values by time of each run to the targets, and the commit; the targets."""
    if to_target is None:
        return dict(before)
    best: dict[str, Any] = {}
    for entry in to_target["runs"]:
        found = best.setdefault(entry["turn"]["contestant"], {"commit": to_target["code"]["commit"], "courses": []})
        found["courses"].append(entry["run"]["best"])
    return {"best": {**before["best"], **best}, "targets": to_target["settings"]["targets"]}


if __name__ == "__main__":
    main()
