"""torch.compile and torch.export see one operator a layer and direction."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

# what PyTorch and its dependencies say of themselves while compiling
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
    pytest.mark.filterwarnings("ignore:Skipping serialization:UserWarning"),
]


class Model(torch.nn.Module):
    def __init__(self, name, **options):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(3, 4)
        self.recurrent = getattr(ft, name)(4, 5, **options)
        self.last = torch.nn.Linear(5 * (2 if self.recurrent.bidirectional else 1), 2)

    def forward(self, x):
        y, state = self.recurrent(self.first(x))
        return self.last(y).sum(0), state[0] if isinstance(state, tuple) else state


class Steps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.gru, self.rnn = ft.LSTMCell(3, 4), ft.GRUCell(4, 4), ft.RNNCell(4, 4)

    def forward(self, x):
        hx = None
        for step in x:
            hx = self.lstm(step, hx)
        return (self.rnn(self.gru(hx[0])),)


@pytest.fixture
def allow_rnn():
    """Dynamo stops at every RNN, LSTM and GRU, subclasses too, unless told that they may be traced."""
    import torch._dynamo

    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield
    torch._dynamo.reset()


def nodes(graph):
    return [str(node.target).removesuffix(".default") for node in graph.nodes if "fusedrnn" in str(node.target)]


def compare(model, compiled, x):
    results = []
    for f in (model, compiled):
        outputs = f(x)
        results.append([*outputs, *torch.autograd.grad(sum(o.pow(2).sum() for o in outputs), list(model.parameters()))])
        with torch.no_grad():
            results[-1] += f(x)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_one_node_without_a_graph_break(name, allow_rnn):
    model, graphs = Model(name, num_layers=2, bidirectional=True), []

    def backend(module, inputs):
        graphs.append(module.graph)
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    compare(model, torch.compile(model, backend=backend, fullgraph=True), torch.randn(6, 2, 3))
    assert nodes(graphs[0]) == [f"fusedrnn.{name.lower()}_forward"] * 4


def test_cells(allow_rnn):
    model = Steps()
    compare(model, torch.compile(model, backend="aot_eager", fullgraph=True), torch.randn(3, 2, 3))


def test_without_the_setting_the_layer_runs_between_two_graphs():
    import torch._dynamo

    torch._dynamo.reset()
    model = Model("GRU")
    compare(model, torch.compile(model, backend="aot_eager"), torch.randn(6, 2, 3))
    assert torch._dynamo.explain(model)(torch.randn(6, 2, 3)).graph_break_count == 1


def test_the_setting_is_for_the_call_that_compiles():
    import torch._dynamo

    torch._dynamo.reset()
    model, x = Model("GRU"), torch.randn(6, 2, 3)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="RNN, GRU"):
        compiled(x)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled(x)
    torch.testing.assert_close(compiled(x), model(x))


def test_packed_sequences(allow_rnn):
    layer = ft.LSTM(3, 4, bidirectional=True)
    packed = torch.nn.utils.rnn.pack_sequence([torch.randn(n, 3) for n in (2, 5, 3)], enforce_sorted=False)
    state = torch.randn(2, 2, 3, 4)

    def run(packed, state):
        return layer(packed, (state[0], state[1]))[0].data

    torch.testing.assert_close(torch.compile(run, backend="aot_eager")(packed, state), run(packed, state))
    torch.testing.assert_close(
        torch.compile(lambda p: layer(p)[0].data, backend="aot_eager")(packed), layer(packed)[0].data
    )


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    model, x = Model("LSTM", batch_first=False), torch.randn(6, 2, 3)
    dynamic = ({0: torch.export.Dim("T", min=2, max=99), 1: torch.export.Dim("N", min=2, max=99)},)
    program = torch.export.export(model, (x,), dynamic_shapes=dynamic, strict=strict)
    assert nodes(program.graph) == ["fusedrnn.lstm_forward"]
    other = torch.randn(9, 5, 3)
    for a, b in zip(program.module()(other), model(other), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("strict", [False, True])
def test_export_of_cells(strict):
    model, x = Steps(), torch.randn(3, 2, 3)
    program = torch.export.export(model, (x,), strict=strict)
    assert nodes(program.graph) == ["fusedrnn.lstm_forward"] * 3 + ["fusedrnn.gru_forward", "fusedrnn.rnn_forward"]
    torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.slow  # compiles C++
def test_inductor(allow_rnn):
    for name in ("RNN", "LSTM", "GRU"):
        model = Model(name, num_layers=2)
        compare(model, torch.compile(model, fullgraph=True), torch.randn(6, 2, 3))
