"""``fusedrnn.jax``: values and gradients of a plain ``jax.lax.scan``, under jit, grad and vmap."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fusedrnn

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
fj = pytest.importorskip("fusedrnn.jax")

T, N, I, H = 5, 3, 4, 7  # noqa: E741
CELLS = {
    "rnn_tanh": ("rnn", {}),
    "rnn_relu": ("rnn", {"nonlinearity": "relu"}),
    "gru_reset_after": ("gru", {}),
    "gru_reset_before": ("gru", {"reset_after": False}),
    "lstm": ("lstm", {}),
}


pytestmark = pytest.mark.usefixtures("jax_config")


@pytest.fixture(params=CELLS)
def kind_and_options(request):
    return CELLS[request.param]


def problem(kind, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    G = {"rnn": 1, "gru": 3, "lstm": 4}[kind] * H
    states = ["h0", "c0"] if kind == "lstm" else ["h0"]
    shapes = {"x": (T, N, I), **dict.fromkeys(states, (N, H)), "weight_ih": (G, I), "weight_hh": (G, H)}
    shapes.update({"bias_ih": (G,), "bias_hh": (G,)})
    return {
        name: (rng.standard_normal(shape) * (0.5 if "_" in name else 1)).astype(dtype) for name, shape in shapes.items()
    }


def scan(kind, arrays, *, nonlinearity="tanh", reset_after=True, reverse=False, lengths=None, recompute=False):
    """The equations, step by step, as one would write them in JAX."""
    x, w_ih, w_hh = (arrays[name] for name in ("x", "weight_ih", "weight_hh"))
    b_ih, b_hh = (arrays.get(name) for name in ("bias_ih", "bias_hh"))
    b_ih, b_hh = (jnp.zeros(len(w_ih), x.dtype) if b is None else b for b in (b_ih, b_hh))
    zeros = jnp.zeros((x.shape[1], w_hh.shape[1]), x.dtype)
    start = tuple(zeros if arrays.get(name) is None else arrays[name] for name in ("h0", "c0")[: 1 + (kind == "lstm")])
    lengths = jnp.full(x.shape[1], x.shape[0]) if lengths is None else lengths

    def step(state, given):
        t, x_t = given
        h, *c = state
        a, r = x_t @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        if kind == "rnn":
            new = ({"tanh": jnp.tanh, "relu": lambda z: jnp.maximum(z, 0)}[nonlinearity](a + r),)
        elif kind == "lstm":
            i, f, g, o = jnp.split(a + r, 4, axis=1)
            c_t = jax.nn.sigmoid(f) * c[0] + jax.nn.sigmoid(i) * jnp.tanh(g)
            new = (jax.nn.sigmoid(o) * jnp.tanh(c_t), c_t)
        else:
            (a_r, a_z, a_n), (r_r, r_z, r_n) = jnp.split(a, 3, axis=1), jnp.split(r, 3, axis=1)
            reset, z = jax.nn.sigmoid(a_r + r_r), jax.nn.sigmoid(a_z + r_z)
            inner = reset * r_n if reset_after else (reset * h) @ w_hh[2 * H :].T + b_hh[2 * H :]
            new = ((1 - z) * jnp.tanh(a_n + inner) + z * h,)
        alive = (t < lengths)[:, None]
        return tuple(jnp.where(alive, n, s) for n, s in zip(new, state, strict=True)), jnp.where(alive, new[0], 0)

    last, y = jax.lax.scan(step, start, (jnp.arange(len(x)), x), reverse=reverse)
    return (y, *last)


def ours(kind, arrays, **options):
    return getattr(fj, kind)(**arrays, **({"c0": None} if kind == "lstm" and "c0" not in arrays else {}), **options)


def weighted(run, arrays):
    """A loss in which every output counts, each element on its own."""
    return sum(jnp.sum(a * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)) for a in run(arrays))


# The plain call, and float32, have the bits of the kernels: below.
VARIANTS = [
    {"reverse": True, "lengths": [2, 5, 0], "absent": ("bias_hh",)},
    {"absent": ("h0", "c0", "bias_ih", "bias_hh"), "recompute": True},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_values_and_gradients_of_a_scan(kind_and_options, variant, assert_close):
    dtype = np.float64
    kind, options = kind_and_options
    options = {**options, **variant}
    absent = options.pop("absent", ())
    if kind == "rnn":
        options.pop("recompute", None)
    if "lengths" in options:
        options["lengths"] = np.array(options["lengths"])
    arrays = {name: a for name, a in problem(kind, dtype).items() if name not in absent}
    given = {"h0": None, **arrays}
    outputs = ours(kind, given, **options)
    expected = scan(kind, arrays, **options)
    for k, (a, want) in enumerate(zip(outputs, expected, strict=True)):
        assert_close(np.asarray(a), np.asarray(want), dtype, f"output {k}")
    gradients = jax.jit(jax.grad(partial(weighted, lambda a: ours(kind, {"h0": None, **a}, **options))))(arrays)
    expected = jax.jit(jax.grad(partial(weighted, partial(scan, kind, **options))))(arrays)
    for name, want in expected.items():
        assert_close(np.asarray(gradients[name]), np.asarray(want), dtype, name)


def test_the_bits_of_the_kernels(kind_and_options, assert_same_bits):
    kind, options = kind_and_options
    arrays = problem(kind)
    *expected, reserve = getattr(fusedrnn, f"{kind}_forward")(*arrays.values(), **options)
    call = partial(ours, kind, **options)
    for run in (call, jax.jit(call)):
        assert_same_bits(tuple(map(np.asarray, run(arrays))), tuple(expected))
    dy = np.ones_like(expected[0])
    want = getattr(fusedrnn, f"{kind}_backward")(dy, *(None,) * (len(expected) - 1), reserve)
    gradients = jax.grad(lambda a: call(a)[0].sum())(arrays)
    for name, a in gradients.items():
        assert_same_bits(np.asarray(a), getattr(want, f"d{name}"), name)


def test_nothing_is_kept_or_computed_in_vain(kernel_calls):
    """No reserve without a gradient, no dx of data, no gradient of an output that nobody uses."""
    arrays = problem("lstm")
    for _ in range(2):  # the first also checks the options, once for all calls with them
        kernel_calls.clear()
        ours("lstm", arrays)[0].block_until_ready()
        jax.grad(lambda w: ours("lstm", {**arrays, "weight_ih": w})[1].sum())(arrays["weight_ih"]).block_until_ready()
        jax.grad(lambda x: ours("lstm", {**arrays, "x": x})[0].sum())(arrays["x"]).block_until_ready()
    assert kernel_calls == [
        ("forward", N, False), ("forward", N, True), ("backward", N, False, True, False, True, False),
        ("forward", N, True), ("backward", N, True, False, True, True, False),
    ]  # fmt: skip


def rows_of(arrays, names, B, seed=7):
    """`arrays` with another axis of size B in front of those of `names`."""
    more = [problem("lstm", np.float64, seed + b) for b in range(B)]
    return {name: np.stack([m[name] for m in more]) if name in names else a for name, a in arrays.items()}


@pytest.mark.parametrize(
    ("names", "lengths", "merged"),
    [
        (("x", "h0", "c0"), None, True),
        (("x",), None, True),
        (("c0",), None, True),
        (("x", "h0"), (2,), True),
        (("x",), (1,), True),
        (("x", "weight_hh"), None, False),
        (("bias_ih",), None, False),
    ],
    ids=str,
)
def test_vmap_adds_to_the_batch_unless_weights_differ(kernel_calls, names, lengths, merged, assert_close):
    """lengths: of how many dimensions, or none."""
    B = 4
    arrays = rows_of(problem("lstm", np.float64), names, B)
    in_axes = {name: 0 if name in names else None for name in arrays}
    if lengths:
        arrays["lengths"] = np.random.default_rng(0).integers(0, T + 1, (B, N)[-lengths[0] :])
        in_axes["lengths"] = 0 if lengths[0] == 2 else None

    def run(a):
        rest = dict(a)
        return ours("lstm", rest, lengths=rest.pop("lengths", None))

    outputs = jax.jit(jax.vmap(run, in_axes=(in_axes,)))(arrays)
    jax.block_until_ready(outputs)
    assert kernel_calls == ([("forward", B * N, False)] if merged else [("forward", N, False)] * B)
    for b in range(B):
        one = {name: a[b] if in_axes[name] == 0 else a for name, a in arrays.items()}
        for k, (a, want) in enumerate(zip(outputs, run(one), strict=True)):
            assert_close(np.asarray(a[b]), np.asarray(want), np.float64, f"row {b} output {k}")


def test_gradients_of_each_row_and_of_their_sum(kind_and_options, assert_close):
    """grad inside vmap, which gives gradients of weights for each, and vmap inside grad, twice over."""
    kind, options = kind_and_options
    options = {**options, "lengths": None if kind == "rnn" else np.array([5, 0, 2])}
    B = 2
    arrays = problem(kind, np.float64)
    x = np.stack([problem(kind, np.float64, seed)["x"] for seed in range(1, 1 + 2 * B)])

    def loss(weights, x):
        return weighted(lambda a: ours(kind, a, **options), {**weights, "x": x})

    weights = {name: a for name, a in arrays.items() if name != "x"}
    expected = [jax.grad(loss)(weights, row) for row in x]
    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(weights, x)
    nested = x.reshape(2, B, *x.shape[1:])
    twice = jax.vmap(jax.vmap(loss, in_axes=(None, 0)), in_axes=(None, 0))
    total = jax.jit(jax.grad(lambda w: twice(w, nested).sum()))(weights)
    for name in weights:
        want = np.stack([np.asarray(gradient[name]) for gradient in expected])
        assert_close(np.asarray(each[name]), want, np.float64, name)
        assert_close(np.asarray(total[name]), want.sum(0), np.float64, name)


def test_gradients_of_rows_alone_come_from_one_call(kernel_calls, assert_close):
    """With a gradient for every output: those of the last states have their rows elsewhere than y's."""
    arrays = problem("lstm", np.float64)
    x = np.stack([problem("lstm", np.float64, seed)["x"] for seed in (1, 2)])

    def gradient(x):
        return jax.grad(lambda x: weighted(lambda a: ours("lstm", a), {**arrays, "x": x}))(x)

    each = np.asarray(jax.jit(jax.vmap(gradient))(x))
    calls = [call[:2] for call in kernel_calls if call[1] > 1]  # one row: that options fit is asked once
    assert calls == [("forward", 2 * N), ("backward", 2 * N)]
    for ours_of_row, row in zip(each, x, strict=True):
        assert_close(ours_of_row, np.asarray(gradient(row)), np.float64, "dx")


