"""State dicts from and to the layouts of PyTorch, Keras, ONNX and haste.

A state dict of ours has PyTorch's names and gates: per layer and direction ``weight_ih_l0`` [GH, I], ``weight_hh_l0``
[GH, H], ``bias_ih_l0`` and ``bias_hh_l0`` [GH] (or neither), then ``..._l0_reverse``, ``..._l1``, ...; the rows of an
LSTM are i, f, g, o (input, forget, candidate, output), of a GRU r, z, n (reset, update, candidate). I inputs, H hidden
units, G gates, D directions.

============ ===================================== ============== =========== ================================
layout       weights                               LSTM           GRU         biases
============ ===================================== ============== =========== ================================
PyTorch      [GH, I], [GH, H]                      i f g o        r z n       two
Keras        [I, GH], [H, GH]                      i f g o        z r n       one; GRU reset after: [2, 3H]
ONNX         W [D, GH, I], R [D, GH, H]            i o f g        z r n       B [D, 2GH], two
haste        [I, GH], [H, GH]                      i g f o        z r n       one; GRU: two
============ ===================================== ============== =========== ================================

cuDNN has PyTorch's gates and biases, one matrix or vector of a gate at a time.

Where a library has one bias, it becomes our ``bias_ih`` and ``bias_hh`` is zero. The way back sums the two, as the
kernels do before anything else: a layer that went out and came back computes the same bits, and a round trip that
begins with one bias gives back its values. A GRU that resets after the product has b_hn apart from b_in; the libraries
that have such a GRU keep two biases for it, as we do.

Nothing here needs the other libraries, but for ``to_pytorch``, which returns tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.extras import needed_for

State: TypeAlias = dict[str, Array]

# The rows of each cell's weights, one letter a gate. The letters are ours; Keras and ONNX call g "c", and n "h".
_OURS = {"rnn": "h", "lstm": "ifgo", "gru": "rzn", "coupled lstm": "igo"}
_KERAS = {"rnn": "h", "lstm": "ifgo", "gru": "zrn"}
_ONNX = {"rnn": "h", "lstm": "iofg", "gru": "zrn"}
_HASTE = {"lstm": "igfo", "gru": "zrn"}
_OUR_PEEPHOLES, _ONNX_PEEPHOLES = "ifo", "iof"

_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Weights(NamedTuple):
    """One layer in one direction; biases and peepholes may be None."""

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None = None
    bias_hh: Array | None = None
    weight_peephole: Array | None = None

    @property
    def bias(self) -> Array | None:
        """The one bias of libraries that have one."""
        return None if self.bias_ih is None or self.bias_hh is None else self.bias_ih + self.bias_hh


def from_pytorch(state_dict: Mapping[str, Any], *, dtype: Any = None) -> State:
    """A state dict of ours from one of PyTorch's.

    Args:
        state_dict: of ``torch.nn.RNN``, ``LSTM`` or ``GRU`` (with any options, projection included), of ``RNNCell``,
            ``LSTMCell`` or ``GRUCell``, whose names get the suffix ``_l0``, or of a module that holds some of them:
            prefixes stay, and so do all other names. Tensors may be on any device and need gradients.
        dtype: of the floating-point arrays of the result; None leaves it, but widens halves (float16 and bfloat16),
            which no layer of ours has, to float32.

    Returns:
        Arrays of their own, for ``load_state_dict`` of the same layers: ``nn.LSTM(...)``, ``nn.LSTMCell(...).layer``.
    """
    return {
        f"{name}_l0" if name.rpartition(".")[2] in _PARTS else name: _array(value, dtype)
        for name, value in state_dict.items()
    }


def to_pytorch(state: Mapping[str, Any], *, cell: bool = False, dtype: Any = None) -> dict[str, Any]:
    """Tensors on the CPU for ``load_state_dict`` of the same modules in PyTorch.

    PyTorch's GRU always resets after the product; a state dict does not say whether its layer does.

    Args:
        state: a state dict of RNN, LSTM or GRU, or of a module that holds some. cell: for ``torch.nn.LSTMCell`` and its
            like, whose names have no suffix. dtype: of NumPy, as in ``from_pytorch``.

    Raises:
        ValueError: with ``cell``, more than one layer or direction. ImportError: without PyTorch.
    """
    with needed_for("to_pytorch", "torch"):
        import torch

    arrays = {name: _array(value, dtype) for name, value in state.items()}
    for name in arrays:
        if cell and not name.endswith("_l0"):
            raise ValueError(f"{name}: expected one layer of one direction, as a cell has")
    return {name.removesuffix("_l0") if cell else name: torch.from_numpy(a) for name, a in arrays.items()}


def from_keras(weights: Sequence[Any], cell: str, *, layer: int = 0, dtype: Any = None) -> State:
    """A state dict of one layer from Keras's ``layer.get_weights()``.

    Args:
        weights: of ``SimpleRNN``, ``LSTM`` or ``GRU``: kernel [I, GH], recurrent_kernel [H, GH] and, with ``use_bias``,
            bias [GH]; a GRU's is [2, 3H] with ``reset_after``, the input's row first, and [3H] without. Twice that for
            ``Bidirectional``: forward, then backward.
        cell: "rnn", "lstm" or "gru". layer: the result's names end in ``_l<layer>``; merge the dicts of a stack.
        dtype: as in ``from_pytorch``.

    Raises:
        ValueError: another cell, number of arrays or shape.
    """
    order = _order(_KERAS, cell)
    given = [_array(w, dtype) for w in weights]
    if len(given) not in (2, 3, 4, 6):
        raise ValueError(
            "weights: expected kernel, recurrent_kernel and perhaps bias, or twice that if bidirectional, "
            f"got {len(given)} arrays"
        )
    directions = 2 if len(given) > 3 else 1
    each = len(given) // directions
    state: State = {}
    for d in range(directions):
        kernel, recurrent_kernel, *biases = given[d * each : (d + 1) * each]
        if biases and cell == "gru" and biases[0].ndim == 2:
            _check("bias", biases[0], (2, len(order) * len(recurrent_kernel)))
            biases = list(biases[0])
        state.update(_from_kernels(cell, order, _suffix(layer, d), kernel, recurrent_kernel, *biases))
    return state


def to_keras(state: Mapping[str, Any], cell: str, *, layer: int = 0, reset_after: bool = True) -> list[Array]:
    """Weights for Keras's ``layer.set_weights(...)``, of ``SimpleRNN``, ``LSTM`` or ``GRU``.

    Args:
        state: a state dict of RNN, LSTM or GRU. cell, layer: as in ``from_keras``.
        reset_after: as the GRU has it, which decides its bias's shape.

    Returns:
        kernel, recurrent_kernel and, if there are biases, bias; twice that if there are two directions.

    Raises:
        ValueError: another cell, a shape that does not fit, or weights that Keras has not. KeyError: no such layer.
    """
    order = _order(_KERAS, cell)
    arrays: list[Array] = []
    for w in _directions(state, cell, layer, "Keras"):
        arrays += [_to_kernel(w.weight_ih, cell, order), _to_kernel(w.weight_hh, cell, order)]
        bias = w.bias
        if cell == "gru" and reset_after and w.bias_ih is not None and w.bias_hh is not None:
            bias = np.stack([w.bias_ih, w.bias_hh])
        if bias is not None:
            arrays.append(_reordered(bias, _OURS[cell], order, axis=-1))
    return arrays


def from_onnx(
    tensors: Mapping[str, Any], cell: str, *, layer: int = 0, coupled: bool = False, dtype: Any = None
) -> State:
    """A state dict of one layer from the inputs of ONNX's operators RNN, LSTM and GRU.

    Args:
        tensors: ``W`` [D, GH, I], ``R`` [D, GH, H] and perhaps ``B`` [D, 2GH], Wb before Rb; of an LSTM perhaps ``P``
            [D, 3H], peepholes i, o, f: ``weight_peephole_l<layer>`` [3, H], i, f, o, of the result.
        cell: "rnn", "lstm" or "gru". layer: the result's names end in ``_l<layer>``. dtype: as in ``from_pytorch``.
        coupled: of an LSTM with ``input_forget=1``, whose rows of the forget gate do nothing: the result has none.

    Raises:
        ValueError: another cell, names or shape. KeyError: no W or R.
    """
    order, ours = _order(_ONNX, cell), _our_rows(cell, coupled)
    given = {name: _array(value, dtype) for name, value in tensors.items()}
    unexpected = given.keys() - ({"W", "R", "B", "P"} if cell == "lstm" else {"W", "R", "B"})
    if unexpected:
        raise ValueError(f"tensors: expected W, R, B and an LSTM's P, got {sorted(unexpected)}")
    W, R, B, P = given["W"], given["R"], given.get("B"), given.get("P")
    if R.ndim != 3 or len(R) not in (1, 2):
        raise ValueError(f"R: expected shape (1 or 2, {len(order)}H, H), got {R.shape}")
    directions, rows, H = R.shape
    _check("R", R, (directions, len(order) * H, H))
    _check("W", W, (directions, rows, "I"))
    if B is not None:
        _check("B", B, (directions, 2 * rows))
    if P is not None:
        _check("P", P, (directions, 3 * H))
    state: State = {}
    for d in range(directions):
        bias_ih, bias_hh = (None, None) if B is None else B[d].reshape(2, rows)
        peepholes = None if P is None else _reordered(P[d].reshape(3, H), _ONNX_PEEPHOLES, _OUR_PEEPHOLES)
        weights = _Weights(W[d], R[d], bias_ih, bias_hh, peepholes)
        state.update(_named(ours, order, weights, _suffix(layer, d)))
    return state


def to_onnx(state: Mapping[str, Any], cell: str, *, layer: int = 0, coupled: bool = False) -> dict[str, Array]:
    """``W``, ``R`` and, where there are such weights, ``B`` and ``P``, as in ``from_onnx``; ``coupled`` as there, with
    zeros for the forget gate.

    Raises:
        ValueError: another cell, a shape that does not fit, or weights that ONNX has not. KeyError: no such layer.
    """
    order, ours = _order(_ONNX, cell), _our_rows(cell, coupled)

    def rows(a: Array) -> Array:
        if coupled:
            return _reordered(np.concatenate([a, np.zeros_like(a[: len(a) // 3])]), _OURS[ours] + "f", order)
        return _reordered(a, _OURS[ours], order)

    directions = _directions(state, ours, layer, "ONNX", peepholes=True)
    tensors = {
        "W": np.stack([rows(w.weight_ih) for w in directions]),
        "R": np.stack([rows(w.weight_hh) for w in directions]),
    }
    biases = [(w.bias_ih, w.bias_hh) for w in directions if w.bias_ih is not None and w.bias_hh is not None]
    if biases:
        tensors["B"] = np.stack([np.concatenate([rows(b_ih), rows(b_hh)]) for b_ih, b_hh in biases])
    peepholes = [w.weight_peephole for w in directions if w.weight_peephole is not None]
    if peepholes:
        tensors["P"] = np.stack([_reordered(p, _OUR_PEEPHOLES, _ONNX_PEEPHOLES).reshape(-1) for p in peepholes])
    return tensors


def from_haste(state_dict: Mapping[str, Any], cell: str, *, layer: int = 0, dtype: Any = None) -> State:
    """A state dict of one layer from that of ``haste_pytorch.LSTM`` or ``GRU`` (lmnt-com/haste, Apache-2.0, whose
    frameworks/pytorch/lstm.py and gru.py have the orders; a GRU there resets after the product).

    Args:
        state_dict: ``kernel`` [I, GH], ``recurrent_kernel`` [H, GH], ``bias`` [GH] and a GRU's ``recurrent_bias``.
        cell: "lstm" or "gru". layer: the result's names end in ``_l<layer>``. dtype: as in ``from_pytorch``.

    Raises:
        ValueError: another cell, names or shape.
    """
    order = _order(_HASTE, cell)
    names = ["kernel", "recurrent_kernel", "bias", *["recurrent_bias"] * (cell == "gru")]
    if state_dict.keys() != set(names):
        raise ValueError(f"state_dict: expected {', '.join(names)}, got {', '.join(sorted(state_dict))}")
    arrays = [_array(state_dict[name], dtype) for name in names]
    return _from_kernels(cell, order, _suffix(layer, 0), *arrays)


def to_haste(state: Mapping[str, Any], cell: str, *, layer: int = 0) -> dict[str, Array]:
    """Arrays under haste's names, as in ``from_haste``; zero biases where there are none.

    Raises:
        ValueError: another cell, a shape that does not fit, or weights that haste has not, a second direction among
            them. KeyError: no such layer.
    """
    order = _order(_HASTE, cell)
    w, *other = _directions(state, cell, layer, "haste")
    if other:
        raise ValueError("state: expected one direction, as haste has, got two")
    zeros = np.zeros(len(w.weight_ih), w.weight_ih.dtype)
    biases = {"bias": zeros if w.bias is None else w.bias}
    if cell == "gru":
        biases = {
            "bias": zeros if w.bias_ih is None else w.bias_ih,
            "recurrent_bias": zeros if w.bias_hh is None else w.bias_hh,
        }
    return {
        "kernel": _to_kernel(w.weight_ih, cell, order),
        "recurrent_kernel": _to_kernel(w.weight_hh, cell, order),
        **{name: _reordered(bias, _OURS[cell], order) for name, bias in biases.items()},
    }


def _order(orders: Mapping[str, str], cell: str) -> str:
    if cell not in orders:
        raise ValueError(f"cell: expected {', '.join(map(repr, orders))}, got {cell!r}")
    return orders[cell]


def _our_rows(cell: str, coupled: bool) -> str:
    """The key of ``_OURS`` for a cell."""
    if coupled and cell != "lstm":
        raise ValueError(f"coupled: expected False for {cell}, got True")
    return "coupled lstm" if coupled else cell


def _suffix(layer: int, direction: int) -> str:
    return f"_l{layer}" + "_reverse" * direction


def _array(value: Any, dtype: Any) -> Array:
    """An array of its own from an array or tensor of any library; see ``from_pytorch`` for dtype."""
    if hasattr(value, "detach"):  # a tensor of PyTorch, whose bfloat16 NumPy does not know
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    half = array.dtype.name in ("float16", "bfloat16")
    if half or (dtype is not None and array.dtype.kind == "f"):
        return np.array(array, np.float32 if dtype is None else dtype, order="C")
    return np.array(array, order="C")


def _check(name: str, array: Array, shape: tuple[int | str, ...]) -> None:
    """Refuse another shape than ``shape``, in which a letter stands for any size."""
    fits = len(shape) == array.ndim and all(
        isinstance(want, str) or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape ({', '.join(map(str, shape))}), got {array.shape}")


def _reordered(a: Array, order: str, wanted: str, axis: int = 0) -> Array:
    """``a`` with the equal blocks along ``axis``, whose letters are ``order``, in the order ``wanted``."""
    blocks = np.split(a, len(order), axis)
    return np.concatenate([blocks[order.index(gate)] for gate in wanted], axis)


def _to_kernel(weight: Array, cell: str, order: str) -> Array:
    """Keras's and haste's [columns, GH] of ours, [GH, columns]."""
    return np.ascontiguousarray(_reordered(weight, _OURS[cell], order).T)


def _from_kernels(
    cell: str,
    order: str,
    suffix: str,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    recurrent_bias: Array | None = None,
) -> State:
    """Our names for Keras's and haste's arrays of one direction."""
    rows = len(order) * len(recurrent_kernel)
    _check("recurrent_kernel", recurrent_kernel, (len(recurrent_kernel), rows))
    _check("kernel", kernel, ("I", rows))
    for name, b in (("bias", bias), ("recurrent_bias", recurrent_bias)):
        if b is not None:
            _check(name, b, (rows,))
    if bias is not None and recurrent_bias is None:
        recurrent_bias = np.zeros_like(bias)
    return _named(cell, order, _Weights(kernel.T, recurrent_kernel.T, bias, recurrent_bias), suffix)


def _named(cell: str, order: str, weights: _Weights, suffix: str) -> State:
    """Weights with rows in another library's ``order``, in ours, under our names."""
    state = {
        part + suffix: _reordered(getattr(weights, part), order, _OURS[cell])
        for part in _PARTS
        if getattr(weights, part) is not None
    }
    if weights.weight_peephole is not None:
        state["weight_peephole" + suffix] = weights.weight_peephole
    return {name: np.ascontiguousarray(a) for name, a in state.items()}


