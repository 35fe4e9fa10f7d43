"""Options of ``fusedrnn.jax``: the kernels' bits, seeds, inference, precision, vmap, and what is refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fusedrnn

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
fj = pytest.importorskip("fusedrnn.jax")

from jax.test_util import check_grads  # noqa: E402

pytestmark = pytest.mark.usefixtures("jax_config")

RANDOM = ("zoneout_h", "recurrent_dropout", "dropconnect")
# cell, options, and what else there is in the data: together every option in both forms of uneven rows
CASES = {
    "rnn": ("rnn", ("layer_norm", "activations", *RANDOM, "grad_clip"), ("resets", "lengths", "reverse")),
    "gru": ("gru", ("layer_norm", "activations", *RANDOM, "grad_clip"), ("resets", "batch_sizes")),
    "gru_reset_before": ("gru", ("reset_before", *RANDOM, "activations"), ("lengths", "no_states")),
    "lstm_projection": (
        "lstm",
        ("peephole", "projection", "cell_clip", "layer_norm", "zoneout_c", *RANDOM[1:], "return_c", "grad_clip"),
        ("resets", "lengths", "reverse", "no_biases"),
    ),
    "lstm_coupled": (
        "lstm",
        ("peephole", "coupled", "zoneout_c", "zoneout_h", "activations"),
        ("resets", "batch_sizes", "reverse"),
    ),
    "lstm_return_c": ("lstm", ("return_c",), ("no_doutputs",)),
}


@pytest.fixture(params=CASES)
def make(request, make_case, make_shape):
    """make(dtype=float64, seed=0) -> (case, arrays with a gradient, other arrays, the call of all of them)."""
    kind, options, data = CASES[request.param]

    def problem(dtype=np.float64, seed=0):
        case = make_case(kind, make_shape(4, 3, 2, 5), dtype, options, seed=seed, data=data)
        given = {**case.arguments, **case.keywords}
        reals = ("weight_peephole", "weight_hr", "layer_norm", *case.arguments)
        real = {name: given.pop(name) for name in reals if given.get(name) is not None}
        other = {name: given.pop(name) for name in ("lengths", "resets") if name in given}
        other["seed"] = np.array(given.pop("seed"), np.uint64)
        return case, real, other, partial(getattr(fj, kind), **{"h0": None, **given})

    return problem


def flat(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("numbers", ["float32", "float64"])
def test_the_bits_of_the_kernels(make, numbers, assert_same_bits):
    """Outputs and the gradient of every array, with lengths, resets and the seed traced."""
    case, real, other, call = make(np.dtype(numbers))
    outputs, reserve = case.forward(fusedrnn)
    doutputs = [case.doutputs.get(f"d{name}") for name in outputs]

    @jax.jit
    def run(real, other, doutputs):
        outputs, pull = jax.vjp(lambda real: call(**real, **other), real)
        given = [jnp.zeros_like(a) if d is None else d for a, d in zip(outputs, doutputs, strict=True)]
        return outputs, pull(tuple(given))[0]

    ours, gradients = run(real, other, doutputs)
    assert_same_bits(tuple(flat(ours)), tuple(outputs.values()))
    assert_same_bits(tuple(flat(call(**real, **other))), tuple(outputs.values()), "not compiled")
    expected = case.backward(fusedrnn, reserve)
    for name, gradient in gradients.items():
        assert_same_bits(tuple(flat(gradient)), tuple(flat(expected[f"d{name}"])), name)


@pytest.mark.parametrize("make", ["rnn", "gru", "lstm_projection"], indirect=True)
def test_vmap(make, assert_same_bits):
    """Over all arrays, seeds among them, as over some: each element's outputs and gradients are its own."""
    _, real, other, call = make()
    others = [make(seed=seed)[1:3] for seed in (0, 1)] if "batch_sizes" not in call.keywords else [(real, other)] * 2
    layer_norm = real.get("layer_norm")  # whose biases may be absent, each element's for itself
    others = [({**r, **({} if layer_norm is None else {"layer_norm": layer_norm})}, o) for r, o in others]
    stacked = jax.tree.map(lambda *parts: np.stack(parts), *others)

    def gradient(real, other):
        outputs, pull = jax.vjp(lambda real: call(**real, **other), real)
        return outputs, pull(jax.tree.map(jnp.ones_like, outputs))[0]

    each = jax.jit(jax.vmap(gradient))(*stacked)
    data = {"x": 0} | {name: None for name in real if name != "x"}
    axes = {"lengths": None, "resets": 0, "seed": None}
    some = jax.jit(jax.vmap(gradient, in_axes=(data, {name: axes[name] for name in other})))(
        {**real, "x": stacked[0]["x"]},
        {**other, **{name: a for name, a in stacked[1].items() if name == "resets"}},
    )
    for b in range(2):
        expected = gradient(*others[b])
        assert_same_bits(tuple(flat(jax.tree.map(lambda a, b=b: a[b], each))), tuple(flat(expected)), f"element {b}")
        resets = {name: a[b] for name, a in stacked[1].items() if name == "resets"}
        expected = gradient({**real, "x": stacked[0]["x"][b]}, {**other, **resets})
        assert_same_bits(tuple(flat(jax.tree.map(lambda a, b=b: a[b], some))), tuple(flat(expected)), f"element {b}")


