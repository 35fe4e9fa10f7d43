"""Sizes of PyTorch's modules on our kernels, and inputs without steps: refused at once, by name."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fusedrnn.torch as ft  # noqa: E402 - needs torch

LAYERS, CELLS = (ft.RNN, ft.LSTM, ft.GRU), (ft.RNNCell, ft.LSTMCell, ft.GRUCell)


@pytest.mark.parametrize("make", [*LAYERS, *CELLS], ids=lambda make: make.__name__)
@pytest.mark.parametrize("wrong", ["4", 4.0, True, None, np.float32(4)], ids=repr)
def test_what_is_no_integer_is_named(make, wrong):
    """In PyTorch's words where its layers have any."""
    for name, other in (("input_size", "hidden_size"), ("hidden_size", "input_size")):
        with pytest.raises(TypeError, match=rf"^{name}(: expected an integer, got | should be of type int, got: )"):
            make(**{name: wrong, other: 8})
    with pytest.raises(TypeError, match=r"^hidden_size(: expected an integer, got | should be of type int, got: )"):
        make(4, wrong)


@pytest.mark.parametrize("make", LAYERS, ids=lambda make: make.__name__)
def test_of_the_number_of_layers_too(make):
    for wrong in ("2", 2.0, True):
        with pytest.raises(TypeError, match=r"^num_layers: expected an integer, got "):
            make(4, 8, wrong)


@pytest.mark.parametrize("make", [*LAYERS, *CELLS], ids=lambda make: make.__name__)
def test_integers_of_numpy_are_integers(make):
    sizes = (np.int64(4), np.uint8(8)) if make in CELLS else (np.int64(4), np.uint8(8), np.int32(2))
    assert repr(make(*sizes)) == repr(make(*map(int, sizes)))


@pytest.mark.parametrize("make", LAYERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("sizes", [(4, 2**40), (2**60, 4), (4, 8, 2**31)], ids=str)
def test_absurd_sizes_are_refused_before_memory_is_taken(make, sizes):
    with pytest.raises(
        ValueError, match=r"^input_size, hidden_size.*: expected sizes that memory can hold, got .* GiB"
    ):
        make(*sizes)


@pytest.mark.parametrize("make", CELLS, ids=lambda make: make.__name__)
def test_so_they_are_of_cells(make):
    with pytest.raises(ValueError, match=r"^input_size, hidden_size: expected sizes that memory can hold, got 4, "):
        make(4, 2**40)


def test_layers_without_memory_may_be_as_large_as_they_like():
    assert ft.LSTM(8, 2**20, device="meta").weight_hh_l0.shape == (2**22, 2**20)
    with torch.device("meta"):
        ft.GRUCell(8, 2**20)


@pytest.mark.parametrize("make", LAYERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_no_steps_are_refused_with_the_way_round(make, options):
    layer = make(4, 5, **options)
    empty = torch.empty((2, 0, 4) if layer.batch_first else (0, 2, 4))
    for x, more in ((empty, {}), (empty, {"lengths": [0, 0]}), (torch.empty(0, 4), {})):
        for kind in (ValueError, RuntimeError):  # ours, PyTorch's
            with pytest.raises(kind, match=r"^input: expected a sequence length of at least 1, got 0: .*by lengths"):
                layer(x, **more)
    y, _ = layer(torch.empty((0, 3, 4) if layer.batch_first else (3, 0, 4)))  # no rows, as PyTorch has it
    assert y.numel() == 0
