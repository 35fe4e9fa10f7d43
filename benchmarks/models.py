"""Three models in plain PyTorch, written as they are without `fusedrnn`, with generated data: a character language
model, a tagger of uneven sentences and a forecaster. `experiments/accelerate.py` trains them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Batch = tuple[Tensor, ...]


class CharacterModel(nn.Module):
    """The next character after each; the output layer's weights are the embeddings."""

    def __init__(self, symbols: int, units: int, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, units)
        self.rnn = nn.LSTM(units, units, layers)
        self.head = nn.Linear(units, symbols)
        self.head.weight = self.embedding.weight

    def forward(self, text: Tensor) -> Tensor:
        """The mean loss of text [T + 1, N]."""
        y, _ = self.rnn(self.embedding(text[:-1]))
        return cross_entropy(self.head(y).flatten(0, 1), text[1:].flatten())


class Tagger(nn.Module):
    """A tag for each word, from the words on both sides."""

    def __init__(self, words: int, units: int, tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, units)
        self.rnn = nn.LSTM(units, units, bidirectional=True)
        self.head = nn.Linear(2 * units, tags)

    def forward(self, words: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        """The mean loss of words [T, N], tags -100 in the padding."""
        packed = pack_padded_sequence(self.embedding(words), lengths, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], total_length=len(words))
        return cross_entropy(self.head(y).flatten(0, 1), tags.flatten(), ignore_index=-100)


class Forecaster(nn.Module):
    """The value that follows a series."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, units, batch_first=True)
        self.head = nn.Linear(units, 1)

    def forward(self, series: Tensor, following: Tensor) -> Tensor:
        """The mean squared error for series [N, T, 1], following [N, 1]."""
        _, h = self.rnn(series)
        return mse_loss(self.head(h[-1]), following)


@dataclass(frozen=True)
class Size:
    """Of a model's data."""

    batches: int
    T: int
    N: int
    H: int


def characters(size: Size) -> list[Batch]:
    """Text in which a character follows from the two before it, but for one in ten."""
    draw = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(size.batches):
        text = torch.randint(SYMBOLS, (size.T + 1, size.N), generator=draw)
        chance = torch.rand(text.shape, generator=draw) < 0.1
        for t in range(2, size.T + 1):
            text[t] = torch.where(chance[t], text[t], (text[t - 1] + 3 * text[t - 2]) % SYMBOLS)
        batches.append((text,))
    return batches


def sentences(size: Size) -> list[Batch]:
    """Words whose tags follow from both neighbours; lengths from 1 to T."""
    draw = torch.Generator().manual_seed(2)
    batches = []
    for _ in range(size.batches):
        words = torch.randint(SYMBOLS, (size.T, size.N), generator=draw)
        lengths = torch.randint(1, size.T + 1, (size.N,), generator=draw)
        tags = (words.roll(1, 0) % 2) + 2 * (words.roll(-1, 0) % 2)
        tags[torch.arange(size.T)[:, None] >= lengths] = -100
        batches.append((words, lengths, tags))
    return batches


def series(size: Size) -> list[Batch]:
    """Two waves of random phase and frequency with a little noise."""
    draw = torch.Generator().manual_seed(3)
    time = torch.arange(size.T + 1.0)
    batches = []
    for _ in range(size.batches):
        frequency, phase = (torch.rand(2, size.N, 1, generator=draw) for _ in range(2))
        waves = torch.sin((0.1 + 0.4 * frequency) * time + 6.28 * phase).sum(0)
        waves += 0.05 * torch.randn(waves.shape, generator=draw)
        batches.append((waves[:, :-1, None], waves[:, -1:]))
    return batches


SYMBOLS, TAGS = 48, 4
# model, data and size
MODELS: dict[str, tuple[Callable[[Size], nn.Module], Callable[[Size], list[Batch]], Size]] = {
    "characters": (lambda size: CharacterModel(SYMBOLS, size.H), characters, Size(20, 50, 32, 128)),
    "tagger": (lambda size: Tagger(SYMBOLS, size.H, TAGS), sentences, Size(20, 30, 32, 64)),
    "forecaster": (lambda size: Forecaster(size.H), series, Size(20, 100, 32, 48)),
}


class Training:
    """One model under Adam; ``epoch`` goes once over the batches."""

    def __init__(self, make: Callable[[Size], nn.Module], batches: Sequence[Batch], size: Size) -> None:
        torch.manual_seed(0)
        self.model, self.batches = make(size), batches
        self.optimizer: Any = torch.optim.Adam(self.model.parameters(), 3e-3)

    def epoch(self) -> float:
        """The mean loss."""
        total = 0.0
        for batch in self.batches:
            self.optimizer.zero_grad()
            loss = self.model(*batch)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total / len(self.batches)
