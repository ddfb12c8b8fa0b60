"""Our search beside those of others (`benchmarks/peers/`), each a program from its start to its end: trials per hour on
fixed work, the time to validation accuracies with early stopping, and memory.

`python -m benchmarks.peer_trials [fixed] [target] [--only ours PEER ...]`. Contestants take turns, in the opposite
order each time. What is measured is kept in `benchmarks/results/` after each run, and the same command goes on where it
ended, so it may be stopped at any time; with other settings, code, versions or processor, or without that file it
begins anew. With early stopping all halve asynchronously, by thirds, from the first epoch on, and take the same
configurations in the same order, until the highest of the targets is reached. 5,000 images are trained on and as many
validate: of a few hundred luck decides when a target is reached. Each repeat has configurations of its own, since one
that is soon good would decide alone; so ratios are of the two runs of one repeat.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.configurations import VALIDATION_FRACTION, draw
from benchmarks.measured_run import MeasuredRun, run
from benchmarks.peers.job import Job
from benchmarks.peers.syne_tune_venv import CONSTRAINTS, ensure_python
from benchmarks.results import FOLDER, code, keep, machine, print_table, show, show_range, summarise
from benchmarks.split import write_split
from benchmarks.unpacked import unpack_images
from search.records.versions import collect_versions
from search.running.slots import local_resources

CONTESTANTS = {
    "ours": "fmnist search run",
    "ray_nesting": "(a) Ray Tune over Ray Train",
    "optuna_loop": "(b) Optuna, one process",
    "optuna_processes": "(b2) Optuna, processes on a journal",
    "syne_tune_local": "(c) Syne Tune, local backend",
    "tune_expert": "(d) Ray Tune by an expert",
}
BARS = {"ray_nesting": 4.0, "optuna_loop": 3.0, "optuna_processes": 2.0, "syne_tune_local": 2.0, "tune_expert": 1.0}
TARGET_BARS = dict.fromkeys(BARS, 2.0) | {"tune_expert": 1.0}
TARGETS = (0.87, 0.88, 0.885)
SETTINGS = {
    "fixed": ("trials", "epochs", "images"),
    "target": ("target_trials", "target_epochs", "target_images", "target_validation", "targets"),
}
"""By what is measured: the arguments that decide a run of it."""

_Pairs = Sequence[tuple[MeasuredRun, MeasuredRun]]


@dataclasses.dataclass(frozen=True)
class Turn:
    """A run that has to be made: what is measured, by whom, and which time."""

    what: str
    contestant: str
    repeat: int


def turns(what: str, contestants: Sequence[str], repeats: int) -> list[Turn]:
    return [
        Turn(what, contestant, repeat)
        for repeat in range(repeats)
        for contestant in (contestants if repeat % 2 == 0 else contestants[::-1])
    ]


def measure(turn: Turn, arguments: argparse.Namespace, *, images: Path, folder: Path) -> MeasuredRun:
    to_target = turn.what == "target"
    job = Job(
        configurations=draw(arguments.target_trials, seed=turn.repeat) if to_target else draw(arguments.trials, seed=0),
        num_epochs=arguments.target_epochs if to_target else arguments.epochs,
        early_stopping=to_target,
        num_images=arguments.target_images if to_target else arguments.images,
        validation_fraction=arguments.target_validation if to_target else VALIDATION_FRACTION,
        num_trials_at_once=local_resources().cpus,
        data_dir=str(images),
        folder=str(folder),
    )
    write_split(job)
    return run(
        f"benchmarks.peers.{turn.contestant}",
        job,
        python=ensure_python() if turn.contestant == "syne_tune_local" else None,
        target=max(arguments.targets) if to_target else None,
    )


def seconds_to(target: float) -> str:
    """The name of a figure."""
    return f"{target:g}: seconds"


def _reached(target: float) -> str:
    return f"{target:g}: share of runs that reached it"


def figures(runs: dict[Turn, MeasuredRun], arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Figure → contestant → values, one for each repeat; seconds to a target are at least those of a run that never
    gets there."""
    found: dict[str, dict[str, list[float]]] = {}
    for turn, measured in runs.items():
        values: dict[str, float] = {f"{turn.what}: peak memory, GB": measured.peak_memory_bytes / 1e9}
        if turn.what == "fixed":
            trained = measured.num_epochs * arguments.images * (1 - VALIDATION_FRACTION)
            values |= {
                "fixed: trials per hour": arguments.trials / measured.seconds * 3600,
                "fixed: images per second": trained / measured.seconds,
                "fixed: best validation accuracy": measured.best[-1][1],
                "fixed: mean validation accuracy of the trials": measured.mean_accuracy,
            }
        else:
            for target in arguments.targets:
                time_s = measured.seconds_to(target)
                values[seconds_to(target)] = measured.seconds if time_s is None else time_s
                values[_reached(target)] = float(time_s is not None)
        for name, value in values.items():
            found.setdefault(name, {}).setdefault(turn.contestant, []).append(value)
    return found


