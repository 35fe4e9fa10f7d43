"""Layers whose units see no state but their own: IndRNN and minGRU. All their products are with the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn import spec
from fusedrnn.nn.module import as_generator
from fusedrnn.nn.recurrent import _OneState
from fusedrnn.nn.stack import Table
from fusedrnn.spec import ACTIVATIONS


class _Elementwise(_OneState):
    """Layers with one bias, and with a ``weight_hh`` that is a vector or not there."""

    def _table(self, inputs: int, hidden: int) -> Table:
        rows = self._cell.gates * hidden
        shapes = {"weight_ih": (rows, inputs), "weight_hh": (hidden,), "bias": (rows,)}
        return {part: (shapes[part], None) for part in self._cell.parameters if part != "bias" or self.bias}


class IndRNN(_Elementwise):
    """The independently recurrent network (Li et al. 2018), h_t = f(W_ih x_t + u h_(t-1) + b), u = weight_hh by unit.

    Units meet in the next layer alone, so the paper stacks several.

    Args:
        nonlinearity: f: sigmoid, tanh, relu, hard_sigmoid (0.2 x + 0.5 between 0 and 1), hard_tanh, softsign, softplus
            or identity.
        Others: as ``RNN``. Of the initial weights those in weight_hh are U(0, 1), as in the paper, from units that
            forget at once to units that never do.

    Parameters: ``weight_ih_l0`` [H, I], ``weight_hh_l0`` [H], ``bias_l0`` [H], then as ``RNN``.
    """

    _cell = spec.INDRNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        *,
        nonlinearity: str = "relu",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        residual: bool = False,
        learn_initial_state: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if nonlinearity not in ACTIVATIONS:
            raise ValueError(f"nonlinearity: expected one of {', '.join(ACTIVATIONS)}, got {nonlinearity!r}")
        generator = as_generator(rng)
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, residual=residual, learn_initial_state=learn_initial_state,
            dtype=dtype, rng=generator, nonlinearity=nonlinearity,
        )  # fmt: skip
        for _, weight_hh, *_ in self._names:
            data = getattr(self, str(weight_hh)).data
            data[...] = generator.uniform(0, 1, data.shape)

    @property
    def nonlinearity(self) -> str:
        """The name of f."""
        return str(self.options["nonlinearity"])


class MinGRU(_Elementwise):
    """The minimal GRU (Feng et al. 2024, "Were RNNs all we needed?"), whose gates do not see the state.

    z = sigmoid(W_z x_t + b_z), n = W_n x_t + b_n, h_t = (1 - z) h_(t-1) + z n.

    Args:
        All as ``RNN``, which has a nonlinearity besides.

    Parameters: ``weight_ih_l0`` [2H, I] and ``bias_l0`` [2H], rows of z, then of n; then as ``RNN``.
    """

    _cell = spec.MINGRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        residual: bool = False,
        learn_initial_state: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, residual=residual, learn_initial_state=learn_initial_state,
            dtype=dtype, rng=rng,
        )  # fmt: skip
