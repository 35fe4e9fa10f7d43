"""A traced step computes what the step computes in NumPy: every function, index and method that has a rule."""

from __future__ import annotations

import copy
import functools
from typing import NamedTuple

import numpy as np
import pytest

from fusedrnn import ops
from fusedrnn.scan.evaluate import evaluate
from fusedrnn.scan.graph import Level
from fusedrnn.scan.tracing import Abstract, trace_step
from fusedrnn.scan.trees import flatten

CONSTANT = np.random.default_rng(4).normal(size=(5, 4))
KINDS = {"f": "real", "i": "integer", "b": "boolean"}


def abstract(structure):
    leaves, form = flatten(structure)
    return form.pack([Abstract(np.shape(leaf), KINDS[np.asarray(leaf).dtype.kind]) for leaf in leaves])


def given():
    """Arrays named by the number of their axes; what ends in p is positive, i is integer, b is boolean."""
    draw = np.random.default_rng(3)
    return {
        **{"s": np.array(0.7), "v": draw.normal(size=5), "w": draw.normal(size=5), "vp": draw.uniform(0.2, 2, 5)},
        **{"m": draw.normal(size=(3, 5)), "mp": draw.uniform(0.2, 2, (3, 5)), "n": draw.normal(size=(5, 4))},
        **{"t": draw.normal(size=(2, 3, 5)), "u": draw.normal(size=(2, 5, 4)), "q": draw.normal(size=(5, 5))},
        **{"vi": np.array([3, -1, 4, 0, 2]), "mi": draw.integers(-4, 5, (3, 5)), "k": np.array(2)},
        **{"vb": np.array([True, False, True, True, False]), "mb": draw.random((3, 5)) < 0.5},
    }


def traced(function, arrays):
    """The results of function(arrays), traced as a step's outputs and then evaluated."""
    recurrence = trace_step(lambda p, state, x: (state, function(x)), None, None, abstract(arrays))
    leaves = dict(zip(recurrence.step.inputs, flatten(arrays)[0], strict=True))
    return recurrence.y.pack(evaluate(recurrence.step.outputs, leaves))


def check(function):
    arrays = given()
    with np.errstate(all="ignore"):
        expected, form = flatten(function(dict(arrays)))
    got, got_form = flatten(traced(function, arrays))
    assert got_form == form
    for ours, theirs in zip(got, expected, strict=True):
        theirs = np.asarray(theirs)
        assert (ours.shape, ours.dtype.kind) == (theirs.shape, theirs.dtype.kind)
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-14)


UNARY = (
    *("negative", "positive", "abs", "fabs", "square", "sign", "floor", "ceil", "trunc", "rint", "exp", "expm1"),
    *("exp2", "sin", "cos", "tan", "tanh", "sinh", "cosh", "isnan", "isfinite", "isinf", "logical_not"),
)
POSITIVE = ("sqrt", "log", "log1p", "log2", "log10", "reciprocal")
BINARY = (
    *("add", "subtract", "multiply", "divide", "floor_divide", "remainder", "maximum", "minimum", "hypot", "logaddexp"),
    *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"),
    *("logical_and", "logical_or", "logical_xor"),
)


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_array(name):
    check(lambda x: (getattr(np, name)(x["m"]), getattr(np, name)(x["s"])))


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_one_positive_array(name):
    check(lambda x: getattr(np, name)(x["mp"]))


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arrays(name):
    f = getattr(np, name)
    check(lambda x: (f(x["m"], x["v"]), f(x["m"], 0.5), f(2, x["mp"]), f(x["s"], x["t"]), f(x["m"], x["vi"])))


@pytest.mark.parametrize("name", ["abs", "square", "sign", "floor", "negative", "ceil", "rint", "tanh", "sqrt"])
def test_functions_of_integers(name):
    check(lambda x: getattr(np, name)(np.abs(x["mi"])))


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum", "less", "equal"])
def test_functions_of_two_integer_arrays(name):
    f = getattr(np, name)
    check(lambda x: (f(x["mi"], x["vi"]), f(x["vi"], 2), f(x["vi"], 0.5), f(x["vb"], x["vi"]), f(x["v"], x["vb"])))


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum", "less", "equal", "not_equal", "logical_xor"])
def test_functions_of_booleans(name):
    check(lambda x: getattr(np, name)(x["mb"], x["vb"]))


