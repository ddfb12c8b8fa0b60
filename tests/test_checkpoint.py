"""Checkpoints and weights carry their hash: as they were saved, or refused. And files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_disk import tiny_disk
from torch import Tensor

from fmnist_models.checkpoint import (
    MAX_BYTES,
    hash_tensors,
    load_checkpoint,
    load_metadata,
    load_weights,
    save_checkpoint,
    save_weights,
)
from fmnist_models.errors import CheckpointError, FileError
from fmnist_models.files import read_bounded, read_json, write_aside, write_together

WEIGHTS = {
    "conv.weight": torch.arange(12.0).reshape(3, 4),
    "conv.half": torch.ones(2, dtype=torch.bfloat16),
    "bn.num_batches_tracked": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}
STATE = {"plan": {"lr": 0.1, "stages": ("stem", "fc")}, "history": [{"epoch": 1}], "model": WEIGHTS}
SAVERS: dict[str, tuple[Callable[..., None], Callable[[Path], Any], Any]] = {
    "checkpoint": (save_checkpoint, load_checkpoint, STATE),
    "weights": (save_weights, load_weights, WEIGHTS),
}
KINDS = pytest.mark.parametrize("kind", SAVERS)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def saved(kind: str, folder: Path) -> tuple[Path, bytes]:
    save, _, state = SAVERS[kind]
    save(folder / kind, state)
    return folder / kind, (folder / kind).read_bytes()


def test_weights_with_their_metadata_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    metadata = {name: f"ü{name}" for name in "abcdefgh"}
    for path in (tmp_path / "first", tmp_path / "second"):
        save_weights(path, WEIGHTS, metadata=metadata)
        assert load_metadata(path).items() > metadata.items()
        for name, tensor in load_weights(path).items():
            assert torch.equal(tensor, WEIGHTS[name])
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def assert_refused(kind: str, path: Path, why: str | None = None) -> None:
    with pytest.raises(CheckpointError, match=why) as caught:
        SAVERS[kind][1](path)
    assert str(path) in str(caught.value)


def with_header(payload: bytes) -> bytes:
    """What a stranger who knows the format makes of a payload."""
    return f"fmnist-checkpoint 1 {hashlib.sha256(payload).hexdigest()} {len(payload):020}\n".encode() + payload


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", STATE)
    state = load_checkpoint(tmp_path / "last.pt")
    assert (state["plan"], state["history"]) == (STATE["plan"], STATE["history"])
    assert_equal(state["model"], WEIGHTS)
    save_weights(tmp_path / "best", WEIGHTS)
    assert_equal(load_weights(tmp_path / "best"), WEIGHTS)
    assert_equal(safetensors.torch.load_file(tmp_path / "best"), WEIGHTS)


@KINDS
def test_one_cut_short_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    path, content = saved(kind, tmp_path)
    for length in [*range(0, len(content), 23), len(content) - 1]:
        path.write_bytes(content[:length])
        assert_refused(kind, path)


@KINDS
def test_one_with_a_bit_flipped_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    path, content = saved(kind, tmp_path)
    for position in range(0, len(content), 11):
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        assert_refused(kind, path)


@KINDS
def test_one_that_goes_on_is_refused(kind: str, tmp_path: Path) -> None:
    path, content = saved(kind, tmp_path)
    path.write_bytes(content + b"\0")
    assert_refused(kind, path)


@KINDS
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"fmnist-checkpoint 1 ", b"{}", b"\x80\x02"], ids=repr)
def test_something_else_is_refused(kind: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    assert_refused(kind, tmp_path / "other")


@KINDS
def test_none_and_a_folder_and_a_pipe_are_refused(kind: str, tmp_path: Path) -> None:
    assert_refused(kind, tmp_path / "missing", "No such file")
    assert_refused(kind, tmp_path, "not a plain file")
    os.mkfifo(tmp_path / "pipe")
    assert_refused(kind, tmp_path / "pipe", "not a plain file")


@KINDS
def test_one_of_ten_gibibytes_is_refused_unread(kind: str, tmp_path: Path) -> None:
    path, _ = saved(kind, tmp_path)
    os.truncate(path, 10 * 2**30)
    assert_refused(kind, path, f"more than {MAX_BYTES:,}")


def test_a_pickle_is_not_run_even_under_a_sound_header(tmp_path: Path) -> None:
    path, marker = tmp_path / "bomb.pt", tmp_path / "marker"
    in_a_zip = io.BytesIO()
    torch.save({"model": Bomb(marker)}, in_a_zip)
    for payload in (pickle.dumps(Bomb(marker)), in_a_zip.getvalue()):
        for content in (payload, with_header(payload)):
            path.write_bytes(content)
            assert_refused("checkpoint", path)
            assert_refused("weights", path)
    assert not marker.exists()


def test_a_checkpoint_that_could_swell_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    (tmp_path / "bomb.pt").write_bytes(with_header(packed.getvalue()))
    assert_refused("checkpoint", tmp_path / "bomb.pt", "swell")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save([1, 2], buffer)
    (tmp_path / "list.pt").write_bytes(with_header(buffer.getvalue()))
    assert_refused("checkpoint", tmp_path / "list.pt", "holds a list")


def test_weights_without_their_hash_are_refused(tmp_path: Path) -> None:
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file(WEIGHTS, tmp_path / "foreign", metadata=metadata)
        assert_refused("weights", tmp_path / "foreign")


LYING_HEADERS: dict[str, dict[str, Any] | bytes] = {
    "beyond the data": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 10**9]}},
    "a negative offset": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [-1, 7]}},
    "offsets reversed": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
    "a huge shape": {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}},
    "overlapping": {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"},
    "a gap": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    "another dtype": {"a": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}},
    "an unknown dtype": {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}},
    "a shape of text": {"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
    "a name twice": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}',
    "nothing": b"",
    "nested": b'{"a":' + b"[" * 10_000,
}


@pytest.mark.parametrize("header", LYING_HEADERS.values(), ids=LYING_HEADERS)
def test_weights_whose_header_lies_are_refused(header: dict[str, Any] | bytes, tmp_path: Path) -> None:
    """Even where it carries the hash of what is there."""
    tensors = {"a": torch.ones(2)}
    if isinstance(header, dict):
        header = json.dumps({**header, "__metadata__": {"sha256": hash_tensors(tensors)}}).encode()
    data = tensors["a"].numpy().tobytes()
    (tmp_path / "lying").write_bytes(len(header).to_bytes(8, "little") + header + data)
    assert_refused("weights", tmp_path / "lying")


@pytest.mark.parametrize("length", [0, 10**8, 2**63, 2**64 - 1])
def test_weights_with_a_header_of_a_length_that_lies_are_refused(length: int, tmp_path: Path) -> None:
    _, content = saved("weights", tmp_path)
    (tmp_path / "lying").write_bytes(length.to_bytes(8, "little") + content[8:])
    assert_refused("weights", tmp_path / "lying")


def test_weights_of_a_hundred_thousand_tensors_are_refused_unparsed(tmp_path: Path) -> None:
    """An honest file, but one that took seconds, and gigabytes where it had millions."""
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(number): tensor for number in range(10**5)}).encode()
    (tmp_path / "many").write_bytes(len(header).to_bytes(8, "little") + header)
    assert_refused("weights", tmp_path / "many", "its header has")


def test_weights_under_the_hash_of_others_are_refused(tmp_path: Path) -> None:
    _, content = saved("weights", tmp_path)
    digest = content.split(b'"sha256":"')[1][:64].decode()
    others = {**WEIGHTS, "bn.num_batches_tracked": torch.tensor(8)}
    safetensors.torch.save_file(others, tmp_path / "others", metadata={"sha256": digest})
    assert_refused("weights", tmp_path / "others", "differ from their hash")


@KINDS
def test_on_a_full_disk_the_one_before_stays(kind: str, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", kibibytes=64) as disk:
        path, content = saved(kind, disk)
        large = {f"layer{n}.weight": torch.zeros(5_000) for n in range(4)}
        with pytest.raises(OSError) as caught:  # noqa: PT011 (judged below)
            SAVERS[kind][0](path, large)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_bytes() == content
        assert list(disk.iterdir()) == [path]
        SAVERS[kind][1](path)


@KINDS
def test_in_a_folder_that_vanished_nothing_is_made_again(kind: str, tmp_path: Path) -> None:
    gone = tmp_path / "experiment" / "trials" / "00000"
    with pytest.raises(FileNotFoundError):
        SAVERS[kind][0](gone / "last.pt", WEIGHTS)
    assert list(tmp_path.iterdir()) == []


def test_write_aside_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").symlink_to(outside)
    (folder / f".file.{os.getpid()}.part").symlink_to(outside)
    write_aside(folder / "file", "theirs")
    assert outside.read_text() == "mine"
    assert (folder / "file").read_text() == "theirs"
    assert not (folder / "file").is_symlink()
    assert list(folder.iterdir()) == [folder / "file"]


WRITER = """
import sys
from pathlib import Path
from fmnist_models.files import write_together
folder, number = Path(sys.argv[1]), int(sys.argv[2])
while True:
    number += 1
    write_together({folder / name: f"{number:010}" * size for name, size in (("table", 30_000), ("summary", 1))})
    if number % 3 == 0:
        print(number, flush=True)
