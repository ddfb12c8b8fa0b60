"""What frozen stages make of images, computed once and kept in memory-mapped files that all processes share."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from fmnist_models.errors import PathError
from fmnist_models.files import write_aside
from fmnist_models.paths import cache_folder

_FILE = re.compile(r"(?P<key>[0-9a-f]{32})-(?P<dtype>float32|bfloat16)-(?P<shape>\d+(x\d+)*)-(?P<hash>[0-9a-f]{32})")
_SECONDS_TO_WRITE = 600.0  # after which what is half written is of a process that was killed
_verified: set[str] = set()  # files that this process has seen to be whole
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class FeatureCache:
    """Features by key in the files of ``folder``, ``max_bytes`` together; the least recently used go first."""

    folder: Path
    max_bytes: int

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """The features of that key, float32 or bfloat16, computed if they are not there; not to be written to.

        They are kept if the disk has room for them, else only returned.
        """
        with contextlib.suppress(OSError, RuntimeError):  # somebody else has just removed it, or may not be read
            for path in self._files():
                if path.name.startswith(f"{key}-"):
                    return self._open(path)
        features = compute().contiguous()
        shape = "x".join(str(size) for size in features.shape)
        content = _bytes_of(features)
        name = f"{key}-{str(features.dtype).removeprefix('torch.')}-{shape}-{_hash(content)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(features.nbytes)
            write_aside(self.folder / name, content)
            return self._open(self.folder / name)
        except (OSError, RuntimeError):
            return features

    def fits(self, num_bytes: int, *, num_parts: int) -> bool:
        """Whether features of that size are kept, one of ``num_parts`` parts of the images that are wanted together."""
        return num_parts * num_bytes <= self.max_bytes

    def _open(self, path: Path) -> Tensor:
        match = _FILE.fullmatch(path.name)
        assert match is not None
        shape, dtype = [int(size) for size in match["shape"].split("x")], _DTYPES[match["dtype"]]
        if path.stat().st_size != prod(shape) * dtype.itemsize:
            path.unlink(missing_ok=True)
            raise OSError(f"{path} is cut short")
        os.utime(path)
        features = torch.from_file(str(path), shared=False, size=prod(shape), dtype=dtype).view(shape)
        if path.name not in _verified and _hash(_bytes_of(features)) != match["hash"]:
            path.unlink(missing_ok=True)
            raise OSError(f"{path} does not hold what was written")
        _verified.add(path.name)
        return features

    def _files(self) -> list[Path]:
        """The least recently used first."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                if _FILE.fullmatch(path.name):
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def _make_room(self, num_bytes: int) -> None:
        files = self._files()
        sizes = {path: path.stat().st_size for path in files if path.exists()}
        total = sum(sizes.values()) + num_bytes
        for part in self.folder.glob(".*.part"):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mtime < time.time() - _SECONDS_TO_WRITE:
                    part.unlink()
        for path in files:
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)  # who reads it goes on reading it
            total -= sizes.get(path, 0)


def default_cache(max_bytes: int) -> FeatureCache | None:
    """This user's cache, of this machine alone, as others may share the folder and compute otherwise; ``None`` if
    ``max_bytes`` is 0 or the home folder is unknown."""
    try:
        return FeatureCache(cache_folder() / f"features-{platform.node()}", max_bytes) if max_bytes else None
    except PathError:
        return None


def feature_key(*parts: bytes | str, tensors: Iterable[Tensor]) -> str:
    """32 hexadecimal digits that stand for all of ``parts`` and ``tensors``: for whatever decides the features."""
    digest = hashlib.sha256()  # processors have instructions for it
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(flat))
    return digest.hexdigest()[:32]


def _hash(content: memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
