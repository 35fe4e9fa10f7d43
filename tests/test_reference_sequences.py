"""The reference's data options: ragged rows, packed rows and resets are many plain sequences in one call."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

SHAPE = (5, 4, 2, 3)  # T, N, I, H
LENGTHS = [3, 5, 0, 1]
LENGTHS_DOWN = [5, 3, 3, 1]
SIZES = [4, 3, 3, 1, 1]  # rows at each step, of LENGTHS_DOWN
RESETS = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)

both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["onward", "reverse"])
every_cell = pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rnn", {}),
        ("rnn", {"norm": True, "zoneout_h": 0.3, "recurrent_dropout": 0.3, "dropconnect": 0.3}),
        ("lstm", {}),
        ("lstm", {"norm": True, "zoneout_h": 0.3, "zoneout_c": 0.4, "recurrent_dropout": 0.3, "dropconnect": 0.3}),
        ("lstm", {"projection": 2, "peephole": True, "coupled": True, "cell_clip": 0.5, "grad_clip": 0.1}),
        ("gru", {}),
        ("gru", {"norm": True, "zoneout_h": 0.3, "recurrent_dropout": 0.3, "dropconnect": 0.3}),
        ("gru", {"reset_after": False, "zoneout_h": 0.3, "recurrent_dropout": 0.3, "grad_clip": 0.1}),
        ("indrnn", {}),
        ("mingru", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "plain",
)

STATES = ("h0", "c0")
DRAWS = ("rnn", "lstm", "gru")  # cells whose options draw random numbers


def _same(ours, theirs, what=""):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13, err_msg=what)


def _assert_sums(gradients, parts):
    """The parts' gradients of the parameters add up."""
    for name in gradients.keys() - {"x", *STATES}:
        _same(gradients[name], sum(part[name] for part in parts), name)


def _row(call, n, time=slice(None)):
    """Row n alone, at some steps, with the random numbers that it has in the batch."""
    arguments = dict(call.arguments, x=call.arguments["x"][time, n : n + 1])
    arguments.update({state: arguments[state][n : n + 1].copy() for state in STATES if state in arguments})
    doutputs = tuple(d[time, n : n + 1] if d.ndim == 3 else d[n : n + 1] for d in call.doutputs)
    place = {"row_offset": n, "step_offset": time.start or 0} if call.kind in DRAWS else {}
    return call._replace(arguments=arguments, options={**call.options, **place}, doutputs=doutputs)


@both_directions
@every_cell
def test_ragged_rows_are_rows_alone(kind, options, reverse, reference, make_call):
    """Whatever stands past the end, NaN included: y and dx are zero there, and a row without a step keeps its state."""
    whole = make_call(kind, SHAPE, **options, reverse=reverse)
    for n, length in enumerate(LENGTHS):
        whole.arguments["x"][length:, n] = np.nan
        for d in whole.doutputs:
            if d.ndim == 3:
                d[length:, n] = np.inf
    outputs, gradients = whole._replace(options={**whole.options, "lengths": LENGTHS}).run(reference)
    states = [state for state in STATES if state in gradients]
    parts = []
    for n, length in enumerate(LENGTHS):
        for sequence in [outputs[0], *outputs[3:], gradients["x"]]:
            assert not sequence[length:, n].any()
        if length == 0:
            for state, last, d in zip(states, outputs[1:3], whole.doutputs[1:3], strict=True):
                np.testing.assert_equal(last[n], whole.arguments[state][n])
                np.testing.assert_equal(gradients[state][n], d[n])
            continue
        expected, part = _row(whole, n, slice(length)).run(reference)
        for ours, theirs in zip(outputs, expected, strict=True):
            _same(*((ours[:length, n], theirs[:, 0]) if ours.ndim == 3 else (ours[n], theirs[0])))
        _same(gradients["x"][:length, n], part["x"][:, 0])
        for state in states:
            _same(gradients[state][n], part[state][0])
        parts.append(part)
    _assert_sums(gradients, parts)


