"""The built-in cells as programs: forward, first and second derivatives are the reference's, with every option."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn import reference
from fusedrnn.functional.scan import ScanGradients
from fusedrnn.functional.scan_second import scan_double_backward
from fusedrnn.reference.random import find_random
from fusedrnn.reference.sequences import find_sequence
from fusedrnn.scan.cells import cell_step
from fusedrnn.spec import ACTIVATIONS

T, N, H, P, INPUTS = 5, 3, 6, 2, 4
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
STATES = {"rnn": ("h",), "lstm": ("h", "c"), "gru": ("h",)}
DEFAULTS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}
MASKS = ("zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect")
RANDOM = {"zoneout_h": 0.3, "recurrent_dropout": 0.2, "dropconnect": 0.25, "seed": 9}
UNEVEN = {"lengths": [5, 0, 3], "reverse": True, "resets": np.arange(T * N).reshape(T, N) % 4 == 0}
CASES = {
    "rnn": ("rnn", {}),
    "rnn_norm_random": ("rnn", {"layer_norm": True, **RANDOM}),
    **{f"rnn_{name}": ("rnn", {"nonlinearity": name}) for name in ACTIVATIONS},
    "lstm": ("lstm", {}),
    "lstm_peephole_norm_random": ("lstm", {"peephole": True, "layer_norm": True, "zoneout_c": 0.4, **RANDOM}),
    "lstm_coupled_peephole_clip": ("lstm", {"coupled": True, "peephole": True, "cell_clip": 0.2}),
    "lstm_projection": ("lstm", {"projection": True, "layer_norm": True, **RANDOM}),
    "lstm_mean_zoneout": ("lstm", {"zoneout_h": 0.3, "zoneout_c": 0.4, "training": False}),
    "lstm_activations": ("lstm", {"activations": ("hard_sigmoid", "softplus", "softsign"), "peephole": True}),
    "lstm_uneven": ("lstm", {"zoneout_c": 0.4, **RANDOM, **UNEVEN}),
    "gru": ("gru", {}),
    "gru_norm_random": ("gru", {"layer_norm": True, **RANDOM}),
    "gru_reset_before": ("gru", {"reset_after": False, "activations": ("softsign", "hard_tanh"), **RANDOM}),
    "gru_uneven": ("gru", {**RANDOM, **UNEVEN}),
}


class Case:
    """A call of the reference, and the same as a scan of `cell_step`."""

    def __init__(self, cell, given):
        self.cell, self.rng, options = cell, np.random.default_rng(4), dict(given)
        rows, width = (GATES[cell] - options.get("coupled", False)) * H, P if options.pop("projection", False) else H
        self.states = [self.drawn(N, width), self.drawn(N, H)][: len(STATES[cell])]
        self.x = self.drawn(T, N, INPUTS)
        shapes = {"weight_ih": (rows, INPUTS), "weight_hh": (rows, width), "bias_ih": (rows,), "bias_hh": (rows,)}
        if width == P:
            shapes["weight_hr"] = (P, H)
        if options.pop("peephole", False):
            shapes["weight_peephole"] = (3, H)
        if options.pop("layer_norm", False):
            kinds = {"ih": rows, "hh": rows, **({"c": H} if cell == "lstm" else {})}
            shapes |= {f"{part}_{kind}": (size,) for part in ("gain", "norm_bias") for kind, size in kinds.items()}
        self.weights = {name: self.drawn(*shape) for name, shape in shapes.items()}
        self.options = options
        self.dy, self.dstates = self.drawn(T, N, width), tuple(self.drawn(*s.shape) for s in self.states)
        self.step = cell_step(
            cell,
            options.get("activations", DEFAULTS.get(cell)) or (options.get("nonlinearity", "tanh"),),
            **{name: options[name] for name in ("coupled", "cell_clip", "reset_after") if name in options},
        )

    def drawn(self, *shape):
        return 0.7 * self.rng.normal(size=shape)

    def scan(self):
        names = ("lengths", "resets", "reverse")
        walk = {name: self.options[name] for name in names if name in self.options}
        sequence = find_sequence(self.x, None, None, None, False)
        random = find_random(
            self.options.get("training", True), self.options.get("seed", 0), 0, walk.get("reverse", False), 0, 0
        )
        p = {name: self.options.get(name, 0.0) for name in MASKS}
        h, weight_hh = self.states[0], self.weights["weight_hh"]
        zoneout = {
            name: random.zoneout(name, p[name], sequence, state.shape[1])
            for name, state in zip(MASKS, self.states, strict=False)
        }
        self.zoneout = {name: mask.reshape(T, N, -1) for name, mask in zoneout.items() if mask is not None}
        dropout = random.recurrent_dropout(p["recurrent_dropout"], h.shape, h.dtype)
        dropconnect = random.dropconnect(p["dropconnect"], weight_hh.shape, h.dtype)
        self.connected = {} if dropconnect is None else {"dropconnect": dropconnect}
        return fusedrnn.scan_forward(
            self.step,
            self.weights | self.connected,
            tuple(self.states),
            {"x": self.x, **self.zoneout},
            context=None if dropout is None else {"recurrent_dropout": dropout},
            **walk,
        )

    def arguments(self, x, states, weights):
        """Return those of the reference's forward."""
        initial = {f"{name}0": state for name, state in zip(STATES[self.cell], states, strict=True)}
        norms = [[v for k, v in weights.items() if k.startswith(part)] for part in ("gain", "norm_bias")]
        plain = {name: value for name, value in weights.items() if not name.startswith(("gain", "norm_bias"))}
        return {"x": x, **initial, **plain, **({"layer_norm": tuple(map(tuple, norms))} if norms[0] else {})}

    def same(self, found, expected):
        """Gradients of a scan and the reference's."""
        close(found.dx["x"], expected.dx)
        for name, state in zip(STATES[self.cell], found.dstate, strict=True):
            close(state, getattr(expected, f"d{name}0"))
        arguments = self.arguments(None, found.dstate, found.dparams)
        for name in (*self.weights, "layer_norm"):
            if name in arguments:
                for a, b in zip(leaves(arguments[name]), leaves(getattr(expected, f"d{name}")), strict=True):
                    close(a, b)


