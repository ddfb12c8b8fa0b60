"""The benchmark beside other searches: that all do the same work, and that it is measured as it says."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from benchmarks import peer_trials, results
from benchmarks.configurations import BATCH_SIZE, SPACE, VALIDATION_FRACTION, draw
from benchmarks.images_per_second import Trained, choose_precision, images_per_second
from benchmarks.images_per_second import ours as bare_loop
from benchmarks.many_trials_on_ray import seconds_per_trial
from benchmarks.measured_run import MeasuredRun, mean_last_accuracy, run
from benchmarks.no_work_trials import seconds_after_first
from benchmarks.peer_trials import CONTESTANTS, SETTINGS, Turn, figures, load, made_on, ratios, save, show_times, turns
from benchmarks.peers import expert, plain
from benchmarks.peers.job import OURS, Job
from benchmarks.peers.model import build_model
from benchmarks.peers.ours import search_config
from benchmarks.split import write_split
from benchmarks.unpacked import unpack_images
from fmnist_models.data import load_images, split_training
from fmnist_models.probe import candidates
from fmnist_models.seeds import derive_seed
from fmnist_models.training import Training, TrainingPlan
from search.configuration.config import parse_config
from search.configuration.enqueue import read_queue

NUM_IMAGES = 200


def make_job(path: Path, configurations: list[dict[str, float]], **changes: object) -> Job:
    settings = {"num_epochs": 1, "early_stopping": False, "num_images": NUM_IMAGES, "num_trials_at_once": 2}
    places = {"data_dir": str(path / "images"), "folder": str(path / "job")}
    return Job(configurations=configurations, **{**settings, **places, **changes})  # type: ignore[arg-type]


def test_configurations_depend_on_the_seed_alone_and_are_such_as_our_search_takes(tmp_path: Path) -> None:
    drawn = draw(16, seed=0)
    assert draw(20, seed=0)[:16] == drawn != draw(16, seed=1)
    space = parse_config({"space": {"model": "customnet", "batch_size": BATCH_SIZE, **SPACE}}, where="test").space
    (tmp_path / "chosen.yaml").write_text(json.dumps(drawn))
    assert list(read_queue(tmp_path / "chosen.yaml", space)) == drawn


def test_peers_start_from_our_weights_and_see_our_images(tmp_path: Path, fashion_mnist_root: Path) -> None:
    unpack_images(tmp_path)
    write_split(job := make_job(tmp_path, draw(2, seed=0)))
    dropout = job.configurations[1]["dropout"]
    plan = TrainingPlan(
        network="customnet", hyperparameters={"dropout": dropout}, num_epochs=1, seed=derive_seed(job.seed, 1)
    )
    ours, theirs = plan.build(None).eval(), build_model(job.configurations[1], 1, job).eval()
    weights = [network.state_dict().values() for network in (ours, theirs)]
    assert all(itertools.starmap(torch.equal, zip(*weights, strict=True)))
    some = torch.randn(5, 1, 28, 28)
    assert torch.equal(ours(some), theirs(some))

    images = load_images("fashion-mnist", "train", root=fashion_mnist_root, size=NUM_IMAGES)
    data = split_training(images, validation_fraction=VALIDATION_FRACTION, seed=job.seed)
    train_loader, validation_loader = plain.loaders(job)
    assert len(train_loader.dataset) == len(data.train) == 180
    ((seen, labels),) = list(validation_loader)
    assert labels.tolist() == data.validation.labels.tolist()
    pixels = (seen.squeeze(1) * 0.32025 + 0.28604) * 255
    np.testing.assert_allclose(pixels.numpy(), data.validation.images, atol=1e-3)

    trained_on, validated_on = expert.load_images(job)
    assert trained_on.labels.tolist() == data.train.labels.tolist()
    torch.testing.assert_close(validated_on.images, seen)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_experts_loop_learns_on_one_thread(precision: str, tmp_path: Path, fashion_mnist_root: Path) -> None:
    unpack_images(tmp_path)
    write_split(job := make_job(tmp_path, draw(1, seed=0), num_epochs=4))
    training, validation = expert.load_images(job)
    before = torch.get_num_threads()
    try:
        found = expert.train(
            job.configurations[0], 0, job, training=training, validation=validation, precision=precision
        )
        accuracies = list(found)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert len(accuracies) == 4
    assert accuracies[-1] > 0.4


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "contestant",
    [name if name == "optuna_loop" else pytest.param(name, marks=pytest.mark.slow) for name in CONTESTANTS],
)
def test_each_contestant_trains_what_it_is_given(contestant: str, tmp_path: Path, fashion_mnist_root: Path) -> None:
    from benchmarks.peers.syne_tune_venv import ensure_python

    unpack_images(tmp_path)
    python = ensure_python() if contestant == "syne_tune_local" else None
    write_split(job := make_job(tmp_path, draw(1, seed=0)))
    done = run(f"benchmarks.peers.{contestant}", job, python=python)
    (report,) = job.reports()
    assert (report["number"], report["epoch"]) == (0, 1)
    assert 0 < report["val_accuracy"] < 1
    assert done.num_epochs == 1
    assert done.best[0][1] == report["val_accuracy"]
    assert done.best[0][0] <= done.seconds


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("contestant", CONTESTANTS)
def test_each_contestant_stops_trials_early_and_can_be_stopped(
    contestant: str, tmp_path: Path, fashion_mnist_root: Path
) -> None:
    from benchmarks.peers.syne_tune_venv import ensure_python

    unpack_images(tmp_path)
    python = ensure_python() if contestant == "syne_tune_local" else None
    write_split(job := make_job(tmp_path, draw(6, seed=0), num_epochs=4, early_stopping=True))
    done = run(f"benchmarks.peers.{contestant}", job, python=python)
    assert 6 <= done.num_epochs < 24
    again = make_job(tmp_path, draw(6, seed=0), num_epochs=50, folder=str(tmp_path / "again"))
    write_split(again)
    stopped = run(f"benchmarks.peers.{contestant}", again, python=python, target=0.05)
    assert stopped.seconds_to(0.05) == stopped.seconds
    assert stopped.num_epochs < 300


def test_a_run_ends_at_the_target_and_leaves_no_process(tmp_path: Path) -> None:
    job = make_job(tmp_path, [{"val_accuracy": 0.5, "sleep_s": 2.5}, {"val_accuracy": 0.9, "sleep_s": 600.0}])
    done = run("tests.scripted_peer", job, target=0.8)
    assert [accuracy for _, accuracy in done.best] == [0.5, 0.9]
    assert 2.5 <= done.seconds < 600  # it slept before its last report, and was not left to sleep after it
    assert 0 < done.best[0][0] < done.best[1][0] == done.seconds == done.seconds_to(0.9)
    assert done.mean_accuracy == pytest.approx(0.7)
    assert done.seconds_to(0.95) is None
    assert done.peak_memory_bytes > 10**8  # what its child holds
    assert not psutil.pid_exists(int(Path(job.folder, "child").read_text()))


@pytest.mark.parametrize("last", [{"status": 3.0}, {}], ids=["fails", "reports too little"])
def test_a_run_that_did_not_do_its_work_says_so(last: dict[str, float], tmp_path: Path) -> None:
    job = make_job(tmp_path, [{"val_accuracy": 0.5}, last])
    with pytest.raises(RuntimeError, match=rf"status {int(last.get('status', 0))} after 1 epochs:\nas it began"):
        run("tests.scripted_peer", job)
    assert not psutil.pid_exists(int(Path(job.folder, "child").read_text()))


def test_a_contestant_gets_nothing_of_what_its_caller_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path))
    handler = signal.getsignal(signal.SIGTERM)
    run("tests.scripted_peer", job := make_job(tmp_path, [{"val_accuracy": 0.5}]))
    names = Path(job.folder, "environment").read_text().split()
    assert "PYTHONPATH" in names
    assert not [name for name in names if name == "OMP_NUM_THREADS" or name.startswith("FMNIST_")]
    with pytest.raises(FileNotFoundError):
        run("tests.scripted_peer", job, python=tmp_path / "none")
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_accuracy_of_a_trial_is_that_of_its_last_epoch() -> None:
    reports = [(0, 2, 0.8), (0, 1, 0.9), (1, 1, 0.4)]
    made = [{"number": number, "epoch": epoch, "val_accuracy": value} for number, epoch, value in reports]
    assert mean_last_accuracy(made) == pytest.approx(0.6)


def test_our_own_reports_are_read_from_its_experiment(tmp_path: Path) -> None:
    job = make_job(tmp_path, [])
    trial = Path(job.folder, OURS, "trials", "00003")
    trial.mkdir(parents=True)
    header = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,epoch_s,dataset"
    (trial / "epochs.csv").write_text(f"{header}\n1,1,0.5,1,0.625,0.1,1,fashion-mnist\n")
    assert job.reports() == [{"number": 3, "epoch": 1, "val_accuracy": 0.625}]


def test_bare_loops_are_as_fast_as_all_images_until_the_last_one_ends() -> None:
    loops = [Trained(num_images=600, start_s=10, end_s=12), Trained(num_images=600, start_s=10, end_s=16)]
    assert images_per_second(loops) == 200


def test_the_bare_loop_trains_in_the_arithmetic_that_the_search_is_given(
    tmp_path: Path, fashion_mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_in = []

    class Noted(Training):
        def __init__(self, plan: TrainingPlan, *args: Any, **kwargs: Any) -> None:
            trained_in.append(plan.precision)
            super().__init__(plan, *args, **kwargs)

    monkeypatch.setattr("benchmarks.images_per_second.Training", Noted)
    job = make_job(tmp_path, draw(1, seed=0))
    precision, notes = choose_precision(job)
    assert precision in candidates(torch.device("cpu"))
    assert precision in notes[0]
    chosen = dataclasses.replace(job, precision="fp32-channels-last")
    assert parse_config(search_config(chosen), where="test").precision == "fp32-channels-last"
    bare_loop([0], chosen, clock=time.process_time)
    assert trained_in == ["fp32-channels-last"] * 2  # with its warm-up


def test_no_work_trials_are_counted_from_the_end_of_the_first_in_each_place() -> None:
    assert seconds_after_first([10, 10.5, 14, 14.5], at_once=2) == 2  # two trials in four seconds
    assert seconds_after_first([7, 1, 4], at_once=1) == 3


def test_no_work_trials_are_counted_by_stretches_without_the_first_in_each_place() -> None:
    ended = [10, 20, 22, 24, 25, 26, 27, 28, 38, 48, 58, 68]
    assert seconds_per_trial(ended, at_once=2, stretch=4) == [2, 1, 10]
    assert seconds_per_trial(ended[::-1], at_once=2, stretch=5) == [(25 - 20) / 3, (48 - 25) / 5]


def test_a_peer_does_not_load_what_its_trials_have_no_need_of() -> None:
    """Each of its trials is a fresh process, and the time to import is the trial's."""
    heavy = {
        "benchmarks.peers.ray_nesting": {"torchvision", "sklearn", "fmnist_models.networks", "cluster.session"},
        "benchmarks.peers.plain": {"sklearn", "ray", "optuna", "search.configuration.config"},
        "benchmarks.peers.expert": {"sklearn", "ray", "optuna", "torchvision", "search.configuration.config"},
    }
    for module, unneeded in heavy.items():
        script = f"import sys, {module}; sys.exit(str(sorted({unneeded} & set(sys.modules))))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stderr.splitlines()[-1] == "[]"


