"""torch.compile and torch.export see one operator a layer and direction."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

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
    def __init__(self, name, package=ft, **options):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(3, 4)
        self.recurrent = getattr(package, name)(4, 5, **options)
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


def compare(model, compiled, x, module=None):
    results, parameters = [], list((module or model).parameters())
    for f in (model, compiled):
        outputs = f(x)
        results.append([*outputs, *torch.autograd.grad(sum(o.pow(2).sum() for o in outputs), parameters)])
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


def test_cells_of_a_compiled_loop_are_pytorchs(count_calls):
    """The compiler fuses their operators over the steps, which calls of ours would keep apart."""
    model, graphs = Steps(), []

    def backend(module, inputs):
        graphs.append(module.graph)
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    compiled(torch.randn(3, 2, 3))
    assert not nodes(graphs[0])
    assert count_calls() == 0
    compare(model, compiled, torch.randn(3, 2, 3))


class Tagger(torch.nn.Module):
    """Packed rows of many lengths, and cells in a loop that no graph holds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(9, 4)
        self.lstm = torch.nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)
        self.cell = torch.nn.GRUCell(10, 3)

    def forward(self, tokens, lengths):
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        y = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
        torch._dynamo.graph_break()
        state = None
        for step in y.unbind(1):
            state = self.cell(step, state)
        return state.sum()


def trained(model, compiled):
    """(losses, Dynamo's counts) of training over rows of 14 different lengths."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), []
    for T in range(2, 16):
        optimizer.zero_grad()
        loss = compiled(torch.arange(3 * T).reshape(3, T) % 9, torch.tensor([T, 1, T - 1]))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        with torch.no_grad():
            compiled(torch.zeros(2, T, dtype=torch.long), torch.tensor([T, T]))
    return torch.stack(losses), {name: dict(counters[name]) for name in ("frames", "graph_break")}


def test_our_own_python_is_not_compiled():
    """No frame, no graph break and no warning (they are errors here) more than with PyTorch's own layers."""
    import torch._dynamo

    found = {}
    for where in ("PyTorch's", "ours", "ours, uncompiled"):
        model = Tagger()
        if where != "PyTorch's":
            ft.accelerate(model)
        found[where] = trained(model, model if "un" in where else torch.compile(model, backend="aot_eager"))
    assert found["ours"][1] == found["PyTorch's"][1]
    assert found["PyTorch's"][1]["frames"]
    for losses, _ in found.values():
        torch.testing.assert_close(losses, found["PyTorch's"][0], rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", ["plain", "within a function"])
def test_without_the_setting_graphs_end_where_they_end_at_pytorchs_layers(kind):
    import torch._dynamo

    counts = []
    for accelerated in (False, True):
        torch._dynamo.reset()
        model = Model("GRU", package=torch.nn)
        if accelerated:
            ft.accelerate(model)
        function = model if kind == "plain" else lambda x, model=model: (model(x + 1)[0] + 1,)
        compare(function, torch.compile(function, backend="aot_eager"), torch.randn(6, 2, 3), model)
        explained = torch._dynamo.explain(function)(torch.randn(6, 2, 3))
        counts.append((explained.graph_count, explained.graph_break_count))
    assert counts[0] == counts[1]
    torch._dynamo.reset()


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
