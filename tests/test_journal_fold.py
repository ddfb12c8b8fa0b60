"""Our reading of a journal and Optuna's own replay of it give the same trials, and refuse the same journals."""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_experiment import FAILED, make_experiment
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from test_fuzz_readers import CONFIG, altered_bytes, altered_journal, lines  # noqa: F401 (fixture)

from search.configuration.config import parse_config
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.journal_fold import fold_journal
from search.records.record import list_trials, read_study

BY = {"worker_id": "w"}
START, END = "2025-07-01T00:00:00.000000+00:00", "2025-12-01T00:01:00.123456+02:00"
LR = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}'
LAYERS = '{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}'
MODEL = '{"name": "CategoricalDistribution", "attributes": {"choices": ["a", 1, true, null]}}'
KINDS = {"lr": LR, "layers": LAYERS, "model": MODEL}

fast = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def replay(journal: Path) -> list[tuple[str, list[int], list[FrozenTrial]]]:
    """What Optuna itself reads."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return [
        (study.study_name, [int(d) for d in study.directions], storage.get_all_trials(study._study_id, deepcopy=False))
        for study in storage.get_all_studies()
    ]


def fold(journal: Path) -> list[tuple[str, list[int], list[FrozenTrial]]]:
    return [(study.name, [int(d) for d in study.directions], study.trials) for study in fold_journal(journal)]


def outcome(read: Any, journal: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of odd distributions
        try:
            return read(journal)
        except Exception as error:  # a crafted journal makes Optuna raise anything
            return type(error) is not None


def check(journal: Path) -> None:
    ours, optunas = outcome(fold, journal), outcome(replay, journal)
    assert repr(ours) == repr(optunas), "values of the same types too, and in the same order"


numbers = st.integers(-1, 4)
params = st.dictionaries(st.sampled_from(sorted(KINDS)), st.integers(0, 3).map(lambda n: n / 1), max_size=3)
states = st.integers(0, 4)
values = st.none() | st.lists(st.floats(0, 1), max_size=2)
notes = st.dictionaries(st.sampled_from(["reason", "note"]), st.text(max_size=3) | st.none(), min_size=1, max_size=1)
operations = st.one_of(
    st.builds(lambda name: {"op_code": 0, **BY, "study_name": name, "directions": [2]}, st.sampled_from("xy")),
    st.builds(lambda study: {"op_code": 1, **BY, "study_id": study}, numbers),
    st.builds(lambda study, note: {"op_code": 2, **BY, "study_id": study, "user_attr": note}, numbers, notes),
    st.builds(
        lambda study, state, drawn, note: {
            "op_code": 4, **BY, "study_id": study, "datetime_start": START,
            **({"state": state} if state != 4 else {}),
            **({"datetime_complete": END} if state in (1, 2, 3) else {}),
            "params": drawn, "distributions": {name: KINDS[name] for name in drawn}, "user_attrs": note,
        },
        st.integers(0, 1), states, params, notes,
    ),
    st.builds(
        lambda trial, name, kind, value: {
            "op_code": 5, **BY, "trial_id": trial, "param_name": name,
            "param_value_internal": value, "distribution": KINDS[kind],
        },
        numbers, st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS)), st.integers(0, 3),
    ),
    st.builds(
        lambda trial, state, values: {
            "op_code": 6, **BY, "trial_id": trial, "state": state, "values": values,
            "datetime_start": START, "datetime_complete": END,
        },
        numbers, states, values,
    ),
    st.builds(
        lambda trial, step, value: {
            "op_code": 7, **BY, "trial_id": trial, "step": step, "intermediate_value": value
        },
        numbers, st.integers(1, 3), st.floats(0, 1),
    ),
    st.builds(lambda trial, note: {"op_code": 8, **BY, "trial_id": trial, "user_attr": note}, numbers, notes),
    st.builds(lambda trial, note: {"op_code": 9, **BY, "trial_id": trial, "system_attr": note}, numbers, notes),
    st.just({"op_code": 10, **BY}),
)  # fmt: skip
FIRST: list[dict[str, Any]] = [
    {"op_code": 0, **BY, "study_name": "x", "directions": [2]},
    {"op_code": 4, **BY, "study_id": 0, "datetime_start": START},
]


@fast
@given(more=st.lists(operations, max_size=12), tail=st.sampled_from([b"", b"{", b'{"op_code":99}', b"nothing\n"]))
def test_any_operations_add_up_to_what_optuna_makes_of_them(
    tmp_path: Path, more: list[dict[str, Any]], tail: bytes
) -> None:
    journal = tmp_path / "study.journal"
    journal.write_bytes("".join(json.dumps(line) + "\n" for line in [*FIRST, *more]).encode() + tail)
    check(journal)


@fast
@given(data=st.data())
def test_an_altered_journal_is_read_as_optuna_reads_it_or_refused_as_by_optuna(
    lines: list[Any],  # noqa: F811 (fixture)
    tmp_path: Path,
    data: st.DataObject,
) -> None:
    whole = "".join(json.dumps(line) + "\n" for line in lines).encode()
    content = data.draw(altered_journal(lines).map(str.encode) | altered_bytes(whole))
    (tmp_path / "study.journal").write_bytes(content)
    check(tmp_path / "study.journal")


def test_a_real_study_reads_the_same_whole_and_cut_anywhere(tmp_path: Path) -> None:
    """Complete, pruned, failed and running trials, one of them continued by a second run."""
    config = parse_config({**CONFIG, "max_trials": 5, "max_epochs": 3, "pruner": "halving"}, where="test")
    curves = [[0.5, 0.75, 0.5], FAILED, [0.25, 0.25, 0.25], [0.875]]
    experiment = make_experiment(tmp_path / "x", config, curves)
    make_experiment(tmp_path / "x", config, [[0.875, 0.875, 0.875], [0.9375]])
    trials = read_study(experiment).get_trials()
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED", "FAIL", "RUNNING"}
    assert list_trials(experiment) == trials
    whole = experiment.journal.read_bytes()
    for length in range(0, len(whole), 97):
        experiment.journal.write_bytes(whole[:length])
        with contextlib.suppress(ExperimentError):
            expected = read_study(experiment).get_trials()
            assert list_trials(experiment) == expected
        if length < 50:
            with pytest.raises(ExperimentError, match="should hold one study, but holds 0"):
                list_trials(experiment)


def test_a_study_of_optunas_own_reads_the_same(tmp_path: Path) -> None:
    """Trials that were asked for, enqueued, reported, pruned, failed; notes of samplers; parameters one by one."""
    journal = tmp_path / "study.journal"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(journal))), study_name="x")
    study.set_user_attr("note", 1)
    study.enqueue_trial({"lr": 0.5, "model": "b"})

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 0, 1, step=0.1)
        trial.suggest_categorical("model", ["a", "b", 3, None])
        trial.suggest_int("layers", 1, 9, log=True)
        trial.set_user_attr("reason", "é")
        trial.report(lr, 1)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        return float("nan") if trial.number % 3 == 2 else lr

    study.optimize(objective, n_trials=15)
    study.enqueue_trial({"lr": 0.25})
    study.ask()
    study.enqueue_trial({"lr": 0.75})
    [(_, _, trials)] = fold(journal)
    assert trials == study.trials
    assert {trial.state for trial in trials} == set(TrialState)
    check(journal)


def test_what_is_appended_while_it_is_read_is_left_for_the_next_time(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "x", parse_config(CONFIG, where="test"), [[0.5, 0.75]])
    before = list_trials(Experiment(experiment.path))
    with experiment.journal.open("ab") as file:
        file.write(b'{"op_code": 4, "worker_id": "w"')
        file.flush()
        assert list_trials(experiment) == before
