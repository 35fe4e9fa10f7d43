"""``rnn``, ``gru`` and ``lstm``: their arguments, checked where a call is traced."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusedrnn._core import NO_STEPS
from fusedrnn.jax.calls import AXES, OPTIONS, Call, check
from fusedrnn.jax.primitives import forward_p
from fusedrnn.sequences import check_batch_sizes
from fusedrnn.spec import CELLS, COUNTERS, DRAWING

_NAMES = {f"norm_bias_{name}": f"layer_norm bias_{name}" for name in ("ih", "hh", "c")}
_NAMES.update({f"gain_{name}": f"layer_norm gain_{name}" for name in ("ih", "hh", "c")})
_BATCHED = ("x", "h0", "c0", "lengths", "resets")  # arguments that have rows


def rnn(
    x: Any,
    h0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    training: bool = True,
    lengths: Any = None,
    batch_sizes: Sequence[int] | None = None,
    resets: Any = None,
    layer_norm: Any = None,
    zoneout_h: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    grad_clip: float | None = None,
    seed: Any = None,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
    precision: str | None = None,
) -> tuple[Any, Any]:
    """y [T, N, H] and h_n [N, H] of ``fusedrnn.rnn_forward``, which says what the options are.

    Args:
        x, h0: [T, N, I], [N, H] or None for zeros; float32 or float64, with a precision also bfloat16. One sequence is
            x [T, I] and h0 [H]; then lengths is one integer or None, resets are [T], there are no batch_sizes, and
            y [T, H] and h_n [H] come back.
        weight_ih, weight_hh, bias_ih, bias_hh: [H, I], [H, H], [H], [H]; biases may be None.
        lengths: integers [N]; resets: booleans [T, N]. Both may be traced.
        layer_norm: ((gain_ih, gain_hh), (bias_ih, bias_hh)), arrays like others.
        seed: for zoneout, recurrent_dropout and dropconnect: an integer, an array that holds one, or a key of
            ``jax.random``; it may be traced. Needed unless training is False.
        training: False takes zoneout's mean for its masks, and no dropout. What is kept does not depend on it.
        others: numbers and texts that are known where the call is traced.

    Raises:
        TypeError, ValueError: as ``fusedrnn.functional``, where the call is traced. A traced length out of range is an
            error of JAX's runtime with our text.
        NotImplementedError: with a precision, another derivative than gradients in reverse mode.
    """
    arguments = {
        "x": x, "h0": h0, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh,
        "nonlinearity": nonlinearity, "reverse": reverse, "training": training, "lengths": lengths,
        "batch_sizes": batch_sizes, "resets": resets, "layer_norm": layer_norm, "zoneout_h": zoneout_h,
        "recurrent_dropout": recurrent_dropout, "dropconnect": dropconnect, "grad_clip": grad_clip, "seed": seed,
        "layer": layer, "row_offset": row_offset, "step_offset": step_offset, "precision": precision,
    }  # fmt: skip
    y, h_n = _run("rnn", arguments)
    return y, h_n


def gru(
    x: Any,
    h0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    *,
    reset_after: bool = True,
    reverse: bool = False,
    training: bool = True,
    recompute: bool = False,
    lengths: Any = None,
    batch_sizes: Sequence[int] | None = None,
    resets: Any = None,
    layer_norm: Any = None,
    zoneout_h: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    activations: Sequence[str] | None = None,
    grad_clip: float | None = None,
    seed: Any = None,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
    precision: str | None = None,
) -> tuple[Any, Any]:
    """y [T, N, H] and h_n [N, H] of ``fusedrnn.gru_forward``. Weights [3H, I], [3H, H], gates r, z, n; arguments as
    ``rnn``."""
    arguments = {
        "x": x, "h0": h0, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh,
        "reset_after": reset_after, "reverse": reverse, "training": training, "recompute": recompute,
        "lengths": lengths, "batch_sizes": batch_sizes, "resets": resets, "layer_norm": layer_norm,
        "zoneout_h": zoneout_h, "recurrent_dropout": recurrent_dropout, "dropconnect": dropconnect,
        "activations": activations, "grad_clip": grad_clip, "seed": seed, "layer": layer, "row_offset": row_offset,
        "step_offset": step_offset, "precision": precision,
    }  # fmt: skip
    y, h_n = _run("gru", arguments)
    return y, h_n


def lstm(
    x: Any,
    h0: Any,
    c0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any = None,
    bias_hh: Any = None,
    *,
    reverse: bool = False,
    training: bool = True,
    recompute: bool = False,
    lengths: Any = None,
    batch_sizes: Sequence[int] | None = None,
    resets: Any = None,
    weight_peephole: Any = None,
    weight_hr: Any = None,
    coupled: bool = False,
    cell_clip: float | None = None,
    layer_norm: Any = None,
    zoneout_h: float = 0.0,
    zoneout_c: float = 0.0,
    recurrent_dropout: float = 0.0,
    dropconnect: float = 0.0,
    activations: Sequence[str] | None = None,
    grad_clip: float | None = None,
    seed: Any = None,
    layer: int = 0,
    row_offset: int = 0,
    step_offset: int = 0,
    return_c: bool = False,
    precision: str | None = None,
) -> Any:
    """y [T, N, H], h_n and c_n [N, H] of ``fusedrnn.lstm_forward``; with return_c also c [T, N, H]. Of one sequence x
    [T, I], as ``rnn``, without N.

    Weights [4H, I], [4H, H], gates i, f, g, o; weight_peephole [3, H] and weight_hr [P, H] are arrays like others;
    arguments as ``rnn``."""
    arguments = {
        "x": x, "h0": h0, "c0": c0, "weight_ih": weight_ih, "weight_hh": weight_hh, "bias_ih": bias_ih,
        "bias_hh": bias_hh, "reverse": reverse, "training": training, "recompute": recompute, "lengths": lengths,
        "batch_sizes": batch_sizes, "resets": resets, "weight_peephole": weight_peephole, "weight_hr": weight_hr,
        "coupled": coupled, "cell_clip": cell_clip, "layer_norm": layer_norm, "zoneout_h": zoneout_h,
        "zoneout_c": zoneout_c, "recurrent_dropout": recurrent_dropout, "dropconnect": dropconnect,
        "activations": activations, "grad_clip": grad_clip, "seed": seed, "layer": layer, "row_offset": row_offset,
        "step_offset": step_offset, "return_c": return_c, "precision": precision,
    }  # fmt: skip
    return _run("lstm", arguments)


def _run(kind: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments by name."""
    needed = ("x", "weight_ih", "weight_hh")
    arrays = {name: a for name, a in arguments.items() if name in AXES and (a is not None or name in needed)}
    arrays.update(_norm_arrays(kind, arguments["layer_norm"]))
    for name, a in arrays.items():
        if not isinstance(a, (jax.Array, np.ndarray)) and name not in ("lengths", "resets"):
            raise TypeError(f"{_NAMES.get(name, name)}: expected an array, got {type(a).__name__}")
    # jax.numpy may take the memory of an array of NumPy as it lies; a call keeps integers and booleans of its own.
    arrays = {name: (jnp.array if name in ("lengths", "resets") else jnp.asarray)(a) for name, a in arrays.items()}
    static = _static(kind, arguments)
    packed = static["batch_sizes"] is not None
    single = arrays["x"].ndim == 2 and not packed
    _check_dimensions(arrays, packed)
    if single:  # the one row of a batch; under vmap all rows are in one call again
        for name in _BATCHED:
            if name in arrays:
                arrays[name] = jnp.expand_dims(arrays[name], _axis_of_rows(name))
    options = {name: value for name, value in static.items() if value != OPTIONS[name]}
    random = [name for name in DRAWING if name in options]
    if random and arguments["training"]:
        if arguments["seed"] is None:
            raise ValueError(f"seed: expected an integer or a key for {', '.join(random)} in training, got None")
        arrays["seed"] = _words(arguments["seed"])
    else:
        options = {name: value for name, value in options.items() if name not in COUNTERS}
    call = Call(kind, tuple(options.items()), tuple(arrays))
    _check_batch_sizes(call, arrays["x"])
    if options:
        check(call)
    _check_arrays(call, arrays, single)
    _check_lengths(arguments["lengths"], len(arrays["x"]))
    if not arguments["training"]:
        options = {name: value for name, value in options.items() if name not in ("recurrent_dropout", "dropconnect")}
        call = replace(call, options=tuple(options.items()))
    results = forward_p.bind(*arrays.values(), call=call)
    return tuple(jnp.squeeze(a, a.ndim - 2) for a in results) if single else tuple(results)


