"""What a job takes along: the project's own code and a few files, and nothing else that lies around."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.errors import ClusterError

MAX_BYTES = 100_000_000
"""Ray's limit on what a job uploads, 100 MiB zipped, rounded down."""

_WASTE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.part")


def collect(folder: Path, *, packages: Sequence[str], files: Mapping[str, str]) -> None:
    """Puts the code of top-level packages, wherever they are installed, and text files (name → text) into ``folder``.

    Raises:
        ClusterError: a package has no folder, or all together is too large; says how large, and what the most of it is.
    """
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ClusterError(f"the code of {package} is not in a folder, so no job can take it along")
        code = spec.submodule_search_locations[0]
        shutil.copytree(code, folder / package, ignore=_no_code, ignore_dangling_symlinks=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    size_bytes = sum(sizes.values())
    if size_bytes > MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise ClusterError(
            f"a job would take {size_bytes / 1e6:,.0f} MB along, and Ray takes up to {MAX_BYTES / 1e6:,.0f} MB; the "
            f"largest file is {largest.relative_to(folder)} with {sizes[largest] / 1e6:,.0f} MB"
        )


def _no_code(folder: str, names: list[str]) -> set[str]:
    """Caches, hidden and half-written files; and links to folders, in which anything may lie."""
    paths = [os.path.join(folder, name) for name in names]
    links = {os.path.basename(path) for path in paths if os.path.islink(path) and os.path.isdir(path)}
    return links | _WASTE(folder, names)