def test_turns_alternate() -> None:
    made = [(turn.contestant, turn.repeat) for turn in turns("fixed", ["ours", "optuna_loop"], 3)]
    assert made == [
        *(("ours", 0), ("optuna_loop", 0)),
        *(("optuna_loop", 1), ("ours", 1)),
        *(("ours", 2), ("optuna_loop", 2)),
    ]


def make_arguments() -> argparse.Namespace:
    return argparse.Namespace(trials=16, images=5000, targets=[0.87, 0.89])


def make_runs() -> dict[Turn, MeasuredRun]:
    def make(seconds: float, best: float) -> MeasuredRun:
        return MeasuredRun(
            seconds=seconds,
            num_epochs=96,
            best=[(1.0, 0.5), (seconds - 1, best)],
            mean_accuracy=best - 0.02,
            peak_memory_bytes=10**9,
            began="2026-01-01T00:00:00+0000",
            load_average=(0.1, 0.2, 0.3),
        )

    return {
        Turn("fixed", "ours", 0): make(100, 0.9),
        Turn("fixed", "ours", 1): make(100, 0.9),
        Turn("fixed", "optuna_loop", 0): make(300, 0.9),
        Turn("fixed", "optuna_loop", 1): make(500, 0.9),
        Turn("target", "ours", 0): make(21, 0.88),
        Turn("target", "optuna_loop", 0): make(80, 0.86),
    }


