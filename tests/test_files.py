"""State dicts in files: what is saved is what is loaded, whichever the suffix."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn
from fusedrnn.checkpoint import write_checkpoint

STATE = {
    **nn.LSTM(2, 3, bidirectional=True, rng=0).state_dict(),
    "head.weight": np.arange(12.0).reshape(3, 4)[:, ::2],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.array(7),
    "empty": np.empty((0, 3), np.float16),
}


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")
    return tmp_path / f"state{request.param}"


def test_round_trip(path):
    fusedrnn.save(STATE, path)
    state = fusedrnn.load(str(path))
    assert state.keys() == STATE.keys()
    for name, array in STATE.items():
        assert (state[name].dtype, state[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(state[name], array)


def test_a_prefix_reads_a_part(path):
    fusedrnn.save(STATE, path)
    assert list(fusedrnn.load(path, prefix="head.")) == ["weight"]


def test_a_network_out_of_a_checkpoint(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")
    model, other = nn.GRU(2, 3, rng=0), nn.GRU(2, 3, rng=1)
    tensors = {f"model.{name}": a for name, a in model.state_dict().items()}
    write_checkpoint(tmp_path / "x.safetensors", {**tensors, "optimizer.step": np.zeros(3)}, {})
    other.load_state_dict(fusedrnn.load(tmp_path / "x.safetensors", prefix="model."))
    np.testing.assert_array_equal(other.weight_hh_l0.data, model.weight_hh_l0.data)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(path, share):
    fusedrnn.save(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"{path.name}: truncated, or not an? (npz|safetensors) file"):
        fusedrnn.load(path)


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{}]))
    with pytest.raises(ValueError, match=r"x\.npz: .*pickle"):
        fusedrnn.load(tmp_path / "x.npz")


def test_what_is_refused_leaves_the_old_file_alone(path):
    fusedrnn.save({"a": np.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="b: expected an array of numbers, got dtype"):
        fusedrnn.save({"a": np.ones(2), "b": ["text"]}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_other_suffixes_and_missing_files(tmp_path, path):
    for call in (lambda: fusedrnn.save({}, tmp_path / "x.pt"), lambda: fusedrnn.load(tmp_path / "x.pt")):
        with pytest.raises(ValueError, match=r"path: expected a name that ends in .*, got 'x.pt'"):
            call()
    with pytest.raises(FileNotFoundError):
        fusedrnn.load(path)