def _axis_of_rows(name: str) -> int:
    """Where N is among an argument's axes."""
    return 0 if AXES[name][0] == "N" else 1


def _check_dimensions(arrays: dict[str, Any], packed: bool) -> None:
    """Whether x and what has rows beside it agree on a batch."""
    x = arrays["x"]
    if x.ndim not in ((2,) if packed else (2, 3)):
        return  # the error of x itself comes later
    for name in _BATCHED:
        axes = AXES[name].replace("P", "H").replace("L", "M" if packed else "TN")
        alone = axes.replace("N", "")
        if name not in arrays or arrays[name].ndim == len(axes if packed or x.ndim == 3 else alone):
            continue
        batched, single = (f"[{', '.join(letters)}]" for letters in (axes, alone))
        if packed and name == "lengths":
            continue  # an error of its own
        if packed:
            told = f"{batched} beside packed rows x [M, I], or {single} beside x [T, I] without batch_sizes"
        else:
            told = f"{batched} beside x [T, N, I], or {single} beside x [T, I]"
        raise ValueError(f"{name}: expected shape {told}; got {arrays[name].shape} beside x {x.shape}")


def _static(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The options that are no arrays, as values that can be hashed."""
    options = {}
    for name, plain in OPTIONS.items():
        value = arguments.get(name, plain)
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name}: expected a value that is known where the call is traced, got {value}")
        if isinstance(value, (jax.Array, np.ndarray)):
            value = np.asarray(value).tolist()
        if isinstance(plain, bool):
            value = bool(value)
        options[name] = tuple(value) if isinstance(value, list) else value
    if (sizes := options["batch_sizes"]) is not None:  # numbers of Python, whose sums do not wrap around
        if not hasattr(sizes, "__iter__"):
            raise TypeError(f"batch_sizes: expected a sequence of integers, got {type(sizes).__name__}")
        options["batch_sizes"] = tuple(map(operator.index, sizes))
    options["activations"] = CELLS[kind].other_activations(options["activations"])
    return options


def _norm_arrays(kind: str, layer_norm: Any) -> dict[str, Any]:
    """((gains), (biases)) as operands."""
    if layer_norm is None:
        return {}
    names = CELLS[kind].norms
    if (
        not isinstance(layer_norm, (tuple, list))
        or [len(part) if isinstance(part, (tuple, list)) else -1 for part in layer_norm] != [len(names)] * 2
    ):
        raise ValueError(f"layer_norm: expected (gains, biases), {len(names)} of each")
    gains, biases = layer_norm
    arrays = {f"gain_{name}": gain for name, gain in zip(names, gains, strict=True)}
    arrays.update({f"norm_bias_{n}": bias for n, bias in zip(names, biases, strict=True) if bias is not None})
    return arrays


def _words(seed: Any) -> Any:
    """A seed's lower and upper 32 bits; of a key those that it generates."""
    if isinstance(seed, np.ndarray) and not seed.shape:
        seed = seed.item()
    if isinstance(seed, (int, np.integer)):
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed: expected an integer from 0 to below 2^64, got {seed}")
        return jnp.asarray(np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32))
    if not isinstance(seed, (jax.Array, np.ndarray)):
        raise TypeError(f"seed: expected an integer or a key of jax.random, got {type(seed).__name__}")
    seed = jnp.asarray(seed)
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key) or (seed.dtype == np.uint32 and seed.ndim == 1):
        return jax.random.bits(seed, (2,), np.uint32)
    if seed.shape or not jnp.issubdtype(seed.dtype, jnp.integer):
        raise TypeError(f"seed: expected one integer or key, got {seed.dtype} of shape {seed.shape}")
    upper = seed >> 32 if seed.dtype.itemsize == 8 else 0
    return jnp.stack([seed.astype(np.uint32), jnp.asarray(upper, seed.dtype).astype(np.uint32)])


