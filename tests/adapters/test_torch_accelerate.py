"""`accelerate` changes a model in place and says what it did; `restore` undoes it."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402
from fusedrnn.torch import calls  # noqa: E402

torch.set_num_threads(1)  # tests run side by side


class OwnLSTM(torch.nn.LSTM):
    """A subclass with code of its own."""

    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 6)
        self.encoder = torch.nn.GRU(6, 8, num_layers=2, dropout=0.5, bidirectional=True, batch_first=True)
        self.decoder = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(16, 5), "cell": torch.nn.LSTMCell(5, 4)})
        self.plain = torch.nn.RNN(5, 4)
        self.own = OwnLSTM(4, 3)
        self.cells = torch.nn.ModuleList([torch.nn.GRUCell(4, 3), torch.nn.RNNCell(3, 3)])

    def forward(self, tokens):
        x, _ = self.encoder(self.embedding(tokens))
        x, _ = self.decoder["lstm"](x.transpose(0, 1))
        z, _ = self.plain(x)
        h, _ = self.decoder["cell"](x[-1])
        return self.cells[1](self.cells[0](h + z[-1])).sum() + self.own(z)[0].sum()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def step(model, optimizer):
    torch.manual_seed(1)
    optimizer.zero_grad()
    loss = model(torch.arange(10).reshape(2, 5))
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_a_model_trains_on_as_before(model, monkeypatch):
    other = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9) for m in (model, other)]
    seen = []
    model.encoder.register_forward_hook(lambda *a: seen.append(a))
    assert step(model, optimizers[0]) == step(other, optimizers[1])
    before = {name: (id(module), [id(p) for p in module.parameters()]) for name, module in model.named_modules()}
    keys = list(model.state_dict())

    report = ft.accelerate(model)
    assert report.swapped == {
        "encoder": "GRU", "decoder.lstm": "LSTM", "decoder.cell": "LSTMCell", "plain": "RNN", "cells.0": "GRUCell",
        "cells.1": "RNNCell",
    }  # fmt: skip
    assert list(report.left) == ["own"]
    text = str(report)
    assert "now on fusedrnn's kernels: 6" in text
    assert "decoder.cell: LSTMCell" in text
    assert "OwnLSTM, whose own forward would be lost" in text
    after = {name: (id(module), [id(p) for p in module.parameters()]) for name, module in model.named_modules()}
    assert after == before
    assert list(model.state_dict()) == keys
    assert isinstance(model.encoder, torch.nn.GRU)

    counted = []
    forward = calls.forward
    monkeypatch.setattr(calls, "forward", lambda *a: counted.append(a) or forward(*a))
    seen.clear()
    for _ in range(3):
        assert step(model, optimizers[0]) == pytest.approx(step(other, optimizers[1]), rel=1e-5)
    assert len(seen) == 3
    assert len(counted) == 3 * (4 + 1 + 1 + 1 + 2)

    again = ft.accelerate(model)
    assert not again.swapped
    back = ft.restore(model)
    assert back.swapped == report.swapped
    assert all(type(m).__module__ != "fusedrnn.torch.modules" for m in model.modules())
    counted.clear()
    assert step(model, optimizers[0]) == pytest.approx(step(other, optimizers[1]), rel=1e-5)
    assert not counted


def test_a_model_that_is_a_layer():
    layer = torch.nn.LSTM(2, 3)
    assert "(the model): LSTM" in str(ft.accelerate(layer))
    assert isinstance(layer, ft.LSTM)
    assert {torch.nn.LSTM: 1}[type(layer)]


def test_parametrizations_are_kept():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(2, 3), "weight_hh_l0")
    twin = copy.deepcopy(layer)
    x = torch.randn(4, 1, 2)
    expected = layer(x)[0]
    assert ft.accelerate(layer).swapped == {"": "LSTM"}
    assert isinstance(layer, ft.LSTM)
    assert not isinstance(twin, ft.LSTM)
    torch.testing.assert_close(layer(x)[0], expected)
    layer(x)[0].sum().backward()
    assert layer.parametrizations.weight_hh_l0.original1.grad is not None
    ft.restore(layer)
    assert torch.equal(layer(x)[0], expected)
    ft.accelerate(layer)
    torch.nn.utils.parametrize.remove_parametrizations(layer, "weight_hh_l0")
    assert isinstance(layer, ft.LSTM)
    torch.testing.assert_close(layer(x)[0], expected)


def test_what_is_left_and_why():
    model = torch.nn.ModuleDict({
        "low": torch.nn.GRU(2, 3, dtype=torch.bfloat16),
        "nowhere": torch.nn.GRU(2, 3, device="meta"),
        "replaced": torch.nn.GRU(2, 3),
    })  # fmt: skip
    model["replaced"].forward = lambda x: x
    report = ft.accelerate(model)
    assert not report.swapped
    assert report.left == {
        "low": "its parameters are torch.bfloat16; the kernels take float32 and float64",
        "nowhere": "its parameters are on meta",
        "replaced": "its forward was replaced",
    }


class Parts(torch.nn.Module):
    """Calls with states and without, of layers and cells."""

    def __init__(self):
        super().__init__()
        self.gru = torch.nn.GRU(3, 4, num_layers=2)
        self.lstm = torch.nn.LSTM(4, 5, bidirectional=True)
        self.cell = torch.nn.LSTMCell(10, 4)
        self.last = torch.nn.GRUCell(4, 2)

    def forward(self, x, h0):
        y, _ = self.gru(x, h0)
        z, (h_n, c_n) = self.lstm(y)
        h, c = self.cell(z[0])
        return self.last(self.cell(z[1], (h, c))[0]) + h_n.sum() + c_n.sum()


class Uneven(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = ft.GRU(3, 4, layer_norm=True)

    def forward(self, x, lengths):
        return self.gru(x, lengths=lengths)[0]


def parts():
    torch.manual_seed(0)
    return Parts(), (torch.randn(5, 2, 3), torch.randn(2, 2, 4))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripts_hold_pytorchs_own_code(count_calls):
    model, inputs = parts()
    expected = model(*inputs)
    assert len(ft.accelerate(model).swapped) == 4
    with pytest.warns(UserWarning, match="this .* is PyTorch's own from now on") as warned:
        script = torch.jit.script(model)
    assert [w.category for w in warned].count(UserWarning) == 4
    assert torch.equal(script(*inputs), expected)
    assert not count_calls()
    assert len(ft.accelerate(model).swapped) == 4
    torch.testing.assert_close(model(*inputs), expected)
    with pytest.raises(TypeError, match="which this GRU cannot become: PyTorch's has none of its options"):
        torch.jit.script(ft.GRU(2, 3, zoneout_h=0.1))


def test_symbolic_traces_have_them_as_leaves(count_calls):
    model, inputs = parts()
    before = torch.fx.symbolic_trace(model)
    expected = model(*inputs)
    ft.accelerate(model)
    traced = torch.fx.symbolic_trace(model)
    assert str(traced.graph) == str(before.graph)
    torch.testing.assert_close(traced(*inputs), expected)
    assert count_calls() == 2 + 2 + 3
    model = Uneven()
    x, lengths = inputs[0], torch.tensor([2, 5])
    assert torch.equal(torch.fx.symbolic_trace(model)(x, lengths), model(x, lengths))


def test_errors():
    for function in (ft.accelerate, ft.restore):
        with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got dict"):
            function({})