def ratios(runs: dict[Turn, MeasuredRun], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """How many times better ours is: one value for each repeat that both have made, with the bar that was set.

    ``values`` is None where ours missed the target in one of them; ``at_least`` says for each whether it is a lower
    bound, as the other missed it; ``reached`` are the shares of the runs, of ours and of the other, that reached it;
    ``seconds`` are those of ours and of the other.
    """
    rows = []
    comparisons: list[tuple[str, str, float | None]] = [
        ("fixed", "fixed: trials per hour", None),
        *(("target", seconds_to(target), target) for target in arguments.targets),
    ]
    for what, name, target in comparisons:
        for contestant, bar in BARS.items():
            pairs = [
                (runs[turn_of_ours], theirs)
                for turn, theirs in runs.items()
                if (turn.what, turn.contestant) == (what, contestant)
                and (turn_of_ours := dataclasses.replace(turn, contestant="ours")) in runs
            ]
            if pairs:
                about = {"figure": name, "against": contestant, "pairs": len(pairs)}
                wanted = bar if target is None else TARGET_BARS[contestant]
                rows.append({**about, **_compare(pairs, target), "bar": wanted})
    return rows


def _compare(pairs: _Pairs, target: float | None) -> dict[str, Any]:
    """Seconds of the other over seconds of ours, to the ``target`` or to the end."""
    reached, seconds = [], []
    for side in zip(*pairs, strict=True):
        times = [run.seconds if target is None else run.seconds_to(target) for run in side]
        reached.append([time_s is not None for time_s in times])
        seconds.append([run.seconds if time_s is None else time_s for run, time_s in zip(side, times, strict=True)])
    ours, theirs = seconds
    return {
        "values": [round(b / a, 3) for a, b in zip(ours, theirs, strict=True)] if all(reached[0]) else None,
        "at_least": [not each for each in reached[1]],
        "reached": [sum(each) / len(pairs) for each in reached],
        "seconds": {"ours": [round(s, 1) for s in ours], "theirs": [round(s, 1) for s in theirs]},
    }


def show_times(row: Mapping[str, Any]) -> str:
    """A row of ``ratios``: ``2.5`` with the range of several, a lower bound as ``≥ 2.5``, or ``not reached``, with the
    shares of runs that reached the target."""
    text = "not reached" if row["values"] is None else show_range(row["values"], row["at_least"])
    if min(row["reached"]) == 1:
        return text
    ours, theirs = row["reached"]
    return f"{text} (reached by {ours:.0%} of our runs, {theirs:.0%} of theirs)"


def made_on() -> dict[str, Any]:
    """All that measurements have to agree in to stand side by side: code, versions and processor."""
    here, mine = machine(), code()
    return {
        "code": {"files": mine["files"], "changes": mine["changes"]},  # a commit of documents alone is none of them
        "versions": collect_versions(),
        "peers": CONSTRAINTS.read_text("utf-8").splitlines(),
        "processor": [here["processor"], here["cpus"]],
    }


def file_name(what: str) -> str:
    """What the runs are kept as."""
    return f"peers_{what}"


def load(what: str, settings: dict[str, Any]) -> dict[Turn, MeasuredRun]:
    """The runs of an earlier call with the same settings, if it was ``made_on`` the same."""
    path = FOLDER / f"{file_name(what)}.json"
    if not path.exists():
        return {}
    kept = json.loads(path.read_text("utf-8"))
    made = made_on()
    if kept["settings"] != settings or kept.get("made_on") != made or made["code"]["files"] == "unknown":
        return {}
    return {Turn(**entry["turn"]): _parse_run(entry["run"]) for entry in kept["runs"]}


def _parse_run(entry: dict[str, Any]) -> MeasuredRun:
    best = [(seconds, accuracy) for seconds, accuracy in entry["best"]]
    return MeasuredRun(**entry | {"best": best, "load_average": tuple(entry["load_average"])})


def save(what: str, runs: dict[Turn, MeasuredRun], settings: dict[str, Any], arguments: argparse.Namespace) -> None:
    found = figures(runs, arguments)
    summaries = {name: {who: summarise(v) for who, v in values.items()} for name, values in found.items()}
    entries = [{"turn": dataclasses.asdict(turn), "run": dataclasses.asdict(done)} for turn, done in runs.items()]
    keep(
        file_name(what),
        {
            "settings": settings,
            "made_on": made_on(),
            "figures": summaries,
            "ratios": ratios(runs, arguments),
            "runs": entries,
        },
        is_standard=all(getattr(arguments, name) == build_parser().get_default(name) for name in settings),
    )


def report(runs: dict[Turn, MeasuredRun], arguments: argparse.Namespace) -> None:
    found = figures(runs, arguments)
    missed = {
        seconds_to(target): {who for who, shares in found.get(_reached(target), {}).items() if min(shares) < 1}
        for target in arguments.targets
    }
    for name, values in sorted(found.items()):
        rows = [
            (CONTESTANTS[who], ("≥ " if who in missed.get(name, ()) else "") + show(summarise(values[who])))
            for who in CONTESTANTS
            if who in values
        ]
        print()
        print_table([(name, "median (mean ± deviation, n)"), *rows])
    rows = [
        (row["figure"], CONTESTANTS[row["against"]], show_times(row), f"{row['bar']:g}", f"{row['pairs']}")
        for row in ratios(runs, arguments)
    ]
    print()
    print_table([("ours is so many times better", "than", "median, range of the pairs", "bar", "pairs of runs"), *rows])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="fixed, target, or both")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--trials", type=int, default=16, help="of the fixed work")
    parser.add_argument("--epochs", type=int, default=6, help="of each trial of the fixed work")
    parser.add_argument("--images", type=int, default=5_000, help="of the fixed work, a tenth of them to validate with")
    parser.add_argument("--target-trials", type=int, default=24, help="at most, with early stopping")
    parser.add_argument("--target-epochs", type=int, default=27, help="of a trial that is not stopped early")
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS), help="validation accuracies")
    parser.add_argument("--target-images", type=int, default=10_000)
    parser.add_argument("--target-validation", type=float, default=0.5, help="the share of them that is not trained on")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def main() -> None:
    """Prints tables of medians and of ratios."""
    parser = build_parser()
    arguments = parser.parse_args()
    asked = arguments.what or list(SETTINGS)
    if not set(asked) <= set(SETTINGS):
        parser.error(f"{' '.join(asked)}: valid are {' and '.join(SETTINGS)}")
    done: dict[Turn, MeasuredRun] = {}
    with tempfile.TemporaryDirectory(prefix="fmnist-bench-") as name:
        images = unpack_images(Path(name))
        for what in asked:
            done |= measure_all(what, arguments, images=images, folder=Path(name, what))
    report(done, arguments)


def measure_all(what: str, arguments: argparse.Namespace, *, images: Path, folder: Path) -> dict[Turn, MeasuredRun]:
    """All runs, made now or by earlier calls."""
    settings = {name: getattr(arguments, name) for name in SETTINGS[what]}
    runs, began_on = load(what, settings), made_on()
    for number, turn in enumerate(turns(what, arguments.only, arguments.repeats)):
        if turn in runs:
            continue
        runs[turn] = measure(turn, arguments, images=images, folder=folder / str(number))
        if made_on() != began_on:
            sys.exit("the code was changed while it was measured: what was measured last is not kept")
        save(what, runs, settings, arguments)
        print(f"{turn.what} {turn.contestant} {turn.repeat}: {runs[turn].seconds:.1f} s", flush=True)
    return runs


if __name__ == "__main__":
    main()
