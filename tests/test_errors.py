"""Bad input: an error before any work that names the argument, what was expected and what came."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fusedrnn import _core, nn

SHAPE = (3, 2, 5, 24)  # T, N, I, H


@pytest.fixture
def problem(cell, make_problem, make_shape):
    return make_problem(cell, make_shape(*SHAPE), np.float32)


def _grown(array, axis):
    shape = list(array.shape)
    shape[axis] += 1
    return np.zeros(shape, array.dtype)


def _exactly(text):
    """The message begins with this; a hint may follow."""
    return "^" + re.escape(text)


def test_the_designs_own_example(functional, make_cell, make_problem, make_shape):
    cell = make_cell("lstm")
    arguments, _ = make_problem(cell, make_shape(*SHAPE), np.float32)
    arguments["weight_hh"] = np.zeros((96, 25), np.float32)
    with pytest.raises(ValueError, match=_exactly("weight_hh: expected shape (96, 24), got (96, 25)")):
        cell.forward(functional, arguments)


def test_wrong_shapes(cell, functional, problem):
    arguments, _ = problem
    for name, value in arguments.items():
        for axis in range(value.ndim):
            if name == "x" or (name, axis) == ("weight_ih", 0):
                continue  # these say what the others must be: below
            wrong = _grown(value, axis)
            expected = f"{name}: expected shape {value.shape}, got {wrong.shape}"
            with pytest.raises(ValueError, match=_exactly(expected)):
                cell.forward(functional, {**arguments, name: wrong})


def test_shapes_that_contradict_each_other(cell, functional, problem):
    arguments, _ = problem
    for name, axis in [("x", 1), ("x", 2), ("weight_ih", 0)]:
        wrong = _grown(arguments[name], axis)
        with pytest.raises(ValueError, match=r"^(h0|weight_ih|weight_hh): expected shape \(.*, got \(.*\)"):
            cell.forward(functional, {**arguments, name: wrong})


def test_wrong_numbers_of_dimensions(cell, functional, problem):
    arguments, _ = problem
    for name, value in arguments.items():
        for wrong in [value[None]] + [value[0]] * (value.ndim > 1):
            with pytest.raises(ValueError, match=rf"^{name}: expected .*, got {re.escape(str(wrong.shape))}"):
                cell.forward(functional, {**arguments, name: wrong})
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got \(\)"):
            cell.forward(functional, {**arguments, name: np.array(1, np.float32)})


def test_no_steps_inputs_or_units(cell, functional, make_problem, make_shape):
    for shape in [(0, 2, 5, 4), (3, 2, 0, 4)]:
        arguments, _ = make_problem(cell, make_shape(*shape), np.float32)
        with pytest.raises(ValueError, match=r"^x: expected"):
            cell.forward(functional, arguments)
    arguments, _ = make_problem(cell, make_shape(3, 2, 5, 4), np.float32)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        arguments[name] = np.zeros((0, *arguments[name].shape[1:]), np.float32)
    arguments["weight_hh"] = np.zeros((0, 0), np.float32)
    for state in cell.states:
        arguments[state] = np.zeros((2, 0), np.float32)
    with pytest.raises(ValueError, match=r"^weight_(ih|hh): expected"):
        cell.forward(functional, arguments)


def test_wrong_dtypes(cell, functional, problem):
    arguments, _ = problem
    for dtype in (np.int64, np.int32, np.bool_, np.float16, np.complex64, np.longdouble, object):
        expected = f"x: expected float32 or float64, got {np.dtype(dtype).name}"
        with pytest.raises(TypeError, match=_exactly(expected)):
            cell.forward(functional, {**arguments, "x": np.ones(arguments["x"].shape, dtype)})
    for name, value in arguments.items():
        if name == "x":
            continue
        for dtype in (np.float64, np.int64):
            expected = f"{name}: expected dtype float32 like x, got {np.dtype(dtype).name}"
            with pytest.raises(TypeError, match=_exactly(expected)):
                cell.forward(functional, {**arguments, name: value.astype(dtype)})


def test_swapped_bytes(cell, functional, problem):
    arguments, _ = problem
    for name, value in arguments.items():
        swapped = value.astype(value.dtype.newbyteorder("S"))
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected"):
            cell.forward(functional, {**arguments, name: swapped})


def test_what_is_no_array(cell, functional, problem):
    arguments, _ = problem
    for name, value in arguments.items():
        for wrong in (value.tolist(), "text", 1.0, {}):
            with pytest.raises(TypeError, match=rf"^{name}: expected .*, got {type(wrong).__name__}"):
                cell.forward(functional, {**arguments, name: wrong})
    for name in ("x", "weight_ih", "weight_hh"):
        with pytest.raises(TypeError, match=rf"^{name}: expected .*, got None"):
            cell.forward(functional, {**arguments, name: None})


def test_arrays_that_are_not_contiguous(cell, functional, problem):
    arguments, doutputs = problem
    contiguous = "{}: expected a C-contiguous array"
    for name, value in arguments.items():
        strided = np.repeat(value, 2, axis=-1)[..., ::2]
        views = [strided, value[::-1], np.broadcast_to(np.float32(0), value.shape)]
        if value.ndim > 1:
            views.append(np.asfortranarray(value))
        for view in views:
            with pytest.raises(ValueError, match=_exactly(contiguous.format(name))):
                cell.forward(functional, {**arguments, name: view})
    _, reserve = cell.forward(functional, arguments)
    for k, name in enumerate(["dy", "dh_n", "dc_n"][: len(doutputs)]):
        given = list(doutputs)
        given[k] = np.asfortranarray(doutputs[k])
        with pytest.raises(ValueError, match=_exactly(contiguous.format(name))):
            cell.backward(functional, tuple(given), reserve)


def test_sizes_beyond_any_memory(cell, functional, problem):
    """Views of one number that claim to be huge: refused, never read."""
    arguments, _ = problem
    for T in (2**33, 2**55):
        huge = np.broadcast_to(np.float32(0), (T, 2, 5))
        with pytest.raises(ValueError, match=_exactly("x: expected a C-contiguous array")):
            cell.forward(functional, {**arguments, "x": huge})


# Calls of every kind, of x [T, 0, 1] and one unit.
CALLS_WITHOUT_ROWS = """
import numpy as np
import fusedrnn
from fusedrnn import nn

