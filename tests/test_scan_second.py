"""Second derivatives of scans against differences of the first."""

from __future__ import annotations

import numpy as np
import pytest

import fusedrnn
from fusedrnn.functional.scan import ScanGradients
from fusedrnn.functional.scan_second import scan_double_backward
from tests.test_scan import CASES, VARIANTS, Call, check, each, pairs


def drawn(rng, tree):
    return each(lambda a: np.array(rng.normal(size=a.shape)) if a.dtype.kind == "f" else None, tree)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_differences_of_the_first(name, variant):
    call = Call(name, variant)
    arguments = (call.p, call.state, call.x, call.context, call.options.get("reset_state"))
    weights = drawn(np.random.default_rng(7), arguments)

    def loss():
        found = fusedrnn.scan_backward(call.dy, call.dstate_n, call.forward()[2])
        return sum(np.sum(w * g) for w, g in pairs(weights, tuple(found)))

    reserve = call.forward()[2]
    ddy, ddstate_n, grads = scan_double_backward(ScanGradients(*weights), call.dy, call.dstate_n, reserve)
    for array, gradient in pairs((*arguments, call.dy, call.dstate_n), (*grads, ddy, ddstate_n)):
        if array.dtype.kind == "f":
            assert gradient.shape == array.shape
            check(gradient, loss, array)
        else:
            assert gradient is None


def test_parts_may_be_none_and_packed_rows_are_rows_with_lengths():
    lengths, sizes = np.array([4, 3, 2]), [3, 3, 2, 1]
    call = Call("attending", "plain")
    call.options["lengths"] = lengths
    call.x, call.dy = (each(lambda leaf: leaf[:4], tree) for tree in (call.x, call.dy))
    weights = drawn(np.random.default_rng(7), call.x)
    zeros = each(np.zeros_like, call.p), each(np.zeros_like, call.state), weights, None, None
    ddy, ddstate_n, grads = scan_double_backward(ScanGradients(*zeros), call.dy, call.dstate_n, call.forward()[2])
    same = scan_double_backward(ScanGradients(None, None, weights, None), call.dy, call.dstate_n, call.forward()[2])
    present = np.arange(4)[:, None] < lengths
    packed = Call("attending", "plain")
    packed.options["batch_sizes"] = sizes
    packed.x, dy, weights = (each(lambda leaf: leaf[present], tree) for tree in (call.x, call.dy, weights))
    found = scan_double_backward(ScanGradients(None, None, weights, None), dy, call.dstate_n, packed.forward()[2])
    for one, other in pairs((ddy, ddstate_n, tuple(grads)), (*same[:2], tuple(same[2]))):
        np.testing.assert_array_equal(one, other)
    for one, other in pairs((ddy, grads.dx), (found[0], found[2].dx)):
        np.testing.assert_array_equal(one[present], other)
    for one, other in pairs((ddstate_n, grads.dparams, grads.dstate), (found[1], found[2].dparams, found[2].dstate)):
        np.testing.assert_array_equal(one, other)
    none = scan_double_backward(None, call.dy, call.dstate_n, call.forward()[2])
    assert not any(np.any(leaf) for (leaf,) in pairs((*none[:2], tuple(none[2]))))


def test_refuses_cotangents_that_do_not_fit():
    call = Call("attending", "plain")
    reserve = call.forward()[2]
    wrong = ScanGradients({"W": np.zeros((2, 2))}, None, None, None)
    with pytest.raises(ValueError, match=r"grads.dparams\['W'\]: expected shape \(3, 5\), got \(2, 2\)"):
        scan_double_backward(wrong, None, None, reserve)
    with pytest.raises(TypeError, match="reserve: expected that of scan_forward"):
        scan_double_backward(None, None, None, None)