def test_figures_are_medians_of_what_was_measured() -> None:
    found = figures(make_runs(), make_arguments())
    assert found["fixed: trials per hour"]["ours"] == [576, 576]
    assert found["fixed: images per second"]["ours"] == [96 * 4500 / 100] * 2
    assert found["fixed: mean validation accuracy of the trials"]["ours"] == [pytest.approx(0.88)] * 2
    assert found["0.87: seconds"] == {"ours": [20], "optuna_loop": [80]}
    assert found["0.87: share of runs that reached it"] == {"ours": [1], "optuna_loop": [0]}
    assert found["0.89: seconds"] == {"ours": [21], "optuna_loop": [80]}
    assert found["0.89: share of runs that reached it"] == {"ours": [0], "optuna_loop": [0]}
    assert [(row["figure"], row["values"], row["bar"]) for row in ratios(make_runs(), make_arguments())] == [
        ("fixed: trials per hour", [3.0, 5.0], 3.0),
        ("0.87: seconds", [4.0], 2.0),
        ("0.89: seconds", None, 2.0),
    ]


def test_a_ratio_is_of_the_two_runs_of_one_repeat() -> None:
    """The ratio of medians would be 8: 80 / 10."""
    runs = {}
    one = make_runs()[Turn("fixed", "ours", 0)]
    for repeat, (ours_s, theirs_s) in enumerate([(5, 80), (10, 20), (40, 90)]):
        for who, seconds in (("ours", ours_s), ("optuna_loop", theirs_s)):
            runs[Turn("target", who, repeat)] = dataclasses.replace(one, best=[(float(seconds), 0.88)])
    row = next(row for row in ratios(runs, make_arguments()) if row["figure"] == "0.87: seconds")
    assert row["values"] == [16, 2, 2.25]
    assert row["seconds"] == {"ours": [5, 10, 40], "theirs": [80, 20, 90]}
    assert show_times(row) == "2.2, 2.0–16.0"