FUNCTIONS = {
    "operators": lambda x: (x["v"] + 1, 1 - x["v"], -x["v"], x["v"] / x["w"], x["v"] // 2, x["v"] % 0.3, abs(x["v"])),
    "operators of integers": lambda x: (x["vi"] // 2, x["vi"] % 3, x["vi"] / 2, x["vi"] - 1, x["vi"] * x["v"]),
    "operators of booleans": lambda x: (x["vb"] & (x["v"] > 0), x["vb"] | (x["v"] <= 0), ~x["vb"], x["vb"] ^ x["vb"]),
    "comparisons": lambda x: (x["v"] < x["w"], np.zeros(5) >= x["v"], x["vi"] == 4, x["vi"] != x["v"]),
    "powers": lambda x: (x["v"] ** 2, x["v"] ** 3, x["v"] ** -1, x["v"] ** 0, x["vp"] ** 0.5, x["vp"] ** -0.5),
    "other powers": lambda x: (x["vp"] ** 1.3, x["vp"] ** x["v"], 2.0 ** x["v"], x["v"] ** 7.0, np.power(x["v"], -3)),
    "powers of integers": lambda x: (x["vi"] ** 2, x["vi"] ** 2.0, 2 ** np.abs(x["vi"]), 0.9 ** x["vi"], x["vb"] ** 2),
    "powers by arrays": lambda x: (x["v"] ** np.array([2]), x["vp"] ** np.arange(5.0), x["s"] ** np.full(3, 2)),
    "divmod": lambda x: divmod(x["m"], 0.4),
    "matmul": lambda x: (x["m"] @ x["v"], x["v"] @ x["n"], x["v"] @ x["w"], x["m"] @ x["n"], np.ones((2, 3)) @ x["m"]),
    "stacked matmul": lambda x: (x["t"] @ x["n"], x["t"] @ x["u"], x["m"] @ x["u"], x["t"] @ x["v"], x["v"] @ x["u"]),
    "matmul of integers": lambda x: (x["mi"] @ x["vi"], x["vi"] @ x["vi"], x["mi"] @ x["mi"].T, x["mi"] @ x["n"]),
    "dot": lambda x: (np.dot(x["m"], x["v"]), np.dot(x["v"], x["w"]), np.dot(x["s"], x["v"]), x["m"].dot(x["n"])),
    "dot of three axes": lambda x: (np.dot(x["v"], x["u"]), np.dot(x["m"], x["u"]), np.dot(x["t"], x["n"])),
    "vdot, inner": lambda x: (np.vdot(x["m"], x["m"]), np.inner(x["m"], x["v"]), np.inner(x["t"], x["m"])),
    "outer": lambda x: (np.outer(x["v"], x["w"]), np.multiply.outer(x["v"], x["m"]), np.subtract.outer(x["v"], x["w"])),
    "tensordot": lambda x: (np.tensordot(x["t"], x["u"], ([2], [1])), np.tensordot(x["m"], x["mp"], 2)),
    "einsum of one": lambda x: (np.einsum("ij->ji", x["m"]), np.einsum("ij->", x["m"]), np.einsum("ijk->j", x["t"])),
    "einsum of two": lambda x: (
        *(
            np.einsum("ij,j->i", x["m"], x["v"]),
            np.einsum("i,j->ji", x["v"], x["w"]),
            np.einsum("ij,jk", x["m"], x["n"]),
        ),
        *(np.einsum("bij,bjk->bik", x["t"], x["u"]), np.einsum("bij,bjk->kb", x["t"], x["u"])),
        *(
            np.einsum("ij,ij->i", x["m"], x["mp"]),
            np.einsum("bij,ij->bi", x["t"], x["m"]),
            np.einsum("i,i", x["v"], x["w"]),
        ),
    ),
    "einsum of three": lambda x: np.einsum("i,ij,jk->k", x["m"][:, 0], x["m"], x["n"]),
    "split": lambda x: (np.split(x["v"][:4], 2), np.split(x["v"], [1, 3]), np.split(x["t"], 5, axis=-1)),
    "array_split": lambda x: (np.array_split(x["v"], 3), np.hsplit(x["m"], [2]), np.vsplit(x["m"], 3)),
    "concatenate": lambda x: (
        *(np.concatenate([x["v"], x["w"]]), np.concatenate([x["m"], x["mp"]], axis=1)),
        *(np.concatenate((x["v"], [1.0, 2.0], x["vi"])), np.concatenate([x["m"], x["v"]], axis=None)),
    ),
    "stack": lambda x: (np.stack([x["v"], x["w"]]), np.stack([x["v"], x["w"]], -1), np.stack([x["s"], 1, x["v"][0]])),
    "hstack, vstack": lambda x: (np.hstack([x["v"], x["s"]]), np.vstack([x["v"], x["m"]]), np.hstack([x["m"], x["m"]])),
    "append, column_stack": lambda x: (np.append(x["v"], x["s"]), np.column_stack([x["v"], x["n"]])),
    "reshape": lambda x: (x["t"].reshape(6, 5), x["t"].reshape((5, -1)), np.reshape(x["v"], -1), x["s"].reshape(1, 1)),
    "ravel, flatten": lambda x: (x["m"].ravel(), np.ravel(x["t"]), x["m"].flatten()),
    "transpose": lambda x: (
        x["m"].T,
        x["t"].T,
        x["t"].transpose(1, 2, 0),
        np.transpose(x["t"], (2, 0, 1)),
        x["t"].transpose(),
    ),
    "swapaxes, moveaxis": lambda x: (
        x["t"].swapaxes(0, 2),
        np.moveaxis(x["t"], 0, -1),
        np.moveaxis(x["t"], (0, 1), (2, 0)),
    ),
    "squeeze, expand_dims": lambda x: (
        *(x["v"][None, :, None].squeeze(), x["v"][None].squeeze(0), np.squeeze(x["v"][None, :, None], axis=-1)),
        *(np.expand_dims(x["m"], 1), np.expand_dims(x["v"], (0, -1)), np.atleast_1d(x["s"]), np.atleast_2d(x["v"])),
    ),
    "broadcast_to": lambda x: (np.broadcast_to(x["v"], (3, 5)), np.broadcast_to(x["s"], 4)),
    "likes": lambda x: (x["m"] + np.zeros_like(x["m"]), x["vi"] + np.ones_like(x["vi"]), np.full_like(x["v"], x["s"])),
    "tile, repeat": lambda x: (
        *(np.tile(x["v"], 3), np.tile(x["v"], (2, 1)), np.tile(x["m"], (2, 1, 3)), np.tile(x["m"], 2)),
        *(
            np.repeat(x["m"], 2),
            np.repeat(x["m"], 2, axis=0),
            x["m"].repeat([1, 0, 2], axis=0),
            x["m"].repeat([2] * 5, axis=1),
        ),
    ),
    "pad": lambda x: (
        np.pad(x["v"], 2),
        np.pad(x["m"], ((1, 0), (0, 2))),
        np.pad(x["v"], (1, 2), constant_values=-1.5),
    ),
    "roll": lambda x: (
        np.roll(x["v"], 2),
        np.roll(x["m"], -1, axis=1),
        np.roll(x["m"], 4),
        np.roll(x["m"], (1, 2), (0, 1)),
    ),
    "flip": lambda x: (np.flip(x["v"]), np.flip(x["m"]), np.flip(x["t"], 1), np.flip(x["t"], (0, 2))),
    "triangles": lambda x: (np.tril(x["q"]), np.triu(x["q"], 1), np.tril(x["m"], -1)),
    "diagonals": lambda x: (
        np.diag(x["v"]),
        np.diag(x["v"], -2),
        np.diag(x["q"], 1),
        np.trace(x["q"]),
        np.diagonal(x["m"], 4),
    ),
    "where": lambda x: (
        np.where(x["v"] > 0, x["v"], 0),
        np.where(x["vb"], x["m"], x["w"]),
        np.where(x["vi"], 1, x["vi"]),
    ),
    "clip": lambda x: (
        np.clip(x["v"], -0.5, 0.5),
        x["v"].clip(0),
        np.clip(x["m"], None, x["v"]),
        np.clip(x["vi"], 0, 2),
    ),
    "nan_to_num": lambda x: np.nan_to_num(np.sqrt(x["v"]), nan=3.0, posinf=1.0, neginf=2.0),
    "round": lambda x: (
        np.round(x["m"] * 4),
        x["m"].round(2),
        np.round(np.arange(-2.5, 3) * x["k"] / 2),
        round(x["v"][0], 1),
    ),
    "sort, argsort": lambda x: (
        np.sort(x["m"]),
        np.sort(x["m"], axis=0),
        np.argsort(x["t"], axis=1),
        x["vi"].argsort(),
    ),
    "argmax, argmin": lambda x: (
        *(np.argmax(x["m"]), np.argmax(x["m"], axis=0), x["t"].argmax(-1), np.argmin(x["m"], axis=1, keepdims=True)),
        *(x["vi"].argmin(), np.argmax(x["vb"]), np.argmax(x["m"], keepdims=True)),
    ),
    "cumsum, cumprod": lambda x: (np.cumsum(x["v"]), np.cumsum(x["m"]), x["m"].cumsum(1), np.cumprod(x["m"], axis=0)),
    "cumsum of integers": lambda x: (np.cumsum(x["vi"]), np.cumsum(x["vb"]), np.cumprod(x["vi"])),
    "take": lambda x: (np.take(x["m"], [2, 0, 0], axis=0), x["m"].take(3), np.take(x["t"], [[0, 4], [1, -1]], axis=2)),
    "take by traced": lambda x: (
        np.take(x["m"], x["k"], axis=0),
        np.take(x["v"], x["vi"]),
        ops.take(np.eye(5, 4), x["vi"] % 4, axis=1),
    ),
    "take_along_axis": lambda x: (
        *(np.take_along_axis(x["v"], x["vi"], 0), np.take_along_axis(x["m"], np.argsort(x["m"], 1), 1)),
        *(
            np.take_along_axis(x["m"], np.argmax(x["m"], 1)[:, None], axis=1),
            np.take_along_axis(x["m"], np.array([[1], [-2], [0]]), 1),
        ),
    ),
    "norm": lambda x: (np.linalg.norm(x["v"]), np.linalg.norm(x["m"]), np.linalg.norm(x["m"], axis=1, keepdims=True)),
    "other norms": lambda x: (
        np.linalg.norm(x["v"], 1),
        np.linalg.norm(x["v"], np.inf),
        np.linalg.norm(x["m"], 1, axis=0),
    ),
    "diff, cross, ptp": lambda x: (
        np.diff(x["v"]),
        np.diff(x["m"], 2, axis=0),
        np.cross(x["m"][:, 0], x["m"][:, 1]),
        np.ptp(x["v"]),
    ),
    "ufuncs' methods": lambda x: (np.add.reduce(x["m"]), np.maximum.reduce(x["m"], axis=1), np.add.accumulate(x["v"])),
    "astype": lambda x: (
        x["m"].astype(int),
        x["vi"].astype(float),
        x["v"].astype(bool),
        x["vb"].astype(int),
        x["v"].copy(),
    ),
    "shapes": lambda x: x["v"] * (np.shape(x["m"])[0] + np.ndim(x["t"]) + np.size(x["v"]) + len(x["t"]) + x["m"].size),
    "unpacking": lambda x: [row * 2 for row in x["m"]] + [sum(x["v"])],
    "transposed last axes": lambda x: (x["t"].mT, x["m"].mT),
    "constants": lambda x: (x["n"] + CONSTANT, CONSTANT.T @ x["v"], x["v"] @ CONSTANT, [1.0, 2, 3, 4, 5] * x["v"]),
    "activations": lambda x: (ops.sigmoid(x["v"]), ops.softplus(x["v"]), ops.relu(x["m"]), ops.silu(x["m"])),
    "softmax": lambda x: (ops.softmax(x["m"]), ops.softmax(x["t"], axis=1), ops.log_softmax(x["m"], axis=0)),
    "logsumexp": lambda x: (ops.logsumexp(x["m"]), ops.logsumexp(x["m"], 0, keepdims=True)),
    "layer_norm": lambda x: (ops.layer_norm(x["m"]), ops.layer_norm(x["v"], x["w"], x["vp"], eps=1e-3)),
    "cosine_similarity": lambda x: (ops.cosine_similarity(x["m"], x["v"]), ops.cosine_similarity(x["t"], x["v"])),
    "circular_convolve": lambda x: (ops.circular_convolve(x["v"], x["m"][:, 0]), ops.circular_convolve(x["v"], x["w"])),
    "wide circular_convolve": lambda x: ops.circular_convolve(x["v"], np.concatenate([x["v"], x["w"], x["v"][:3]])),
    "one_hot, argmax": lambda x: (ops.one_hot(x["vi"], 4), ops.one_hot(x["k"], 3), ops.argmax(x["m"])),
    "stop_gradient": lambda x: (ops.stop_gradient(x["m"]), ops.stop_gradient(x["vi"])),
    "infinities": lambda x: (
        np.logaddexp(np.array([-np.inf, -np.inf, np.inf, 1, np.inf]), np.where(x["vb"], -np.inf, np.inf)),
        ops.logsumexp(np.where(x["mb"] & (x["m"] > 9), x["m"], -np.inf)),
    ),
    "large powers": lambda x: (x["v"] ** 101, (1 + x["vi"] * 1e-2) ** 200.0),
    "copies": lambda x: (copy.copy(x["v"]) * 2, copy.deepcopy(x["m"]) * 2),
    "NaN constants": lambda x: np.where(x["v"] > 0, x["v"], np.nan),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    check(FUNCTIONS[name])


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "min", "var", "std", "any", "all"])
def test_reductions(name):
    f = getattr(np, name)
    check(lambda x: (f(x["t"]), f(x["t"], axis=1), f(x["t"], axis=(0, -1)), f(x["v"], keepdims=True)))
    check(lambda x: (f(x["t"], axis=(1, 2), keepdims=True), getattr(x["m"], name)(axis=-1), f(x["vi"]), f(x["mb"], 0)))


def test_variance_with_freedom():
    check(lambda x: (np.var(x["m"], axis=0, ddof=1), x["v"].std(ddof=1), np.std(x["m"], ddof=1, keepdims=True)))


INDICES = {
    "integers": lambda t, x: (t[1], t[-1, 2], t[0, 1, 2], t[np.int64(1)], t[..., 3], t[0, ..., -1], t[()]),
    "slices": lambda t, x: (
        t[:, 1:],
        t[::-1],
        t[..., ::2],
        t[0, ::-2, 4:0:-2],
        t[:, :, -2:],
        t[:, 5:],
        t[1:1],
        t[:, :9],
    ),
    "None": lambda t, x: (t[None], t[:, None, 1], t[..., None], t[0, None, :, None, 2], t[None, ..., None]),
    "constants": lambda t, x: (t[[1, 0, 1]], t[:, [0, 2]], t[..., [4, 0, -1]], t[[0, 1], [1, 2]], t[[0, 1], :, [1, 2]]),
    "constants and integers": lambda t, x: (t[0, [1, 2]], t[0, :, [1, 2, 2]], t[:, 1, [3, 0]], t[[[0], [1]], [0, 2]]),
    "constants and None": lambda t, x: (t[None, [1, 0]], t[:, None, [2, 0]], t[[1], None, :, [2]]),
    "masks": lambda t, x: (t[:, np.array([True, False, True])], t[np.array([False, True])], t[np.eye(2, 3) > 0]),
    "traced": lambda t, x: (t[:, x["k"]], t[0, x["k"]], t[:, :, x["vi"]], t[..., x["vi"]], x["m"][x["vi"] % 3]),
    "several traced": lambda t, x: (
        t[x["vi"] % 2, x["vi"] % 3],
        t[x["vi"] % 2, :, x["vi"]],
        t[1, :, x["vi"]],
        t[x["vi"] // 3, 1],
    ),
    "run backwards": lambda t, x: (t[:, [2, 1, 0]], t[:, :, [0, 2, 4]], t[[1]], t[:, :, np.array([], int)]),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices(name):
    check(lambda x: INDICES[name](x["t"], x))


@pytest.mark.parametrize("name", ["expit", "log_expit", "logit"])
def test_scipy(name):
    special = pytest.importorskip("scipy.special")
    check(lambda x: getattr(special, name)(x["vp"] / 3))


class Cell(NamedTuple):
    h: object
    c: object


class RNN:
    """A lecture's recurrent network, whose text knows nothing of tracing (Karpathy, 2015)."""

    def __init__(self, p, h):
        self.W_hh, self.W_xh, self.W_hy, self.h = p["W_hh"], p["W_xh"], p["W_hy"], h

    def step(self, x):
        self.h = np.tanh(np.dot(self.W_hh, self.h) + np.dot(self.W_xh, x))
        y = np.dot(self.W_hy, self.h)
        return y


def test_a_lectures_class():
    draw = np.random.default_rng(0)
    p = {"W_hh": draw.normal(size=(3, 3)), "W_xh": draw.normal(size=(3, 2)), "W_hy": draw.normal(size=(4, 3))}
    h, x = draw.normal(size=3), draw.normal(size=2)

    def step(p, h, x):
        rnn = RNN(p, h)
        y = rnn.step(x)
        return rnn.h, y

    recurrence = trace_step(step, abstract(p), abstract(h), abstract(x))
    arrays = [*flatten(p)[0], h, x]
    got = evaluate(recurrence.step.results, dict(zip(recurrence.step.leaves, arrays, strict=True)))
    expected = np.tanh(p["W_hh"] @ h + p["W_xh"] @ x)
    np.testing.assert_allclose(got[0], expected, rtol=1e-14)
    np.testing.assert_allclose(got[1], p["W_hy"] @ expected, rtol=1e-14)
    assert [value.level for value in recurrence.step.shared] == [Level.SHARED] * 3


def test_structures_and_levels():
    def step(p, state, x, keys):
        cell, count = state["cell"], state["count"]
        h = cell.h * p[0] + x["a"] @ keys + p[1]["b"]
        return {"count": count + 1, "cell": Cell(h, cell.c)}, {"h": [h], "count": (count,)}

    real = Abstract((), "real")
    state = {"cell": Cell(real, real), "count": Abstract((), "integer")}
    recurrence = trace_step(step, [real, {"b": real}], state, {"a": Abstract((4,), "real")}, Abstract((4,), "real"))
    one = recurrence.step
    assert recurrence.parameters.names == ("[0]", "[1]['b']")
    assert recurrence.state.names == ("['cell'].h", "['cell'].c", "['count']")
    assert recurrence.y.names == ("['count'][0]", "['h'][0]")
    assert {value.level for value in one.rows} == {Level.ROW}
    leaves = dict(zip(one.leaves, [2.0, 0.5, np.ones(4), 3.0, 7.0, np.array(5), np.arange(4.0)], strict=True))
    assert [float(value) for value in evaluate(one.results, leaves)] == [12.5, 7.0, 6.0, 5.0, 12.5]
    assert recurrence.state.pack([1, 2, 3]) == {"cell": Cell(1, 2), "count": 3}


def test_what_does_not_depend_on_the_step_is_a_constant():
    kind = Abstract((2,), "real")
    recurrence = trace_step(lambda p, h, x: (np.array([1, 2]), (h, 3, np.arange(2) > 0)), None, kind, None)
    assert [value.op for value in recurrence.step.new_states] == ["constant"]
    assert [value.kind for value in recurrence.step.results] == ["real", "real", "integer", "boolean"]


def test_an_integer_becomes_a_real_state():
    recurrence = trace_step(lambda p, h, x: (h > 0, None), None, Abstract((2,), "real"), None)
    (state,) = evaluate(recurrence.step.new_states, {recurrence.step.states[0]: np.array([-1.0, 3.0])})
    assert state.dtype == np.float64
    assert state.tolist() == [0, 1]


def test_values_know_the_users_line():
    def step(p, h, x):
        return h + 1, None

    recurrence = trace_step(step, None, Abstract((), "real"), None)
    line = step.__code__.co_firstlineno + 1
    assert recurrence.step.new_states[0].where == f"test_scan_tracing.py:{line}"


def test_names_are_rebound_in_place():
    def step(p, h, x):
        total = 0
        for part in np.split(h, 2):
            total += part
        h += 1
        h *= 2
        return h, total

    recurrence = trace_step(step, None, Abstract((4,), "real"), None)
    h, total = evaluate(recurrence.step.results, {recurrence.step.states[0]: np.arange(4.0)})
    assert h.tolist() == [2, 4, 6, 8]
    assert total.tolist() == [2, 4]


def test_functions_of_any_kind_are_steps():
    class Callable:
        def __call__(self, p, h, x):
            return h + x, h

        def method(self, p, h, x):
            return h + x, h

    def scaled(scale, p, h, x):
        return h + scale * x, h

    steps = [Callable(), Callable().method, functools.partial(scaled, 2), lambda p, h, x: (h + x, h)]
    for step in steps:
        recurrence = trace_step(step, None, Abstract((2,), "real"), Abstract((2,), "real"))
        assert recurrence.step.new_states[0].op == "add"
