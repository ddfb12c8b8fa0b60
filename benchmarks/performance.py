"""The performance page: what the other benchmarks have kept, as one table and one plot.

`python -m benchmarks.performance` writes `docs/performance.json` (the figures, and what each was measured on) and
`docs/performance.svg`, and prints the README's table. What was not measured is said to be so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peer_trials import CONTESTANTS, show_times
from benchmarks.results import FOLDER
from fmnist_models.files import write_aside

DOCS = Path(__file__).resolve().parents[1] / "docs"
_NOT_MEASURED = "not measured"
_COLOURS = {
    "ours": "#0b6e4f",
    "ray_nesting": "#c44536",
    "optuna_loop": "#8a8a8a",
    "optuna_processes": "#4a6fa5",
    "syne_tune_local": "#b8860b",
}

Kept = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure of one benchmark: what was wanted, what came out, and which command measures it."""

    figure: str
    bar: str
    measured: str
    command: str


def no_work_trials(kept: Kept | None) -> list[Row]:
    def show(parts: Kept, who: str) -> str:
        return f"{parts[who]['median']:.3g} s" if who in parts else _NOT_MEASURED

    after = {} if kept is None else kept["seconds_per_trial"]["after the first trials"]
    measured = _NOT_MEASURED
    if kept is not None:
        times = kept["times_faster_than"]["after the first trials"].get("nesting")
        measured = show(after, "ours") + (f"; {times:.0f}x faster" if times else "")
    rows = [("No-work trial, against Ray's nesting", "≥ 150x, ≤ 0.10 s", measured)]
    rows += [("No-work trial of two workers, worker group warm", "≤ 1 s", show(after, "ours-two-workers"))]
    return _rows("no_work_trials", rows)


def peer_trials(kept: Kept | None) -> list[Row]:
    bars = {"fixed: trials per hour": "Trials per hour, fixed work", "target: seconds": "Time to an accuracy"}
    if kept is None:
        return _rows("peer_trials", [(figure, "", _NOT_MEASURED) for figure in bars.values()])
    rows = [
        (f"{bars[row['figure']]}, against {CONTESTANTS[row['against']]}", f"≥ {row['bar']:g}x", show_times(row))
        for row in kept["ratios"]
    ]
    return _rows("peer_trials", rows)


def images_per_second(kept: Kept | None) -> list[Row]:
    figures = {
        "all cores: search over bare loops": ("Images per second, search over bare loops on all cores", "≥ 0.95"),
        "one core: ours over plain": ("Images per second on one core, our loop over a plain one", "≥ 2.5x"),
        "one core: ours, share of the arithmetic limit": ("Share of the processor's arithmetic, our loop", ""),
    }
    found = {} if kept is None else kept["figures"]
    rows = [
        (title, bar, f"{found[name]['median']:.2f}" if name in found else _NOT_MEASURED)
        for name, (title, bar) in figures.items()
    ]
    return _rows("images_per_second", rows)


def frozen_prefix(kept: Kept | None) -> list[Row]:
    rows = [
        (
            f"ResNet-18 trial of {stages.replace('+', ' and ')}, features kept over not",
            f"≥ {bar}x",
            _NOT_MEASURED if kept is None else f"{kept[stages]['times_faster']}x",
        )
        for stages, bar in (("fc", "20"), ("layer4+fc", "1.8"))
    ]
    return _rows("frozen_prefix", rows)


def many_trials(kept: Kept | None) -> list[Row]:
    figures: list[tuple[str, str, Callable[[Kept], str]]] = [
        ("10,000 trials: last thousand over first", "≤ 2x", lambda kept: f"{kept['last_over_first']['wall']:.2f}x"),
        ("10,000 trials: memory of the study", "≤ 1.5 GB", lambda kept: f"{kept['peak_memory_gb']:.2f} GB"),
        (
            "10,000 trials: suggestion, last thousand",
            "≤ 50 ms",
            lambda kept: f"{list(kept['thousands'].values())[-1]['ms_per_suggestion']['wall']:.0f} ms",
        ),
        (
            "10,000 trials: resume to the first new trial",
            "≤ 20 s",
            lambda kept: f"{kept['seconds_from_resume_to_the_first_new_trial']['wall']:.1f} s",
        ),
        (
            "Epochs taken in a second, last thousand trials",
            "≥ 150",
            lambda kept: f"{1e3 / list(kept['thousands'].values())[-1]['ms_per_epoch_reported']['wall']:.0f}",
        ),
    ]
    is_whole = kept is not None and kept["settings"]["trials"] == 10_000
    rows = [(title, bar, show(kept) if is_whole and kept else _NOT_MEASURED) for title, bar, show in figures]
    return _rows("many_trials", rows)