def weights(*sizes):
    return [np.ones(size, np.float32) for size in sizes]

def cell(kind, gates, x, **options):
    states = [None] * (2 if kind == "lstm" else 1)
    given = (x, *states, *weights((gates, 1), (gates, 1), (gates,), (gates,)))
    y, *_, reserve = getattr(fusedrnn, kind + "_forward")(*given, **options)
    if options.get("training", True):
        gradients = getattr(fusedrnn, kind + "_backward")(None, *states, reserve)
        assert not gradients.dweight_ih.any()
    return y

inference = {"training": False, "precision": "int8"}
masks = {"zoneout_h": 0.5, "recurrent_dropout": 0.5, "seed": 1}
calls = {
    "rnn": lambda x: cell("rnn", 1, x),
    "lstm": lambda x: cell("lstm", 4, x),
    "gru": lambda x: cell("gru", 3, x, reverse=True),
    "lstm in inference": lambda x: cell("lstm", 4, x, training=False),
    "lstm in int8": lambda x: cell("lstm", 4, x, **inference),
    "lstm in bfloat16": lambda x: cell("lstm", 4, x, precision="bfloat16"),
    "lengths": lambda x: cell("gru", 3, x, lengths=[]),
    "resets": lambda x: cell("rnn", 1, x, resets=np.zeros(x.shape[:2], bool)),
    "masks": lambda x: cell("gru", 3, x, **masks),
    "masks of c": lambda x: cell("lstm", 4, x, **masks, zoneout_c=0.5, return_c=True, training=False),
    "peephole": lambda x: cell("lstm", 4, x, **masks, weight_peephole=np.ones((3, 1), np.float32)),
    "norm": lambda x: cell("rnn", 1, x, layer_norm=((weights((1,))[0],) * 2, (None, None)), dropconnect=0.5),
    "projection": lambda x: fusedrnn.lstm_forward(
        x, None, None, *weights((4, 1), (4, 3), (4,), (4,)), weight_hr=weights((3, 1))[0], training=False
    )[0],
    "indrnn": lambda x: fusedrnn.indrnn_forward(x, None, *weights((1, 1), (1,), (1,)))[0],
    "mingru": lambda x: fusedrnn.mingru_forward(x, None, *weights((2, 1), (2,)))[0],
    "frozen": lambda x: nn.LSTM(1, 1).freeze()(x)[0],
}
"""


def test_endless_sequences_without_rows(run_python):
    """An empty array may claim any length: no endless loop, no overflow, no crash."""
    script = """