def _directions(
    state: Mapping[str, Any], cell: str, layer: int, library: str, peepholes: bool = False
) -> list[_Weights]:
    """One layer's weights, of both directions if it has two, shapes checked, or an error that names what ``library``,
    which may have ``peepholes``, cannot represent."""
    gates = len(_OURS[cell])
    result = []
    for suffix in [s for s in (_suffix(layer, 0), _suffix(layer, 1)) if f"weight_ih{s}" in state] or [
        _suffix(layer, 0)
    ]:
        parts = {name.removesuffix(suffix): _array(a, None) for name, a in state.items() if name.endswith(suffix)}
        for part in parts:
            if part not in (*_PARTS, *["weight_peephole"] * peepholes):
                raise ValueError(f"{part}{suffix}: expected no such weights, which {library} does not have")
        if not {"weight_ih", "weight_hh"} <= parts.keys() or ("bias_ih" in parts) != ("bias_hh" in parts):
            raise KeyError(f"state: expected weight_ih{suffix}, weight_hh{suffix} and both biases or none")
        H = parts["weight_hh"].shape[-1]
        shapes: dict[str, tuple[int | str, ...]] = {
            "weight_hh": (gates * H, H), "weight_ih": (gates * H, "I"), "weight_peephole": (3, H)
        }  # fmt: skip
        for part, array in parts.items():
            _check(part + suffix, array, shapes.get(part, (gates * H,)))
        result.append(_Weights(**parts))
    return result