@pytest.fixture
def small():
    rng = np.random.default_rng(3)
    shapes = {"x": (4, 3, 2), "h0": (3, 5), "weight_ih": (15, 2), "weight_hh": (15, 5), "bias_ih": (15,)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def test_vmap_adds_rows_where_masks_are_not_counted_by_row(small, kernel_calls):
    """Options that are not random leave x, states, resets and gradients without the weights' one call."""
    x = np.stack([small["x"]] * 4)
    resets = np.zeros((4, 4, 3), bool)
    resets[2, 1] = True
    norm = ((np.ones(15), np.ones(15)), (None, None))

    def loss(x, resets, **options):
        return fj.gru(**{**small, "x": x}, resets=resets, grad_clip=1.0, **options)[0].sum()

    jax.block_until_ready(jax.vmap(jax.grad(partial(loss, layer_norm=norm)))(x, resets))
    assert [call[:2] for call in kernel_calls if call[1] > 1] == [("forward", 12), ("backward", 12)]
    kernel_calls.clear()
    jax.block_until_ready(jax.vmap(partial(loss, zoneout_h=0.3, seed=1))(x, resets))
    assert [call[:2] for call in kernel_calls if call[1] > 1] == [("forward", 3)] * 4


def test_seeds(small):
    """Integers as everywhere in the library; a key's 64 bits; each element of vmap its own."""
    run = jax.jit(lambda seed: fj.gru(**small, zoneout_h=0.4, recurrent_dropout=0.3, seed=seed)[0])
    arguments = [small.get(name) for name in ("x", "h0", "weight_ih", "weight_hh", "bias_ih")]

    def expected(seed):
        return fusedrnn.gru_forward(*arguments, zoneout_h=0.4, recurrent_dropout=0.3, seed=seed)[0]

    large = 0xFEDCBA9876543210
    for seed in (large, np.uint64(large), np.array(large, np.uint64)):
        np.testing.assert_array_equal(
            fj.gru(**small, zoneout_h=0.4, recurrent_dropout=0.3, seed=seed)[0], expected(large)
        )
    np.testing.assert_array_equal(run(jnp.asarray(large, jnp.uint64)), expected(large))
    np.testing.assert_array_equal(run(jnp.asarray(7, jnp.int32)), expected(7))
    keys = jax.random.split(jax.random.key(5), 3)
    ys = jax.jit(jax.vmap(run))(keys)
    for key, y in zip(keys, ys, strict=True):
        low, high = np.asarray(jax.random.bits(key, (2,), np.uint32), object)
        np.testing.assert_array_equal(y, expected(int(low) + (int(high) << 32)))
        np.testing.assert_array_equal(y, run(jax.random.key_data(key)))
    assert not np.array_equal(ys[0], ys[1])


def test_inference(small):
    """Zoneout's mean and no dropout, with gradients, which the kernels do not have."""
    options = {"zoneout_h": 0.3, "recurrent_dropout": 0.2, "dropconnect": 0.1}
    arguments = [small.get(name) for name in ("x", "h0", "weight_ih", "weight_hh", "bias_ih")]
    expected, _, _ = fusedrnn.gru_forward(*arguments, **options, training=False)

    @jax.jit
    def run(arrays):
        return fj.gru(**arrays, **options, training=False)[0]

    np.testing.assert_array_equal(run(small), expected)
    check_grads(run, (small,), order=1, modes=("fwd", "rev"))


def test_precision_bfloat16(small, assert_same_bits):
    arrays = {name: a.astype(np.float32) for name, a in small.items()}
    arguments = [arrays.get(name) for name in ("x", "h0", "weight_ih", "weight_hh", "bias_ih")]
    for case, low in enumerate([(), ("x", "weight_hh", "bias_ih")]):
        given = {name: jnp.asarray(a, jnp.bfloat16 if name in low else a.dtype) for name, a in arrays.items()}
        arguments = [np.asarray(given[name]) for name in arrays]
        y, _, reserve = fusedrnn.gru_forward(*arguments, precision="bfloat16")
        expected = fusedrnn.gru_backward(np.cos(y), None, reserve)

        @jax.jit
        def run(given):
            y, pull = jax.vjp(lambda given: fj.gru(**given, precision="bfloat16")[0], given)
            return y, pull

        ours, pull = run(given)
        assert_same_bits(np.asarray(ours), y, f"case {case}")
        for name, gradient in pull(jnp.asarray(np.cos(y)))[0].items():
            want = jnp.asarray(getattr(expected, f"d{name}"), given[name].dtype)
            assert gradient.dtype == given[name].dtype
            np.testing.assert_array_equal(gradient, want, err_msg=name)


def test_precision_int8_is_for_inference(small, assert_same_bits):
    arrays = {name: a.astype(np.float32) for name, a in small.items()}
    y, _, _ = fusedrnn.gru_forward(*arrays.values(), precision="int8", training=False)
    run = partial(fj.gru, precision="int8")
    assert_same_bits(np.asarray(jax.jit(run)(**arrays)[0]), y)
    with pytest.raises(ValueError, match="training: expected False for int8, got True"):
        jax.jit(jax.grad(lambda x: run(**{**arrays, "x": x})[0].sum()))(arrays["x"])


def test_what_does_not_fit_is_refused_where_the_call_is_traced(small):
    arrays = {**small, "c0": small["h0"], "weight_ih": np.ones((20, 2)), "weight_hh": np.ones((20, 5)), "bias_ih": None}
    ones = np.ones(20)
    cases = [
        ({"zoneout_h": 1.5, "seed": 0}, ValueError, "zoneout_h: expected 0 <= p <= 1, got 1.5"),
        ({"zoneout_c": 0.1, "dropconnect": 0.2}, ValueError, "seed: expected an integer or a key for zoneout_c, "),
        ({"dropconnect": 1.0, "training": False}, ValueError, "dropconnect: expected 0 <= p < 1"),
        ({"seed": -1, "zoneout_h": 0.1}, ValueError, "seed: expected an integer from 0 to below 2.64, got -1"),
        ({"seed": "a", "zoneout_h": 0.1}, TypeError, "seed: expected an integer or a key of jax.random, got str"),
        ({"seed": np.ones(2), "zoneout_h": 0.1}, TypeError, r"seed: expected one integer or key, got float64 of shape"),
        ({"cell_clip": -1.0}, ValueError, "cell_clip: expected a positive number or None"),
        ({"activations": ("tanh", "tanh")}, ValueError, "activations: expected 3 names, got 2"),
        ({"recompute": True, "coupled": True}, ValueError, "recompute: expected False together with coupled"),
        ({"coupled": True}, ValueError, r"weight_ih: expected shape \(15, 2\), got \(20, 2\)"),
        ({"weight_peephole": np.ones((2, 5))}, ValueError, r"weight_peephole: expected shape \(3, 5\), got \(2, 5\)"),
        ({"weight_hr": np.ones(5)}, ValueError, r"weight_hr: expected shape \[P, H\], got \(5,\)"),
        ({"layer_norm": ((ones, ones), (ones, ones))}, ValueError, r"layer_norm: expected \(gains, biases\), 3 of"),
        (
            {"layer_norm": ((ones, ones, ones), (None, None, None))},
            ValueError,
            r"layer_norm gain_c: expected shape \(5,\), got \(20,\)",
        ),
        ({"layer_norm": ((ones, None, ones), (None,) * 3)}, TypeError, "layer_norm gain_hh: expected an array"),
        ({"resets": np.ones((4, 3))}, TypeError, "resets: expected booleans, got float64"),
        ({"resets": np.ones((3, 4), bool)}, ValueError, r"resets: expected shape \(4, 3\), got \(3, 4\)"),
        ({"batch_sizes": (3, 4)}, ValueError, "batch_sizes: expected positive numbers that never increase"),
        ({"batch_sizes": (3, 2)}, ValueError, r"x: expected shape \[M, I\], got \(4, 3, 2\)"),
        ({"batch_sizes": (3, 2), "x": np.ones((4, 2))}, ValueError, "batch_sizes: expected a sum of 4"),
        ({"precision": "float16"}, ValueError, "precision: expected None, 'bfloat16' or 'int8', got 'float16'"),
        ({"precision": "bfloat16"}, TypeError, "x: expected float32 or bfloat16 together with precision, got float64"),
    ]  # fmt: skip
    for wrong, error, message in cases:
        with pytest.raises(error, match=f"^{message}"):
            jax.eval_shape(lambda wrong=wrong: fj.lstm(**{**arrays, **wrong}))
    with pytest.raises(TypeError, match=r"^cell_clip: expected a value that is known where the call is traced"):
        jax.jit(lambda bound: fj.lstm(**arrays, cell_clip=bound))(1.0)
    with pytest.raises(ValueError, match=r"^layer_norm: expected None with reset_after=False"):
        fj.gru(**small, reset_after=False, layer_norm=((np.ones(15), np.ones(15)), (None, None)))
    with pytest.raises(ValueError, match=r"^nonlinearity: expected sigmoid, tanh, .* got 'step'"):
        fj.rnn(small["x"], None, np.ones((5, 2)), np.ones((5, 5)), nonlinearity="step")


def test_shard_map(run_python):
    """Each device its rows, where JAX does not follow what varies; where it does gradients would be wrong."""
    result = run_python(
        """
import inspect, jax, numpy as np
import fusedrnn.jax as fj
from jax.sharding import Mesh, PartitionSpec as P
try:
    from jax import shard_map
except ImportError:
    from jax.experimental.shard_map import shard_map
rng = np.random.default_rng(0)
x, w_ih, w_hh = (rng.standard_normal(shape).astype(np.float32) for shape in [(3, 4, 2), (5, 2), (5, 5)])
rows = P(None, "rows", None)
mesh = Mesh(np.array(jax.devices()), ("rows",))
def loss(run, x, *weights): return (run(x, *weights) ** 2).sum()
def run(x, *weights): return fj.rnn(x, None, *weights)[0]
check = next(name for name in ("check_vma", "check_rep") if name in inspect.signature(shard_map).parameters)
parts = shard_map(run, mesh=mesh, in_specs=(rows, P(), P()), out_specs=rows, **{check: False})
expected = jax.grad(loss, (1, 2, 3))(run, x, w_ih, w_hh)
for a, b in zip(jax.jit(jax.grad(loss, (1, 2, 3)), static_argnums=0)(parts, x, w_ih, w_hh), expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
try:
    shard_map(run, mesh=mesh, in_specs=(rows, P(), P()), out_specs=rows)(x, w_ih, w_hh)
except NotImplementedError as error:
    print(error)
""",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    assert result.stdout.startswith(("shard_map: expected check_vma=False", "No replication rule")), result.stderr
