"""Pictures: what they show, asked of the figure before it is written."""

from __future__ import annotations

import numpy as np
import pytest

from fusedrnn.plots import pictures


@pytest.fixture
def shown(monkeypatch):
    """The figures that were saved."""
    figures, save = [], pictures.save_figure
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: figures.append(figure) or save(figure, path))
    return figures


def record(step, loss, **metrics):
    return {"epoch": step, "step": step, "seconds": 0.1, "loss": loss, "lr": 0.01, **metrics}


def test_the_loss_and_every_metric_have_an_axis(tmp_path, shown):
    """A metric that few records have is drawn where it is."""
    history = [record(1, 2.0), record(2, 1.0, error=0.5, rate=3.0), record(3, 0.5), record(4, 0.25, error=0.25)]
    pictures.draw_loss(tmp_path / "loss.png", history, "a run")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    loss, error, rate = shown[0].axes
    assert [axis.get_ylabel() for axis in (loss, error, rate)] == ["training loss", "error", "rate"]
    assert (loss.get_title(), loss.get_yscale(), rate.get_xlabel()) == ("a run", "log", "updates")
    lines = [[list(map(float, part)) for part in axis.lines[0].get_data()] for axis in (loss, error, rate)]
    assert lines == [[[1, 2, 3, 4], [2, 1, 0.5, 0.25]], [[2, 4], [0.5, 0.25]], [[2], [3]]]


def test_a_loss_below_zero_is_drawn_without_a_logarithm(tmp_path, shown):
    pictures.draw_loss(tmp_path / "loss.png", [record(1, 2.0), record(2, -1.0)], "density")
    assert [axis.get_yscale() for axis in shown[0].axes] == ["linear"]


def test_dollars_in_names_are_no_mathematics(tmp_path):
    times, forecasts = np.arange(6.0), np.zeros((2, 3, 3))
    name = "cost_$ / price_$"
    pictures.draw_forecast(tmp_path / "f.png", times, times, times.reshape(2, 3), forecasts, name, f"a.csv, {name}")
    assert (tmp_path / "f.png").stat().st_size > 5_000


def test_a_class_without_examples_has_no_errors():
    counts = np.array([[0, 0, 0], [1, 3, 0], [0, 0, 2]])
    assert pictures.wrong_share(counts).tolist() == [0, 0.25, 0]
