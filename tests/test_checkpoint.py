"""Checkpoint files: what is written is what is read, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest
from safetensors.numpy import save_file

from fusedrnn.atomic import write_atomically
from fusedrnn.train.checkpoint import CheckpointError, make_writable_folder, read_checkpoint, write_checkpoint

TENSORS = {
    "model.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model.strided": np.arange(12.0).reshape(3, 4)[:, ::2],
    "optimizer.empty": np.empty((0, 3)),
}
STATE = {"step": 3, "loss": 0.1 + 0.2, "tiny": 5e-324, "names": ["a", "ü"], "none": None}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.safetensors"
    write_checkpoint(path, TENSORS, STATE)
    return path


def test_round_trip(path):
    tensors, state = read_checkpoint(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(tensors[name], tensor)
    assert state == {"format": 2, **STATE}


def test_equal_content_gives_equal_bytes(path, tmp_path):
    write_checkpoint(tmp_path / "again", TENSORS, STATE)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"run\.safetensors: truncated, or not a safetensors file"):
        read_checkpoint(path)


def test_noise_is_never_taken_for_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    for size in (1, 7, 8, 9, 64, 1000):
        (tmp_path / "noise").write_bytes(rng.bytes(size))
        with pytest.raises(CheckpointError, match="noise"):
            read_checkpoint(tmp_path / "noise")


def test_foreign(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint of fusedrnn"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "its metadata is damaged"),
        ("[]", "written by another version"),
        (json.dumps({"format": 99}), "written by another version of fusedrnn, expected format 2"),
    ],
)
def test_damaged_or_newer(tmp_path, metadata, message):
    path = tmp_path / "x.safetensors"
    save_file({"weight": np.zeros(3)}, path, metadata={"fusedrnn.training": metadata})
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_missing_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="not a file"):
        read_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe: not a file"):
        read_checkpoint(tmp_path / "pipe")


def test_writing_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_make_writable_folder(tmp_path):
    make_writable_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        make_writable_folder(tmp_path / "file" / "c")
