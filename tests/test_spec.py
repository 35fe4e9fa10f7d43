"""The description of the cells is that of the compiled module, of the public signatures, and of what calls check."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import fusedrnn
import fusedrnn.reference
from fusedrnn import _core, functional, spec

CELLS = pytest.mark.parametrize("described", spec.CELLS.values(), ids=spec.CELLS)
# Keywords of forward that are no options of the cell: parameters, sequences and what belongs to a call.
_OF_CALLS = {"reverse", "training", "lengths", "batch_sizes", "resets", "layer_norm", "return_c"}


def test_the_compiled_module_has_the_same_cells():
    for name, (gates, states, parameters, options) in _core.cell_facts().items():
        cell = spec.CELLS[name]
        assert (gates, states, parameters) == (cell.gates, list(cell.states.values()), dict(cell.parameters))
        assert sorted(options) == sorted(cell.options)
    assert list(_core.cell_facts()) == list(spec.CELLS)


@CELLS
def test_signatures_have_what_the_description_has(described):
    signature = inspect.signature(getattr(functional, f"{described.name}_forward"))
    positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    beyond = [name for name in described.parameters if name not in positional]
    assert positional == ["x", *described.states, *[name for name in described.parameters if name not in beyond]]
    keywords = {p.name: p.default for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    arrays = {name for name in beyond if not name.startswith(("gain", "norm_bias"))}
    assert set(keywords) - _OF_CALLS == arrays | set(described.options)
    assert {name: keywords[name] for name in described.options} == dict(described.options)
    gradients = getattr(functional, f"{described.name}_backward")
    fields = inspect.signature(gradients, eval_str=False).return_annotation
    names = getattr(fusedrnn.gradients, fields)._fields
    flat = [
        f"d{name}"
        for name in ("x", *described.states, *described.parameters)
        if not name.startswith(("gain", "norm_bias"))
    ]
    assert [name for name in names if name != "dlayer_norm"] == flat


@CELLS
def test_plain_values_change_nothing(described):
    settings = _core.Settings(described.name, **described.options)
    assert settings.changed == []
    assert described.changed(described.options) == {}
    assert settings.replace(reverse=True).options == {**described.options, "reverse": True}
    for name in spec.DRAWING:
        if name in described.options:
            assert settings.replace(**{name: 0.5}).changed == [name]
            assert described.changed({name: 0.5}) == {name: 0.5}
    if described.activations:
        assert settings.replace(activations=described.activations).changed == []
        assert described.changed({"activations": list(described.activations)}) == {}


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"zoneout_h": 0.5}, {"layer_norm": True}], ids=str)
def test_reserves_are_as_wide_as_the_description_says(name, options):
    cell, H = spec.CELLS[name], 5
    rows = cell.rows(options) * H
    if "recompute" in options and "recompute" not in cell.options:
        return
    settings = _core.Settings(name, **{n: v for n, v in options.items() if n != "layer_norm"})
    lengths = {"R": rows, "I": 3, "P": H, "H": H}
    normed = options.get("layer_norm", False)
    wanted = [n for n in cell.parameters if n in ("weight_ih", "weight_hh") or (normed and "gain" in n)]
    parameters = tuple(
        np.ones([lengths[axis] for axis in axes]) if n in wanted else None for n, axes in cell.parameters.items()
    )
    *_, reserve = _core.forward(settings, np.ones((2, 1, 3)), (None,) * len(cell.states), parameters, None, True)
    assert reserve.buffer.shape[-1] == cell.reserve_width(options, H, rows if options.get("layer_norm") else 0)


def test_a_reserve_can_be_made_of_arrays():
    """By adapters that save them in their own way: the gradients are those of the one that forward made."""
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((4, 2, 3)), rng.standard_normal((2, 5))
    parameters = tuple(rng.standard_normal(shape) for shape in ((15, 3), (15, 5), (15,), (15,)))
    settings = _core.Settings("gru", reset_after=False)
    y, _, kept = _core.forward(settings, x, (h0,), parameters, (np.array([4, 1]), None, None), True)
    made = _core.Reserve(settings, x, (h0,), parameters, (np.array([4, 1]), None, None), y.copy(), kept.buffer.copy())
    found = []
    for reserve in (kept, made):
        added = tuple(np.zeros_like(p) for p in parameters)
        found.append((*_core.backward(reserve, (y, None), True, added), *added))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"^reserve: expected shape \(4, 2, 15\), got \(4, 2, 14\)"):
        _core.Reserve(settings, x, (h0,), parameters, None, y, np.zeros((4, 2, 14)))
    with pytest.raises(ValueError, match=r"^y: expected shape \(4, 2, 5\), got \(4, 2, 4\)"):
        _core.Reserve(settings, x, (h0,), parameters, None, np.zeros((4, 2, 4)), kept.buffer)


def test_memory_that_moved_between_forward_and_backward_is_an_error():
    """NumPy's resize may move it, and a kernel would read what is there now."""
    x = np.ones((4, 2, 3))
    parameters = (np.ones((5, 3)), np.ones((5, 5)))
    y, _, reserve = _core.forward(_core.Settings("rnn"), x, (None,), parameters, None, True)
    x.resize((1 << 16, 2, 3), refcheck=False)
    with pytest.raises(ValueError, match=r"^x: expected its memory where it lay in forward; it was moved"):
        _core.backward(reserve, (y, None), True, tuple(np.zeros_like(p) for p in parameters))


def test_a_stack_that_does_not_fit_is_an_error():
    settings, x = [_core.Settings("lstm")], np.ones((3, 2, 4))
    weights = [(np.ones((16, 4)), np.ones((16, 4)))]
    for made in (lambda: _core.Stack([], [(4, 4)], False), lambda: _core.Stack(settings, [], False)):
        with pytest.raises(ValueError, match=r"^settings: expected those of one direction or two"):
            made()
    with pytest.raises(ValueError, match=r"^sizes: expected 2, one for each of the states of the cell, got 1"):
        _core.Stack(settings, [(4,)], False)
    with pytest.raises(ValueError, match=r"^sizes: expected those of the weights, got others for layer 0"):
        _core.Stack(settings, [(7, 7)], False).forward(x, (None, None), weights, None, True, None, None)
    stack = _core.Stack(settings, [(4, 4)], False)
    for states, parameters, masks, name in (
        ((None,), weights, None, "states"),
        ((None, None), [], None, "parameters"),
        ((None, None), weights, [np.ones((3, 2, 4))], "masks"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            stack.forward(x, states, parameters, None, True, masks, None)
    y, _, reserves = stack.forward(x, (None, None), weights, None, True, None, None)
    added = [tuple(np.zeros_like(p) for p in weights[0])]
    for kept, dstates, dparameters, name in (
        ([], (None, None), added, "reserves"),
        (reserves, (None,), added, "states"),
        (reserves, (None, None), [], "dparameters"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            stack.backward(kept, y, dstates, True, dparameters, None)