def leaves(tree):
    return [leaf for each in tree for leaf in leaves(each)] if isinstance(tree, tuple) else [tree]


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_programs_are_the_reference(name):
    case = Case(*CASES[name])
    forward = getattr(reference, f"{case.cell}_forward")
    arguments = case.arguments(case.x, case.states, case.weights)
    y, *final, kept = forward(**arguments, **case.options)
    found, states, reserve = case.scan()
    for a, b in zip((found, *states), (y, *final), strict=True):
        close(a, b)
    if kept is None:  # the reference has no gradients of inference
        return
    doutputs = (case.dy, *case.dstates)
    case.same(
        fusedrnn.scan_backward(case.dy, case.dstates, reserve),
        getattr(reference, f"{case.cell}_backward")(*doutputs, kept),
    )
    along = case.drawn(*case.x.shape), [case.drawn(*s.shape) for s in case.states]
    along = *along, {name: case.drawn(*w.shape) for name, w in case.weights.items()}
    directions = case.arguments(*along)
    _, second = fusedrnn.hessian_vector_product(forward, arguments, doutputs, directions, **case.options)
    _, moved = fusedrnn.jvp(forward, arguments, directions, **case.options)
    grads = ScanGradients(
        along[2] | dict.fromkeys(case.connected), tuple(along[1]), {"x": along[0]} | dict.fromkeys(case.zoneout), None
    )
    ddy, ddstates, found = scan_double_backward(grads, case.dy, case.dstates, reserve)
    for a, b in zip((ddy, *ddstates), moved, strict=True):
        close(a, b)
    case.same(found, second)
