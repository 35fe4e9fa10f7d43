"""RNN, LSTM and GRU layers: stacks, two directions, dropout between layers, PyTorch's parameter names.

Shapes as in `fusedrnn.nn.stack`, which holds what the three share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedrnn import spec
from fusedrnn.arrays import Array
from fusedrnn.nn.frozen import pair
from fusedrnn.nn.stack import Table, _Recurrent
from fusedrnn.nn.states import States
from fusedrnn.sizes import size
from fusedrnn.spec import ACTIVATIONS


class _OneState(_Recurrent):
    """Layers whose only state is h: the call is ``y, h_n = layer(x, h0)``."""

    def forward(self, x: Array, h0: States = None, *, lengths: Any = None, resets: Any = None) -> tuple[Array, States]:
        """Run over a sequence.

        Args:
            x: [T, N, I] ([N, T, I] with batch_first), of the layer's dtype. h0: [L * D, N, H] (layers of
                different sizes: one [D, N, H] each), or None for zeros, or for the learned values where there are any.
            lengths: N integers, where rows are not all T long: y is zero past a row's end, and h_n its own last state.
            resets: booleans [T, N] ([N, T] with batch_first): where true, the state is zero before that step.

        Returns:
            y [T, N, D * H] (time and batch as in x) and h_n, as h0.

        Raises:
            ValueError: a shape that does not fit, or T = 0. TypeError: another dtype.
        """
        y, (h_n,) = self._forward(x, (h0,), lengths, resets)
        return y, h_n

    def backward(
        self, dy: Array | None, dh_n: States = None, *, input_grad: bool = True
    ) -> tuple[Array | None, States]:
        """Gradients of the last call, adding to the parameters' gradients.

        Args:
            dy, dh_n: gradients of y and h_n, shaped like them; None for zeros.
            input_grad: False leaves dx out, which saves time where x is data.

        Returns:
            dx, shaped like x (or None), and dh0, as h_n.

        Raises:
            RuntimeError: no call is left. ValueError, TypeError: as ``forward``.
        """
        dx, (dh0,) = self._backward(dy, (dh_n,), input_grad)
        return dx, dh0


class RNN(_OneState):
    """Elman's network, h_t = f(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), as ``torch.nn.RNN``.

    Args:
        input_size, hidden_size, num_layers: I, H, L. With a list of sizes, one a layer, num_layers follows.
        nonlinearity: "tanh", "relu", or another of those of ``rnn_forward``. bias: whether there are b_ih and b_hh.
        batch_first: x and y are [N, T, features] instead of [T, N, features].
        dropout: probability of zeroing an element between two layers, in training. bidirectional: D = 2.
        residual: from the second layer on y = layer(x) + x, x as dropout left it (He et al. 2016; Wu et al. 2016).
        learn_initial_state: a call without initial states starts from parameters (zeros at first) instead of zeros.
        layer_norm: layer normalization in the cell, with gains (ones at first) and biases (zeros) as parameters
            ``gain_ih_l0``, ``gain_hh_l0``, ``norm_bias_ih_l0``, ``norm_bias_hh_l0`` (an LSTM's c: ``gain_c_l0``,
            ``norm_bias_c_l0``).
        zoneout_h, recurrent_dropout, dropconnect, grad_clip: as ``rnn_forward``; masks are drawn anew in each call.
        dtype: "float32" or "float64". rng: seed or generator of the initial weights, U(-1/sqrt(H), 1/sqrt(H)),
            and of all that is random in training.

    Parameters: ``weight_ih_l0`` [H, I], ``weight_hh_l0`` [H, H], ``bias_ih_l0`` [H], ``bias_hh_l0`` [H], then
    ``..._l0_reverse``, ``..._l1``, ...; with learn_initial_state also ``h0_l0`` [H] (and ``c0_l0`` of an LSTM), ...
    """

    _cell = spec.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        residual: bool = False,
        learn_initial_state: bool = False,
        layer_norm: bool = False,
        zoneout_h: float = 0.0,
        recurrent_dropout: float = 0.0,
        dropconnect: float = 0.0,
        grad_clip: float | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if nonlinearity not in ACTIVATIONS:
            raise ValueError(f"nonlinearity: expected one of {', '.join(ACTIVATIONS)}, got {nonlinearity!r}")
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, residual=residual, learn_initial_state=learn_initial_state,
            dtype=dtype, rng=rng, layer_norm=layer_norm, zoneout_h=zoneout_h, recurrent_dropout=recurrent_dropout,
            dropconnect=dropconnect, grad_clip=grad_clip, nonlinearity=nonlinearity,
        )  # fmt: skip

    @property
    def nonlinearity(self) -> str:
        """The activation's name."""
        return str(self.options["nonlinearity"])


