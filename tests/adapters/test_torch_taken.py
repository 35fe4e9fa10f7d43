"""`accelerate` and `accelerating` take layers, leave others and say so; other libraries see PyTorch's classes."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side
nn = torch.nn


class Named(nn.LSTM):
    """Another constructor and initial values; PyTorch's forward."""

    def __init__(self, size, *, scale=1.0):
        super().__init__(size, 2 * size, batch_first=True)
        self.scale = scale

    def reset_parameters(self):
        super().reset_parameters()
        self.was_reset = True


class NamedCell(nn.GRUCell):
    def __init__(self, title, size, hidden_size):
        super().__init__(size, hidden_size)
        self.title = title


class Checked(nn.GRU):
    """Overrides what forward calls."""

    def check_forward_args(self, *arguments):
        super().check_forward_args(*arguments)


class Scaled(nn.RNNCell):
    def forward(self, input, hx=None):
        return 2 * super().forward(input, hx)


class Model(nn.Module):
    def __init__(self, size=4):
        super().__init__()
        self.named, self.cell, self.gru = Named(size), NamedCell("first", 2 * size, 3), nn.GRU(3, 3)

    def forward(self, x):
        return self.gru(self.cell(self.named(x)[0][:, -1])[None])[0]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


X = torch.linspace(-1, 1, 40).reshape(2, 5, 4)


def test_subclasses_that_inherit_forward(model, count_calls):
    expected = model(X)
    assert ft.accelerate(model).swapped == {"named": "Named", "cell": "NamedCell", "gru": "GRU"}
    torch.testing.assert_close(model(X), expected)
    assert count_calls() == 3
    assert isinstance(model.named, Named)
    assert isinstance(model.named, ft.LSTM)
    assert repr(model.named) == "Named(4, 8, batch_first=True)"
    again = type(model.named)(3, scale=2.0)  # as a library builds one like it
    assert isinstance(again, ft.LSTM)
    assert again.scale == 2
    assert again.was_reset
    other = type(model.cell)("second", 3, 4)
    assert (other.title, other.hidden_size) == ("second", 4)
    assert ft.restore(model).swapped == {"named": "Named", "cell": "NamedCell", "gru": "GRU"}
    assert (type(model.named), type(model.cell), type(model.gru)) == (Named, NamedCell, nn.GRU)
    assert type(model.named) is Named
    assert torch.equal(model(X), expected)


def test_subclasses_with_code_of_their_own_are_left():
    report = ft.accelerate(nn.ModuleDict({"checked": Checked(2, 3), "scaled": Scaled(2, 3)}))
    assert not report.swapped
    assert report.left["checked"].endswith("Checked, whose own check_forward_args would be lost")
    assert report.left["scaled"].endswith("Scaled, whose own forward would be lost")