def _check_arrays(call: Call, arrays: dict[str, Any], single: bool) -> None:
    """Errors as those of the compiled module; of one sequence, shapes without the row that was put in."""
    packed = call.option("batch_sizes") is not None
    dtype, precision = arrays["x"].dtype, call.option("precision")
    gates = call.cell.rows(dict(call.options))
    letters = "P" if "weight_hr" in arrays else "H"
    axes = {
        "x": "[M, I]" if packed else "[T, N, I] or [T, I]",
        "weight_hh": f"[{gates}H, {letters}]",
        "weight_hr": "[P, H]",
    }
    if dtype not in (np.float32, np.float64) and not precision:
        raise TypeError(f"x: expected float32 or float64, got {dtype}")
    for name, text in axes.items():
        if name in arrays and arrays[name].ndim != text.split("]")[0].count(",") + 1:
            raise ValueError(f"{name}: expected shape {text}, got {arrays[name].shape}")
    sizes = call.sizes(arrays)
    for name, size, what in (
        ("x", sizes.lead[0], "number of rows" if packed else "sequence length"), ("x", sizes.I, "input size"),
        ("weight_hh", sizes.P, "hidden size"), ("weight_hr", sizes.H, "hidden size"),
    ):  # fmt: skip
        if size < 1:
            steps = what == "sequence length"
            raise ValueError(f"{name}: {NO_STEPS if steps else f'expected a {what} of at least 1, got 0'}")
    sizes = sizes._replace(R=gates * sizes.H)
    for name, a in arrays.items():
        if name == "seed":
            continue
        shown = _NAMES.get(name, name)
        if name == "lengths":
            if not jnp.issubdtype(a.dtype, jnp.integer):
                raise TypeError(f"lengths: expected integers, got {a.dtype}")
        elif name == "resets":
            if a.dtype != bool:
                raise TypeError(f"resets: expected booleans, got {a.dtype}")
        elif precision and a.dtype not in (np.float32, jnp.bfloat16):
            raise TypeError(f"{shown}: expected float32 or bfloat16 together with precision, got {a.dtype}")
        elif not precision and a.dtype != dtype:
            raise TypeError(f"{shown}: expected dtype {dtype} like x, got {a.dtype}")
        shapes = [sizes.shape(name), a.shape]
        if shapes[0] != shapes[1]:
            if single and name in _BATCHED:
                shapes = [np.delete(shape, _axis_of_rows(name)) for shape in shapes]
            expected, got = (tuple(map(int, shape)) for shape in shapes)
            raise ValueError(f"{shown}: expected shape {expected}, got {got}")


def _check_batch_sizes(call: Call, x: Any) -> None:
    """Before anything is made that is as large as they say."""
    sizes = call.option("batch_sizes")
    if sizes:
        try:
            check_batch_sizes(sizes, len(x) if x.ndim == 2 else sum(sizes))
        except ValueError as error:
            raise ValueError(f"{error}; of one sequence, x [T, I], leave batch_sizes out") from None
        if x.ndim != 2:
            raise ValueError(f"x: expected shape [M, I], got {x.shape}")


def _check_lengths(lengths: Any, T: int) -> None:
    """As the caller gave them: jax.numpy would trace what is known."""
    if lengths is None or isinstance(lengths, jax.core.Tracer):
        return
    known = np.asarray(lengths)
    if known.size and (known.min() < 0 or known.max() > T):
        raise ValueError(f"lengths: expected numbers from 0 to {T}, got {known.tolist()}")
