"""Programs of torch.export go on to ONNX, and a saved one says what it needs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

# what PyTorch and its exporter say of themselves
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
PLAIN = {
    "gru": ("GRU", {"batch_first": True}),
    "lstm, two directions": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "rnn without biases": ("RNN", {"bias": False, "nonlinearity": "relu", "bidirectional": True}),
    "projected": ("LSTM", {"proj_size": 2}),
}
OWN = {
    "options": ("LSTM", {"layer_norm": True, "peephole": True, "zoneout_c": 0.1, "cell_clip": 0.3}),
    "reset before": ("GRU", {"reset_after": False, "activations": ("hard_sigmoid", "softsign"), "grad_clip": 1.0}),
}


def through_onnx(program, inputs, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install --group adapters")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "program.onnx"
    torch.onnx.export(program, inputs, path, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))


class Steps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = ft.LSTMCell(3, 4), ft.GRUCell(4, 2)

    def forward(self, x):
        h, c = self.first(x[0])
        h, c = self.first(x[1], (h, c))
        return self.second(h), c


class Uneven(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = ft.GRU(3, 4, bidirectional=True)

    def forward(self, x, lengths):
        return self.gru(x, lengths=lengths)


@pytest.mark.parametrize("case", [*PLAIN, *OWN])
def test_layers_go_on_to_onnx(case, tmp_path):
    torch.manual_seed(0)
    name, options = (PLAIN | OWN)[case]
    if case in PLAIN:
        model = torch.nn.Sequential(getattr(torch.nn, name)(3, 4, **options)).eval()
        ft.accelerate(model)
    else:
        model = torch.nn.Sequential(getattr(ft, name)(3, 4, **options)).eval()
    x = torch.randn(5, 2, 3)
    program = torch.export.export(model, (x,))
    assert any("fusedrnn" in str(node.target) for node in program.graph.nodes)
    y, final = model(x)
    expected = [y, *(final if isinstance(final, tuple) else [final])]
    for found, tensor in zip(through_onnx(program, (x,), tmp_path), expected, strict=True):
        np.testing.assert_allclose(found, tensor.detach(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("kind", ["cells", "lengths"])
def test_cells_and_uneven_rows_go_on_to_onnx(kind, tmp_path):
    torch.manual_seed(0)
    model, inputs = (Steps(), (torch.randn(2, 2, 3),)) if kind == "cells" else (
        Uneven(), (torch.randn(5, 3, 3), torch.tensor([2, 5, 1]))
    )  # fmt: skip
    program = torch.export.export(model.eval(), inputs)
    if kind == "lengths":
        inputs = (inputs[0], torch.tensor([5, 3, 4]))  # they are an input of the program, not a constant
    for found, expected in zip(through_onnx(program, inputs, tmp_path), model(*inputs), strict=True):
        np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=2e-6)


def test_many_rows_but_one_number_of_steps(tmp_path):
    model, x = torch.nn.Sequential(ft.GRU(3, 4)).eval(), torch.randn(5, 2, 3)
    rows = torch.export.Dim("N", min=2, max=99)
    program = torch.export.export(model, (x,), dynamic_shapes=({1: rows},))
    other = torch.randn(5, 7, 3)
    program.module()(other)
    decomposed = program.run_decompositions(dict(torch._decomp.decomposition_table))
    assert not any("fusedrnn" in str(node.target) for node in decomposed.graph.nodes)
    torch.testing.assert_close(decomposed.module()(other)[0], model(other)[0])
    steps = torch.export.Dim("T", min=2, max=99)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: steps},))
    torch.testing.assert_close(program.module()(other[:3, :2])[0], model(other[:3, :2])[0])
    with pytest.raises(Exception, match="expected a program with a fixed number of steps, got a dynamic one"):
        program.run_decompositions(dict(torch._decomp.decomposition_table))


def test_a_saved_program_says_what_to_import(tmp_path):
    model, x = torch.nn.Sequential(ft.LSTM(3, 4)).eval(), torch.ones(2, 2, 3)
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(model, (x,)), path)
    code = f"import torch; print(torch.export.load({str(path)!r}).module()(torch.ones(2, 2, 3))[0].sum().item())"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert alone.returncode != 0
    said = alone.stdout + alone.stderr
    assert "fusedrnn.lstm_forward" in said
    assert "import" in said
    beside = subprocess.run(
        [sys.executable, "-c", f"import fusedrnn.torch; {code}"], capture_output=True, text=True, check=True
    )
    assert float(beside.stdout) == pytest.approx(float(model(x)[0].sum()), rel=1e-5)
