"""The performance page: what the other benchmarks have kept, as one table and one plot.

`python -m benchmarks.performance` writes `docs/performance.json` (the figures, and what each was measured on) and
`docs/performance.svg`, and prints the README's table. What was not measured, or with other settings, is said to be so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import images_per_second
from benchmarks.peer_trials import BARS, CONTESTANTS, SETTINGS, TARGET_BAR, TARGETS, file_name, seconds_to, show_times
from benchmarks.results import FOLDER
from fmnist_models.files import write_aside
from fmnist_models.output import output_folder
from fmnist_models.paths import expand_home

DOCS = Path(__file__).resolve().parents[1] / "docs"
_NOT_MEASURED, _OTHERWISE = "not measured", " (with other settings)"
_COLOURS = {
    "ours": "#0b6e4f",
    "ray_nesting": "#c44536",
    "optuna_loop": "#8a8a8a",
    "optuna_processes": "#4a6fa5",
    "syne_tune_local": "#b8860b",
}
_PEERS = "peer_trials"

Kept = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """``path``: where in the file ``kept``, which ``command`` (the same, if left out) writes; ``form``: how it is
    printed, with its unit."""

    kept: str
    title: str
    bar: str
    path: tuple[str, ...]
    form: str
    command: str = ""


_AFTER_FIRST = "after the first trials"
_SEARCH_OVER_BARE, _OURS_OVER_PLAIN = "all cores: search over bare loops", "one core: ours over plain"
FIGURES = (
    Figure(
        "no_work_trials", "No-work trial", "≤ 0.10 s", ("seconds_per_trial", _AFTER_FIRST, "ours", "median"), "{:.3f} s"
    ),
    Figure(
        "no_work_trials",
        "No-work trial, times as fast as Ray's nesting",
        "≥ 150",
        ("times_faster_than", _AFTER_FIRST, "nesting"),
        "{:.0f}",
    ),
    Figure(
        "no_work_trials",
        "No-work trial of two workers, worker group warm",
        "≤ 1 s",
        ("seconds_per_trial", _AFTER_FIRST, "ours-two-workers", "median"),
        "{:.2f} s",
    ),
    Figure(
        images_per_second.file_name("all-cores"),
        "Images per second, a search from its first trial's start to its last one's end over bare loops on all cores",
        f"≥ {images_per_second.BARS[_SEARCH_OVER_BARE]:g}",
        ("figures", _SEARCH_OVER_BARE, "median"),
        "{:.2f}",
        "images_per_second all-cores",
    ),
    Figure(
        images_per_second.file_name("all-cores"),
        "The same of the whole command, starting and testing included",
        "",
        ("figures", "all cores: whole command over bare loops", "median"),
        "{:.2f}",
        "images_per_second all-cores",
    ),
    Figure(
        images_per_second.file_name("one-core"),
        "Images per second on one core, our loop over a plain one",
        f"≥ {images_per_second.BARS[_OURS_OVER_PLAIN]:g}",
        ("figures", _OURS_OVER_PLAIN, "median"),
        "{:.2f}",
        "images_per_second one-core",
    ),
    Figure(
        images_per_second.file_name("one-core"),
        "Our loop's share of what the core reaches in matrix products",
        "",
        ("figures", "one core: ours, share of the arithmetic limit", "median"),
        "{:.0%}",
        "images_per_second one-core",
    ),
    Figure("frozen_prefix", "`fc`-only ResNet-18, features kept over not", "≥ 20", ("fc", "times_faster"), "{:.1f}"),
    Figure(
        "frozen_prefix",
        "`layer4` and `fc` of ResNet-18, features kept over not",
        "≥ 1.8",
        ("layer4+fc", "times_faster"),
        "{:.1f}",
    ),
    Figure("many_trials_on_ray", "10,000 no-work trials: last 1,000 over first", "≤ 2", ("last_over_first",), "{:.2f}"),
    Figure(
        "many_trials_on_ray",
        "10,000 no-work trials: the driver's memory",
        "≤ 1.5 GB",
        ("driver_peak_memory_gb",),
        "{:.2f} GB",
    ),
    Figure(
        "many_trials_on_ray",
        "Epochs reported a second, of 20 no-work trials that nobody prunes",
        "≥ 150",
        ("epochs_per_second",),
        "{:d}",
    ),
    Figure(
        "many_trials",
        "10,000 trials, study alone: a suggestion to the last 1,000",
        "≤ 50 ms",
        ("thousands", "from 9000", "ms_per_suggestion", "wall"),
        "{:.0f} ms",
    ),
    Figure(
        "many_trials",
        "10,000 trials, study alone: an epoch's report of the last 1,000 (150 a second are 6.7 ms)",
        "≤ 6.7 ms",
        ("thousands", "from 9000", "ms_per_epoch_reported", "wall"),
        "{:.2f} ms",
    ),
    Figure(
        "many_trials",
        "10,000 trials, study alone: resume to the first new trial",
        "≤ 20 s",
        ("seconds_from_resume_to_the_first_new_trial", "wall"),
        "{:.1f} s",
    ),
    Figure("list_trials", "`fmnist trials` of 10,000 trials of 10 epochs", "", ("wall_s",), "{:.1f} s"),
)


def collect(kept: Mapping[str, Kept]) -> dict[str, Any]:
    """The figures of what each benchmark has kept, what each was measured on, and the runs for the plot."""
    rows = [_row(figure.command or figure.kept, figure.title, figure.bar, _show(kept, figure)) for figure in FIGURES]
    fixed, to_target = (kept.get(file_name(what), {}) for what in ("fixed", "target"))
    about = ("settings", "is_standard", "machine", "code", "versions", "written")
    return {
        "rows": [*rows[:3], *_peer_rows(fixed, to_target), *rows[3:]],
        "runs": _runs(fixed, to_target),
        "made_on": {name: {key: content[key] for key in about} for name, content in kept.items()},
    }


def as_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of ``collect(...)["rows"]``."""
    cells = [[row["figure"], row["bar"], row["measured"], f"`{row['command']}`"] for row in rows]
    header = ["figure", "wanted", "measured", "`python -m benchmarks.…`"]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw(runs: Mapping[str, Any], path: Path) -> None:
    """Left, trials per hour of fixed work; right, the best validation accuracy by time, a line for each run."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture
    from matplotlib.lines import Line2D

    with mpl.rc_context({"svg.hashsalt": "fmnist", "font.size": 9}):
        picture = Picture(figsize=(9, 3.6), layout="constrained")
        left, right = picture.subplots(1, 2, width_ratios=[1, 1.25])
        names = [who for who in reversed(CONTESTANTS) if who in runs["trials_per_hour"]]
        rates = [runs["trials_per_hour"][who] for who in names]
        bars = left.barh(range(len(names)), rates, color=[_COLOURS[who] for who in names])
        left.bar_label(bars, fmt="%.0f", padding=3)
        left.set_yticks([])
        left.set_xlabel("trials an hour, fixed work")
        left.margins(x=0.15)
        for who, courses in runs["best"].items():
            for course in courses:
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
    parser.add_argument("--output", type=expand_home, default=DOCS, help="where the page's files go")
    arguments = parser.parse_args()
    names = sorted({*map(file_name, SETTINGS), *(figure.kept for figure in FIGURES)})
    paths = {name: arguments.folder / f"{name}.json" for name in names}
    found = collect({name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()})
    folder = output_folder(arguments.output)
    write_aside(folder / "performance.json", json.dumps(found, indent=2) + "\n")
    draw(found["runs"], folder / "performance.svg")
    print(as_markdown(found["rows"]), end="")


def _row(command: str, figure: str, bar: str, measured: str) -> dict[str, str]:
    return {"figure": figure, "bar": bar, "measured": measured, "command": command}


def _show(kept: Mapping[str, Kept], figure: Figure) -> str:
    value: Any = kept.get(figure.kept, {})
    for key in figure.path:
        if key not in value:
            return _NOT_MEASURED
        value = value[key]
    return figure.form.format(value) + _remark(kept[figure.kept])


def _peer_rows(fixed: Kept, to_target: Kept) -> list[dict[str, str]]:
    """Ratios, all peers' in one row, and peak memory, of whatever pairs of runs there are."""
    rows = [_ratio_row("fixed", fixed, "fixed: trials per hour", "Trials per hour on fixed work", BARS)]
    for target in TARGETS:
        title = f"Time to a validation accuracy of {target:.1%}"
        rows.append(_ratio_row("target", to_target, seconds_to(target), title, dict.fromkeys(BARS, TARGET_BAR)))
    memory = fixed.get("figures", {}).get("fixed: peak memory, GB", {})
    told = "; ".join(
        f"{_letter(who)} {memory[who]['median']:.1f}, n={memory[who]['n']}" for who in CONTESTANTS if who in memory
    )
    measured = told + _remark(fixed) if told else _NOT_MEASURED
    return [*rows, _row(f"{_PEERS} fixed", "Peak memory on fixed work, GB", "", measured)]


