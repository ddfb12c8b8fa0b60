"""Jobs: command lines that a Ray cluster runs for somebody who may go away."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cluster.dashboard import Dashboard
from cluster.errors import ClusterError, ClusterGoneError
from cluster.package import collect

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

STOP_WAIT_S = 30
"""Seconds that a job which was asked to stop may take to save what it has; then it is killed."""
JOB_ID_VARIABLE = "FMNIST_JOB_ID"
"""Tells a job's command which job it is."""

_PAUSE_S = 1.0
_SECONDS_OF_SILENCE = 15.0  # after which a cluster that was reached before counts as gone
# Whatever these say, a job goes where it was sent.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class JobState(StrEnum):
    """As Ray has it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def has_ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.STOPPED, JobState.FAILED)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the cluster tells of it; ``exit_code`` is that of its command, if it ended by itself."""

    id: str
    state: JobState
    entrypoint: str
    message: str
    metadata: Mapping[str, str]
    started: datetime | None
    ended: datetime | None
    exit_code: int | None


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is to run: ``entrypoint``, a shell command, in a folder with ``files`` and the code of ``packages``.

    ``name``: what its id begins with. ``metadata``: what is known of it while the cluster lives. ``variables``: of its
    environment, shown in the dashboard.
    """

    name: str
    entrypoint: str
    packages: Sequence[str]
    files: Mapping[str, str]
    metadata: Mapping[str, str]
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Jobs:
    """The jobs of the cluster behind a dashboard."""

    dashboard: Dashboard

    def submit(self, submission: Submission) -> str:
        """Has the cluster run it; gives the job's id as soon as the cluster has accepted it.

        Raises:
            ClusterError: it is too large to send, or the cluster does not accept it.
            ClusterGoneError: the cluster does not answer.
        """
        job_id = f"{submission.name}-{datetime.now():%m%d-%H%M}-{secrets.token_hex(2)}"
        with tempfile.TemporaryDirectory(prefix="fmnist-job-") as folder:
            collect(Path(folder), packages=submission.packages, files=submission.files)
            runtime_env = {
                "working_dir": folder,
                "env_vars": {
                    **submission.variables,
                    JOB_ID_VARIABLE: job_id,
                    "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
                },
            }
            with self._client() as client:
                client.submit_job(
                    entrypoint=submission.entrypoint,
                    submission_id=job_id,
                    runtime_env=runtime_env,
                    metadata=dict(submission.metadata),
                )
        return job_id

    def list(self) -> list[Job]:
        """All that were submitted, the newest first."""
        found = [_parse(raw) for raw in self.dashboard.get("/api/jobs/") if raw.get("submission_id")]
        return sorted(found, key=lambda job: job.started.timestamp() if job.started else float("inf"), reverse=True)

    def get(self, job_id: str) -> Job:
        """
        Raises:
            ClusterError: there is no such job; names those there are.
        """
        for job in (jobs := self.list()):
            if job.id == job_id:
                return job
        known = f"valid: {', '.join(job.id for job in jobs[:20])}" if jobs else "the cluster has none"
        raise ClusterError(f"there is no job {job_id!r} on {self.dashboard.url}; {known}")

    def logs(self, job_id: str) -> str:
        """What the job has written so far."""
        return str(self.dashboard.get(f"/api/jobs/{quote(self.get(job_id).id)}/logs")["logs"] or "")

    async def follow(self, job_id: str) -> AsyncIterator[str]:
        """What the job writes, from its beginning to its end, in pieces as they come.

        Raises:
            ClusterGoneError: the cluster went away.
        """
        self.get(job_id)
        with self._client() as client:
            try:
                async for piece in client.tail_job_logs(job_id):
                    yield piece
            except RuntimeError as error:  # how Ray tells of a connection that broke
                raise ClusterGoneError(f"{self.dashboard.url} does not answer any more: {error}") from error

    def stop(self, job_id: str) -> Job:
        """Asks a job to save what it has and end, and waits until it has; one that has ended already stays as it is."""
        while not (job := self.get(job_id)).state.has_ended:
            self.dashboard.post(f"/api/jobs/{quote(job_id)}/stop")  # of a job that is only starting Ray takes no notice
            time.sleep(_PAUSE_S)
        return job

    def stop_all(self) -> None:
        """The same with all that have not ended; gives up on those that take much longer than they may."""
        end_s = time.monotonic() + STOP_WAIT_S + _SECONDS_OF_SILENCE
        while going := [job.id for job in self.list() if not job.state.has_ended]:
            if time.monotonic() > end_s:
                return
            for job_id in going:
                self.dashboard.post(f"/api/jobs/{quote(job_id)}/stop")
            time.sleep(_PAUSE_S)

    def wait(self, job_id: str) -> Job:
        """The job when it has ended.

        Raises:
            ClusterGoneError: the cluster went away meanwhile.
        """
        job, silent_s = self.get(job_id), None
        while not job.state.has_ended:
            time.sleep(_PAUSE_S)
            try:
                job, silent_s = self.get(job_id), None
            except ClusterGoneError:
                silent_s = silent_s or time.monotonic()
                if time.monotonic() > silent_s + _SECONDS_OF_SILENCE:
                    raise
        return job

    @contextlib.contextmanager
    def _client(self) -> Iterator[JobSubmissionClient]:
        """Ray's own client, for what takes more than a request; its errors become ours."""
        self.dashboard.get("/api/version")  # whose errors are clearer
        from ray.job_submission import JobSubmissionClient

        from cluster.session import ray_log

        before = dict(os.environ)
        for name in _OVERRIDES:
            os.environ.pop(name, None)
        if self.dashboard.is_on_loopback:
            os.environ["no_proxy"] = "*"
        try:
            client = JobSubmissionClient(self.dashboard.url, headers=self.dashboard.headers)
            with ray_log(None):
                yield client
        except (ConnectionError, OSError) as error:
            raise ClusterGoneError(f"{self.dashboard.url} does not answer any more: {error}") from error
        except RuntimeError as error:
            raise ClusterError(f"{self.dashboard.url}: {' '.join(str(error).split())[:500]}") from error
        finally:
            os.environ.clear()
            os.environ.update(before)


def _parse(raw: Mapping[str, Any]) -> Job:
    return Job(
        id=raw["submission_id"],
        state=JobState(raw["status"].lower()),
        entrypoint=raw["entrypoint"],
        message=raw["message"] or "",
        metadata=raw["metadata"] or {},
        started=_parse_time(raw["start_time"]),
        ended=_parse_time(raw["end_time"]),
        exit_code=raw["driver_exit_code"],
    )


def _parse_time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000).astimezone() if milliseconds else None
