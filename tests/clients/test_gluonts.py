"""gluonts' DeepAR: a forecaster that Lightning trains, loads from its best checkpoint and samples step by step."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the clients: pip install --group clients")
pytest.importorskip("gluonts.torch", reason="needs the clients: pip install --group clients")

import fusedrnn.torch as ft  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, pandas and gluonts, of themselves


def test_deepar(twice):
    import lightning
    import pandas as pd
    from gluonts.dataset.common import ListDataset
    from gluonts.model.predictor import Predictor
    from gluonts.torch import DeepAREstimator

    wave = np.sin(np.arange(120) / 5)[None] + np.arange(3)[:, None]
    data = ListDataset([{"start": pd.Period("2020-01-01", "D"), "target": row} for row in wave], freq="D")

    class Losses(lightning.Callback):
        def __init__(self):
            self.of_steps = []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.of_steps.append(float(outputs["loss"]))

    def run(accelerated, folder):
        losses = Losses()
        np.random.seed(0)  # noqa: NPY002 - gluonts draws from it
        estimator = DeepAREstimator(
            "D", prediction_length=4, context_length=12, num_layers=2, hidden_size=12, num_feat_static_cat=0,
            batch_size=8, num_batches_per_epoch=5, num_parallel_samples=10,
            trainer_kwargs={"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
                            "enable_model_summary": False, "default_root_dir": str(folder), "callbacks": [losses]},
        )  # fmt: skip
        with ft.accelerating() if accelerated else contextlib.nullcontext():
            predictor = estimator.train(data)
        lstm = next(m for m in predictor.prediction_net.modules() if isinstance(m, torch.nn.LSTM))
        assert isinstance(lstm, ft.LSTM) == accelerated
        predictor.serialize(Path(folder))
        with ft.accelerating() if accelerated else contextlib.nullcontext():
            loaded = Predictor.deserialize(Path(folder), device="cpu")
        samples = []
        for each in (predictor, loaded):
            torch.manual_seed(0)
            samples.append(np.stack([forecast.samples for forecast in each.predict(data)]))
        np.testing.assert_array_equal(*samples)
        assert len(losses.of_steps) == 10
        return {**predictor.prediction_net.state_dict(), "losses": losses.of_steps, "samples": samples[0]}

    assert twice(run) > 10 * 2
