"""What the processes of a Ray import, and how they and their driver end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray._private import ray_constants, services

from cluster import dies_with_parent, ray_processes
from cluster.folder import Record
from cluster.local import LocalCluster
from cluster.ray_processes import make_job_config, without_native_trace
from cluster.session import _few_parts, _on_loopback

ROOT = Path(__file__).parent.parent
SHADOWS = ("search", "fmnist_models", "cluster", "ray", "torch", "ctypes")
# It is interrupted in order, takes longer for it than Ray's own handler of signals would leave it, and is then killed.
DRIVER = """
import json, sys, time
from cluster.interruption import Interruption, interruptible
from cluster.session import BackgroundRay
import ray

@ray.remote
def import_all():
    import cluster, fmnist_models, search, torch
    return [module.__file__ for module in (search, fmnist_models, cluster, ray, torch)]

background = BackgroundRay(num_cpus=1, num_gpus=0)
background.wait()
try:
    with interruptible(Interruption()):
        print(json.dumps(ray.get(import_all.remote())), flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    time.sleep(4)
    print("ends in order", flush=True)
    time.sleep(60)
"""


@dataclass(frozen=True)
class Seen:
    imported: list[str]
    said_on_sigterm: str
    left: list[str]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("shadows")
    for module in SHADOWS:
        (folder / f"{module}.py").write_text("raise SystemExit('the wrong module')")
    (folder / "said").touch()
    script = folder.with_name("driver.py")
    script.write_text(DRIVER)
    with (folder / "said").open("wb") as errors:
        driver = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert driver.stdout is not None
    try:
        imported = json.loads(driver.stdout.readline() or "[]")
        processes = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGTERM)
        said = driver.stdout.readline() + (folder / "said").read_text()
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs(processes, timeout=5)
        yield Seen(imported, said, [process.name() for process in alive if process.is_running()])
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()


def test_a_task_imports_what_its_driver_imports_whatever_the_current_folder_holds(seen: Seen) -> None:
    assert len(seen.imported) == 5
    assert [Path(path).parent.parent for path in seen.imported[:3]] == [ROOT] * 3
    assert [path for path in seen.imported if "shadows" in path] == []


def test_sigterm_is_the_drivers_own_and_prints_no_native_trace(seen: Seen) -> None:
    assert seen.said_on_sigterm == "ends in order\n"


def test_no_process_of_ray_survives_a_killed_driver_by_five_seconds(seen: Seen) -> None:
    assert seen.left == []


def test_the_nodes_of_a_cluster_start_whatever_the_current_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise SystemExit('the wrong module')")
    where = {
        "address": "127.0.0.2:1",
        "dashboard": "http://127.0.0.1:2",
        "temporary_folder": "/tmp/fmnist-cluster-none",
    }
    record = Record(host="here", mark="0123456789abcdef/", num_nodes=1, **where)
    command = LocalCluster("shadowed", directory=tmp_path)._command(record, 0)
    start = command.index("start")
    done = subprocess.run([*command[: start + 1], "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_ray_without_some_of_the_replaced_names_keeps_its_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in [
        (ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"),
        (services, "_build_python_executable_command_memory_profileable"),
        (services, "resolve_ip_for_localhost"),
    ]:
        monkeypatch.delattr(owner, name)
        with without_native_trace(), _few_parts(), _on_loopback():
            assert not hasattr(owner, name)
        assert not hasattr(owner, name)


def test_a_ray_that_takes_no_search_path_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        """A ``JobConfig`` without a driver's path."""

    monkeypatch.setattr(ray_processes, "JobConfig", Plain)
    assert isinstance(make_job_config(), Plain)


@pytest.mark.parametrize(
    ("told", "said"), [(None, "begun\n"), (os.getpid(), "begun\n"), (1, "")], ids=["none", "its own", "another"]
)
def test_what_dies_with_its_parent_begins_only_under_the_one_that_it_is_told_if_any(
    monkeypatch: pytest.MonkeyPatch, told: int | None, said: str
) -> None:
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    if told is not None:
        monkeypatch.setenv("RAY_RAYLET_PID", str(told))
    command = [sys.executable, "-I", "-S", dies_with_parent.__file__, sys.executable, "-c", "print('begun')"]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == said
