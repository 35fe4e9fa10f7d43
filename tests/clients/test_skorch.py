"""skorch's NeuralNetClassifier: scikit-learn's manners around a module that it builds, clones and loads."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the clients: pip install --group clients")
skorch = pytest.importorskip("skorch", reason="needs the clients: pip install --group clients")

import fusedrnn.torch as ft  # noqa: E402


class Classifier(torch.nn.Module):
    def __init__(self, units=8):
        super().__init__()
        self.gru = torch.nn.GRU(3, units, num_layers=2, batch_first=True, dropout=0.2)
        self.head = torch.nn.Linear(units, 2)

    def forward(self, x):
        return torch.softmax(self.head(self.gru(x)[0][:, -1]), -1)


def test_classifier(twice):
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    x = np.random.default_rng(0).standard_normal((40, 6, 3)).astype(np.float32)
    labels = (x[:, :, 0].sum(1) > 0).astype(np.int64)

    def run(accelerated, folder):
        net = skorch.NeuralNetClassifier(
            Classifier, max_epochs=2, batch_size=8, lr=0.1, train_split=None, iterator_train__shuffle=True, verbose=0
        )
        with ft.accelerating() if accelerated else contextlib.nullcontext():
            net.fit(x, labels)
            torch.manual_seed(0)
            scores = cross_val_score(clone(net), x, labels, cv=2)
            loaded = clone(net).initialize()
        assert isinstance(net.module_.gru, ft.GRU) == accelerated
        net.save_params(folder / "net.safetensors", use_safetensors=True)
        loaded.load_params(folder / "net.safetensors", use_safetensors=True)
        probabilities = loaded.predict_proba(x)
        np.testing.assert_array_equal(probabilities, net.predict_proba(x))
        losses = [batch["train_loss"] for epoch in net.history for batch in epoch["batches"]]
        assert len(losses) == 10
        return {"losses": losses, "probabilities": probabilities, "scores": scores}

    assert twice(run) > 2 * 10
