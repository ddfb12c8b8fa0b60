"""Local clusters: real Ray nodes, started, asked, broken and ended by the command line; afterwards nothing is left."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import signal
import socket
import stat
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_cluster import (
    SMALL,
    Result,
    Running,
    Trace,
    arguments_of,
    assert_gone,
    fmnist,
    note,
    place_for_clusters,
    record_of,
    trace,
    wait_until,
    write_config,
)

from cluster import heap, local
from cluster.dashboard import Dashboard
from cluster.errors import ClusterError
from cluster.folder import list_clusters
from cluster.jobs import Jobs, Submission
from cluster.local import LocalCluster
from cluster.ports import free_ports
from cluster.processes import find_processes

HOLD = """
import ray, time
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=1)
def hold():
    time.sleep(600)
ray.get(hold.remote())
"""
ENTER = "import sys, ray; ray.init(address=sys.argv[1]); print('INSIDE', ray.cluster_resources())"
JOIN = "import sys; from ray.scripts.scripts import main; sys.argv[1:] = ['start', *sys.argv[1:]]; main()"
LONG_NAME = "a-temporary-folder-whose-path-is-too-long-for-the-sockets-that-ray-would-make-in-it" + "-" * 20


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with place_for_clusters(tmp_path_factory.mktemp("clusters")) as folder:
        yield folder


@dataclass(frozen=True)
class Pair:
    """A cluster of two nodes with one CPU each; ``up``: how its start ended, ``intruders``: have no token."""

    name: str
    dashboard: str
    up: Result
    intruders: tuple[Running, ...]


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[Pair]:
    port, name, start_s = free_ports(1)[0], "pair", time.monotonic()
    options = ["--nodes", "2", "--cpus-per-node", "1", "--name", name, "--dashboard-port", str(port)]
    (folder / LONG_NAME).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder / LONG_NAME))
        patch.setattr(tempfile, "tempdir", None)  # which keeps an earlier $TMPDIR
        up = fmnist("cluster", "up", *options)
    assert up.code == 0, up.err
    note(up_of_two_nodes_s=time.monotonic() - start_s)
    (folder / "home").mkdir()
    address, home = record_of(name).address, {"HOME": str(folder / "home")}
    joins = [f"--address={address}", "--node-ip-address=127.0.0.9", "--disable-usage-stats"]
    intruders = (Running("-c", ENTER, address, **home), Running("-c", JOIN, *joins, **home))
    before = trace(name)
    yield Pair(name, f"http://127.0.0.1:{port}", up, intruders)
    start_s = time.monotonic()
    down = fmnist("cluster", "down", "--name", name)
    note(down_s=time.monotonic() - start_s)
    assert (down.code, down.out, down.err) == (0, f"cluster {name} is down\n", "")
    assert_gone(before)
    assert fmnist("cluster", "status", "--name", name).code == 2


def status(name: str) -> Any:
    return fmnist("cluster", "status", "--name", name, "--json").json()


@contextlib.contextmanager
def nothing_made() -> Iterator[None]:
    """Checks that the block leaves no cluster and no folder; others may start clusters of theirs meanwhile."""
    before, folders = noted_down(), temporary_folders()
    yield
    assert noted_down() == before
    wait_until(lambda: all(is_in_use(path) for path in temporary_folders() - folders), timeout_s=20)


def noted_down() -> list[str]:
    folder = Path("clusters")
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock")) if folder.exists() else []


def temporary_folders() -> set[Path]:
    return set(Path("/tmp").glob("fmnist-cluster-*"))


def is_in_use(folder: Path) -> bool:
    return any(str(folder) in " ".join(arguments_of(process)) for process in psutil.process_iter())


# --- Up ---


def test_up_returns_when_all_nodes_are_alive_and_shows_them(pair: Pair) -> None:
    lines = [" ".join(line.split()) for line in pair.up.out.splitlines()]
    assert lines == [
        "node address state CPUs used free GPUs used free",
        "0 127.0.0.2 (head) alive 0 1 0 0",
        "1 127.0.0.3 alive 0 1 0 0",
        f"cluster pair: dashboard at {pair.dashboard}, no job runs",
    ]
    assert pair.up.err == ""
    assert [" ".join(line.split()) for line in fmnist("cluster", "status", "--name", "pair").out.splitlines()] == lines


def test_status_as_json(pair: Pair) -> None:
    told = status(pair.name)
    assert (told["name"], told["dashboard"], told["running_jobs"]) == (pair.name, pair.dashboard, [])
    nodes = told["nodes"]
    assert [(node["address"], node["is_head"], node["is_alive"]) for node in nodes] == [
        ("127.0.0.2", True, True),
        ("127.0.0.3", False, True),
    ]
    assert [node["total"]["CPU"] for node in nodes] == [1.0, 1.0]
    assert [node["used"].get("CPU", 0.0) for node in nodes] == [0.0, 0.0]
    assert all(set(node["used"]) <= set(node["total"]) for node in nodes)


def test_the_token_is_for_this_user_alone_and_in_no_command_line(pair: Pair) -> None:
    folder = Path("clusters", pair.name)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder.parent, folder, *folder.iterdir()]}
    assert modes == {"clusters": 0o700, "pair": 0o700, "token": 0o600, "cluster.json": 0o600}
    token = (folder / "token").read_text()
    assert len(token) == 64
    processes = find_processes(record_of(pair.name).mark)
    assert processes
    assert [process.pid for process in processes if token in " ".join(arguments_of(process))] == []
    assert token not in pair.up.out + (folder / "cluster.json").read_text()


def test_every_process_of_the_cluster_is_known_by_its_mark(pair: Pair) -> None:
    """Those that Ray renames among them, which it otherwise has write over their environment."""
    found = trace(pair.name)
    known = set(find_processes(found.record.mark))
    assert {process.pid: arguments_of(process) for process in found.processes - known} == {}
    names = [process.name() for process in known]
    agents = ["gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent"]
    assert [sum(name.startswith(agent[:15]) for name in names) for agent in agents] == [1, 2, 2, 2]


def test_the_nodes_have_the_memory_settings_that_their_workers_inherit(pair: Pair) -> None:
    expected = heap.missing_from(os.environ)
    raylets = [each for each in find_processes(record_of(pair.name).mark) if each.name().startswith("raylet")]
    assert [expected.items() <= raylet.environ().items() for raylet in raylets] == [True, True]


def test_the_dashboard_listens_on_loopback_alone(pair: Pair) -> None:
    port = int(pair.dashboard.rpartition(":")[2])
    assert {address for address, number in trace(pair.name).listening if number == port} == {"127.0.0.1"}


# --- The token ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/version"),
        ("GET", "/api/jobs/"),
        ("POST", "/api/jobs/"),
        ("GET", "/api/v0/nodes"),
        ("GET", "/api/cluster_status"),
        ("GET", "/nodes?view=summary"),
    ],
)
def test_a_request_without_the_token_is_refused(pair: Pair, method: str, path: str) -> None:
    assert ask(pair.dashboard + path, method) == 401
    assert ask(pair.dashboard + path, method, token="0" * 64) == 403


def test_no_port_of_the_cluster_takes_a_job_or_tells_of_nodes_without_the_token(pair: Pair) -> None:
    """Some of them listen on all addresses, whatever Ray is told."""
    ports = {port for address, port in trace(pair.name).listening if address in ("0.0.0.0", "::")}
    assert ports, "if none does any more, so much the better: change the docstring of LocalCluster"
    for port in {port for _, port in trace(pair.name).listening}:
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            for path in ("/api/jobs/", "/api/job_agent/jobs/"):
                assert ask(f"http://{address}:{port}{path}", "POST") in (None, 401, 405)
            for path in ("/logs/", "/api/v0/nodes", "/metrics"):
                assert ask(f"http://{address}:{port}{path}", "GET") in (None, 401, 405)
    assert status(pair.name)["running_jobs"] == []


def test_nothing_but_what_asks_for_the_token_listens_beyond_loopback(pair: Pair) -> None:
    """Ray's counters for Prometheus ask nobody: their servers, which take two fixed ports, must not be there."""
    found = trace(pair.name).listening
    assert {port for _, port in found} & {44217, 44227} == set()
    assert all(ask(f"http://127.0.0.1:{port}/metrics", "GET") != 200 for _, port in found)