class LSTM(_Recurrent):
    """Long short-term memory with forget gate (Gers et al. 2000), gates i, f, g, o, as ``torch.nn.LSTM``.

    Args:
        recompute: keep less for backward and compute the gates once more there: the same bits, about a third more time.
        forget_bias: if given, added to the forget gate's quarter of every ``bias_ih``, with that of ``bias_hh`` zero,
            so that a layer starts out remembering (Gers et al. 2000; Jozefowicz et al. 2015 advise 1).
        peephole: the gates also see c (Gers and Schmidhuber 2000), by ``weight_peephole_l0`` [3, H].
        proj_size: P, if not 0: h_t = weight_hr (o tanh(c_t)) has P elements (Sak et al. 2014), by ``weight_hr_l0``
            [P, H]; h, y and the columns of ``weight_hh_l0`` then have P.
        coupled: f = 1 - i (Greff et al. 2017), with 3H rows of i, g, o.
        cell_clip, zoneout_c, activations: as ``lstm_forward``. Others: as ``RNN``.

    Parameters: as ``RNN`` with 4H rows.
    """

    _cell = spec.LSTM

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
        peephole: bool = False,
        proj_size: int = 0,
        coupled: bool = False,
        cell_clip: float | None = None,
        activations: Sequence[str] | None = None,
        layer_norm: bool = False,
        zoneout_h: float = 0.0,
        zoneout_c: float = 0.0,
        recurrent_dropout: float = 0.0,
        dropconnect: float = 0.0,
        grad_clip: float | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        recompute: bool = False,
        forget_bias: float | None = None,
    ) -> None:
        self.peephole, self.proj_size = peephole, size("proj_size", proj_size, 0)
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, residual=residual, learn_initial_state=learn_initial_state,
            dtype=dtype, rng=rng, layer_norm=layer_norm, zoneout_h=zoneout_h, recurrent_dropout=recurrent_dropout,
            dropconnect=dropconnect, grad_clip=grad_clip, recompute=recompute, coupled=coupled,
            cell_clip=cell_clip, zoneout_c=zoneout_c, activations=None if activations is None else tuple(activations),
        )  # fmt: skip
        if forget_bias is None:
            return
        if not bias:
            raise ValueError("forget_bias: expected None for a layer without biases")
        if coupled:
            raise ValueError("forget_bias: expected None for coupled gates, where no forget gate has a bias")
        for index, (_, _, bias_ih, bias_hh, *_) in enumerate(self._names):
            H = self.hidden_sizes[index // self.directions]
            forget = slice(H, 2 * H)
            getattr(self, str(bias_ih)).data[forget] += forget_bias
            getattr(self, str(bias_hh)).data[forget] = 0

    def _sizes(self, hidden: int) -> tuple[int, ...]:
        return (self.proj_size or hidden, hidden)

    def _table(self, inputs: int, hidden: int) -> Table:
        table = super()._table(inputs, hidden)
        if self.peephole:
            table["weight_peephole"] = ((3, hidden), None)
        if self.proj_size:
            table["weight_hr"] = ((self.proj_size, hidden), None)
        return table

    def _own_options(self) -> dict[str, Any]:
        shapes = {"peephole": self.peephole, "proj_size": self.proj_size}
        return {**{name: value for name, value in shapes.items() if value}, **self.options}

    @property
    def recompute(self) -> bool:
        """Whether backward computes the gates once more."""
        return bool(self.options.get("recompute"))

    def forward(
        self, x: Array, state: tuple[States, States] | None = None, *, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, tuple[States, States]]:
        """Run over a sequence.

        Args:
            x: [T, N, I] ([N, T, I] with batch_first), of the layer's dtype. state: (h0, c0), each [L * D, N, H]
                (layers of different sizes: one [D, N, H] each), or None for zeros, or for the learned values where
                there are any; or None for both. lengths, resets: as ``RNN``.

        Returns:
            y [T, N, D * H] (time and batch as in x) and (h_n, c_n), as state.

        Raises:
            ValueError: a shape that does not fit, or T = 0. TypeError: another dtype.
        """
        y, (h_n, c_n) = self._forward(x, pair("state", state), lengths, resets)
        return y, (h_n, c_n)

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[States, States] | None = None,
        *,
        input_grad: bool = True,
    ) -> tuple[Array | None, tuple[States, States]]:
        """Gradients of the last call, adding to the parameters' gradients.

        Args:
            dy: gradient of y, or None for zeros. dstate: (dh_n, dc_n), each or both None for zeros.
            input_grad: False leaves dx out, which saves time where x is data.

        Returns:
            dx, shaped like x (or None), and (dh0, dc0), as dstate.

        Raises:
            RuntimeError: no call is left. ValueError, TypeError: as ``forward``.
        """
        dx, (dh0, dc0) = self._backward(dy, pair("dstate", dstate), input_grad)
        return dx, (dh0, dc0)


class GRU(_OneState):
    """Gated recurrent unit (Cho et al. 2014), gates r, z, n, as ``torch.nn.GRU``.

    Args:
        reset_after: the reset gate applies after the product with W_hn (PyTorch, cuDNN) rather than before (paper).
        activations: of the gates and of n, as ``gru_forward``. recompute: as ``LSTM``. Others: as ``RNN``.

    Parameters: as ``RNN`` with 3H rows.
    """

    _cell = spec.GRU

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        residual: bool = False,
        learn_initial_state: bool = False,
        activations: Sequence[str] | None = None,
        layer_norm: bool = False,
        zoneout_h: float = 0.0,
        recurrent_dropout: float = 0.0,
        dropconnect: float = 0.0,
        grad_clip: float | None = None,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
            bidirectional=bidirectional, residual=residual, learn_initial_state=learn_initial_state,
            dtype=dtype, rng=rng, layer_norm=layer_norm, zoneout_h=zoneout_h, recurrent_dropout=recurrent_dropout,
            dropconnect=dropconnect, grad_clip=grad_clip, reset_after=reset_after, recompute=recompute,
            activations=None if activations is None else tuple(activations),
        )  # fmt: skip

    @property
    def recompute(self) -> bool:
        """Whether backward computes the gates once more."""
        return bool(self.options.get("recompute"))

    @property
    def reset_after(self) -> bool:
        """Whether the reset gate applies after the product with W_hn."""
        return bool(self.options["reset_after"])
