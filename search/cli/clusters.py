"""`fmnist cluster`: a Ray cluster of several nodes on this machine, and the files of one elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.deploying import render
from search.cli.exits import interruption_told
from search.cli.options import AsJson
from search.cli.show import print_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from cluster.dashboard import Dashboard, Node

cluster_app = typer.Typer(help="Start, show and end Ray clusters.", no_args_is_help=True)
cluster_app.command("render")(render)

Name = Annotated[str, typer.Option(help="Of the cluster.")]


@cluster_app.command("up")
def cluster_up(
    nodes: Annotated[int, typer.Option(help="The head among them.")] = 1,
    cpus_per_node: Annotated[
        int | None, typer.Option(help="This machine's, shared evenly, if left out.", show_default=False)
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(help="As each node is to declare them.")] = 0,
    dashboard_port: Annotated[
        int | None, typer.Option(help="On 127.0.0.1; a free one if left out.", show_default=False)
    ] = None,
    name: Name = "local",
    as_json: AsJson = False,
) -> None:
    """Start a Ray cluster on this machine, which goes on until `fmnist cluster down`."""
    from cluster.local import LocalCluster

    cluster = LocalCluster(
        name, nodes=nodes, cpus_per_node=cpus_per_node, gpus_per_node=gpus_per_node, dashboard_port=dashboard_port
    )
    told = "interrupted; nothing of the cluster is left"
    with interruption_told(lambda: told, tell=lambda text: typer.echo(text, err=True)):
        cluster.up()
    _show(cluster.name, cluster.dashboard, cluster.nodes(), as_json=as_json)


@cluster_app.command("status")
def cluster_status(name: Name = "local", as_json: AsJson = False) -> None:
    """The nodes, what of them is used and free, and the jobs that run."""
    from cluster.local import LocalCluster

    cluster = LocalCluster(name)
    _show(cluster.name, cluster.dashboard, cluster.nodes(), as_json=as_json)


@cluster_app.command("kill-node")
def cluster_kill_node(
    number: Annotated[int, typer.Argument(help="As `status` shows it; 0 is the head.")], name: Name = "local"
) -> None:
    """Kill a node at once, as when its machine is lost: a drill."""
    from cluster.local import LocalCluster

    LocalCluster(name).kill_node(number)
    typer.echo(f"killed node {number} of cluster {name}")


@cluster_app.command("down")
def cluster_down(name: Name = "local") -> None:
    """End a cluster, with everything that runs on it; jobs are asked to save what they have first."""
    from cluster.errors import ClusterError
    from cluster.jobs import Jobs
    from cluster.local import LocalCluster

    cluster = LocalCluster(name)
    problem = None
    try:
        Jobs(cluster.dashboard).stop_all()
    except ClusterError as error:  # a cluster that is broken is ended all the same
        problem = error
    cluster.down()
    if problem is not None:
        typer.echo(f"its jobs could not be asked to end: {problem}", err=True)
    typer.echo(f"cluster {name} is down")


def _show(name: str, dashboard: Dashboard, nodes: Sequence[Node], *, as_json: bool) -> None:
    from rich.console import Console

    from cluster.jobs import Jobs, JobState

    running = [job.id for job in Jobs(dashboard).list() if job.state == JobState.RUNNING]
    if as_json:
        print_json(
            {
                "name": name,
                "dashboard": dashboard.url,
                "nodes": [dataclasses.asdict(node) for node in nodes],
                "running_jobs": running,
            }
        )
        return
    console = Console()
    console.print(_table(nodes))
    say(f"cluster {name}: dashboard at {dashboard.url}, {_describe_jobs(running)}", console)


def _table(nodes: Sequence[Node]) -> Table:
    from rich.table import Table

    from search.review.display import as_text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("node", justify="right")
    table.add_column("address", no_wrap=True)
    table.add_column("state")
    for name in ("CPUs used", "free", "GPUs used", "free"):
        table.add_column(name, justify="right")
    for number, node in enumerate(nodes):
        amounts = [_amounts(node, "CPU"), _amounts(node, "GPU")] if node.is_alive else [("", ""), ("", "")]
        table.add_row(
            str(number),
            as_text(f"{node.address}{' (head)' if node.is_head else ''}"),
            "alive" if node.is_alive else "dead",
            *(text for pair in amounts for text in pair),
            style="" if node.is_alive else "red",
        )
    return table


def _amounts(node: Node, resource: str) -> tuple[str, str]:
    total, used = node.total.get(resource, 0.0), node.used.get(resource, 0.0)
    return f"{used:g}", f"{total - used:g}"


def _describe_jobs(running: Sequence[str]) -> str:
    return f"running jobs: {', '.join(running)}" if running else "no job runs"
