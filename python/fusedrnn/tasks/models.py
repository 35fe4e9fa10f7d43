"""The networks of most tasks: a recurrent stack with a linear layer on its last step or on every step; of language; and
several networks side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import sizes
from fusedrnn.arrays import Array
from fusedrnn.nn import GRU, LSTM, RNN, Dropout, Embedding, Linear, Module


def initialise_as_lecture(model: LastState | EveryStep, rng: np.random.Generator) -> None:
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


class LastState(Module):
    """Many to one: ``x [T, N, I]`` -> ``[N, outputs]``, read off the top layer's last hidden state."""

    def __init__(self, rnn: RNN | LSTM | GRU, outputs: int, rng: Any = None) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = Linear(rnn.hidden_size, sizes.size("outputs", outputs), dtype=rnn.dtype, rng=rng)

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
        self.head = Linear(rnn.hidden_size * rnn.directions, sizes.size("outputs", outputs), dtype=rnn.dtype, rng=rng)

    def forward(self, x: Array) -> Array:
        """Outputs [T, N, outputs] of x [T, N, I]."""
        y, _ = self.rnn(x)
        out: Array = self.head(y)
        return out

    def backward(self, dout: Array) -> None:
        """Adds to the gradients; x is data and gets none."""
        self.rnn.backward(self.head.backward(dout), input_grad=False)


class OneHot(Module):
    """Vectors of one 1 among ``size`` zeros, by index, and behind them a 1 that makes a bias of a column of weights."""

    def __init__(self, size: int, dtype: Any = "float32") -> None:
        super().__init__()
        width = sizes.size("size", size)
        sizes.require_memory({"size": width}, width * (width + 1), 8)  # made in float64
        self.table = np.hstack([np.eye(width), np.ones((width, 1))]).astype(dtype)

    def forward(self, indices: Array) -> Array:
        """[..., size + 1] of indices [...]."""
        return self.table[indices]

    def backward(self, dout: Array) -> None:
        """Indices have no gradient."""


class LanguageModel(Module):
    """Logits of the next token: vectors of tokens, a recurrent stack, a linear layer, dropout between them.

    Called as ``logits, state = model(x, state)`` with x [T, N] and logits [T, N, V], on `fusedrnn.train.tbptt.Windows`.

    Args:
        encoder: Embedding or OneHot. rnn: takes its vectors. tokens: V. dropout: probability.
        tied: the linear layer's weights are the embedding's (Press and Wolf 2017), with H = E.
    """

    def __init__(
        self,
        encoder: Embedding | OneHot,
        rnn: RNN | LSTM | GRU,
        tokens: int,
        *,
        dropout: float = 0.0,
        tied: bool = False,
        rng: Any = None,
    ) -> None:
        super().__init__()
        self.encoder, self.rnn = encoder, rnn
        self.before, self.after = Dropout(dropout, rng=rng), Dropout(dropout, rng=rng)
        self.head = Linear(rnn.hidden_size, sizes.size("tokens", tokens), dtype=rnn.dtype, rng=rng)
        if tied:
            assert isinstance(encoder, Embedding)
            self.head.weight = encoder.weight

    def forward(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Logits [T, N, V] of tokens x [T, N], and the state they end in."""
        y, state = self.rnn(self.before(self.encoder(x)), state)
        return self.head(self.after(y)), state

    def backward(self, dlogits: Array) -> None:
        """Adds to the gradients; the state before gets none."""
        dy = self.head.backward(dlogits)
        assert dy is not None
        dx, _ = self.rnn.backward(self.after.backward(dy))
        assert dx is not None
        self.encoder.backward(self.before.backward(dx))

    def surprise(self, tokens: Array, steps: int = 2_000) -> Array:
        """-log p in nats of every token but the first, [n - 1] float64, of tokens [n] read from a state of zeros,
        so many steps at a time. In evaluation mode."""
        found, state = [], None
        for start in range(0, len(tokens) - 1, steps):
            x, target = tokens[:-1][start : start + steps], tokens[1:][start : start + steps]
            logits, state = self(x[:, None], state)
            shifted = logits[:, 0].astype(float)
            shifted -= shifted.max(1, keepdims=True)
            found.append(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(target)), target])
        return np.concatenate(found)

    def generate(
        self, prime: Array, count: int, length: int, temperature: float, rng: Any, never: int | None = None
    ) -> Array:
        """So many continuations of tokens prime [n], n > 0: [count, length]. In evaluation mode.

        Args:
            temperature: divides the logits; 0 takes the likeliest token. rng: seed or generator. never: a token that
                is left out.
        """
        draws = np.random.default_rng(rng).random((length, count, 1))
        stream = self.rnn.stream(count)
        for token in prime[:-1]:
            stream.step(self.encoder(np.full(count, token)))
        tokens = np.full((length + 1, count), prime[-1])
        for t in range(length):
            logits = self.head(stream.step(self.encoder(tokens[t]))).astype(float)
            if never is not None:
                logits[:, never] = -np.inf
            if temperature > 0:
                with np.errstate(over="ignore"):  # at temperatures that are next to none
                    sums = np.exp((logits - logits.max(1, keepdims=True)) / temperature).cumsum(1)
                tokens[t + 1] = (sums > draws[t] * sums[:, -1:]).argmax(1)
            else:
                tokens[t + 1] = logits.argmax(1)
        return np.ascontiguousarray(tokens[1:].T)


class SideBySide(Module):
    """Networks over the same input; nothing passes between them but the norm that clips the gradients of all."""

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
