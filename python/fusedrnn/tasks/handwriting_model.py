"""The networks of handwriting (Graves 2013, arXiv:1308.0850): prediction of the next point, synthesis of a text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.cells.window import WindowOutput
from fusedrnn.nn import LSTM, MixtureDensity, Module, WindowLSTM

PRESENT = 3  # the column of x that is 1 on steps that exist


@dataclass(frozen=True)
class Sizes:
    """Of a network: units of each of its two layers, components of densities and of the window, characters.

    ``spacing`` is how many characters a point stands for on average.
    """

    units: int
    components: int
    window: int
    characters: int
    spacing: float


def lengths_of(x: Array) -> Array:
    """Return how many steps each row of x [T, N, 4] has, [N]."""
    steps: Array = (x[:, :, PRESENT] > 0).sum(0)
    return steps


class Predictor(Module):
    """``x [T, N, 4]`` (offset, pen, and whether there is such a step) -> parameters of the next point [T, N, 6K + 1].

    Two LSTM layers, both of which see x, and both of which the head sees: Graves' network with its skip connections.
    """

    def __init__(self, sizes: Sizes, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        H = self.units = sizes.units
        self.first = LSTM(4, H, forget_bias=1.0, rng=rng)
        self.second = LSTM(4 + H, H, forget_bias=1.0, rng=rng)
        self.head = MixtureDensity(2 * H, sizes.components, rng=rng)

    def forward(self, x: Array) -> Array:
        """Give parameters [T, N, 6K + 1] of x [T, N, 4]."""
        lengths = lengths_of(x)
        h1, _ = self.first(x, lengths=lengths)
        h2, _ = self.second(np.concatenate([x, h1], axis=2), lengths=lengths)
        parameters: Array = self.head(np.concatenate([h1, h2], axis=2))
        return parameters

    def backward(self, dparameters: Array) -> None:
        """Add to the gradients; x is data and gets none."""
        H, dh = self.units, self.head.backward(dparameters)
        assert dh is not None
        dx, _ = self.second.backward(np.ascontiguousarray(dh[:, :, H:]))
        assert dx is not None
        self.first.backward(dh[:, :, :H] + dx[:, :, 4:], input_grad=False)


class Synthesizer(Module):
    """``(x [T, N, 4], text [U, N])`` -> parameters of the next point [T, N, 6K + 1].

    The first layer has a window along the text; the second sees x, the first and the window. Texts are numbers of
    characters, -1 behind their end.
    """

    def __init__(self, sizes: Sizes, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        H = self.units = sizes.units
        self.table = np.concatenate([np.eye(sizes.characters, dtype=np.float32), np.zeros((1, sizes.characters), "f")])
        self.first = WindowLSTM(4, sizes.characters, H, sizes.window, spacing=sizes.spacing, rng=rng)
        self.second = LSTM(4 + H + sizes.characters, H, forget_bias=1.0, rng=rng)
        self.head = MixtureDensity(2 * H, sizes.components, rng=rng)

    def characters(self, text: Array) -> Array:
        """Return vectors [N, U + 1, C] of texts [U, N]; one place more, which the window reaches at the end."""
        rows = np.concatenate([text, np.full((1, text.shape[1]), -1, text.dtype)]).T
        return np.ascontiguousarray(self.table[rows])

    def look(self, x: Array, text: Array) -> tuple[Array, WindowOutput]:
        """Give parameters, and what the window did."""
        lengths = lengths_of(x)
        window, _ = self.first(x, None, self.characters(text), lengths=lengths)
        h2, _ = self.second(np.concatenate([x, window.h, window.window], axis=2), lengths=lengths)
        return self.head(np.concatenate([window.h, h2], axis=2)), window

    def forward(self, x: tuple[Array, Array]) -> Array:
        """Give parameters [T, N, 6K + 1]."""
        return self.look(*x)[0]

    def backward(self, dparameters: Array) -> None:
        """Add to the gradients; points and texts are data and get none."""
        H, dh = self.units, self.head.backward(dparameters)
        assert dh is not None
        dx, _ = self.second.backward(np.ascontiguousarray(dh[:, :, H:]))
        assert dx is not None
        dh1, dwindow = dh[:, :, :H] + dx[:, :, 4 : 4 + H], np.ascontiguousarray(dx[:, :, 4 + H :])
        self.first.backward(WindowOutput(dh1, dwindow, None, None), input_grad=False)


class Both(Module):
    """Prediction and synthesis side by side, over the same points: parameters [2, T, N, 6K + 1]."""

    def __init__(self, sizes: Sizes, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.predictor, self.synthesizer = Predictor(sizes, rng), Synthesizer(sizes, rng)

    def forward(self, x: tuple[Array, Array]) -> Array:
        """Give parameters of both."""
        return np.stack([self.predictor(x[0]), self.synthesizer(x)])

    def backward(self, dparameters: Array) -> None:
        """Add to the gradients."""
        self.synthesizer.backward(dparameters[1])
        self.predictor.backward(dparameters[0])