for name, call in calls.items():
    y = call(np.empty((2**40, 0, 1), np.float32))
    assert y.shape == (2**40, 0, 3 if name == "projection" else 1), name
"""
    result = run_python(CALLS_WITHOUT_ROWS + script, timeout=30)
    assert result.returncode == 0, result.stderr


def test_sizes_whose_product_has_no_address(run_python):
    """They are refused by name; unchecked, a product of sizes would wrap around and make a wild pointer."""
    script = """
for name, call in calls.items():
    for T in (2**57, 2**60):
        try:
            call(np.empty((T, 0, 1), np.float32))
        except ValueError as error:
            assert str(error) == f"x: expected sizes that memory can hold, got shape ({T}, 0, 1)", (name, error)
        else:
            raise AssertionError(name)
for layer in (nn.LSTM(3, 8), nn.LSTM(3, [8, 6]), nn.MinGRU(3, 8)):
    try:
        layer.stream(2**60)
    except ValueError as error:
        assert str(error).startswith(f"batch: expected sizes that memory can hold, got {2**60}, which need"), error
    else:
        raise AssertionError(layer)
"""
    result = run_python(CALLS_WITHOUT_ROWS + script, timeout=30)
    assert result.returncode == 0, result.stderr


def _misaligned(array):
    """The same numbers, each of which begins one byte beyond where one should."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert not copy.flags.aligned
    return copy


def test_arrays_that_are_not_aligned(cell, functional, problem):
    arguments, doutputs = problem
    for name, value in arguments.items():
        with pytest.raises(ValueError, match=_exactly(f"{name}: expected an aligned array")):
            cell.forward(functional, {**arguments, name: _misaligned(value)})
    _, reserve = cell.forward(functional, arguments)
    for k, name in enumerate(["dy", "dh_n", "dc_n"][: len(doutputs)]):
        given = [_misaligned(value) if i == k else value for i, value in enumerate(doutputs)]
        with pytest.raises(ValueError, match=_exactly(f"{name}: expected an aligned array")):
            cell.backward(functional, tuple(given), reserve)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    for wrong in names:
        given = tuple(np.zeros_like(arguments[name]) for name in names)
        given = tuple(_misaligned(a) if name == wrong else a for name, a in zip(names, given, strict=True))
        with pytest.raises(ValueError, match=_exactly(f"d{wrong}: expected an aligned array")):
            cell.backward(functional, doutputs, reserve, accumulate=given)


def test_arrays_that_are_not_aligned_beside_the_cells():
    a, classes = np.ones((4, 4), np.float32), np.zeros(4, np.int64)
    flat, layer = a.ravel(), nn.GRU(4, 4)
    for name, call in (
        ("x", lambda wrong: nn.Linear(4, 4)(wrong(a))),
        ("logits", lambda wrong: nn.CrossEntropyLoss()(wrong(a), classes)),
        ("targets", lambda wrong: _core.softmax_cross_entropy(a, wrong(classes))),
        ("target", lambda wrong: nn.MSELoss()(a, wrong(a))),
        ("parameters", lambda wrong: _core.mixture_density(wrong(np.ones((2, 7))), np.ones((2, 3)), None)),
        ("indices", lambda wrong: _core.embedding_backward(a, wrong(classes), a.copy())),
        (
            "lengths",
            lambda wrong: _core.forward(
                _core.Settings("mingru"), a[None], (None,), (a,), (wrong(classes), None, None), False
            ),
        ),
        ("grad", lambda wrong: _core.sgd_step(flat, wrong(flat), None, 0.1, 0, 0, False)),
        ("data", lambda wrong: _core.sgd_step(wrong(flat), flat, None, 0.1, 0, 0, False)),
        ("x", lambda wrong: layer.freeze()(wrong(a[None]))),
        ("x", lambda wrong: layer.freeze(precision="bfloat16")(wrong(a[None]))),
        ("x", lambda wrong: layer.stream(4)(wrong(a))),
        ("h", lambda wrong: setattr(layer.stream(4), "state", wrong(a[None]))),
    ):
        with pytest.raises(ValueError, match=_exactly(f"{name}: expected an aligned array")):
            call(_misaligned)
        call(np.copy)


