"""What networks are trained in where nobody said so: timed, recorded, and never timed where a search is to repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fmnist_models import probe
from fmnist_models.data import TrainingData
from fmnist_models.precision import ARITHMETICS, resolve_precision
from fmnist_models.probe import candidates, choose, describe_choice, seconds_per_step
from fmnist_models.training import TrainingPlan
from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError
from search.running import arithmetic
from search.running.arithmetic import decide_precision
from search.running.preparation import prepare

CPU = torch.device("cpu")
BOTH = {
    "model": {"choice": ["customnet", "resnet18"]},
    "unfreeze": {"subset": ["layer3", "layer4"]},
    "lr": {"float": [1e-4, 1e-1], "log": True},
    "batch_size": {"choice": [16, 32, 64]},
}


def config(**changes: Any) -> SearchConfig:
    raw = {"dataset": "synthetic", "train_size": 200, "space": BOTH}
    return parse_config(raw | changes, where="test")


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, float]]:
    """Network → precision → seconds that a step is said to take; gets what was asked for as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: dict[str, dict[str, float]] = {"customnet": {}, "resnet18": {}, "asked": {}}

    def seconds(plan: TrainingPlan, precisions: Any, *, batch_size: int, **_: Any) -> dict[str, float]:
        said["asked"][plan.network] = batch_size
        return dict.fromkeys(precisions, 1.0) | said[plan.network]

    monkeypatch.setattr(arithmetic, "seconds_per_step", seconds)
    return said


def test_the_usual_one_is_kept_unless_another_is_clearly_faster() -> None:
    assert choose({"fp32": 1.0, "fp32-channels-last": 0.96}) == "fp32"
    assert choose({"fp32": 1.0, "fp32-channels-last": 0.94}) == "fp32-channels-last"
    assert choose({"bf16": 1.0, "bf16-contiguous": 1.2, "fp32": 0.5, "fp32-channels-last": 0.4}) == "fp32-channels-last"


def test_the_message_never_contradicts_the_choice() -> None:
    for seconds, told in (
        ({"bf16": 1.0, "fp32": 1.5}, "bf16, the usual choice and the fastest"),
        ({"bf16": 1.0, "bf16-contiguous": 0.96, "fp32": 3.0}, "bf16, the usual choice; bf16-contiguous within 5 %"),
        ({"fp32": 1.0, "fp32-channels-last": 0.5}, "fp32-channels-last, 2 times as fast as the usual choice, fp32"),
    ):
        assert describe_choice(seconds) == told
        assert told.startswith(f"{choose(seconds)},")


def test_bf16_is_a_candidate_only_where_there_are_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({}, 2), ({"amx_bf16": True}, 4), ({"avx512_bf16": True}, 4)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c)
        found = candidates(CPU)
        assert found[0] == resolve_precision("auto", CPU)
        assert len(set(found)) == len(found) == expected
        assert set(found) <= set(ARITHMETICS)


@pytest.mark.parametrize("network", ["customnet", "lstm", "resnet18"])
def test_steps_are_timed_in_every_arithmetic_and_nothing_else_is_changed(network: str) -> None:
    plan = TrainingPlan(network=network, hyperparameters={"lr": 0.1}, num_epochs=5, seed=0)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    found = seconds_per_step(plan, tuple(ARITHMETICS), device=CPU, num_threads=2, batch_size=8, seconds=0.1)
    assert list(found) == list(ARITHMETICS)
    assert all(0 < seconds < float("inf") for seconds in found.values())
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == 1


LAYOUTS = ("fp32", "fp32-channels-last")