def _ratio_row(what: str, peers: Kept, figure: str, title: str, bars: Mapping[str, float]) -> dict[str, str]:
    ratios = {row["against"]: row for row in peers.get("ratios", ()) if row["figure"] == figure}
    found = [ratios[who] for who in bars if who in ratios]
    told = "; ".join(f"{_letter(row['against'])} {show_times(row)}, n={row['pairs']}" for row in found)
    wanted = "; ".join(f"{_letter(who)} ≥ {bar:g}" for who, bar in bars.items())
    measured = told + _remark(peers) if told else _NOT_MEASURED
    return _row(f"{_PEERS} {what}", f"{title}: how many times better than each peer", wanted, measured)


def _remark(kept: Kept) -> str:
    return "" if kept["is_standard"] else _OTHERWISE


def _letter(contestant: str) -> str:
    """``(a)``, as in the title of a peer; ``ours``."""
    return contestant if contestant == "ours" else CONTESTANTS[contestant].split()[0]


def _runs(fixed: Kept, to_target: Kept) -> dict[str, Any]:
    """Trials per hour by contestant; for each run to the targets its best values by time; the targets."""
    rates = fixed.get("figures", {}).get("fixed: trials per hour", {})
    best: dict[str, list[Any]] = {}
    for entry in to_target.get("runs", ()):
        best.setdefault(entry["turn"]["contestant"], []).append(entry["run"]["best"])
    return {
        "trials_per_hour": {who: values["median"] for who, values in rates.items()},
        "best": best,
        "targets": to_target["settings"]["targets"] if to_target else [],
    }


if __name__ == "__main__":
    main()