def test_a_bad_nonlinearity(functional, make_cell, make_problem, make_shape):
    cell = make_cell("rnn_tanh")
    arguments, _ = make_problem(cell, make_shape(*SHAPE), np.float32)
    with pytest.raises(ValueError, match=r"^nonlinearity: expected .*tanh.*relu.*, got .*sine"):
        functional.rnn_forward(*arguments.values(), nonlinearity="sine")
    with pytest.raises(TypeError):
        functional.rnn_forward(*arguments.values(), nonlinearity=None)


def test_settings_are_those_of_a_cell():
    with pytest.raises(ValueError, match=r"^cell: expected rnn, lstm, gru, indrnn or mingru, got 'minlstm'"):
        _core.Settings("minlstm")
    with pytest.raises(TypeError, match=r"^coupled: expected an option of gru, which has none of this name"):
        _core.Settings("gru", coupled=True)


def test_options_are_keywords(cell, functional, problem):
    arguments, _ = problem
    with pytest.raises(TypeError):
        getattr(functional, f"{cell.kind}_forward")(*arguments.values(), True)


def test_backward_checks_the_gradients_it_is_given(cell, functional, problem):
    arguments, doutputs = problem
    _, reserve = cell.forward(functional, arguments)
    for k, (name, value) in enumerate(zip(["dy", "dh_n", "dc_n"], doutputs, strict=False)):

        def backward(wrong, k=k):
            given = [*doutputs[:k], wrong, *doutputs[k + 1 :]]
            return cell.backward(functional, tuple(given), reserve)

        for axis in range(value.ndim):
            wrong = _grown(value, axis)
            expected = f"{name}: expected shape {value.shape}, got {wrong.shape}"
            with pytest.raises(ValueError, match=_exactly(expected)):
                backward(wrong)
        with pytest.raises(TypeError, match=_exactly(f"{name}: expected dtype float32 like x, got float64")):
            backward(value.astype(np.float64))
        with pytest.raises(TypeError, match=rf"^{name}: expected .*, got list"):
            backward(value.tolist())


def test_backward_checks_the_arrays_to_add_to(cell, functional, problem):
    arguments, doutputs = problem
    _, reserve = cell.forward(functional, arguments)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    good = [np.zeros_like(arguments[name]) for name in names]
    for k, name in enumerate(names):

        def backward(wrong, k=k):
            given = tuple([*good[:k], wrong, *good[k + 1 :]])
            return cell.backward(functional, doutputs, reserve, accumulate=given)

        wrong = _grown(good[k], 0)
        expected = f"d{name}: expected shape {good[k].shape}, got {wrong.shape}"
        with pytest.raises(ValueError, match=_exactly(expected)):
            backward(wrong)
        with pytest.raises(TypeError, match=_exactly(f"d{name}: expected dtype float32 like x, got float64")):
            backward(good[k].astype(np.float64))
        strided = np.repeat(good[k], 2, axis=-1)[..., ::2]
        with pytest.raises(ValueError, match=_exactly(f"d{name}: expected a C-contiguous array")):
            backward(strided)
        read_only = good[k].copy()
        read_only.flags.writeable = False
        with pytest.raises(ValueError, match=_exactly(f"d{name}: expected a writ")):
            backward(read_only)
        with pytest.raises((TypeError, ValueError), match=rf"^d{name}: expected"):
            backward(None)
    for wrong in (tuple(good[:3]), (*good, good[0]), ()):
        with pytest.raises((TypeError, ValueError), match=r"^(accumulate|dlayer_norm): expected"):
            cell.backward(functional, doutputs, reserve, accumulate=wrong)
    assert not any(array.any() for array in good)


def test_a_gradient_for_a_bias_that_is_not_there(cell, functional, problem):
    arguments, doutputs = problem
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    given = tuple(np.zeros_like(arguments[name]) for name in names)
    for name in ("bias_ih", "bias_hh"):
        _, reserve = cell.forward(functional, {**arguments, name: None})
        with pytest.raises((TypeError, ValueError), match=rf"^d{name}: expected None"):
            cell.backward(functional, doutputs, reserve, accumulate=given)


