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

A step of training frees all its activations and allocates them again. With these it finds the same pages, up to 1 GiB
of them; otherwise the system takes them back and clears them anew, for 5 to 10 % of CustomNet's training time.
"""


@contextlib.contextmanager
def inherited_by_children() -> Iterator[None]:
    """Those of ``VARIABLES`` that are not set are, while the block runs."""
    missing = [name for name in VARIABLES if name not in os.environ]
    os.environ.update({name: VARIABLES[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
