"""The two networks of most tasks: a recurrent stack with a linear layer on its last step, or on every step; and several
networks side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn.gradients import Array
from fusedrnn.nn import GRU, LSTM, RNN, Linear, Module


def initialise_as_lecture(model: LastStep | EveryStep, rng: np.random.Generator) -> None:
    """The initial values of the lecture's TensorFlow 0.12, which set off much faster on bits than U(+-1/sqrt(H)).

    Recurrent weights U(+-sqrt(3 / fan in)), the fan in being I + H; forget biases 1, all others 0; the output layer's
    weights from N(0, 1) clipped at 2, its biases 0.1.
    """
    rnn, head = model.rnn, model.head
    for name, parameter in rnn.named_parameters():
        if name.startswith("weight"):
            layer_inputs = rnn.input_size if "_l0" in name else rnn.hidden_size * rnn.directions
            bound = np.sqrt(3 / (layer_inputs + rnn.hidden_size))
            parameter.data[...] = rng.uniform(-bound, bound, parameter.data.shape)
        else:
            parameter.data.fill(0)
            if isinstance(rnn, LSTM) and name.startswith("bias_ih"):
                parameter.data[rnn.hidden_size : 2 * rnn.hidden_size] = 1
    head.weight.data[...] = rng.standard_normal(head.weight.data.shape).clip(-2, 2)
    if head.bias is not None:
        head.bias.data.fill(0.1)


class LastStep(Module):
    """Many to one: ``x [T, N, I]`` -> ``[N, outputs]``, read off the top layer's last hidden state."""

    def __init__(self, rnn: RNN | LSTM | GRU, outputs: int, rng: Any = None) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = Linear(rnn.hidden_size, outputs, dtype=rnn.dtype, rng=rng)

    def forward(self, x: Array) -> Array:
        """Outputs [N, outputs] of x [T, N, I]."""
        y, _ = self.rnn(x)
        out: Array = self.head(y[-1])
        return out

    def backward(self, dout: Array) -> None:
        """Adds to the gradients; x is data and gets none."""
        dlast = self.head.backward(dout)
        assert dlast is not None
        dh_n = np.zeros((self.rnn.num_layers, *dlast.shape), dlast.dtype)
        dh_n[-1] = dlast
        if isinstance(self.rnn, LSTM):
            self.rnn.backward(None, (dh_n, None), input_grad=False)
        else:
            self.rnn.backward(None, dh_n, input_grad=False)


class EveryStep(Module):
    """Many to many: ``x [T, N, I]`` -> ``[T, N, outputs]``, from the top layer's hidden state at each step."""

    def __init__(self, rnn: RNN | LSTM | GRU, outputs: int, rng: Any = None) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = Linear(rnn.hidden_size * rnn.directions, outputs, dtype=rnn.dtype, rng=rng)

    def forward(self, x: Array) -> Array:
        """Outputs [T, N, outputs] of x [T, N, I]."""
        y, _ = self.rnn(x)
        out: Array = self.head(y)
        return out

    def backward(self, dout: Array) -> None:
        """Adds to the gradients; x is data and gets none."""
        self.rnn.backward(self.head.backward(dout), input_grad=False)


class SideBySide(Module):
    """Networks over the same input; nothing passes between them, so each trains as if alone."""

    def __init__(self, *members: Module) -> None:
        super().__init__()
        self.members = members

    def forward(self, x: Array) -> Array:
        """The outputs of all, stacked: [members, N, outputs]."""
        return np.stack([member(x) for member in self.members])

    def backward(self, dout: Array) -> None:
        """Adds to the gradients of all; dout [members, N, outputs]."""
        for member, dmember in zip(reversed(self.members), dout[::-1], strict=True):
            member.backward(dmember)
