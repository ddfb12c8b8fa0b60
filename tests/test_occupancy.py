"""How long a search took and how its slots were used: one answer, whoever asks."""

from __future__ import annotations

import heapq
import json
import random
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from made_experiment import make_experiment
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.records.occupancy import Occupancy, measure_occupancy
from search.records.record import PAUSES
from search.records.runs import Run, append_run, read_runs
from search.report.items import Chart
from search.report.material import read_material
from search.report.summary import summarise
from search.report.timeline import chart_timeline
from search.review.comparison import compare
from search.review.cost_text import describe_occupancy

START = datetime(2026, 1, 1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def make_trial(number: int, start_s: float, end_s: float | None, *pauses: tuple[float, float]) -> FrozenTrial:
    attributes = {PAUSES: [[a - start_s, b - start_s] for a, b in pauses]} if pauses else {}
    trial = create_trial(state=TrialState.RUNNING if end_s is None else TrialState.FAIL, user_attrs=attributes)
    trial.number, trial.datetime_start = number, at(start_s)
    trial.datetime_complete = None if end_s is None else at(end_s)
    return trial


def measure(*trials: tuple[float, float], runs: tuple[Run, ...] = (), num_slots: int = 1) -> Occupancy:
    made = [make_trial(number, *times) for number, times in enumerate(trials)]
    return measure_occupancy(made, runs or [Run(at(-1), num_slots)], now=None)


def simulate(num_trials: int, *, num_slots: int, trial_s: float, between_s: float) -> list[FrozenTrial]:
    """Slots that begin their next trial ``between_s`` after the last one's end; trials take up to 20 % more or less."""
    rng, free = random.Random(0), [0.0] * num_slots
    trials = []
    for number in range(num_trials):
        start = heapq.heappop(free)
        end = start + trial_s * rng.uniform(0.8, 1.2)
        trials.append(make_trial(number, start, end))
        heapq.heappush(free, end + between_s)
    return trials


def test_two_slots_that_always_have_a_trial_of_a_second_are_idle_one_percent_of_the_time() -> None:
    """Not 34 %, as when a trial was put into a slot whose last one had up to a second to go."""
    trials = simulate(400, num_slots=2, trial_s=1.0, between_s=0.01)
    for runs in ([Run(at(-3), 2)], []):
        found = measure_occupancy(trials, runs, now=None)
        assert len(found.slots) == 2
        assert found.idle_share == pytest.approx(0.01, abs=0.004)
        assert [slot.idle_share for slot in found.slots] == pytest.approx([0.01] * 2, abs=0.006)
        for slot in range(2):
            mine = [stay for stay in found.stays if stay.slot == slot]
            assert all(earlier.end <= later.start for earlier, later in pairwise(mine))


def test_the_idle_share_is_of_all_slots_from_the_first_start_to_the_last_end() -> None:
    assert measure((0, 10), (0, 10), num_slots=2).idle_share == 0
    assert measure((0, 10), (0, 5), num_slots=2).idle_share == 0.25
    assert measure((5, 10), num_slots=2).idle_share == 0.5
    assert measure().idle_share is None


def test_time_between_two_runs_is_neither_the_searchs_nor_idle() -> None:
    runs = (Run(at(-5), 2), Run(at(995), 1))
    found = measure((0, 10), (0, 10), (1000, 1010), (1015, 1025), runs=runs)
    assert found.search_s == 35
    assert found.idle_share == pytest.approx(5 / 45)
    assert [(slot.there_s, slot.busy_s) for slot in found.slots] == [(35, 30), (10, 10)]


def test_a_trial_that_was_continued_is_in_a_slot_of_each_run_and_in_none_between() -> None:
    trials = [make_trial(0, 0, 1010, (10, 1000)), make_trial(1, 0, 10)]
    found = measure_occupancy(trials, [Run(at(-1), 2), Run(at(999), 2)], now=None)
    assert (found.search_s, found.idle_share) == (20, 0.25)
    assert [(stay.trial, stay.start, stay.end) for stay in found.stays] == [
        (0, at(0), at(10)),
        (1, at(0), at(10)),
        (0, at(1000), at(1010)),
    ]


def test_open_trials_are_under_way_until_now_or_the_last_moment_that_is_known() -> None:
    trials, runs = [make_trial(0, 0, None), make_trial(1, 0, 10)], [Run(at(-1), 2)]
    assert measure_occupancy(trials, runs, now=at(20)).search_s == 20
    assert measure_occupancy(trials, runs, now=None).search_s == 10


@pytest.mark.parametrize("now_s", [None, 1020])
def test_a_trial_that_a_later_run_has_not_continued_yet_is_under_way_in_the_earlier_one_alone(
    now_s: float | None,
) -> None:
    """Of three slots' trials, which a run left open, the next run has continued one."""
    trials = [make_trial(0, 0, 1020, (10, 1000)), make_trial(1, 0, None), make_trial(2, 0, None)]
    runs = [Run(at(-1), 3), Run(at(999), 1)]
    found = measure_occupancy(trials, runs, now=None if now_s is None else at(now_s))
    assert (found.search_s, found.idle_share) == (30, pytest.approx(20 / 50))


def test_the_tail_is_what_slots_were_idle_after_the_last_trial_had_begun() -> None:
    found = measure((0, 10), (0, 6), (10, 20), num_slots=2)
    assert found.idle_share == pytest.approx(14 / 40)
    assert found.tail_share == pytest.approx(10 / 40)
    told = describe_occupancy(found, deterministic=True)
    assert "idle 35% of that time: 10% waiting for older trials (`deterministic`)" in told
    assert "25% at the end, with no trial left to start" in told


def test_more_trials_at_a_time_than_a_run_says_make_no_slot_idle() -> None:
    found = measure((0, 10), (0, 10), (9.99, 10), num_slots=2)
    assert (found.idle_share, len(found.slots)) == (0, 3)


@pytest.mark.parametrize("text", ["", "{}", "[7, null, []]", '[{"time": 3, "slots": 2}]', '[{"time": "noon"}]'])
def test_runs_that_make_no_sense_are_none(text: str, tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    experiment.versions.write_text(text)
    assert read_runs(experiment) == []
    append_run(experiment, num_slots=3)
    assert [run.num_slots for run in read_runs(experiment)] == [3]


def test_runs_of_older_versions_have_a_start_and_strange_slots_are_none(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    experiment.versions.write_text('[{"time": "2026-01-01 00:00:00", "slots": -1}, {"time": "2026-01-02 00:00:00"}]')
    assert read_runs(experiment) == [Run(START), Run(START + timedelta(days=1))]


def test_terminal_comparison_and_report_tell_the_same_time(tmp_path: Path) -> None:
    raw = {"dataset": "synthetic", "space": {"model": "customnet"}, "max_trials": 3, "max_epochs": 1, "pruner": "none"}
    for name in ("a", "b"):
        make_experiment(tmp_path / name, parse_config(raw, where="test"), [[0.5], [0.6], [0.7]])
    experiment = Experiment(tmp_path / "a")
    spans = ((0, 40), (40, 80), (86_400, 86_420))
    lines, numbers = [], iter(range(3))
    for line in map(json.loads, experiment.journal.read_text().splitlines()):
        if "datetime_start" in line:
            line["datetime_start"] = at(spans[next(numbers)][0]).astimezone().isoformat()
        if "datetime_complete" in line:
            line["datetime_complete"] = at(spans[line["trial_id"]][1]).astimezone().isoformat()
        lines.append(json.dumps(line) + "\n")
    experiment.journal.write_text("".join(lines))
    runs = [{"time": "2026-01-01 00:00:00", "slots": 2}, {"time": "2026-01-01 12:00:00", "slots": 2}]
    experiment.versions.write_text(json.dumps(runs))
    material = read_material(experiment)
    side = compare([experiment, Experiment(tmp_path / "b")]).sides[0]
    chart = chart_timeline(material)
    assert isinstance(chart, Chart)
    assert side.search_s == material.occupancy.search_s == 100
    assert side.idle_share == material.occupancy.idle_share == 0.5
    assert "100 seconds" in summarise(material, None)[0]
    assert "over 100 seconds; the slots were idle 50% of that time" in chart.description
    assert "the search took 100 s; slots were idle 50%" in describe_occupancy(material.occupancy, deterministic=False)