@both_directions
@every_cell
def test_packed_rows_are_ragged_rows(kind, options, reverse, reference, make_call):
    ragged = make_call(kind, SHAPE, **options, reverse=reverse, lengths=LENGTHS_DOWN, resets=RESETS)
    alive = np.arange(SHAPE[0])[:, None] < np.array(LENGTHS_DOWN)
    data = {"batch_sizes": SIZES, "resets": RESETS[alive]}
    packed = ragged._replace(
        arguments=dict(ragged.arguments, x=ragged.arguments["x"][alive]),
        options={**{k: v for k, v in ragged.options.items() if k != "lengths"}, **data},
        doutputs=tuple(d[alive] if d.ndim == 3 else d for d in ragged.doutputs),
    )
    expected, expected_gradients = ragged.run(reference)
    outputs, gradients = packed.run(reference)
    for ours, theirs in zip(outputs, expected, strict=True):
        _same(ours, theirs[alive] if theirs.ndim == 3 else theirs)
    for name, theirs in expected_gradients.items():
        _same(gradients[name], theirs[alive] if name == "x" else theirs, name)


@both_directions
@every_cell
def test_a_reset_starts_a_new_sequence_from_zero(kind, options, reverse, reference, make_call):
    """Each row, cut where it resets: the pieces share nothing but the weights."""
    T = SHAPE[0]
    call = make_call(kind, SHAPE, **options, reverse=reverse)
    outputs, gradients = call._replace(options={**call.options, "resets": RESETS}).run(reference)
    parts = []
    for n, resets in enumerate((RESETS[::-1] if reverse else RESETS).T):
        bounds = sorted({0, *np.flatnonzero(resets).tolist(), T})  # in walking order
        for first, end in itertools.pairwise(bounds):
            time = slice(T - end, T - first) if reverse else slice(first, end)
            piece = _row(call, n, time)
            for state in STATES:
                if resets[first] and state in piece.arguments:
                    piece.arguments[state][:] = 0
            if end != T:  # the state that it leaves goes nowhere
                piece = piece._replace(doutputs=tuple(d if d.ndim == 3 else 0 * d for d in piece.doutputs))
            found, part = piece.run(reference)
            _same(outputs[0][time, n], found[0][:, 0])
            _same(gradients["x"][time, n], part["x"][:, 0])
            if end == T:
                for ours, theirs in zip(outputs[1:3], found[1:3], strict=True):
                    _same(ours[n], theirs[0])
            if first == 0:
                for state in STATES:
                    if state in part:
                        _same(gradients[state][n], 0 if resets[0] else part[state][0])
            parts.append(part)
    _assert_sums(gradients, parts)


@both_directions
@every_cell
def test_a_batch_is_its_rows_and_a_sequence_its_steps(kind, options, reverse, reference, make_call):
    """`row_offset` and `step_offset` give a part the whole's random numbers."""
    call = make_call(kind, SHAPE, **options, reverse=reverse)
    expected, _ = call.forward(reference)
    states = [state for state in STATES if state in call.arguments]
    for n in range(SHAPE[1]):
        carried = {}
        for t in reversed(range(SHAPE[0])) if reverse else range(SHAPE[0]):
            step = _row(call, n, slice(t, t + 1))
            step.arguments.update(carried)
            outputs, _ = step.forward(reference)
            _same(outputs[0][0, 0], expected[0][t, n])
            carried = dict(zip(states, outputs[1:3], strict=True))


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "indrnn", "mingru"])
def test_no_rows_and_only_empty_rows(kind, reference, make_call):
    outputs, gradients = make_call(kind, (3, 0, 2, 3), lengths=[]).run(reference)
    assert outputs[0].shape == (3, 0, 3)
    assert gradients["x"].shape == (3, 0, 2)
    call = make_call(kind, (3, 2, 2, 3), lengths=[0, 0])
    outputs, gradients = call.run(reference)
    np.testing.assert_equal(outputs[1], call.arguments["h0"])
    np.testing.assert_equal(gradients["h0"], call.doutputs[1])
    assert not outputs[0].any()
    assert not gradients["weight_ih"].any()
