"""`fmnist submit` and `fmnist jobs`: searches as jobs of a Ray cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from search.cli.exits import interruption_told
from search.cli.options import AsJson, ConfigFile, Enqueue, Overrides, Preset
from search.cli.show import print_json, say

if TYPE_CHECKING:
    from cluster.jobs import Job, Jobs
    from search.cli.submitting import JobRequest

_STOPPED = 143  # as a search ends that SIGTERM ended

jobs_app = typer.Typer()

Cluster = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of this machine; the only one there is if left out.", show_default=False),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of a Ray cluster's dashboard elsewhere: http://HOST:8265 [$RAY_API_SERVER_ADDRESS].", show_default=False
    ),
]
Follow = Annotated[bool, typer.Option("--follow", help="Show what it writes until it ends, and end as it does.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `fmnist jobs` shows it.")]


def submit(
    config_file: ConfigFile = None,
    preset: Preset = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment; the preset's or file's if left out.")] = None,
    overrides: Overrides = None,
    cluster: Cluster = None,
    address: Address = None,
    follow: Follow = False,
    enqueue: Enqueue = None,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="EXPERIMENT", help="One whose trials the sampler learns from.", show_default=False),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder that holds FashionMNIST/raw, as the cluster names it [$FMNIST_DATA_DIR on this machine].",
            show_default=False,
        ),
    ] = None,
    experiments_dir: Annotated[
        str | None,
        typer.Option(
            help="Where the cluster keeps experiments [$FMNIST_EXPERIMENTS_DIR, else ./experiments on this machine].",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have a Ray cluster run a search; it goes on when this command has ended."""
    from search.cli.submitting import JobRequest, locate_warm_start, locate_weights, place
    from search.configuration.config import load_config
    from search.configuration.enqueue import read_queue
    from search.records.experiment import check_name
    from search.records.store import check_study_storage, is_address, parse_store

    config, default_name = load_config(config_file, preset=preset, overrides=overrides or ())
    address = _resolve(cluster, address)
    is_here = address is None  # then it shares this machine's files
    config = locate_weights(config, is_here=is_here)
    if enqueue is not None:
        read_queue(enqueue, config.space)
    experiments, data = place(experiments_dir, data_dir, is_here=is_here)
    if is_address(experiments):
        check_study_storage(parse_store(experiments), config.study_storage)
    jobs = _find_jobs(cluster, address)
    request = JobRequest(
        experiment=check_name(default_name if name is None else name),
        config=config.to_yaml(),
        experiments_dir=experiments,
        data_dir=data,
        queue=None if enqueue is None else enqueue.read_text(encoding="utf-8"),
        warm_start=(
            None if warm_start is None else locate_warm_start(warm_start, directory=experiments, is_here=is_here)
        ),
    )
    _submit(jobs, request, cluster=cluster, address=address, follow=follow, as_json=as_json)


@jobs_app.callback(invoke_without_command=True)
def jobs(context: typer.Context, cluster: Cluster = None, address: Address = None, as_json: AsJson = False) -> None:
    """List a cluster's searches, the newest first; follow, stop, await or continue one."""
    if context.invoked_subcommand is not None:
        if cluster is not None or address is not None:  # the command would ask another cluster than the one named
            raise typer.BadParameter(f"--cluster and --address go after `{context.invoked_subcommand}`")
        return
    from rich.console import Console

    from search.cli.job_list import as_row, as_table
    from search.cli.submitting import is_search

    found = [job for job in _find_jobs(cluster, address).list() if is_search(job.metadata)]
    if as_json:
        print_json([as_row(job) for job in found])
    elif found:
        Console().print(as_table(found))
    else:
        typer.echo("the cluster has no job; `fmnist submit` makes one")


@jobs_app.command("logs")
def jobs_logs(job_id: JobId, follow: Follow = False, cluster: Cluster = None, address: Address = None) -> None:
    """Show what a job has written."""
    found = _find_jobs(cluster, address)
    if follow:
        _follow(found, job_id)
    typer.echo(found.logs(job_id), nl=False)


