"""A small network of parts that may be trained apart, and what it learns from: X [T, N, 3], Y [N, 2]."""

from __future__ import annotations

import numpy as np

from fusedrnn import nn


class Net(nn.Module):
    """Recurrent layers and a head."""

    def __init__(self, seed=0):
        super().__init__()
        self.rnn, self.last, self.head = nn.LSTM(3, 5, rng=seed), nn.LastStep(), nn.Linear(5, 2, rng=seed)

    def forward(self, x):
        return self.head(self.last(self.rnn(x)[0]))

    def backward(self, dy):
        return self.rnn.backward(self.last.backward(self.head.backward(dy)))[0]


X = np.random.default_rng(0).standard_normal((6, 8, 3), dtype=np.float32)
Y = np.stack([X.mean((0, 2)), X[-1, :, 0]], 1)