"""


def test_files_of_one_result_are_never_mixed_wherever_their_writer_is_killed(tmp_path: Path) -> None:
    rng, last, number = random.Random(0), -1, 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        number = int(writer.stdout.readline())
        time.sleep(rng.random() / 100)
        writer.kill()
        writer.communicate()
        if (tmp_path / "summary").exists():
            last = int((tmp_path / "summary").read_text())
            assert (tmp_path / "table").read_text() == f"{last:010}" * 30_000
            number = max(number, last)
    assert last > 0


def test_on_a_full_disk_all_files_of_the_result_before_stay(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", kibibytes=64) as disk:
        write_together({disk / "table": "before", disk / "summary": "before"})
        with pytest.raises(OSError, match="summary") as caught:
            write_together({disk / "table": "after", disk / "summary": bytes(2**17)})
        assert caught.value.errno == errno.ENOSPC
        assert {path.name: path.read_text() for path in disk.iterdir()} == {"table": "before", "summary": "before"}


def test_a_result_killed_between_its_files_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by SIGKILL after each of the renames."""
    before, after = ({tmp_path / name: text for name in ("table", "summary")} for text in ("before", "after"))
    rename = os.replace
    for num_renamed in range(2):
        write_together(before)
        left = iter([rename] * num_renamed)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *paths, left=left: next(left)(*paths))
            with pytest.raises(StopIteration):
                write_together(after)
        assert not (tmp_path / "summary").exists()


def test_read_bounded_reads_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, max_bytes=5) == b"12345"
    with pytest.raises(FileError, match="file cannot be read: it has 5 bytes, more than 4"):
        read_bounded(path, max_bytes=4)
    with pytest.raises(FileError, match="not a plain file"):
        read_bounded(tmp_path, max_bytes=4)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "missing", max_bytes=4)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5_000, b"{'a': 1}"], ids=lambda content: repr(content[:8])
)
def test_what_is_no_json_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FileError, match=r"x\.json is not JSON"):
        read_json(tmp_path / "x.json")


def test_json_is_read_from_a_plain_file_of_a_sane_size_only(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(FileNotFoundError):
        read_json(path)
    path.write_text('{"a": [1]}')
    assert read_json(path) == {"a": [1]}
    os.truncate(path, 10 * 2**30)
    with pytest.raises(FileError, match=r"x\.json cannot be read: it has 10,737,418,240 bytes"):
        read_json(path)