@jobs_app.command("stop")
def jobs_stop(job_id: JobId, cluster: Cluster = None, address: Address = None) -> None:
    """Have a job save what it has and end; returns when it has."""
    job = _find_jobs(cluster, address).stop(job_id)
    typer.echo(f"{job.id}: {job.state}; `fmnist jobs resubmit {job.id}` goes on with its experiment")


@jobs_app.command("wait")
def jobs_wait(job_id: JobId, cluster: Cluster = None, address: Address = None, as_json: AsJson = False) -> None:
    """Wait until a job has ended, and end as it did."""
    from search.cli.job_list import as_row

    job = _find_jobs(cluster, address).wait(job_id)
    if as_json:
        print_json(as_row(job))
    _exit_as(job)


@jobs_app.command("resubmit")
def jobs_resubmit(
    job_id: JobId, cluster: Cluster = None, address: Address = None, follow: Follow = False, as_json: AsJson = False
) -> None:
    """Submit a job's search again, which continues the same experiment."""
    from cluster.errors import ClusterError
    from search.cli.submitting import parse_request

    found = _find_jobs(cluster, address)
    job = found.get(job_id)
    if not job.state.has_ended:
        raise ClusterError(f"job {job_id} is {job.state}; `fmnist jobs stop {job_id}` ends it first")
    request = parse_request(job.metadata, where=f"job {job_id}")
    _submit(found, request, cluster=cluster, address=address, follow=follow, as_json=as_json)


def _find_jobs(cluster: str | None, address: str | None) -> Jobs:
    from cluster.jobs import Jobs
    from cluster.target import find_dashboard

    return Jobs(find_dashboard(cluster=cluster, address=_resolve(cluster, address)))


def _resolve(cluster: str | None, address: str | None) -> str | None:
    """The address that is meant: what was said goes before what the environment says."""
    return address if cluster is not None or address is not None else os.environ.get("RAY_API_SERVER_ADDRESS") or None


def _submit(
    jobs: Jobs, request: JobRequest, *, cluster: str | None, address: str | None, follow: bool, as_json: bool
) -> None:
    from rich.console import Console

    job_id = jobs.submit(request.to_submission())
    if as_json:
        print_json({"id": job_id, "experiment": request.experiment, "experiments_dir": request.experiments_dir})
    else:
        where = f" --cluster {cluster}" if cluster else f" --address {address}" if address else ""
        console = Console()
        say(f"submitted {job_id}", console, style="bold")
        say(
            f"`fmnist jobs logs {job_id} --follow{where}` shows it, `fmnist jobs stop {job_id}{where}` ends it", console
        )
    if follow:
        _follow(jobs, job_id)


def _follow(jobs: Jobs, job_id: str) -> NoReturn:
    """Shows what the job writes until it ends, and ends as it does; Ctrl-C only ends the showing."""
    import asyncio

    async def show() -> None:
        async for piece in jobs.follow(job_id):
            typer.echo(piece, nl=False)

    told = f"\nthe job goes on; `fmnist jobs logs {job_id} --follow` shows it again"
    with interruption_told(lambda: told, tell=lambda text: typer.echo(text, err=True)):
        asyncio.run(show())
        job = jobs.wait(job_id)
    _exit_as(job)


def _exit_as(job: Job) -> NoReturn:
    from cluster.jobs import JobState

    if job.state == JobState.STOPPED:
        typer.echo(f"{job.id} was stopped; `fmnist jobs resubmit {job.id}` goes on with its experiment", err=True)
        raise typer.Exit(_STOPPED)
    if job.state == JobState.FAILED:
        typer.echo(f"{job.id} failed: {job.message}", err=True)
        raise typer.Exit(job.exit_code or 1)
    raise typer.Exit(0)
