"""Searches in virtual time over the table of real trainings in `benchmarks/tables/`.

`python -m benchmarks.simulate searches [--searches 100] [--trials 50]`: how long so many searches take, and what they
find. `… fleet`: how idle slots, the time to an accuracy and the driver's work grow from 2 slots to 1,000. `… horizon`:
whether TPE finds less when it looks at some of the trials than when it looks at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.record_table import NUM_EPOCHS, SPACE, TABLE
from search.configuration.config import SearchConfig, parse_config
from search.study.horizon import Horizon
from search.study.recorded_table import RecordedTable, read_table
from search.study.simulation import Fleet, Simulated, simulate

_ALL = 10**9


def make_config(**settings: Any) -> SearchConfig:
    return parse_config({"space": SPACE, "max_epochs": NUM_EPOCHS, "min_epochs": 1, **settings}, where="simulation")


def searches(table: RecordedTable, arguments: argparse.Namespace) -> dict[str, Any]:
    """One search after the other, each with a seed of its own."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    fleet = Fleet(num_slots=arguments.slots[0])
    done = [
        simulate(make_config(**_settings(arguments), seed=seed), table, fleet) for seed in range(arguments.searches)
    ]
    return {
        "seconds": f"{time.perf_counter() - wall_s:.1f} ({time.process_time() - cpu_s:.1f} of the CPU)",
        "best": _spread([search.best_value(after=arguments.trials) for search in done]),
        "epochs_per_search": _spread([float(search.num_epochs) for search in done]),
    }


def fleets(table: RecordedTable, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """As many trials per slot as asked for, and never fewer trials in all."""
    target = float(table.results[:, :, 0].max()) - arguments.short_of_best
    table = dataclasses.replace(table, results=table.results * (1, 1, arguments.slower))
    rows = []
    for slots in arguments.slots:
        trials = max(arguments.trials, arguments.trials_per_slot * slots)
        fleet = Fleet(
            num_slots=slots,
            start_s=arguments.start_ms / 1e3,
            suggest_s=arguments.suggest_ms / 1e3,
            report_s=arguments.report_ms / 1e3,
        )
        settings = {**_settings(arguments), "max_trials": trials}
        done = [simulate(make_config(**settings, seed=seed), table, fleet) for seed in range(arguments.searches)]
        times = [search.time_to(target) for search in done]
        reached = [time_s for time_s in times if time_s is not None]
        rows.append(
            {
                "slots": slots,
                "trials": trials,
                "idle_share": _spread([search.idle_share for search in done]),
                f"virtual_s_to_{target:.4f}": f"{_spread(reached)} ({len(reached)} of {len(done)} searches)",
                "virtual_s": _spread([search.duration_s for search in done]),
                "driver_cpu_ms_per_trial": _spread([search.driver_s_per_trial * 1e3 for search in done]),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def horizons(table: RecordedTable, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The same seeds with each horizon; differences are between searches of the same seed."""
    rows = []
    fleet = Fleet(num_slots=arguments.slots[0])
    found: dict[int, list[Simulated]] = {}
    for others in (_ALL, *arguments.others):
        found[others] = []
        for seed in range(arguments.searches):
            config = make_config(**_settings(arguments), seed=seed)
            horizon = Horizon(config.metric, num_others=others)
            found[others].append(simulate(config, table, fleet, horizon=horizon))
        row: dict[str, Any] = {"looks_at": "all" if others == _ALL else f"best 25 and {others} others"}
        for after in sorted({arguments.trials // 4, arguments.trials // 2, arguments.trials}):
            values = [[search.best_value(after=after) for search in found[kind]] for kind in (others, _ALL)]
            row[f"best_after_{after}"] = _compare(*values)
        row["last_quarter"] = _compare(*([_late(search) for search in found[kind]] for kind in (others, _ALL)))
        row["driver_cpu_ms_per_trial"] = _spread([1e3 * search.driver_s_per_trial for search in found[others]])
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _late(search: Simulated) -> float:
    """The mean of what the last quarter of a search's trials would have reached: what the sampler has come to know."""
    first = len(search.trials) * 3 // 4
    return statistics.fmean(trial.last_value for trial in search.trials if trial.number >= first)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"sampler": arguments.sampler, "pruner": arguments.pruner, "max_trials": arguments.trials}


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.5g} ± {error:.2g}"


def _compare(values: Sequence[float], others: Sequence[float]) -> str:
    differences = [value - other for value, other in zip(values, others, strict=True)]
    return f"{_spread(values)} (difference {_spread(differences)})" if any(differences) else _spread(values)


def main() -> None:
    """Prints what was found as JSON; after ± stands the standard error of the mean over the searches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["searches", "fleet", "horizon"])
    parser.add_argument("--searches", type=int, default=100, help="as many seeds")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--sampler", choices=["tpe", "random"], default="tpe")
    parser.add_argument("--pruner", choices=["halving", "hyperband", "median", "none"], default="halving")
    parser.add_argument("--slots", type=int, nargs="+", default=[2], help="trials at a time")
    parser.add_argument("--trials-per-slot", type=int, default=4, help="fleet: at least")
    parser.add_argument("--start-ms", type=float, default=100.0, help="fleet: of a slot, per trial")
    parser.add_argument("--suggest-ms", type=float, default=20.0, help="fleet: of the driver, per trial")
    parser.add_argument("--report-ms", type=float, default=5.0, help="fleet: of the driver, per epoch")
    parser.add_argument("--short-of-best", type=float, default=0.02, help="fleet: of the table's best accuracy")
    parser.add_argument("--slower", type=float, default=1.0, help="fleet: seconds of an epoch for each recorded one")
    parser.add_argument("--others", type=int, nargs="+", default=[475], help="horizon: beside the best")
    arguments = parser.parse_args()
    table = read_table(TABLE, make_config().space)
    run = {"searches": searches, "fleet": fleets, "horizon": horizons}[arguments.what]
    result = run(table, arguments)
    print(json.dumps({**vars(arguments), "configurations": len(table.results), "result": result}, indent=2))


if __name__ == "__main__":
    main()
