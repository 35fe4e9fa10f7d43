"""A decoder that reads and writes tokens, with attention over a memory or without."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusedrnn import _core
from fusedrnn.arrays import Array
from fusedrnn.cells.attention import DecoderState
from fusedrnn.decoding import Hypothesis, Stepper, beam_search, sample
from fusedrnn.nn.attention import AttentionDecoder
from fusedrnn.nn.linear import Dropout, Embedding, Linear
from fusedrnn.nn.module import Module, as_generator
from fusedrnn.nn.recurrent import GRU, LSTM, RNN
from fusedrnn.scan.trees import map_leaves
from fusedrnn.sizes import size

_LAYERS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


class TokenDecoder(Module):
    """Logits of the next token, of those before and a memory: ``logits = decoder(tokens, memory, start)``.

    Vectors of tokens go through dropout into an `AttentionDecoder` (without a score, into recurrent layers that do not
    attend), whose outputs go through dropout into a linear layer. The first state is tanh of a linear layer of a
    vector ``start``, such as an encoder's last state.

    Args:
        tokens: V. embedding_dim: E. hidden_size: H. memory_size: F. start_size: G.
        score: "additive", "dot", "general", or None: no attention. cell, num_layers, input_feeding: As
            `AttentionDecoder`. dropout: Probability. tied: The linear layer's weights are the embedding's (Press and
            Wolf 2017), with E = H. dtype: "float32" or "float64". rng: Seed or generator.

    Raises:
        ValueError: Tied weights of other sizes.
    """

    def __init__(
        self,
        tokens: int,
        embedding_dim: int,
        hidden_size: int,
        memory_size: int,
        *,
        start_size: int,
        score: str | None = "additive",
        cell: str = "lstm",
        num_layers: int = 1,
        input_feeding: bool = True,
        dropout: float = 0.0,
        tied: bool = False,
        dtype: Any = "float32",
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if cell not in _LAYERS:
            raise ValueError(f"cell: expected one of {', '.join(_LAYERS)}, got {cell!r}")
        if tied and embedding_dim != hidden_size:
            raise ValueError(f"tied: expected embedding_dim = hidden_size, got {embedding_dim} and {hidden_size}")
        generator = as_generator(rng)
        E, H, L = size("embedding_dim", embedding_dim), size("hidden_size", hidden_size), size("num_layers", num_layers)
        self.cell, self.num_layers, self.hidden_size = cell, L, H
        self.embedding = Embedding(tokens, E, dtype=dtype, rng=generator)
        self.states = 2 if cell == "lstm" else 1  # arrays of a layer's state
        self.start = Linear(start_size, self.states * L * H, dtype=dtype, rng=generator)
        self.before, self.after = Dropout(dropout, rng=generator), Dropout(dropout, rng=generator)
        self.before.time_major = self.after.time_major = True
        self.attending = score is not None
        self.rnn: Any
        if score is not None:
            self.rnn = AttentionDecoder(
                E, H, memory_size, score=score, cell=cell, num_layers=L, input_feeding=input_feeding, dtype=dtype,
                rng=generator,
            )  # fmt: skip
        else:
            options = {"forget_bias": 1.0} if cell == "lstm" else {}
            self.rnn = _LAYERS[cell](E, H, L, dtype=dtype, rng=generator, **options)
        self.head = Linear(H, size("tokens", tokens), dtype=dtype, rng=generator)
        if tied:
            self.embedding.weight.data *= 1 / np.sqrt(E)  # as logits' weights, N(0, 1) would saturate the softmax
            self.head.weight = self.embedding.weight

    # states: [N, states * L * H] of the linear layer, as the recurrent part takes them and gives their gradients

    def _as_state(self, first: Array) -> Any:
        parts = first.reshape(len(first), self.states, self.num_layers, self.hidden_size)
        if not self.attending:
            arrays = [np.ascontiguousarray(parts[:, i].swapaxes(0, 1)) for i in range(parts.shape[1])]
            return tuple(arrays) if self.cell == "lstm" else arrays[0]
        layers = [
            tuple(np.ascontiguousarray(parts[:, i, layer]) for i in range(parts.shape[1]))
            for layer in range(self.num_layers)
        ]
        attended = np.zeros((len(first), self.hidden_size), first.dtype)
        return DecoderState(tuple(each if self.cell == "lstm" else each[0] for each in layers), attended)

    def _as_vector(self, state: Any) -> Array:
        """Undo `_as_state`, [N, states * L * H]."""
        if not self.attending:
            arrays = state if self.cell == "lstm" else (state,)
            parts = np.stack([array.swapaxes(0, 1) for array in arrays], axis=1)
        else:
            layers = [each if self.cell == "lstm" else (each,) for each in state.layers]
            parts = np.stack([np.stack(each, axis=1) for each in layers], axis=2)
        return np.ascontiguousarray(parts.reshape(len(parts), self.states * self.num_layers * self.hidden_size))

    def forward(self, tokens: Array, memory: Array, start: Array, memory_lengths: Any = None) -> Array:
        """Give logits [T, N, V] of what follows each token.

        Args:
            tokens: [T, N] integers, the one that begins first; -1 is padding behind a row's end.
            memory: [S, N, F]. start: [N, G]. memory_lengths: [N], None for S; without attention none counts.

        Raises:
            ValueError: Shapes that do not fit, tokens that there are not, padding that a token follows.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens: expected integers [T, N], got {tokens.dtype} {tokens.shape}")
        inside = tokens >= 0
        lengths = inside.sum(axis=0)
        if not (inside == (np.arange(len(tokens))[:, None] < lengths)).all() or tokens.min(initial=0) < -1:
            raise ValueError("tokens: expected -1 behind the end of a row alone, and tokens of at least 0")
        first = np.tanh(self.start(start))
        x = self.before(self.embedding(np.where(inside, tokens, 0)))
        state = self._as_state(first)
        uneven = None if inside.all() else lengths
        if self.attending:
            y, _, _ = self.rnn(x, memory, state, memory_lengths=memory_lengths, lengths=uneven)
        else:
            y, _ = self.rnn(x, state, lengths=uneven)
        logits: Array = self.head(self.after(y))
        self._push((first, np.shape(memory)))
        return logits

    def backward(self, dlogits: Array) -> tuple[Array, Array]:
        """Return dmemory [S, N, F] and dstart [N, G], adding to the parameters' gradients."""
        first, shape = self._pop()
        dy = self.after.backward(self.head.backward(dlogits))  # type: ignore[arg-type]
        if self.attending:
            dx, dstate, dmemory = self.rnn.backward(dy)
        else:
            (dx, dstate), dmemory = self.rnn.backward(dy), np.zeros(shape, first.dtype)
        self.embedding.backward(self.before.backward(dx))
        dstart = self.start.backward(self._as_vector(dstate) * (1 - first * first))
        assert dstart is not None
        return dmemory, dstart

    # writing

    def _stepper(self, memory: Array, start: Array, memory_lengths: Any) -> tuple[Stepper, Any]:
        """Make a stepper of `fusedrnn.decoding` in evaluation, over a memory that has one part a row, and its state."""
        table, first = self.embedding.weight.data, np.tanh(_applied(self.start, start))
        if self.attending:
            attending = self.rnn.stream(memory, memory_lengths=memory_lengths)

            def attend(tokens: Array, state: Any) -> tuple[Array, Any, Array]:
                attending.state = state
                y, weights = attending.step(table[tokens])
                return _applied(self.head, y), attending.state, weights

            return attend, self._as_state(first)
        stream = self.rnn.stream(len(start))

        def step(tokens: Array, state: Array) -> tuple[Array, Array]:
            stream.state = self._as_state(state)
            y = stream.step(table[tokens])
            return _applied(self.head, y), self._as_vector(stream.state)

        return step, first

    def write(
        self,
        memory: Array,
        start: Array,
        memory_lengths: Any = None,
        *,
        begin: int,
        end: int,
        most: int,
        beam: int = 1,
        length_penalty: float = 0.0,
        temperature: float = 0.0,
        never: tuple[int, ...] = (),
        rng: np.random.Generator | int | None = None,
    ) -> list[list[Hypothesis]]:
        """Write sequences in evaluation, with the weights as they are now: the likeliest, samples, or by beam search.

        Args:
            memory, start, memory_lengths: As `forward`. begin, end, most, never: As `fusedrnn.decoding.sample`.
            beam: Hypotheses of a beam search (see `fusedrnn.decoding.beam_search`); 1 takes token by token.
            length_penalty: Of the beam search. temperature: Of samples, 0 for the likeliest. rng: Of samples.

        Returns:
            For each of N rows its hypotheses, best first.

        Raises:
            ValueError: Numbers out of range, or a beam with a temperature.
        """
        rows, width = len(start), size("beam", beam)
        if width > 1 and temperature:
            raise ValueError(f"temperature: expected 0 with a beam of {width}, got {temperature}")
        if width == 1:
            step, state = self._stepper(memory, start, memory_lengths)
            found = sample(
                step, state, rows=rows, begin=begin, end=end, most=most, temperature=temperature, never=never, rng=rng
            )
            return [[hypothesis] for hypothesis in found]
        lengths = None if memory_lengths is None else np.repeat(np.asarray(memory_lengths), width)
        step, state = self._stepper(np.repeat(memory, width, axis=1), np.repeat(start, width, axis=0), lengths)
        return beam_search(
            step, map_leaves(lambda leaf: leaf[::width], state), rows=rows, begin=begin, end=end, most=most,
            width=width, length_penalty=length_penalty, never=never,
        )  # fmt: skip

    def with_own(self, tokens: Array, own: Array, memory: Array, start: Array, memory_lengths: Any = None) -> Array:
        """Replace tokens [T, N] where ``own`` says so by the likeliest after those before (Bengio et al. 2015).

        Scheduled sampling, arXiv:1506.03099: the decoder reads what it would have written, step by step, in evaluation;
        no gradient passes through the choice, so that training goes on with the tokens as if they had been given.

        Args:
            own: [T, N] booleans; the first token of a row and padding stay.
        """
        tokens = np.array(tokens)
        own = np.asarray(own, bool) & (tokens >= 0)
        if not own[1:].any():
            return tokens
        step, state = self._stepper(memory, start, memory_lengths)
        for t in range(len(tokens) - 1):
            if not own[t + 1 :].any():
                break
            logits, state = step(np.maximum(tokens[t], 0), state)[:2]
            tokens[t + 1] = np.where(own[t + 1], logits.argmax(1), tokens[t + 1])
        return tokens


def _applied(layer: Linear, x: Array) -> Array:
    """Apply a linear layer to x [N, I], and keep nothing for backward."""
    bias = None if layer.bias is None else layer.bias.data
    y: Array = _core.linear_forward(np.ascontiguousarray(x), layer.weight.data, bias)
    return y
