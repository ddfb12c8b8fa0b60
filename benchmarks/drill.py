"""A fault drill for a person to watch: a cluster comes up, runs a search, loses a node, recovers, and goes down.

Everything is done with the commands that a person has, in folders of its own; what is measured comes last. Ends with
exit code 0 only if no trial was lost, each finished epoch was kept, and nothing is left running.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.processes import MARK

NAME = "drill"
SEARCH = {
    "dataset": "synthetic",
    "train_size": 2000,
    "test_size": 500,
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}, "dropout": {"float": [0.0, 0.6]}},
    "max_trials": 4,
    "max_epochs": 10,
    "pruner": "none",
    "max_concurrent_trials": 2,
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fmnist-drill-") as folder:
        os.environ |= {"FMNIST_CLUSTERS_DIR": f"{folder}/clusters", "FMNIST_EXPERIMENTS_DIR": f"{folder}/experiments"}
        config = Path(folder, f"{NAME}.yaml")
        config.write_text(json.dumps(SEARCH), encoding="utf-8")  # JSON is YAML
        try:
            measured = _drill(config, Path(folder, "experiments", NAME, "trials"))
        finally:
            _fmnist("cluster", "down", "--name", NAME)
    measured["processes left after `down`"] = float(len(_processes()))
    print()
    for what, value in measured.items():
        print(f"{what:<60} {value:6.1f}")
    if measured["finished epochs lost"] or measured["processes left after `down`"]:
        sys.exit("the drill failed")


def _drill(config: Path, trials: Path) -> dict[str, float]:
    measured = {}
    since_s = time.monotonic()
    _fmnist("cluster", "up", "--nodes", "3", "--cpus-per-node", "1", "--name", NAME)
    measured["seconds from `cluster up` to three nodes alive"] = time.monotonic() - since_s
    since_s = time.monotonic()
    _fmnist("submit", str(config), "--cluster", NAME)
    measured["seconds from `submit` to the first trial's first epoch"] = _wait(lambda: _epochs(trials), since_s)
    job_id = _ask("jobs", "--cluster", NAME)[0]["id"]
    _wait(
        lambda: len(_epochs(trials)) == SEARCH["max_concurrent_trials"] and min(_epochs(trials).values()) >= 3, since_s
    )
    number = _busy_node()
    _fmnist("cluster", "kill-node", str(number), "--name", NAME)
    since_s, before = time.monotonic(), _epochs(trials)
    went_on = lambda: all(_epochs(trials)[trial] > done for trial, done in before.items())  # noqa: E731
    measured["seconds from the node's death to its trial's next epoch"] = _wait(went_on, since_s)
    _fmnist("cluster", "status", "--name", NAME)
    _fmnist("jobs", "wait", job_id, "--cluster", NAME)
    _fmnist("jobs", "--cluster", NAME)
    _fmnist("trials", NAME)
    expected = SEARCH["max_epochs"]
    states = [trial["state"] for trial in _ask("trials", NAME)["trials"]]
    assert states == ["complete"] * SEARCH["max_trials"], states
    measured["finished epochs lost"] = float(sum(expected - done for done in _epochs(trials).values()))
    return measured


def _busy_node() -> int:
    """The number of a node that is not the head and has a trial."""
    found: list[int] = []

    def look() -> bool:
        nodes = _ask("cluster", "status", "--name", NAME)["nodes"]
        found[:] = [n for n, node in enumerate(nodes) if node["used"].get("CPU") and not node["is_head"]]
        return bool(found)

    _wait(look, time.monotonic())
    return found[0]


def _epochs(trials: Path) -> dict[str, int]:
    """How many epochs each trial has finished."""
    return {path.parent.name: path.read_text("utf-8").count("\n") - 1 for path in trials.glob("*/epochs.csv")}


def _wait(condition: Callable[[], Any], since_s: float, *, timeout_s: float = 300) -> float:
    while not condition():
        if time.monotonic() > since_s + timeout_s:
            sys.exit(f"waited {timeout_s:g} s in vain")
        time.sleep(0.1)
    return time.monotonic() - since_s


def _fmnist(*words: str) -> None:
    print(f"\n$ fmnist {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "search.cli", *words], check=True)


def _ask(*words: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "search.cli", *words, "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def _processes() -> list[int]:
    """Living processes that were started on a cluster which is noted down in a folder of a drill."""
    entry, found = f"{MARK}=".encode(), []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = environment.read_bytes().split(b"\0")
        except OSError:
            continue
        mine = f"FMNIST_CLUSTERS_DIR={os.environ['FMNIST_CLUSTERS_DIR']}".encode()
        if mine in variables and any(variable.startswith(entry) for variable in variables):
            found.append(int(environment.parent.name))
    return found


if __name__ == "__main__":
    main()