def test_copies_and_pickles_stay_accelerated(model):
    ft.accelerate(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert isinstance(other.named, ft.LSTM)
        assert isinstance(other.gru, ft.GRU)
        assert other.named.scale == 1
        assert torch.equal(other(X), model(X))


def test_tables_by_type_know_a_layer():
    layer = nn.LSTM(3, 4)
    ft.accelerate(layer)
    kind = type(layer)
    assert kind is not nn.LSTM
    assert kind in {nn.LSTM}
    assert {nn.LSTM: "a row"}[kind] == "a row"
    assert kind not in {nn.GRU, ft.LSTM, nn.RNNBase}
    assert type(copy.deepcopy(layer)) is kind
    own = ft.LSTM(3, 4, layer_norm=True)  # not PyTorch's: what knows PyTorch's would drop its options
    assert type(own) not in {nn.LSTM}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell"])
def test_dynamic_quantization_sees_what_it_should(name):
    torch.manual_seed(0)
    plain = nn.Sequential(getattr(nn, name)(4, 8))
    ours = copy.deepcopy(plain)
    ft.accelerate(ours)
    x = torch.randn(5, 2, 4) if name in ("LSTM", "GRU") else torch.randn(2, 4)
    found = []
    for model in (plain, ours):
        quantized = torch.ao.quantization.quantize_dynamic(model, {getattr(nn, name)})
        assert "quantized" in type(quantized[0]).__module__
        result = quantized(x)
        found.append(result[0] if isinstance(result, tuple) else result)
        assert ft.accelerate(quantized).left["0"].endswith(f".{name} is one of PyTorch's quantization")
    assert torch.equal(*found)
    assert isinstance(ours[0], getattr(ft, name))


class LiGRU(nn.Module):
    """A recurrence that the kernels do not know, by its name."""

    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Linear(3, 8), nn.Linear(4, 8)


class Memorizing(nn.Module):
    """By what its forward takes."""

    def __init__(self):
        super().__init__()
        self.w = nn.Linear(3, 3)

    def forward(self, x, hidden):
        return torch.tanh(self.w(x) + hidden)


class Wrapper(nn.Module):
    """Holds a layer that is taken: nothing to say of itself."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(3, 3)

    def forward(self, x, hidden):
        return self.rnn(x, hidden)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # PyTorch's, of the export of its own layer
def test_everything_recurrent_that_is_left_is_told():
    traced = torch.fx.GraphModule(nn.Module(), torch.fx.Graph())
    with torch.no_grad():
        program = torch.export.export(nn.Sequential(nn.GRU(3, 4)), (torch.ones(2, 1, 3),))
    report = ft.accelerate(
        nn.ModuleDict(
            {
                "own": LiGRU(),
                "stateful": Memorizing(),
                "wrapper": Wrapper(),
                "scripted": torch.jit.script(nn.Sequential(nn.LSTM(3, 4))),
                "scripted_cell": torch.jit.script(nn.LSTMCell(3, 4)),
                "scripted_other": torch.jit.script(nn.Sequential(nn.Linear(3, 4))),
                "graph": program.module(),
                "empty_graph": traced,
                "quantizable": torch.ao.nn.quantizable.LSTM(3, 4),
                "attention": nn.MultiheadAttention(4, 2),
                "transformer": nn.TransformerEncoderLayer(8, 2, 16),
                "convolution": nn.Conv1d(3, 4, 1),
                "scan": ft.Scan(*__import__("fusedrnn").cells.JANET(3, 4)),
            }
        )
    )
    assert report.swapped == {"wrapper.rnn": "RNN"}
    assert list(report.left) == ["own", "stateful", "scripted", "scripted_cell", "graph", "quantizable"]
    assert "LiGRU looks like a recurrence of its own; fusedrnn.torch.Scan runs" in report.left["own"]
    assert "Memorizing looks like a recurrence" in report.left["stateful"]
    assert report.left["scripted"] == "it is compiled by torch.jit, which calls PyTorch's lstm itself"
    assert "calls PyTorch's lstm_cell itself" in report.left["scripted_cell"]
    assert report.left["graph"] == "it is a graph of torch.fx, which calls PyTorch's gru itself"
    assert "left as they are: 6" in str(report)


def test_layers_that_a_library_builds(model, count_calls):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    with ft.accelerating() as report:
        built = Model()
        loaded = torch.load(file, weights_only=False)
        copied = copy.deepcopy(model)
        left = Checked(2, 3)
    for other in (built, loaded, copied):
        assert isinstance(other.named, ft.LSTM)
        assert isinstance(other.cell, ft.GRUCell)
    assert torch.equal(loaded(X), copied(X))
    torch.testing.assert_close(loaded(X), model(X))
    assert count_calls() == 9
    assert list(report.swapped.values()) == ["Named", "NamedCell", "GRU"] * 3
    assert "check_forward_args" in report.left["9"]
    assert str(report).startswith("built on fusedrnn's kernels: 9\n  0: Named")
    others = (*model.modules(), *Model().modules(), left)
    assert not any(isinstance(part, (ft.LSTM, ft.GRU, ft.GRUCell)) for part in others)
    assert "__setstate__" not in vars(nn.RNNCellBase)
    assert nn.RNNBase.__init__.__module__ == "torch.nn.modules.rnn"


def test_another_library_puts_its_own_around_ours():
    base = nn.RNNBase
    first = base.__init__
    with ft.accelerating():
        assert base.__init__ is not first
    assert base.__init__ is first
    with ft.accelerating():
        inner = base.__init__
        base.__init__ = lambda self, *a, **k: inner(self, *a, **k)
        theirs = base.__init__
    try:
        assert base.__init__ is theirs
        assert not isinstance(nn.GRU(2, 3), ft.GRU)
        with ft.accelerating() as report:
            assert isinstance(nn.GRU(2, 3), ft.GRU)
        assert len(report.swapped) == 1
        assert base.__init__ is theirs
    finally:
        base.__init__ = first


def test_accelerating_in_each_other_and_as_a_decorator():
    @ft.accelerating()
    def build():
        return nn.GRU(2, 3)

    with ft.accelerating() as outer:
        with ft.accelerating() as inner:
            nn.LSTM(2, 3)
        assert isinstance(build(), ft.GRU)
        threads = [threading.Thread(target=nn.RNNCell, args=(2, 3)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert list(inner.swapped.values()) == ["LSTM"]
    assert list(outer.swapped.values()) == ["LSTM", "GRU"] + ["RNNCell"] * 3
    assert isinstance(build(), ft.GRU)
    assert type(nn.GRU(2, 3)) is nn.GRU
    with pytest.raises(ZeroDivisionError), ft.accelerating():
        raise ZeroDivisionError
    assert type(nn.GRU(2, 3)) is nn.GRU


class Series(torch.Tensor):
    """Libraries for time series have such tensors."""


@pytest.mark.parametrize("name", ["GRU", "GRUCell"])
def test_what_falls_back_is_told_once_and_counted(name):
    layer = nn.Sequential(getattr(nn, name)(3, 4))
    ft.accelerate(layer)
    x = torch.ones(2, 3) if name == "GRUCell" else torch.ones(5, 2, 3)
    with pytest.warns(ft.FallbackWarning, match=f"{name}: tensors of type Series: not taken by") as told:
        layer(x.as_subclass(Series))
    assert told[0].filename == __file__
    layer(x.as_subclass(Series))  # and not again: warnings are errors here
    layer(x)
    with pytest.warns(ft.FallbackWarning, match=f"{name}: torch.bfloat16"):
        copy.deepcopy(layer).bfloat16()(x.bfloat16())
    with warnings.catch_warnings(), pytest.raises((RuntimeError, ValueError)):
        layer(x.double())  # PyTorch's error
    assert dict(ft.fallbacks) == {f"{name}: tensors of type Series": 2,
                                  f"{name}: torch.bfloat16 (float32 and float64 they do)": 1}  # fmt: skip


def test_what_runs_step_by_step_is_counted():
    cell = ft.GRUCell(3, 4)
    torch.func.jvp(cell, (torch.ones(2, 3),), (torch.ones(2, 3),))
    assert dict(ft.fallbacks) == {"GRU: forward mode and transforms of torch.func, step by step": 1}


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
def test_flat_weights_that_a_client_sets(name, bias):
    """PyTorch's layers compute with that list: hyper-networks, meta-learning and noise on weights set it."""
    found = []
    for accelerated in (False, True):
        torch.manual_seed(0)
        layer = getattr(nn, name)(3, 4, 2, bias=bias, bidirectional=True)
        if accelerated:
            ft.accelerate(layer)
        x, scale = torch.ones(5, 2, 3), torch.tensor(0.5, requires_grad=True)
        layer(x)
        own = list(layer._flat_weights)
        layer._flat_weights = [w.detach() * scale for w in own]
        y = layer(x)[0]
        found.append([y, *torch.autograd.grad(y.sum(), scale)])
        layer._flat_weights = own
        layer.weight_hh_l0 = nn.Parameter(layer.weight_hh_l0.detach() / 2)
        found[-1].append(layer(x)[0])
        values = {key: value.detach() / 3 for key, value in layer.named_parameters()}
        found[-1].append(torch.func.functional_call(layer, values, (x,))[0])
        found[-1].append(layer(x)[0])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["spectral_norm", "weight_norm", "old spectral_norm"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm:FutureWarning")
def test_parametrizations_with_a_state_of_their_own(name, kind):
    """spectral_norm goes a step further at each look at a weight, so ours are as many as PyTorch's."""
    normed = nn.utils.spectral_norm if kind.startswith("old") else getattr(nn.utils.parametrizations, kind)
    found = []
    for accelerated in (False, True):
        torch.manual_seed(0)
        module = getattr(nn, name)(3, 4, dtype=torch.float64)
        suffix = "" if "Cell" in name else "_l0"
        for weight in ("weight_hh", "weight_ih"):
            normed(module, weight + suffix)
        if accelerated:
            assert ft.accelerate(module).swapped
        optimizer = torch.optim.SGD(module.parameters(), 0.05)
        x, losses = torch.randn(5, 2, 3, dtype=torch.float64), []
        for _ in range(4):
            optimizer.zero_grad()
            out = module(x[0] if "Cell" in name else x)
            loss = (out[0] if isinstance(out, tuple) else out).square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        found.append(torch.stack(losses))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
