"""How the processes that train keep the memory that they free."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType

VARIABLES: Mapping[str, str] = MappingProxyType(
    {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**30)}
)
"""Environment variables for Ray's nodes, which hand them on to their workers (mallopt(3); glibc reads them when a
process starts).

A step of training frees all its activations and allocates them again. With these it finds the same pages; otherwise the
system takes them back and clears them anew, for 5 to 10 % of CustomNet's training time. What is freed stays with the
process, but for what is above 1 GiB at the end of its heap: whoever has done with much calls ``malloc_trim``.
"""


def missing_from(environment: Mapping[str, str]) -> dict[str, str]:
    """``VARIABLES``, or none of them where the environment has settings of its own for glibc's allocator."""
    is_set = any(name.startswith("MALLOC_") for name in environment)
    return {} if is_set or "glibc.malloc" in environment.get("GLIBC_TUNABLES", "") else dict(VARIABLES)


@contextlib.contextmanager
def inherited_by_children() -> Iterator[None]:
    """What is ``missing_from`` this process's environment is in it while the block runs."""
    missing = missing_from(os.environ)
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
