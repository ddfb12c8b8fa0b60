"""A stepped float is recorded as a person writes it, and what older versions recorded as 3 * 0.1 still matches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_experiment import make_experiment

from search import load_experiment
from search.configuration.config import parse_config
from search.configuration.dimensions import FloatRange
from search.configuration.enqueue import read_queue
from search.records.experiment import Experiment
from search.records.fingerprint import fingerprint
from search.records.lock import hold_experiment
from search.records.record import list_trials
from search.records.results import read_trials
from search.report.material import read_material
from search.report.slices import varying
from search.review.listing import Question, read_listing
from search.review.trial_detail import differing, read_details
from search.running.continuation import begin_run
from search.study.search_study import SearchStudy
from search.study.warm_start import read_warm_start

RAW: dict[str, Any] = {
    "dataset": "synthetic",
    "space": {"model": "customnet", "dropout": {"float": [0.0, 0.9], "step": 0.1}},
    "max_trials": 40,
    "max_epochs": 1,
    "pruner": "none",
}
CONFIG = parse_config(RAW, where="test")
WRITTEN = {step / 10 for step in range(10)}
OLD = 3 * 0.1


def make_old(path: Path) -> Experiment:
    """An experiment as older versions made it: of its two trials with 0.3 the second one holds 3 * 0.1."""
    config = CONFIG.model_copy(update={"max_trials": 3})
    experiment = Experiment(path)
    with hold_experiment(experiment):
        begin_run(experiment, config)
        SearchStudy.open(experiment, config).enqueue([{"dropout": value} for value in (0.3, 0.4, 0.5)])
    make_experiment(path, config, [[0.5], [0.5], [0.25]])
    experiment.journal.write_text(re.sub(r'"dropout": ?0\.4', f'"dropout": {OLD!r}', experiment.journal.read_text()))
    return experiment


@pytest.fixture
def old(tmp_path: Path) -> Experiment:
    return make_old(tmp_path / "old")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_drawn_is_the_same_in_the_journal_tables_and_python(tmp_path: Path, sampler: str) -> None:
    config = CONFIG.model_copy(update={"sampler": sampler})
    experiment = make_experiment(tmp_path / "x", config, [[n / 40] for n in range(40)])
    assert {repr(value) for value in read_trials(experiment)["dropout"]} <= {repr(value) for value in WRITTEN}
    recorded = set(re.findall(r'"dropout": ?([\d.]+)', experiment.journal.read_text()))
    assert {"0.3"} <= recorded <= {str(value) for value in WRITTEN}
    table = load_experiment(experiment.path).trials.set_index("trial")["dropout"]
    assert 0.3 in set(table)
    shown = read_details(experiment, range(40))
    assert [detail.parameters["dropout"] for detail in shown] == [table[number] for number in range(40)]
    read_again = [config.space.suggest(trial)["dropout"] for trial in list_trials(experiment)]
    assert read_again == [table[number] for number in range(40)]


@given(
    low=st.decimals(0, 10, places=3), step=st.decimals("0.001", 1, places=3), count=st.integers(0, 999), data=st.data()
)
def test_each_step_of_a_range_is_the_decimal_number(low: Any, step: Any, count: int, data: st.DataObject) -> None:
    dimension = FloatRange(float(low), float(low + count * step), step=float(step))
    number = data.draw(st.integers(0, count))
    value = dimension.as_written(float(low) + number * float(step))
    assert value == float(low + number * step)
    assert dimension.low <= value <= dimension.high


def test_a_trial_of_an_older_version_matches_what_a_person_asks_for(old: Experiment) -> None:
    assert [trial.params["dropout"] for trial in list_trials(old)] == [0.3, OLD, 0.5]
    found = {where: {row["trial"] for row in read_listing(old, Question(where=[where])).rows} for where in (
        "dropout=0.3", "dropout!=0.3", "dropout<=0.3", "dropout<0.3", "dropout>0.3", "dropout>=0.3"
    )}  # fmt: skip
    assert list(found.values()) == [{0, 1}, {2}, {0, 1}, set(), {2}, {0, 1, 2}]
    assert [row["trial"] for row in read_listing(old, Question(sort="dropout:desc")).rows] == [2, 0, 1]
    one, other = read_details(old, [0, 1])
    assert differing(one.parameters, other.parameters) == {}


def test_two_ways_to_write_a_value_are_no_difference_in_a_report(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"max_trials": 2})
    experiment = Experiment(tmp_path / "x")
    with hold_experiment(experiment):
        begin_run(experiment, config)
        SearchStudy.open(experiment, config).enqueue([{"dropout": 0.3}, {"dropout": OLD}])
    make_experiment(experiment.path, config, [[0.5], [0.25]])
    assert varying(read_material(experiment), []) == []


def test_an_experiment_of_an_older_version_goes_on_with_its_trials_as_they_are(old: Experiment, tmp_path: Path) -> None:
    before = fingerprint(list_trials(old))
    config = CONFIG.model_copy(update={"max_trials": 5})
    queue = tmp_path / "queue.yaml"
    queue.write_text("[{dropout: 0.3}, {dropout: 0.5}]\n")
    with hold_experiment(old):
        begin_run(old, config)
        study = SearchStudy.open(old, config)
        assert study.enqueue(read_queue(queue, config.space)) == 0
        assert study.next_assignment() is not None
    trials = list_trials(old)
    assert fingerprint(trials[:3]) == before
    assert trials[1].params["dropout"] == OLD
    assert config.space.suggest(trials[1])["dropout"] == OLD, "a replay trains what was trained"
    warm = read_warm_start(old, CONFIG)
    assert (len(warm.trials), warm.num_skipped) == (3, 0)
    assert [trial.params["dropout"] for trial in warm.trials] == [0.3, 0.3, 0.5]


def test_a_configuration_that_was_chosen_is_not_chosen_again_for_its_digits(old: Experiment) -> None:
    config = CONFIG.model_copy(update={"max_trials": 3})
    with hold_experiment(old):
        begin_run(old, config)
        study = SearchStudy.open(old, config)
        assert study.enqueue([{"dropout": OLD}, {"dropout": 0.3}]) == 0
