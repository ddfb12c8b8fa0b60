"""A Ray cluster of several nodes on this machine: real Ray nodes, each with the resources it is said to have."""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from cluster import heap
from cluster.dashboard import Dashboard, Node
from cluster.errors import ClusterError, ClusterGoneError
from cluster.folder import ClusterFolder, Record, cluster_folder, clusters_dir
from cluster.ports import check_port, free_ports
from cluster.processes import MARK, end_processes, find_processes
from cluster.temporary import make_folder, remove_folder
from cluster.token import VARIABLES, variables_for

DEFAULT_NAME = "local"
MAX_NODES = 64

_PREFIX = "fmnist-cluster-"
_LOOPBACK = "127.0.0.1"
_SECONDS_TO_START = 120.0  # for a node, and then for all nodes to be known
_SECONDS_TO_END = 2.0
_PAUSE_S = 0.1
_LONGEST_TMPDIR = 60  # bytes: Ray's dashboard makes sockets there, with names of 32, and a path may have 107
_SHARE_FOR_OBJECTS = 0.3  # of the machine's memory, as Ray takes for one node
_MIN_OBJECT_STORE_BYTES = 100 * 2**20


class LocalCluster:
    """A cluster by its name; ``up`` starts it, and it goes on when this process ends, until ``down``.

    With ``with`` it is up within the block. Its nodes are at 127.0.0.2, 127.0.0.3, …, its dashboard at 127.0.0.1. Parts
    of Ray listen on all addresses whatever they are told: what keeps others out is the token, made for this cluster
    and readable by this user alone. Ray's counters for Prometheus, which ask for no token, are off. Other Rays on this
    machine are left alone.

    ``nodes``: one head and the others. ``cpus_per_node``: this machine's, shared evenly, if left out.
    ``gpus_per_node``: as declared; where the machine has enough, each node sees its own. ``dashboard_port``: a free one
    if left out. ``labels``: of node 0, 1, …. ``directory``: where it is noted down.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        *,
        nodes: int = 1,
        cpus_per_node: int | None = None,
        gpus_per_node: int = 0,
        dashboard_port: int | None = None,
        labels: Sequence[Mapping[str, str]] = (),
        directory: Path | None = None,
    ) -> None:
        if sys.platform != "linux":
            raise ClusterError("clusters of several nodes need Linux, where 127.0.0.2, 127.0.0.3, … are of loopback")
        if not 1 <= nodes <= MAX_NODES:
            raise ClusterError(f"1 <= nodes <= {MAX_NODES} must hold, but got {nodes}")
        num_cpus = len(os.sched_getaffinity(0))
        cpus = max(1, num_cpus // nodes) if cpus_per_node is None else cpus_per_node
        if cpus < 0 or gpus_per_node < 0:
            raise ClusterError(f"a node has 0 or more CPUs and GPUs, but got {cpus} and {gpus_per_node}")
        self._folder: ClusterFolder = cluster_folder(name, directory=clusters_dir(directory))
        self._num_nodes = nodes
        self._cpus = cpus
        self._gpus = gpus_per_node
        self._dashboard_port = dashboard_port
        self._labels = labels

    def __enter__(self) -> LocalCluster:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    @property
    def name(self) -> str:
        return self._folder.name

    @property
    def address(self) -> str:
        """What ``ray.init`` takes, in a process that has ``environment``."""
        return self._read().address

    @property
    def dashboard(self) -> Dashboard:
        """The web server, with the token."""
        record = self._read()
        return Dashboard(record.dashboard, self._folder.read_token())

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a process may reach the cluster; to be set before it imports Ray."""
        return variables_for(self._folder.token)

    def up(self) -> None:
        """Starts the cluster; returns when all nodes are alive.

        Raises:
            ClusterError: it is up already, or could not be started; then nothing of it is left.
        """
        with self._folder.hold():
            before = self._find()
            if before is not None and find_processes(before.mark):
                raise ClusterError(
                    f"cluster {self.name} is there already; `fmnist cluster status --name {self.name}` shows it, "
                    f"`fmnist cluster down --name {self.name}` ends it"
                )
            if before is not None:
                self._remove(before)
            port, free = free_ports(2)
            dashboard_port = check_port(self._dashboard_port) if self._dashboard_port else free
            mark = f"{secrets.token_hex(8)}/"
            record = Record(
                host=platform.node(),
                mark=mark,
                address=f"{_address(0)}:{port}",
                dashboard=f"http://{_LOOPBACK}:{dashboard_port}",
                temporary_folder=str(make_folder(_PREFIX, mark=mark)),
                num_nodes=self._num_nodes,
            )
            try:
                self._folder.create(record, token=secrets.token_hex(32))
                self._start(record)
            except BaseException:
                self._remove(record)
                raise

    def down(self, *, grace_s: float = _SECONDS_TO_END) -> None:
        """Ends every process of the cluster and removes its files; returns when nothing is left.

        Raises:
            ClusterError: there is no such cluster.
        """
        self._read()  # or the folder and the lock of what is not there would be made
        with self._folder.hold():
            self._remove(self._read(), grace_s=grace_s)

    def nodes(self) -> list[Node]:
        """The nodes that the cluster knows, the head first.

        Raises:
            ClusterError: there is no such cluster.
            ClusterGoneError: its head is dead.
        """
        record = self._read()
        if not find_processes(_mark(record, 0)):
            down = f"`fmnist cluster down --name {self.name}` removes what is left"
            raise ClusterGoneError(f"cluster {self.name} is dead: nothing of its head runs any more; {down}")
        return self.dashboard.nodes()

    def kill_node(self, number: int) -> None:
        """Kills every process of a node at once, as when its machine is lost; number 0 is the head.

        Raises:
            ClusterError: there is no such node, or it is dead already.
        """
        record = self._read()
        alive = [index for index in range(record.num_nodes) if find_processes(_mark(record, index))]
        if number not in alive:
            raise ClusterError(f"cluster {self.name} has no node {number} alive; valid: {alive}")
        end_processes(_mark(record, number), grace_s=0)

    def _read(self) -> Record:
        record = self._find()
        if record is None:
            raise ClusterError(f"there is no cluster {self.name}; `fmnist cluster up --name {self.name}` starts one")
        return record

    def _find(self) -> Record | None:
        record = self._folder.read()
        if record is not None and record.host != platform.node():
            raise ClusterError(f"cluster {self.name} is on {record.host}; go there, or take another --name")
        return record

    def _remove(self, record: Record, *, grace_s: float = 0.0) -> None:
        end_processes(record.mark, grace_s=grace_s)
        remove_folder(Path(record.temporary_folder), mark=record.mark)
        self._folder.remove()

    def _start(self, record: Record) -> None:
        self._start_node(record, 0)
        with ThreadPoolExecutor() as pool:
            try:
                starts = [pool.submit(self._start_node, record, number) for number in range(1, record.num_nodes)]
                for start in starts:
                    start.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                end_processes(record.mark, grace_s=0)  # or the pool would wait for the other nodes
                raise
        self._wait_until_alive(record)

    def _wait_until_alive(self, record: Record) -> None:
        end_s = time.monotonic() + _SECONDS_TO_START
        while True:
            try:
                num_alive = sum(node.is_alive for node in self.dashboard.nodes())
            except ClusterGoneError:
                num_alive = 0
            if num_alive == record.num_nodes:
                return
            if time.monotonic() > end_s:
                raise ClusterError(
                    f"only {num_alive} of the {record.num_nodes} nodes of cluster {self.name} were alive "
                    f"{_SECONDS_TO_START:g} s after they had started"
                )
            time.sleep(_PAUSE_S)

    def _start_node(self, record: Record, number: int) -> None:
        output = Path(record.temporary_folder, f"{number}.log")  # a pipe could stay open in the node's processes
        with output.open("wb") as file:
            try:
                code = subprocess.run(
                    self._command(record, number),
                    env=self._environment(record, number),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is this process's to deal with
                    check=False,
                    timeout=_SECONDS_TO_START,
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
        if code == 0:
            return
        how = "did not start" if code else f"did not start within {_SECONDS_TO_START:g} s (`ray start` did not return)"
        lines = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()]
        raise ClusterError(f"node {number} of cluster {self.name} {how}: {' … '.join(lines[-2:]) or 'no output'}")

    def _command(self, record: Record, number: int) -> list[str]:
        agent_port, client_port = free_ports(2)
        options = {
            "node-ip-address": _address(number),
            "temp-dir": f"{record.temporary_folder}/{number}",
            "num-cpus": self._cpus,
            "num-gpus": self._gpus,
            "object-store-memory": _object_store_bytes(record.num_nodes),
            "min-worker-port": 0,
            "max-worker-port": 0,
            "dashboard-agent-listen-port": agent_port,
            "log-color": "false",
        }
        if number == 0:
            options |= {
                "port": record.address.rpartition(":")[2],
                "dashboard-host": _LOOPBACK,
                "dashboard-port": record.dashboard.rpartition(":")[2],
                "ray-client-server-port": client_port,
            }
        else:
            options |= {"address": record.address}
        if number < len(self._labels) and self._labels[number]:
            options["labels"] = ",".join(f"{key}={value}" for key, value in self._labels[number].items())
        flags = ["--disable-usage-stats", *(["--head"] if number == 0 else [])]
        ray = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start"]  # not a ray.py of the current folder
        return [*ray, *flags, *(f"--{key}={value}" for key, value in options.items())]

    def _environment(self, record: Record, number: int) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", *VARIABLES)}
        own = {
            MARK: _mark(record, number),
            "SPT_NOENV": "1",  # or Ray's agents, which rename themselves, would write their names over their marks
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray serves its counters on all addresses without a token; port -1 turns that off.
            "RAY_enable_metrics_collection": "0",
            "DASHBOARD_METRIC_PORT": "-1",
            "AUTOSCALER_METRIC_PORT": "-1",
            # A killed node is known to be dead after 3 s instead of 15; one that is only slow has its 10 s each time.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
        }
        if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TMPDIR:
            own["TMPDIR"] = record.temporary_folder
        gpus = _visible_gpus()[number * self._gpus : (number + 1) * self._gpus]
        if self._gpus and len(gpus) == self._gpus:
            own["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        return heap.missing_from(inherited) | inherited | self.environment | own


def _address(number: int) -> str:
    """Ray replaces 127.0.0.1 by the machine's outer address; the rest of Linux's loopback range it keeps."""
    return f"127.0.0.{2 + number}"


def _mark(record: Record, number: int) -> str:
    return f"{record.mark}{number}/"


def _object_store_bytes(num_nodes: int) -> int:
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_MIN_OBJECT_STORE_BYTES, int(_SHARE_FOR_OBJECTS * machine_bytes / num_nodes))


def _visible_gpus() -> list[str]:
    """This machine's NVIDIA GPUs that this process may use, by index or identifier."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