def test_who_misses_the_target_is_never_the_better_for_it() -> None:
    ours, theirs = Turn("target", "ours", 0), Turn("target", "optuna_loop", 0)

    def shown(runs: dict[Turn, MeasuredRun]) -> list[str]:
        return [show_times(row) for row in ratios(runs, make_arguments()) if row["figure"] == "0.87: seconds"]

    runs = make_runs()
    assert shown(runs) == ["≥ 4.0 (reached by 100% of our runs, 0% of theirs)"]
    reached, missed = runs[ours], runs[theirs]
    assert shown(runs | {theirs: dataclasses.replace(missed, best=[(60.0, 0.87)])}) == ["3.0"]
    assert shown({ours: missed, theirs: reached}) == ["not reached (reached by 0% of our runs, 100% of theirs)"]
    assert shown({ours: missed, theirs: missed}) == ["not reached (reached by 0% of our runs, 0% of theirs)"]
    both = {Turn("target", who, 1): reached for who in ("ours", "optuna_loop")}
    half = {ours: missed, theirs: reached, **both}
    assert shown(half) == ["not reached (reached by 50% of our runs, 100% of theirs)"]


def test_ratios_are_of_runs_that_pair_up() -> None:
    runs = make_runs()
    alone = Turn("fixed", "ours", 2)
    runs[alone] = dataclasses.replace(runs[Turn("fixed", "ours", 0)], seconds=1.0)
    assert ratios(runs, make_arguments()) == ratios(make_runs(), make_arguments())
    assert ratios({alone: runs[alone], Turn("fixed", "optuna_loop", 0): runs[alone]}, make_arguments()) == []


def test_code_is_what_runs_and_neither_documents_nor_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(file: str, text: str) -> dict[str, str]:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        identity = ("-c", "user.name=a", "-c", "user.email=a@localhost")
        for words in (["add", "-A"], [*identity, "commit", "-q", "-m", file]):
            subprocess.run(["git", *words], cwd=tmp_path, check=True)
        return results.code()

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(results, "_ROOT", tmp_path)
    found = [
        commit(file, "") for file in ("search/a.py", "README.md", "docs/page.svg", "tests/test.py", "cluster/b.py")
    ]
    assert [made["changes"] for made in found] == [""] * 5
    assert len({made["commit"] for made in found}) == 5
    assert [made["files"] == found[0]["files"] for made in found] == [True, True, True, True, False]
    (tmp_path / "README.md").write_text("changed")
    assert results.code() == found[-1]
    (tmp_path / "search" / "a.py").write_text("changed")
    assert results.code()["changes"]


def test_a_benchmark_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (results, peer_trials):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    runs = make_runs()
    parts = {what: {turn: done for turn, done in runs.items() if turn.what == what} for what in SETTINGS}
    for what in SETTINGS:
        assert load(what, {"images": 5000}) == {}
        save(what, parts[what], {"images": 5000}, make_arguments())
        assert load(what, {"images": 5000}) == parts[what] != {}
        assert load(what, {"images": 500}) == {}
    made = made_on()
    others = {
        "code": [made["code"] | {"files": "other"}, made["code"] | {"changes": "other"}],
        "processor": [["other", made["processor"][1]]],
        "peers": [["syne-tune==0"]],
        "versions": [made["versions"] | {"torch": "0"}],
    }
    for name, values in others.items():
        for value in values:
            monkeypatch.setattr(peer_trials, "made_on", lambda changed=made | {name: value}: changed)
            assert load("fixed", {"images": 5000}) == {}
    kept = json.loads((tmp_path / "peers_fixed.json").read_text())
    assert kept["figures"]["fixed: trials per hour"]["optuna_loop"]["n"] == 2
    assert {"machine", "versions", "written", "code"} <= kept.keys()