def ask(url: str, method: str, *, token: str | None = None) -> int | None:
    """The HTTP status of the answer; ``None`` if there is none, or not in HTTP."""
    body = json.dumps({"entrypoint": "sleep 600"}).encode() if method == "POST" else None
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, ValueError, http.client.HTTPException):
        return None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ["asks for a token", "--cluster NAME", "$RAY_AUTH_TOKEN", "$RAY_AUTH_TOKEN_PATH"]),
        ({"RAY_AUTH_TOKEN": "0" * 64}, ["refuses this token"]),
        ({"RAY_AUTH_TOKEN": " \t"}, ["$RAY_AUTH_TOKEN", "blanks", "$RAY_AUTH_TOKEN_PATH"]),
        ({"RAY_AUTH_TOKEN_PATH": "nowhere"}, ["nowhere", "No such file", "$RAY_AUTH_TOKEN_PATH"]),
        ({"RAY_AUTH_TOKEN_PATH": "clusters"}, ["clusters", "cannot be read"]),
        ({"RAY_AUTH_TOKEN_PATH": "/dev/null"}, ["/dev/null", "no token"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", [["jobs"], ["jobs", "logs", "x"], ["submit", "--experiments-dir", "/tmp"]], ids=str)
def test_an_address_without_its_token_gets_a_message(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: list[str], command: list[str]
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = fmnist(*command, "--address", pair.dashboard)
    assert (result.code, result.out) == (2, "")
    assert [word for word in words if word not in result.err] == []


BROKEN = [
    ({"RAY_AUTH_MODE": "on"}, ["$RAY_AUTH_MODE", "'on'", "token, disabled"]),
    ({"RAY_AUTH_MODE": "token"}, ["$RAY_AUTH_MODE", "no token", "$RAY_AUTH_TOKEN_PATH"]),
    ({"RAY_AUTH_TOKEN": " "}, ["$RAY_AUTH_TOKEN", "blanks"]),
    ({"RAY_AUTH_TOKEN_PATH": "nowhere", "RAY_AUTH_MODE": "token"}, ["nowhere", "No such file"]),
]


@pytest.mark.parametrize(("environment", "words"), BROKEN, ids=str)
def test_a_search_on_a_cluster_is_told_of_token_variables_that_lead_nowhere(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: list[str]
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = fmnist("search", "run", write_config(SMALL), "--address", "127.0.0.1:1")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert [word for word in words if word not in result.err] == []


def test_a_cluster_that_is_named_has_its_own_token_whatever_the_variables_say(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for environment, _ in BROKEN:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
    assert fmnist("jobs", "--cluster", pair.name, "--json").json() == []
    assert status(pair.name)["running_jobs"] == []


@pytest.mark.parametrize("variable", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_an_address_with_its_token_is_as_good_as_a_name(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    token = Path("clusters", pair.name, "token")
    monkeypatch.setenv(variable, str(token) if variable.endswith("PATH") else token.read_text())
    for address in (pair.dashboard, pair.dashboard + "/"):
        assert fmnist("jobs", "--address", address, "--json").json() == []
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", pair.dashboard)
    assert fmnist("jobs", "--json").json() == []
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert fmnist("jobs", "--json").code == 3
    assert fmnist("jobs", "--cluster", pair.name, "--json").json() == [], "what is said goes before the environment"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--address", "http://127.0.0.1:1"], 3, ["http://127.0.0.1:1", "no Ray dashboard answers"]),
        (["--address", "127.0.0.1:8265"], 2, ["127.0.0.1:8265", "http://127.0.0.1:8265"]),
        (["--address", "http://"], 2, ["http://"]),
        (["--address", "http://here:port"], 2, ["here:port"]),
        (["--address", "http://127.0.0.1:1", "--cluster", "pair"], 2, ["pair", "http://127.0.0.1:1", "not both"]),
        (["--cluster", "nobody"], 2, ["nobody", "fmnist cluster up --name nobody"]),
        (["--cluster", "../pair"], 2, ["../pair", "letters"]),
    ],
    ids=str,
)
def test_a_wrong_target_gets_a_message(arguments: list[str], code: int, words: list[str]) -> None:
    result = fmnist("jobs", *arguments)
    assert (result.code, result.out) == (code, "")
    assert [word for word in words if word not in result.err] == []


@pytest.mark.parametrize("target", [["--cluster", "pair"], ["--address", "http://127.0.0.1:1"]], ids=str)
@pytest.mark.parametrize("command", ["logs", "stop", "wait", "resubmit"])
def test_a_target_named_too_early_is_not_overlooked(target: list[str], command: str) -> None:
    """`stop` would ask another cluster than the one that was named."""
    result = fmnist("jobs", *target, command, "x")
    assert (result.code, result.out) == (2, "")
    assert f"go after `{command}`" in " ".join(result.err.replace("│", " ").split())


# --- What is used, and who else there is ---


@pytest.fixture
def holder(pair: Pair) -> Iterator[str]:
    """A job, no search, that holds a CPU."""
    submission = Submission(
        name="holder",
        entrypoint=f"{sys.executable} hold.py",
        packages=(),
        files={"hold.py": HOLD},
        metadata={"who": "somebody else"},
        variables={},
    )
    job_id = Jobs(LocalCluster(pair.name).dashboard).submit(submission)
    yield job_id
    assert fmnist("jobs", "stop", job_id, "--cluster", pair.name).code == 0
    assert status(pair.name)["running_jobs"] == []


def test_status_shows_what_is_used_and_which_jobs_run(pair: Pair, holder: str) -> None:
    wait_until(lambda: sum(node["used"].get("CPU", 0) for node in status(pair.name)["nodes"]) == 1, timeout_s=60)
    assert status(pair.name)["running_jobs"] == [holder]
    shown = fmnist("cluster", "status", "--name", pair.name).out
    assert shown.splitlines()[-1].endswith(f"running jobs: {holder}")
    assert sorted(line.split()[-4:-2] for line in shown.splitlines()[1:3]) == [["0", "1"], ["1", "0"]]
    assert fmnist("jobs", "--cluster", pair.name).out == "the cluster has no job; `fmnist submit` makes one\n"
    wait_until(lambda: Jobs(LocalCluster(pair.name).dashboard).get(holder).state.value == "running")
    fmnist("jobs", "stop", holder, "--cluster", pair.name)
    refused = fmnist("jobs", "resubmit", holder, "--cluster", pair.name)
    assert refused.code == 2
    assert "does not say what search it was" in refused.err
    refused = fmnist("jobs", "logs", "nonsense", "--cluster", pair.name)
    assert refused.code == 2
    assert "nonsense" in refused.err
    assert holder in refused.err


def test_a_name_that_is_up_is_refused_and_the_cluster_lives_on(pair: Pair) -> None:
    before = trace(pair.name)
    result = fmnist("cluster", "up", "--name", pair.name)
    assert (result.code, result.out) == (2, "")
    assert "fmnist cluster down --name pair" in result.err
    assert trace(pair.name).record == before.record
    assert [node["is_alive"] for node in status(pair.name)["nodes"]] == [True, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name", "../up"], ["../up", "letters"]),
        (["--name", ""], ["''", "letters"]),
        (["--name", "a" * 51], ["aaa", "50"]),
        (["--nodes", "0"], ["nodes", "0", "1"]),
        (["--nodes", "65"], ["nodes", "65", "64"]),
        (["--cpus-per-node", "-1"], ["-1", "CPUs"]),
        (["--gpus-per-node", "-1"], ["-1", "GPUs"]),
        (["--dashboard-port", "70000"], ["70000", "valid"]),
        (["--dashboard-port", "-5"], ["-5", "valid"]),
    ],
    ids=str,
)
def test_a_cluster_that_cannot_be_is_refused_and_leaves_nothing(options: list[str], words: list[str]) -> None:
    with nothing_made():
        result = fmnist("cluster", "up", "--name", "wrong", *options)
    assert (result.code, result.out) == (2, "")
    assert [word for word in words if word not in result.err] == []


def test_a_dashboard_port_in_use_is_refused_and_leaves_nothing() -> None:
    with nothing_made(), socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = fmnist("cluster", "up", "--name", "wrong", "--dashboard-port", str(port))
    assert (result.code, result.out) == (2, "")
    assert f"port {port}" in result.err


@pytest.mark.parametrize("command", ["up", "status", "down"])
@pytest.mark.parametrize("place", ["/proc/nowhere", "a-file/clusters"])
def test_a_folder_that_cannot_be_written_gets_a_message(
    monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    Path("a-file").touch()
    monkeypatch.setenv("FMNIST_CLUSTERS_DIR", place)
    result = fmnist("cluster", command)
    assert (result.code, result.out) == (2, "")
    assert (place if command == "up" else "local") in result.err


GOOD_RECORD = {
    "host": platform.node(),
    "mark": "0123456789abcdef/",
    "address": "127.0.0.2:1",
    "dashboard": "http://127.0.0.1:1",
    "temporary_folder": "/tmp/fmnist-cluster-nowhere",
    "num_nodes": 1,
}


@pytest.mark.parametrize("what", ["open to others", "a link", "a pipe for a lock", "a link for a lock"])
def test_what_others_may_have_put_where_clusters_are_noted_down_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    monkeypatch.setenv("FMNIST_CLUSTERS_DIR", str(tmp_path / "shared"))
    folder, lock = tmp_path / "shared" / "trap", tmp_path / "shared" / ".trap.lock"
    folder.parent.mkdir()
    if what.endswith("lock"):
        os.mkfifo(lock) if "pipe" in what else lock.symlink_to(tmp_path / "made")
    else:
        place = folder if what.startswith("open") else tmp_path / "elsewhere"
        place.mkdir()
        (place / "cluster.json").write_text(json.dumps(GOOD_RECORD))
        place.chmod(0o777)
        if place != folder:
            folder.symlink_to(place)
    result = fmnist("cluster", "up", "--name", "trap")
    assert (result.code, result.out) == (2, "")
    assert str(tmp_path / "shared") in result.err
    assert "FMNIST_CLUSTERS_DIR" in result.err
    assert not (tmp_path / "made").exists()
    assert list_clusters(tmp_path / "shared") == []


def test_a_node_that_does_not_start_in_time_is_named_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_SECONDS_TO_START", 0.5)
    with nothing_made():
        result = fmnist("cluster", "up", "--name", "slow")
    assert (result.code, result.out) == (2, "")
    assert "node 0 of cluster slow did not start within 0.5 s (`ray start` did not return)" in result.err


@pytest.mark.parametrize("command", [["up"], ["status"], ["down"], ["kill-node", "0"]], ids=str)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps(GOOD_RECORD | {"more": 1}),
        json.dumps(GOOD_RECORD | {"mark": ""}),
        json.dumps(GOOD_RECORD | {"mark": 3}),
        json.dumps(GOOD_RECORD | {"num_nodes": "many"}),
        json.dumps(GOOD_RECORD | {"temporary_folder": "/tmp"}),
        json.dumps(GOOD_RECORD | {"temporary_folder": "/tmp/fmnist-cluster-x/../.."}),
    ],
)
def test_a_damaged_record_ends_and_removes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, command: list[str]
) -> None:
    monkeypatch.setenv("FMNIST_CLUSTERS_DIR", str(tmp_path))
    (tmp_path / "hurt").mkdir()
    (tmp_path / "hurt" / "cluster.json").write_text(text)
    result = fmnist("cluster", *command, "--name", "hurt")
    assert (result.code, result.out) == (2, "")
    assert str(tmp_path / "hurt" / "cluster.json") in result.err
    assert (tmp_path / "hurt" / "cluster.json").read_text() == text


def test_a_cluster_of_which_only_the_record_is_left_can_be_taken_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after the machine was started anew; the token may be gone as well."""
    monkeypatch.setenv("FMNIST_CLUSTERS_DIR", str(tmp_path))
    (tmp_path / "past").mkdir()
    others = tempfile.mkdtemp(prefix="fmnist-cluster-", dir="/tmp")  # the same name, and not this program's
    (tmp_path / "past" / "cluster.json").write_text(json.dumps(GOOD_RECORD | {"temporary_folder": others}))
    told = fmnist("cluster", "status", "--name", "past")
    assert told.code in (2, 3)
    assert "past" in told.err
    result = fmnist("cluster", "down", "--name", "past")
    assert (result.code, result.out) == (0, "cluster past is down\n")
    assert not (tmp_path / "past").exists()
    Path(others).rmdir()  # it is still there


@pytest.mark.parametrize("command", [["up"], ["status"], ["down"], ["kill-node", "0"]], ids=str)
def test_a_cluster_of_another_machine_that_sees_the_same_folder_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str]
) -> None:
    monkeypatch.setenv("FMNIST_CLUSTERS_DIR", str(tmp_path))
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "cluster.json").write_text(json.dumps(GOOD_RECORD | {"host": "far-away"}))
    result = fmnist("cluster", *command, "--name", "far")
    assert (result.code, result.out) == (2, "")
    assert "far-away" in result.err
    assert (tmp_path / "far" / "cluster.json").exists()


# --- Ends of all kinds ---


def test_a_cluster_in_a_block_beside_another_loses_its_nodes_and_is_gone_after_an_error(pair: Pair) -> None:
    with pytest.raises(ZeroDivisionError), LocalCluster("other", nodes=2, cpus_per_node=1) as cluster:  # noqa: PT012
        before = trace("other")
        assert [(node.is_alive, node.total["CPU"]) for node in cluster.nodes()] == [(True, 1.0), (True, 1.0)]
        ambiguous = fmnist("jobs")
        assert (ambiguous.code, ambiguous.out) == (2, "")
        assert "--cluster NAME says which: other, pair" in ambiguous.err
        check_the_loss_of_nodes(cluster)
        raise ZeroDivisionError
    assert_gone(before)
    assert [node["is_alive"] for node in status(pair.name)["nodes"]] == [True, True]
    assert fmnist("jobs", "--json").json() == [], "there is only one cluster again"


def check_the_loss_of_nodes(cluster: LocalCluster) -> None:
    name = cluster.name
    refused = fmnist("cluster", "kill-node", "2", "--name", name)
    assert refused.code == 2
    assert "no node 2 alive; valid: [0, 1]" in refused.err
    killed = fmnist("cluster", "kill-node", "1", "--name", name)
    assert (killed.code, killed.out) == (0, f"killed node 1 of cluster {name}\n")
    assert find_processes(record_of(name).mark + "1/") == []
    known_s = wait_until(lambda: [node.is_alive for node in cluster.nodes()] == [True, False], timeout_s=40)
    note(node_known_dead_s=known_s)
    shown = [line.split() for line in fmnist("cluster", "status", "--name", name).out.splitlines()]
    assert shown[2] == ["1", "127.0.0.3", "dead"]
    refused = fmnist("cluster", "kill-node", "1", "--name", name)
    assert refused.code == 2
    assert "no node 1 alive; valid: [0]" in refused.err
    assert fmnist("cluster", "kill-node", "0", "--name", name).code == 0
    dead = fmnist("cluster", "status", "--name", name)
    assert (dead.code, dead.out) == (3, "")
    assert f"fmnist cluster down --name {name}" in dead.err
    assert fmnist("jobs", "--cluster", name).code == 3


def start_halfway(name: str, server: str, node: int) -> tuple[Running, Trace]:
    """`cluster up`, as it stands when a node's first server runs."""
    running = Running("cluster", "up", "--nodes", "2", "--cpus-per-node", "1", "--name", name)

    def is_halfway() -> bool:
        assert running.process.poll() is None, running.output
        noted = Path("clusters", name, "cluster.json")
        if not noted.exists() or not noted.read_text():
            return False
        mark = f"{record_of(name).mark}{node}/"
        return any(server in " ".join(arguments_of(process)) for process in find_processes(mark))

    wait_until(is_halfway)
    return running, trace(name)


@pytest.mark.parametrize(
    ("number", "server", "node"),
    [(signal.SIGINT, "gcs_server", 0), (signal.SIGTERM, "gcs_server", 0), (signal.SIGINT, "raylet", 1)],
)
def test_a_start_that_is_interrupted_leaves_nothing(number: signal.Signals, server: str, node: int) -> None:
    running, before = start_halfway("halfway", server, node)
    running.process.send_signal(number)
    output = running.finish(code=128 + number)
    assert output.splitlines()[-1] == "interrupted; nothing of the cluster is left"
    assert_gone(before)


def test_a_start_that_is_killed_is_told_of_and_taken_down() -> None:
    running, before = start_halfway("killed", "gcs_server", 0)
    running.process.kill()
    running.process.wait()
    again = fmnist("cluster", "up", "--name", "killed")
    assert (again.code, again.out) == (2, "")
    assert "fmnist cluster down --name killed" in again.err
    told = fmnist("cluster", "status", "--name", "killed")
    assert told.code in (0, 3), told.err
    down = fmnist("cluster", "down", "--name", "killed")
    assert (down.code, down.out) == (0, "cluster killed is down\n")
    assert_gone(before)


@pytest.mark.parametrize("number", [0, 1], ids=["driver", "node"])
def test_a_process_without_the_token_does_not_get_into_the_cluster(pair: Pair, number: int) -> None:
    """It was let to try while the other tests ran, as Ray takes its time to say no."""
    intruder = pair.intruders[number]
    assert intruder.process.wait(120) != 0
    assert "INSIDE" not in intruder.output
    assert "Ray runtime started" not in intruder.output
    assert "token" in intruder.output.lower()
    assert len(status(pair.name)["nodes"]) == 2


def test_only_one_process_at_a_time_starts_or_ends_a_cluster(pair: Pair) -> None:
    cluster = LocalCluster(pair.name)
    with cluster._folder.hold(), pytest.raises(ClusterError, match="being started or ended by another process"):
        LocalCluster(pair.name).down()
    assert Dashboard(pair.dashboard, Path("clusters", pair.name, "token").read_text()).nodes()