def time_script(
    monkeypatch: pytest.MonkeyPatch, took: Mapping[str, Sequence[float]]
) -> tuple[dict[str, float], list[str]]:
    """What is found where steps take so many seconds of the process, and which took turns."""
    turns: list[str] = []
    clock_s = 0.0

    class Scripted:
        def __init__(self, plan: TrainingPlan, data: object, *, device: object) -> None:
            self._plan = plan

        def epochs(self) -> Any:
            nonlocal clock_s
            for seconds in took[self._plan.precision]:
                turns.append(self._plan.precision)
                clock_s += seconds
                yield None

    monkeypatch.setattr(probe, "Training", Scripted)
    monkeypatch.setattr(probe, "time", SimpleNamespace(thread_time=lambda: clock_s, perf_counter=lambda: 0.0))
    plan = TrainingPlan(network="customnet", hyperparameters={}, num_epochs=1, seed=0)
    return seconds_per_step(plan, LAYOUTS, device=CPU, num_threads=1, batch_size=8, seconds=3.0), turns


def test_the_shortest_of_steps_that_take_turns_counts_but_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work slows one turn; both see the same, and the one that is faster stays so."""
    rest = [9.0] * 6
    found, turns = time_script(
        monkeypatch, {"fp32": [0.1, 5, 2, 3, *rest], "fp32-channels-last": [0.1, 5, 2.4, 1, *rest]}
    )
    assert found == pytest.approx({"fp32": 2, "fp32-channels-last": 1})
    assert turns == [*LAYOUTS] * (len(turns) // 2)


def test_what_is_clearly_slower_is_not_timed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    found, turns = time_script(monkeypatch, {"fp32": [9, 2, 3, 2, 2], "fp32-channels-last": [0.1, 5, 3, 2, 2]})
    assert found == pytest.approx({"fp32": 2, "fp32-channels-last": 3})
    assert turns == [*LAYOUTS] * 3


def script_steps(monkeypatch: pytest.MonkeyPatch, *, step_s: Callable[[int], float]) -> tuple[list[int], list[float]]:
    """Steps that take ``step_s(images)`` by a clock of their own: the sizes that are asked for, and the clock."""
    asked: list[int] = []
    clock_s = [0.0]

    class Scripted:
        def __init__(self, plan: TrainingPlan, data: TrainingData, *, device: object) -> None:
            self._size = len(data.train)
            asked.append(self._size)

        def epochs(self) -> Any:
            while True:
                clock_s[0] += step_s(self._size)
                yield None

    monkeypatch.setattr(probe, "Training", Scripted)
    clock = SimpleNamespace(thread_time=lambda: clock_s[0], perf_counter=lambda: clock_s[0])
    monkeypatch.setattr(probe, "time", clock)
    return asked, clock_s


def test_a_batch_that_takes_no_longer_than_a_few_images_is_timed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: by a sixteenth of the images another precision may look faster."""
    asked, clock_s = script_steps(monkeypatch, step_s=lambda images: max(0.005, 1e-5 * images))
    plan = TrainingPlan(network="customnet", hyperparameters={}, num_epochs=1, seed=0)
    seconds_per_step(plan, LAYOUTS, seconds=3.0, device=CPU, num_threads=1, batch_size=8192)
    assert asked[-1] == 8192
    assert clock_s[0] < 4