def list_trials(kept: Kept | None) -> list[Row]:
    measured = _NOT_MEASURED if kept is None else f"{kept['wall_s']:.1f} s, {kept['peak_mb']:.0f} MB"
    return _rows("list_trials", [("`fmnist trials` of 10,000 trials with 10 epochs each", "", measured)])


PARTS: Sequence[Callable[[Kept | None], list[Row]]] = (
    no_work_trials,
    peer_trials,
    images_per_second,
    frozen_prefix,
    many_trials,
    list_trials,
)


def collect(folder: Path) -> dict[str, Any]:
    """The figures of all benchmarks, what each was measured on, and how the runs for the plot went."""
    rows: list[Row] = []
    made_on = {}
    for part in PARTS:
        path = folder / f"{part.__name__}.json"
        kept = json.loads(path.read_text("utf-8")) if path.exists() else None
        rows += part(kept)
        if kept is not None:
            made_on[part.__name__] = {name: kept[name] for name in ("machine", "code", "versions", "written")}
            if part is peer_trials:
                made_on[part.__name__]["settings"] = kept["settings"]
    return {"rows": [asdict(row) for row in rows], "runs": _courses(folder), "made_on": made_on}


def as_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of ``collect(...)["rows"]``; the commands' common beginning is left to the text around it."""
    cells = [[row["figure"], row["bar"], row["measured"], f"`{row['command']}`"] for row in rows]
    header = ["", "wanted", "measured", "`benchmarks.…`"]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Left, trials per hour of fixed work; right, the best validation accuracy by time, a line for each run."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "fmnist", "font.size": 9}):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
        rates = found["runs"]["trials_per_hour"]
        names = [who for who in reversed(CONTESTANTS) if who in rates]
        bars = left.barh(names, [rates[who] for who in names], color=[_COLOURS[who] for who in names])
        left.bar_label(bars, fmt="%.0f", padding=3)
        left.set_yticks(range(len(names)), [CONTESTANTS[who] for who in names])
        left.set_xlabel("trials an hour, fixed work")
        left.margins(x=0.15)
        for who, courses in found["runs"]["best"].items():
            for course in courses:
                seconds, accuracies = zip(*course, strict=True)
                right.step(seconds, accuracies, where="post", color=_COLOURS[who], alpha=0.8)
        right.set_xlabel("seconds from the start of the program")
        right.set_ylabel("best validation accuracy")
        right.set_ylim(0.75, 0.92)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Writes both files and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the benchmarks' results are")
    parser.add_argument("--output", type=Path, default=DOCS, help="where the page's files go")
    arguments = parser.parse_args()
    found = collect(arguments.folder)
    write_aside(arguments.output / "performance.json", json.dumps(found, indent=2) + "\n")
    if found["runs"]["best"]:
        draw(found, arguments.output / "performance.svg")
    print(as_markdown(found["rows"]), end="")


def _rows(command: str, rows: Sequence[tuple[str, str, str]]) -> list[Row]:
    return [Row(figure=figure, bar=bar, measured=measured, command=command) for figure, bar, measured in rows]


def _courses(folder: Path) -> dict[str, Any]:
    """Of the peers' runs: trials per hour by contestant, and for each run to the target its best values by time."""
    path = folder / "peer_trials.json"
    if not path.exists():
        return {"trials_per_hour": {}, "best": {}}
    kept = json.loads(path.read_text("utf-8"))
    rates = {who: values["median"] for who, values in kept["figures"].get("fixed: trials per hour", {}).items()}
    best: dict[str, list[Any]] = {}
    for entry in kept["runs"]:
        if entry["turn"]["what"] == "target":
            best.setdefault(entry["turn"]["contestant"], []).append(entry["run"]["best"])
    return {"trials_per_hour": rates, "best": best}


if __name__ == "__main__":
    main()
