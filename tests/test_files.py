"""State dicts in files: what is saved is what is loaded, whichever the suffix."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import fusedrnn
from fusedrnn import nn
from fusedrnn.train.checkpoint import write_checkpoint

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


def safetensors_of(dtype, data, shape, name="a"):
    """A file as the format says it: 8 bytes of length, a JSON header, the bytes."""
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


ALL_BITS = np.arange(2**16, dtype="<u2")


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("BF16", ALL_BITS.tobytes(), (ALL_BITS.astype("<u4") << 16).view("<f4")),
        ("F16", ALL_BITS.tobytes(), ALL_BITS.view("<f2")),
        ("F32", np.arange(4, dtype="<f4").tobytes(), np.arange(4, dtype="f4")),
        ("F64", np.arange(4, dtype="<f8").tobytes(), np.arange(4, dtype="f8")),
        ("C64", np.arange(4, dtype="<c8").tobytes(), np.arange(4, dtype="c8")),
        ("BOOL", b"\0\1\1\0", np.array([False, True, True, False])),
        *((f"{k}{8 * n}", np.arange(4, dtype=f"<{k.lower()}{n}").tobytes(), np.arange(4, dtype=f"{k.lower()}{n}"))
          for k in "IU" for n in (1, 2, 4, 8)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_every_dtype_of_safetensors_is_read_exactly(tmp_path, kind, data, expected):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    (tmp_path / "x.safetensors").write_bytes(safetensors_of(kind, data, [2, len(expected) // 2]))
    found = fusedrnn.load(tmp_path / "x.safetensors")["a"]
    assert found.dtype == expected.dtype.newbyteorder("=")
    assert found.flags.writeable
    np.testing.assert_array_equal(found, expected.reshape(2, -1))


def test_float8_is_read_exactly(tmp_path):
    """Against the definition: sign, exponent, mantissa (Micikevicius et al. 2022)."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")

    def value(code, exponent_bits, mantissa_bits, bias, infinities):
        sign = -1.0 if code & 128 else 1.0
        exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1)
        mantissa = code & ((1 << mantissa_bits) - 1)
        top = exponent == (1 << exponent_bits) - 1
        if top and infinities:
            return sign * math.inf if mantissa == 0 else math.nan
        if top and mantissa == (1 << mantissa_bits) - 1:
            return math.nan
        if exponent == 0:
            return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
        return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)

    for dtype, format_of in (("F8_E4M3", (4, 3, 7, False)), ("F8_E5M2", (5, 2, 15, True))):
        (tmp_path / "x.safetensors").write_bytes(safetensors_of(dtype, bytes(range(256)), [256]))
        found = fusedrnn.load(tmp_path / "x.safetensors")["a"]
        expected = np.array([value(code, *format_of) for code in range(256)], "f4")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
        finite = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[finite], np.signbit(expected)[finite])


@pytest.mark.parametrize("kind", ["F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F99"])
def test_other_dtypes_are_refused_by_name(tmp_path, kind):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    (tmp_path / "x.safetensors").write_bytes(safetensors_of(kind, bytes(4), [4], "head.weight"))
    # what an old safetensors does not know itself, it refuses for us
    with pytest.raises(ValueError, match=rf"x\.safetensors: .*(head\.weight: expected a dtype among .*, got )?{kind}"):
        fusedrnn.load(tmp_path / "x.safetensors")


def test_weights_of_pytorch_in_bfloat16():
    """As docs/exchange.md has it: from a file of halves into a layer of ours."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from fusedrnn.interop import layouts
    from fusedrnn.interop.tensor_file import read_safetensors

    state = nn.LSTM(3, 4, rng=0).state_dict()
    for name, array in state.items():
        halves = (array.view("<u4") >> 16).astype("<u2")
        arrays, _ = read_safetensors(safetensors_of("BF16", halves.tobytes(), list(array.shape), name))
        state[name] = arrays[name]
    layer = nn.LSTM(3, 4, rng=1)
    layer.load_state_dict(layouts.from_pytorch(state))
    assert np.abs(layer.weight_hh_l0.data - nn.LSTM(3, 4, rng=0).weight_hh_l0.data).max() < 2**-8


@pytest.mark.parametrize("kind", ["c16", "g", "G"])
def test_what_safetensors_lacks_is_refused_by_name_before_anything_is_written(tmp_path, kind):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    state = {"fine": np.ones(2), "head.weight": np.ones(2, kind)}
    with pytest.raises(TypeError, match=r"head\.weight: expected a dtype that safetensors holds .*, got "):
        fusedrnn.save(state, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [">f4", ">i2", "?", "c8", "u8", "i1", "f2"])
def test_save_and_load_agree_whatever_the_order_of_bytes(path, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    fusedrnn.save({"a": array, "scalar": array[1, 1]}, path)
    found = fusedrnn.load(path)
    np.testing.assert_array_equal(found["a"], array)
    assert found["scalar"].shape == ()
    assert found["a"].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
