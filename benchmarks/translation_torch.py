"""The network of the task `translate` in plain PyTorch, step by step under autograd, with our values at the start."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fusedrnn.tasks.translate_runs import Recipe

_SKIPPED = "bias_hh"  # of the decoder's cell: ours has one bias


class TorchTranslator(nn.Module):
    """`fusedrnn.tasks.translate_model.LexicalSeq2Seq` of LSTMs with a general or additive score."""

    def __init__(self, V: tuple[int, int], recipe: Recipe) -> None:
        super().__init__()
        E, H = recipe.embedding, recipe.units
        memory = 2 * H + E
        self.additive = recipe.score == "additive"
        self.source, self.target = nn.Embedding(V[0], E), nn.Embedding(V[1], E)
        self.encoder = nn.LSTM(E, H, bidirectional=True)
        self.start = nn.Linear(2 * H, 2 * H)
        self.cell = nn.LSTMCell(E + H, H)
        self.query = nn.Linear(H, H if self.additive else memory, bias=False)
        if self.additive:
            self.keys, self.v = nn.Linear(memory, H, bias=False), nn.Linear(H, 1, bias=False)
        self.out = nn.Linear(H + memory, H)
        self.head = nn.Linear(H, V[1])
        self.dropout = nn.Dropout(recipe.dropout)

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        """Give logits [T, N, V] of source [S, N] and tokens [T, N], -1 being padding."""
        inside = source >= 0
        words = self.dropout(self.source(source.clamp(min=0)))
        packed = pack_padded_sequence(words, inside.sum(0), enforce_sorted=False)
        y, (h_n, _) = self.encoder(packed)
        y, _ = pad_packed_sequence(y, total_length=len(source))
        memory = self.dropout(torch.cat([y, words], 2)).transpose(0, 1)  # [N, S, F]
        outside = ~inside.T
        keys = self.keys(memory) if self.additive else memory
        h, c = torch.tanh(self.start(torch.cat([h_n[0], h_n[1]], 1))).chunk(2, 1)
        attended, outputs = torch.zeros_like(h), []
        for x in self.dropout(self.target(tokens.clamp(min=0))):
            h, c = self.cell(torch.cat([x, attended], 1), (h, c))
            query = self.query(h)
            if self.additive:
                scores = self.v(torch.tanh(keys + query[:, None])).squeeze(2)
            else:
                scores = torch.bmm(keys, query[:, :, None]).squeeze(2)
            weights = scores.masked_fill(outside, float("-inf")).softmax(1)
            seen = torch.bmm(weights[:, None], memory).squeeze(1)
            attended = torch.tanh(self.out(torch.cat([h, seen], 1)))
            outputs.append(attended)
        logits: Tensor = self.head(self.dropout(torch.stack(outputs)))
        return logits


def _names(recipe: Recipe) -> dict[str, str]:
    """Return our names of parameters by PyTorch's."""
    names = {"source.weight": "embedding.weight", "target.weight": "decoder.embedding.weight"}
    for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        names |= {f"encoder.{kind}{side}": f"encoder.{kind}{side}" for side in ("", "_reverse")}
    for part, ours in (("start", "decoder.start"), ("head", "decoder.head")):
        names |= {f"{part}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}
    step = "decoder.rnn.scan"
    names |= {"cell.weight_ih": f"{step}.cell.0.W", "cell.weight_hh": f"{step}.cell.0.U"}
    names |= {"cell.bias_ih": f"{step}.cell.0.b", "out.weight": f"{step}.out.W", "out.bias": f"{step}.out.b"}
    names["query.weight"] = f"{step}.attention.W"
    if recipe.score == "additive":
        names |= {"keys.weight": f"{step}.attention.U", "v.weight": f"{step}.attention.v"}
    return names


class TorchTraining:
    """PyTorch's network with the values of ours, and what trains it: ``update(batch, lr)``."""

    def __init__(self, ours: Any, recipe: Recipe, threads: int, seed: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self.recipe, self.names = recipe, _names(recipe)
        tables = ours.embedding.weight.data, ours.decoder.embedding.weight.data
        self.model = TorchTranslator((len(tables[0]), len(tables[1])), recipe)
        values = dict(ours.named_parameters())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name.endswith(_SKIPPED):
                    parameter.zero_().requires_grad_(False)
                else:
                    parameter.copy_(torch.from_numpy(values[self.names[name]].data.copy()).reshape(parameter.shape))
        self.optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], lr=recipe.lr)

    def update(self, batch: Any, lr: float) -> float:
        """Take a step on (x, target); return the loss."""
        (source, tokens), target = batch
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        logits = self.model(torch.from_numpy(source), torch.from_numpy(tokens))
        wanted = torch.from_numpy(np.ascontiguousarray(target)).reshape(-1)
        loss = F.cross_entropy(
            logits.reshape(len(wanted), -1), wanted, ignore_index=-1, label_smoothing=self.recipe.smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        return float(loss.detach())

    def difference(self, ours: Any, batch: Any) -> float:
        """Return the largest difference between both networks' logits of a batch's own tokens, in evaluation."""
        (source, tokens), target = batch
        ours.eval(), self.model.eval()
        with torch.no_grad():
            theirs = self.model(torch.from_numpy(source), torch.from_numpy(tokens)).numpy()
        apart = np.abs(ours((source, tokens)) - theirs)[np.asarray(target) >= 0].max()
        ours.train(), self.model.train()
        return float(apart)

    def give(self, ours: Any) -> None:
        """Put the values into our network."""
        values = dict(ours.named_parameters())
        for name, parameter in self.model.named_parameters():
            if name in self.names:
                own = values[self.names[name]].data
                own[...] = parameter.detach().numpy().reshape(own.shape)
