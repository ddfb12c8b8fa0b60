"""A training's checkpoints: whole or not there, carrying their hash, and read without running anything they hold."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fmnist_models.errors import CheckpointError, FileError
from fmnist_models.files import read_bounded, write_aside

MAX_BYTES = 2**30
"""What a file of this module has at most; a ResNet-18 in training has 0.13 GiB."""
_HEADER = re.compile(rb"fmnist-checkpoint 1 [0-9a-f]{64} ([0-9]{20})\n")
_MAX_HEADER_BYTES = 2**20  # of a ResNet-34 it has 30,000; safetensors takes seconds and memory for each million
_CAUSE = re.compile(r"WeightsUnpickler error: (.+)")
_ADVICE = " In PyTorch 2.6"
_HASH, _METADATA = "sha256", "__metadata__"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a training's ``state_dict()``: a line with its format, hash and length, then what ``torch.save`` makes.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    buffer = io.BytesIO()
    buffer.write(_header(b""))  # room for the real one, as putting it before so much would copy all
    start = buffer.tell()
    torch.save(dict(state), buffer)
    with buffer.getbuffer() as content:
        content[:start] = _header(content[start:])
        write_aside(path, content)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what ``save_checkpoint`` wrote, tensors on the CPU.

    Raises:
        CheckpointError: missing, cut short, altered or not a checkpoint.
        OSError: it cannot be read at this moment.
        MemoryError: there is not enough for it at this moment.
    """
    try:
        payload = _checked_payload(_read(path))
        refuse_compressed(payload)
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a crafted pickle can raise anything
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason_of(error)}") from error
    return state


def refuse_compressed(archive: bytes) -> None:
    """Makes sure that no entry of what ``torch.save`` made is compressed; ``torch.save`` compresses nothing.

    Raises:
        ValueError: an entry is: a small file could take any amount of memory.
        BadZipFile: it is not a ZIP archive.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
            raise ValueError("it is compressed, so it could swell to any size")


def save_weights(path: Path, state: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a model's ``state_dict()`` as ``dump_weights`` gives it.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    write_aside(path, dump_weights(state, metadata=metadata))


def dump_weights(state: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> bytes:
    """A model's ``state_dict()`` as safetensors, with a hash of its tensors, and more, in the metadata; the same bytes
    whenever they are the same."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = safetensors.torch.save(tensors, metadata={**(metadata or {}), _HASH: hash_tensors(tensors)})
    return _in_order(content)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads what ``save_weights`` wrote, onto the CPU.

    Raises:
        CheckpointError: missing, cut short, altered, or not such a file: one without the hash is refused too.
    """
    return _load_weights(path)[0]


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of what ``save_weights`` wrote, the hash among it.

    Raises:
        CheckpointError: as ``load_weights``.
    """
    return _load_weights(path)[1]


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of their names, dtypes, shapes and bytes; they are on the CPU."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # its memory, and no copy of it
    return digest.hexdigest()


def _load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        content = _read(path)
        _refuse_long_header(content)
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
        metadata: dict[str, str] = _weights_header(content).get(_METADATA, {})
        if _HASH not in metadata:
            raise ValueError("it carries no hash")
        if metadata[_HASH] != hash_tensors(tensors):
            raise ValueError("its tensors differ from their hash")
    except Exception as error:  # a crafted header can raise anything
        raise CheckpointError(f"{path} does not hold readable weights: {reason_of(error)}") from error
    return tensors, metadata


def _weights_header(content: bytes) -> dict[str, Any]:
    """Of safetensors: the header's length, the header as JSON, the data."""
    header: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header


def _refuse_long_header(content: bytes) -> None:
    length = int.from_bytes(content[:8], "little")
    if len(content) > 8 and length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes, more than {_MAX_HEADER_BYTES:,}")


def _in_order(content: bytes) -> bytes:
    """The same with its metadata sorted, which safetensors writes in an order that differs from time to time."""
    header = _weights_header(content)
    header[_METADATA] = dict(sorted(header[_METADATA].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :]


def _header(payload: bytes | memoryview) -> bytes:
    """Always of one length."""
    return f"fmnist-checkpoint 1 {hashlib.sha256(payload).hexdigest()} {len(payload):020}\n".encode()


def _read(path: Path) -> bytes:
    """The content of a file; what is not there, or no file, is no checkpoint."""
    try:
        return read_bounded(path, max_bytes=MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError, FileError) as error:
        raise CheckpointError(str(error)) from error


def _checked_payload(content: bytes) -> bytes:
    header = _HEADER.match(content)
    if header is None:
        raise ValueError("it does not begin as a checkpoint does")
    payload, length = content[header.end() :], int(header[1])
    if len(payload) != length:
        raise ValueError(f"it should go on for {length} bytes, but goes on for {len(payload)}")
    if _header(payload) != header[0]:
        raise ValueError("it differs from its hash")
    return payload


def reason_of(error: Exception) -> str:
    """What torch or safetensors says, in one line, without torch's advice to load the file unsafely."""
    text = str(error)
    cause = _CAUSE.search(text)
    first = next(iter(text.strip().splitlines()), "") or type(error).__name__
    return (cause[1] if cause else first.partition(_ADVICE)[0])[:200]