def test_a_gradient_for_a_bias_of_layer_normalization_that_is_not_there(functional):
    x, weights, gains = np.ones((2, 1, 3)), (np.ones((4, 3)), np.ones((4, 4))), (np.ones(4), np.ones(4))
    y, _, reserve = functional.rnn_forward(x, None, *weights, layer_norm=(gains, (None, None)))
    zeros, dgains = tuple(map(np.zeros_like, weights)), tuple(map(np.zeros_like, gains))
    with pytest.raises(ValueError, match=_exactly("dlayer_norm: expected None, as forward had no such array")):
        functional.rnn_backward(y, None, reserve, accumulate=(*zeros, None, None, (dgains, (None, np.zeros(4)))))
    functional.rnn_backward(y, None, reserve, accumulate=(*zeros, None, None, (dgains, (None, None))))


def test_a_foreign_or_missing_reserve(cell, functional, problem, make_cell, make_problem, make_shape):
    arguments, doutputs = problem
    other = make_cell("lstm" if cell.kind != "lstm" else "rnn_tanh")
    others, _ = make_problem(other, make_shape(*SHAPE), np.float32)
    _, foreign = other.forward(functional, others)
    _, missing = cell.forward(functional, arguments, training=False)
    for reserve in (foreign, missing, arguments["x"]):
        with pytest.raises(TypeError, match=r"^reserve: expected"):
            cell.backward(functional, doutputs, reserve)


def test_changes_between_forward_and_backward_are_found(cell, functional, problem, monkeypatch):
    """Under FUSEDRNN_CHECK=1, in whatever backward reads again."""

    def run(change=None):
        arguments = {name: value.copy() for name, value in problem[0].items()}
        (y, *finals), reserve = cell.forward(functional, arguments)
        if change is not None:
            {**arguments, "y": y}[change].flat[-1] += 1
        return cell.backward(functional, (np.ones_like(y), *[None] * len(finals)), reserve)

    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    run()
    for change in ("x", "y", "weight_ih", "weight_hh"):
        with pytest.raises((RuntimeError, ValueError), match=f"^{change}:"):
            run(change)
    run()
    monkeypatch.delenv("FUSEDRNN_CHECK")
    run("x")


def test_changed_options_are_found(functional, monkeypatch):
    """Under FUSEDRNN_CHECK=1 also the arrays of options, which backward reads again."""
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((4, 3, 2)), [rng.standard_normal(shape) for shape in ((20, 2), (20, 5))]
    peephole, gain = rng.standard_normal((3, 5)), np.ones(20)
    norm = ((gain, np.ones(20), np.ones(5)), (None, None, np.zeros(5)))
    for changed, name in (
        (peephole, "weight_peephole"),
        (gain, "gain_ih"),
        (norm[1][2], "norm_bias_c"),
    ):
        *_, reserve = functional.lstm_forward(x, None, None, *weights, weight_peephole=peephole, layer_norm=norm)
        changed.flat[0] = 1 - changed.flat[0]
        with pytest.raises(RuntimeError, match=f"{name}: changed between lstm_forward and lstm_backward"):
            functional.lstm_backward(None, None, None, reserve)


@pytest.mark.parametrize("sizes", [[2**63 - 1, 2**63 - 1, 7], [2**62] * 4, [2**63 - 1, 1], [2**63 - 1] * 3])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "indrnn", "mingru"])
def test_sums_of_batch_sizes_do_not_wrap_around(functional, kind, sizes):
    """The first two of them would wrap around to 5 and to 0."""
    gates = {"lstm": 4, "gru": 3, "mingru": 2}.get(kind, 1)
    states = [None] * (2 if kind == "lstm" else 1)
    hidden = {"indrnn": [np.ones(4)], "mingru": []}.get(kind, [np.ones((gates * 4, 4))])
    forward = getattr(functional, f"{kind}_forward")
    for reverse in (False, True):
        with pytest.raises(
            ValueError, match=r"^batch_sizes: expected a sum of 5, the rows of x, got 9223372036854775807"
        ):
            forward(np.ones((5, 3)), *states, np.ones((gates * 4, 3)), *hidden, batch_sizes=sizes, reverse=reverse)


@pytest.mark.parametrize("name", ["lengths", "batch_sizes"])
@pytest.mark.parametrize("largest", [2**63, 2**64 - 1, 2**64, 2**100])
def test_integers_beyond_64_bits_do_not_wrap_around(functional, name, largest):
    with pytest.raises(ValueError, match=rf"^{name}: expected integers below 2\^63, got {largest}$"):
        functional.mingru_forward(np.ones((3, 1, 3)), None, np.ones((4, 3)), **{name: [largest]})