def test_a_large_batch_is_timed_in_seconds_by_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by 10 ms an image, a step of 8,192 images takes 82 s."""
    asked, clock_s = script_steps(monkeypatch, step_s=lambda images: 0.01 * images)
    plan = TrainingPlan(network="customnet", hyperparameters={}, num_epochs=1, seed=0)
    options: dict[str, Any] = {"device": CPU, "num_threads": 1, "batch_size": 8192}
    seconds_per_step(plan, tuple(ARITHMETICS), seconds=3.0, **options)
    assert set(asked) == {16}
    assert clock_s[0] < 4
    asked.clear()
    seconds_per_step(plan, LAYOUTS, seconds=30.0, **options)
    assert asked == [16, 64, 256, pytest.approx(500, abs=1), asked[3]]


def test_no_more_images_are_timed_than_a_trial_trains_on(timings: dict[str, dict[str, float]]) -> None:
    large = BOTH | {"batch_size": {"choice": [32, 8192]}}
    decide_precision(config(space=large, workers_per_trial=2), [], num_train=600)
    assert timings["asked"] == {"customnet": 300, "resnet18": 300}
    prepare(config(space=large, train_size=300), data_root=Path("unused"))
    assert timings["asked"] == {"customnet": 270, "resnet18": 270}


def test_what_was_timed_once_on_a_machine_is_chosen_again(timings: dict[str, dict[str, float]], tmp_path: Path) -> None:
    timings["customnet"] = {"fp32-channels-last": 0.5}
    notes: list[str] = []
    first = decide_precision(config(), notes, num_train=200)
    timings["customnet"], timings["asked"] = {}, {}
    assert decide_precision(config(), notes, num_train=200) == first
    assert timings["asked"] == {}
    assert notes[2:] == [f"{note} (timed in an earlier run)" for note in notes[:2]]
    assert decide_precision(config(cpus_per_trial=2), [], num_train=200) != first
    assert timings["asked"] == {"customnet": 32, "resnet18": 32}
    for damaged in ("{}", "[1]", "no JSON", '{"key": 1, "seconds": {"fp32": 0}}'):
        for path in tmp_path.rglob("*.json"):
            path.write_text(damaged)
        timings["asked"] = {}
        decide_precision(config(), [], num_train=200)
        assert timings["asked"] == {"customnet": 32, "resnet18": 32}


def test_each_network_of_a_search_has_its_own(timings: dict[str, dict[str, float]]) -> None:
    timings["customnet"] = {"fp32-channels-last": 0.5}
    notes: list[str] = []
    usual = resolve_precision("auto", CPU)
    found = decide_precision(config(), notes, num_train=200)
    assert found == {"customnet": "fp32-channels-last", "resnet18": usual}
    assert [note.startswith(f"precision: {name} in ") for note, name in zip(notes, found, strict=True)] == [True, True]
    assert timings["asked"] == {"customnet": 32, "resnet18": 32}
    decided = config(precision=found)
    assert parse_config(decided.model_dump(), where="again") == decided
    assert decided.precision_of("customnet") == "fp32-channels-last"


def test_one_for_all_is_one_word(timings: dict[str, dict[str, float]]) -> None:
    assert decide_precision(config(), [], num_train=200) == resolve_precision("auto", CPU)
    assert decide_precision(config(workers_per_trial=4), [], num_train=200) == resolve_precision("auto", CPU)
    assert timings["asked"] == {"customnet": 8, "resnet18": 8}


def test_a_clock_decides_nothing_of_a_repeatable_search(timings: dict[str, dict[str, float]]) -> None:
    timings["customnet"] = {"fp32-channels-last": 0.5}
    assert decide_precision(config(deterministic=True), [], num_train=200) == resolve_precision("auto", CPU)
    assert timings["asked"] == {}


def test_what_was_decided_is_kept_when_the_search_is_continued(timings: dict[str, dict[str, float]]) -> None:
    timings["customnet"] = {"fp32-channels-last": 0.5}
    before = prepare(config(), data_root=Path("unused")).config
    assert before.precision != config().precision
    timings["customnet"], timings["asked"] = {}, {}
    assert prepare(config(), data_root=Path("unused"), before=before).config == before
    assert timings["asked"] == {}


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ({"customnet": "fp32"}, ["customnet, resnet18"]),
        ({"customnet": "fp32", "resnet18": "auto"}, ["'bf16-contiguous'", "map each network"]),
        ({"customnet": "fp32", "resnet18": "fp32", "lstm": "fp32"}, ["customnet, resnet18", "lstm"]),
        ("fp16", ["'auto'", "'fp32-channels-last'", "'fp16'"]),
        ([], ["'auto'", "[]"]),
        ({}, ["'auto'", "{}"]),
    ],
    ids=str,
)
def test_what_is_no_precision_is_refused_with_what_is_valid(precision: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(precision=precision)
    assert [word for word in ["precision", *words] if word not in str(caught.value)] == []