def test_inside_a_scan_and_a_checkpoint():
    arrays = problem("gru", np.float64)

    def body(h, x):
        return ours("gru", {**arrays, "h0": h, "x": x})[1], None

    def loss(h, wrapped):
        return jax.lax.scan(wrapped, h, jnp.asarray(arrays["x"]).reshape(T, 1, N, I))[0].sum()

    whole = jax.grad(lambda h: ours("gru", {**arrays, "h0": h})[1].sum())(arrays["h0"])
    for wrapped in (body, jax.checkpoint(body)):
        np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(arrays["h0"]), wrapped), whole, rtol=0, atol=1e-12)


def test_an_empty_batch():
    arrays = problem("lstm")
    empty = {name: a[:, :0] if name == "x" else a[:0] if name in ("h0", "c0") else a for name, a in arrays.items()}
    assert ours("lstm", empty)[0].shape == (T, 0, H)
    assert jax.vmap(lambda x: ours("lstm", {**empty, "x": x})[0])(np.zeros((2, T, 0, I), np.float32)).shape == (
        2,
        T,
        0,
        H,
    )


def test_errors_come_when_the_call_is_traced():
    arrays = problem("lstm")
    cases = [
        ({"x": arrays["x"].tolist()}, TypeError, "x: expected an array, got list"),
        ({"weight_hh": None}, TypeError, "weight_hh: expected an array, got NoneType"),
        ({"x": arrays["x"].astype(np.float16)}, TypeError, "x: expected float32 or float64, got float16"),
        ({"h0": arrays["h0"].astype(np.float64)}, TypeError, "h0: expected dtype float32 like x, got float64"),
        ({"x": arrays["x"][0]}, ValueError, r"h0: expected shape .* or \[H\] beside x \[T, I\]; got \(3, 7\) beside"),
        ({"x": arrays["x"][:0]}, ValueError, "x: expected a sequence length of at least 1, got 0"),
        ({"weight_hh": arrays["h0"]}, ValueError, r"weight_ih: expected shape|weight_hh: expected shape \(28, 7\)"),
        ({"c0": arrays["c0"][:2]}, ValueError, r"c0: expected shape \(3, 7\), got \(2, 7\)"),
        ({"bias_hh": arrays["bias_hh"][:2]}, ValueError, r"bias_hh: expected shape \(28,\), got \(2,\)"),
        ({"lengths": np.ones(3)}, TypeError, "lengths: expected integers, got float64"),
        ({"lengths": np.ones(2, int)}, ValueError, r"lengths: expected shape \(3,\), got \(2,\)"),
        ({"lengths": np.array([1, 6, 0])}, ValueError, r"lengths: expected numbers from 0 to 5, got \[1, 6, 0\]"),
    ]
    for wrong, error, message in cases:
        with pytest.raises(error, match=f"^({message})"):
            fj.lstm(**{**arrays, **wrong})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_traced_lengths_out_of_range():
    arrays = problem("rnn")
    call = jax.jit(lambda lengths: fj.rnn(**arrays, lengths=lengths)[0])
    np.testing.assert_array_equal(call(np.array([1, 5, 0])), fj.rnn(**arrays, lengths=np.array([1, 5, 0]))[0])
    with pytest.raises(Exception, match="lengths: expected numbers from 0 to 5, got 6 for row 1"):
        call(np.array([1, 6, 0])).block_until_ready()
    for known in ([1, 6, 0], np.array([1, 6, 0]), jnp.array([1, 6, 0])):  # in a call that is traced
        with pytest.raises(ValueError, match=r"^lengths: expected numbers from 0 to 5, got \[1, 6, 0\]"):
            jax.eval_shape(lambda x, known=known: fj.rnn(**{**arrays, "x": x}, lengths=known)[0], arrays["x"])


