"""What the processes of a Ray that this process starts or uses import, and how they end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray._private import ray_constants
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.job_config import JobConfig

from cluster import dies_with_parent


def make_job_config() -> JobConfig:
    """What ``ray.init`` needs so that tasks import what this process imports; in a job of a cluster, whose working
    folder Ray gives to its tasks, they do so anyway. A Ray that has no place for it goes its own way."""
    plain = JobConfig()
    has_place = hasattr(plain, "_py_driver_sys_path")
    return _OwnPath() if has_place and RAY_JOB_CONFIG_JSON_ENV_VAR not in os.environ else plain


class _OwnPath(JobConfig):
    """Has tasks search the folders of this process's ``sys.path``. Ray alone would have them search the current folder
    before all others, where a ``search.py`` or a ``torch.py`` may lie."""

    def __init__(self) -> None:
        # Ray inserts each folder at the front, so the last one comes first.
        super().__init__(_py_driver_sys_path=list(reversed(_own_path())))

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # after this answer Ray leaves the current folder out


def _own_path() -> list[str]:
    """The folders of ``sys.path`` but for those of the interpreter, which Ray's processes have anyway."""
    interpreter = [Path(prefix).resolve() for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}]
    folders = [Path(entry).absolute() for entry in sys.path]  # an empty one is the current folder
    return [str(one) for one in folders if not any(one.resolve().is_relative_to(prefix) for prefix in interpreter)]


@contextlib.contextmanager
def replaced(*changes: tuple[Any, str, Callable[[Any], Any]]) -> Iterator[None]:
    """Within the block, attributes of Ray's modules and classes are what each change makes of them. They are no public
    interface: a Ray that does not have one of them keeps its own ways."""
    before = [(owner, name, getattr(owner, name), make) for owner, name, make in changes if hasattr(owner, name)]
    for owner, name, theirs, make in before:
        setattr(owner, name, make(theirs))
    try:
        yield
    finally:
        for owner, name, theirs, _ in before:
            setattr(owner, name, theirs)


def without_native_trace() -> contextlib.AbstractContextManager[None]:
    """A Ray that is started or reached within the block leaves this process its signals: otherwise SIGTERM prints a
    native stack trace first, and kills the process 3 s later, whatever it still has to save."""
    return replaced((ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", lambda _: True))  # read when it connects


def dying_with_parent(command: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Ray's function that makes the beginning of the command of a Python process, so that the process ends with the
    one that started it: a killed node's agents would otherwise try to reach it for a minute."""

    def made(*arguments: Any, **options: Any) -> list[str]:
        return [sys.executable, "-I", "-S", dies_with_parent.__file__, *command(*arguments, **options)]

    return made