def test_threads_on_one_core_do_not_wait_for_each_other(run_python):
    script = """
import os, threading
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import numpy as np, jax, jax.numpy as jnp
import fusedrnn.jax as fj
rng = np.random.default_rng(0)
T, N, I, H = 10, 64, 128, 128
x, w_ih, w_hh = (jnp.asarray(rng.standard_normal(s), jnp.float32) * 0.1 for s in [(T, N, I), (4 * H, I), (4 * H, H)])
def loss(w, x):
    y, _, _ = fj.lstm(x, None, None, w, w_hh)
    return (fj.lstm(jnp.sin(y), None, None, w, w_hh)[0] ** 2).mean()
step = jax.jit(lambda w, x: w - 0.1 * jax.grad(loss)(w, x))
def run():
    w = w_ih
    for k in range(10):
        w = step(w, k * x)  # not waiting for it, so that many are under way
    return w.block_until_ready()
threads = [threading.Thread(target=run) for _ in range(3)]
for thread in threads: thread.start()
run()
for thread in threads: thread.join()
print("done")
"""
    if not hasattr(__import__("os"), "sched_setaffinity"):
        pytest.skip("binds the process to one core")
    result = run_python(script, timeout=120)
    assert result.stdout.strip() == "done", result.stderr


def test_importing_fusedrnn_imports_no_jax(run_python):
    result = run_python("import sys, fusedrnn, fusedrnn.train; assert 'jax' not in sys.modules")
    assert result.returncode == 0, result.stderr


def test_the_pages_example():
    page = Path(__file__).parents[2] / "docs/jax.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    variables: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "jax.md", "exec"), variables)
    assert variables["last"] < 0.5 * variables["first"]
