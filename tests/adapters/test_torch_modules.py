"""What PyTorch does with modules works with ours: copies, files, hooks, parametrizations, other devices and dtypes."""

from __future__ import annotations

import copy
import io
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

NAMES = ["RNN", "LSTM", "GRU"]


@pytest.fixture(params=NAMES)
def layer(request):
    torch.manual_seed(0)
    return getattr(ft, request.param)(3, 4, num_layers=2, bidirectional=True)


def theirs_like(layer):
    """PyTorch's layer with the same parameters."""
    other = getattr(torch.nn, type(layer).__name__)(
        layer.input_size, layer.hidden_size, layer.num_layers, bidirectional=layer.bidirectional
    )
    other.load_state_dict(layer.state_dict())
    return other


def test_copies_and_files(layer):
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0]
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)]
    for other in copies:
        assert type(other) is type(layer)
        assert torch.equal(other(x)[0], expected)
        assert other.weight_hh_l0 is not layer.weight_hh_l0
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = theirs_like(layer)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh(x)[0], expected)
    layer.flatten_parameters()
    layer.share_memory()
    assert layer.weight_hh_l0.is_shared()
    assert torch.equal(layer(x)[0], expected)


def test_hooks(layer):
    seen = []
    layer.register_forward_pre_hook(lambda m, a: seen.append("before"))
    layer.register_forward_hook(lambda m, a, out: seen.append("after"))
    layer.register_full_backward_hook(lambda m, din, dout: seen.append("backward"))
    layer.weight_hh_l0.register_hook(lambda grad: seen.append("weight") or 2 * grad)
    x = torch.randn(5, 2, 3, requires_grad=True)
    layer(x)[0].sum().backward()
    assert seen.count("before") == seen.count("after") == seen.count("backward") == seen.count("weight") == 1
    other = theirs_like(layer)
    other(x)[0].sum().backward()
    torch.testing.assert_close(layer.weight_hh_l0.grad, 2 * other.weight_hh_l0.grad)


@pytest.mark.parametrize("old", [False, True], ids=["parametrization", "hook"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
def test_weight_norm(layer, old, count_calls):
    other = theirs_like(layer)
    norm = torch.nn.utils.weight_norm if old else torch.nn.utils.parametrizations.weight_norm
    results = []
    x = torch.randn(5, 2, 3)
    for module in (norm(layer, "weight_hh_l1"), norm(other, "weight_hh_l1")):
        y, _ = module(x)
        results.append([y, *torch.autograd.grad(y.pow(2).sum(), list(module.parameters()))])
    assert count_calls() == 4
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_tied_and_replaced_parameters(layer):
    layer.weight_hh_l0_reverse = layer.weight_hh_l0
    other = theirs_like(layer)
    other.weight_hh_l0_reverse = other.weight_hh_l0
    x = torch.randn(5, 2, 3)
    for module in (layer, other):
        module(x)[0].sum().backward()
    torch.testing.assert_close(layer.weight_hh_l0.grad, other.weight_hh_l0.grad, rtol=1e-4, atol=1e-5)


def test_training_lowers_the_loss_as_pytorchs_does(layer):
    other = theirs_like(layer)
    x = torch.randn(6, 8, 3)
    losses = []
    for module in (layer, other):
        parameters = list(module.parameters())
        for _ in range(20):
            loss = (module(x)[0] - 0.3).pow(2).mean()
            with torch.no_grad():
                for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter -= 0.5 * gradient
            losses.append(float(loss.detach()))
    assert losses[19] < 0.7 * losses[0]
    assert losses[:20] == pytest.approx(losses[20:], rel=1e-4)


def test_lengths(layer, count_calls):
    lengths = [2, 5, 0, 3]
    x = torch.randn(5, 4, 3)
    y, state = layer(x, lengths=torch.tensor(lengths, dtype=torch.int32))
    h_n = state[0] if isinstance(state, tuple) else state
    for n, length in enumerate(lengths):
        assert not y[length:, n].any()
        if length:
            own, own_state = layer(x[:length, n])
            torch.testing.assert_close(y[:length, n], own)
            torch.testing.assert_close(h_n[:, n], own_state[0] if isinstance(state, tuple) else own_state)
        else:
            assert not h_n[:, n].any()
    layer.batch_first = True
    assert torch.equal(layer(x.transpose(0, 1), lengths=lengths)[0].transpose(0, 1), y)
    assert count_calls()


def test_resets():
    torch.manual_seed(0)
    for name in NAMES:
        layer = getattr(ft, name)(3, 4)
        x = torch.randn(6, 2, 3)
        resets = torch.zeros(6, 2, dtype=torch.bool)
        resets[4, 1] = True
        y, _ = layer(x, resets=resets)
        assert torch.equal(y[:, 0], layer(x)[0][:, 0])
        assert torch.equal(y[4:, 1], layer(x[4:])[0][:, 1])
        assert torch.equal(layer(x[:, 1], resets=resets[:, 1])[0], y[:, 1])
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, [6, 6])
        assert torch.equal(layer(packed, resets=resets.flatten())[0].data, y.flatten(0, 1))
        layer.batch_first = True  # the resets lie as x does, but for one row alone and for packed rows
        assert torch.equal(layer(x.transpose(0, 1), resets=resets.transpose(0, 1))[0].transpose(0, 1), y)
        assert torch.equal(layer(x[:, 1], resets=resets[:, 1])[0], y[:, 1])
        assert torch.equal(layer(packed, resets=resets.flatten())[0].data, y.flatten(0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_between_layers_is_for_training_alone(name):
    torch.manual_seed(0)
    layer, x = getattr(ft, name)(3, 4, num_layers=2, dropout=0.5), torch.randn(5, 2, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    without = getattr(ft, name)(3, 4, num_layers=2).eval()
    without.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], without(x)[0])


def test_errors_of_lengths_and_resets():
    layer, x = ft.GRU(3, 4), torch.randn(5, 2, 3)
    for lengths, error, message in (
        ([1.5, 2.0], TypeError, "lengths: expected integers, got torch.float32"),
        ([1, 6], ValueError, "lengths: expected numbers from 0 to 5, got 6"),
        ([1], ValueError, r"lengths: expected shape \(2,\)"),
    ):
        with pytest.raises(error, match=message):
            layer(x, lengths=lengths)
    with pytest.raises(TypeError, match="resets: expected booleans"):
        layer(x, resets=torch.zeros(5, 2))
    with pytest.raises(ValueError, match="resets: expected shape"):
        layer(x, resets=torch.zeros(5, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="beside a PackedSequence"):
        layer(torch.nn.utils.rnn.pack_padded_sequence(x, [5, 5]), lengths=[5, 5])
    with pytest.raises(ValueError, match=r"lengths: PyTorch's own layers have none.*torch.bfloat16"):
        layer.bfloat16()(x.bfloat16(), lengths=[5, 5])


def test_other_dtypes_and_devices_are_pytorchs(layer, count_calls):
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0]
    before = count_calls()
    with pytest.warns(ft.FallbackWarning, match=r"torch.bfloat16 \(float32 and float64 they do\): not taken"):
        y, _ = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    assert y.dtype is torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.05)
    y, _ = copy.deepcopy(layer).to("meta")(x.to("meta"))
    assert y.device.type == "meta"
    assert y.shape == expected.shape
    assert count_calls() == before


def test_per_sample_gradients_of_expanded_weights():
    """Parameters of a type that answers to PyTorch's own call alone."""
    from torch.nn.utils._per_sample_grad import call_for_per_sample_grads

    layer = ft.GRU(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    with pytest.warns(ft.FallbackWarning, match="GRU: tensors of type ExpandedWeight: not taken"):
        call_for_per_sample_grads(torch.nn.Sequential(layer, First()), batch_size=2)(x).sum().backward()
    for k in range(2):
        (expected,) = torch.autograd.grad(layer(x[k])[0].sum(), layer.weight_hh_l0)
        torch.testing.assert_close(layer.weight_hh_l0.grad_sample[k], expected)


class First(torch.nn.Module):
    def forward(self, outputs):
        return outputs[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit is on its way out
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces_hold_pytorchs_operators(layer, count_calls):
    traced = torch.jit.trace(layer, (torch.zeros(5, 2, 3),), check_trace=False)
    assert count_calls() == 0
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(traced(x)[0], layer(x)[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:Exporting a model to ONNX:UserWarning")  # of the number of rows
def test_exports_to_onnx_hold_pytorchs_operators(layer, count_calls):
    """A layer as it is, whose export hands over the defaults of all arguments."""
    pytest.importorskip("onnx", reason="exports need onnx")
    file = io.BytesIO()
    torch.onnx.export(layer, (torch.zeros(5, 2, 3),), file, dynamo=False)
    assert count_calls() == 0
    assert type(layer).__name__.encode() in file.getvalue()


def test_views_and_odd_memory(layer):
    base = torch.randn(5, 3, 7)
    x = base.transpose(1, 2)[:, 1:3]
    assert not x.is_contiguous()
    torch.testing.assert_close(layer(x)[0], layer(x.contiguous())[0], rtol=0, atol=0)
    rows = torch.randn(1, 1, 3).expand(5, 2, 3)
    torch.testing.assert_close(layer(rows)[0], layer(rows.contiguous())[0], rtol=0, atol=0)


def test_results_are_the_functions(layer):
    """To the bit, by the same kernels."""
    x = torch.randn(5, 2, 3)
    module = getattr(fusedrnn.nn, type(layer).__name__)(3, 4, num_layers=2, bidirectional=True)
    module.load_state_dict({k: v.numpy() for k, v in layer.state_dict().items()})
    y, _ = module(x.numpy())
    assert torch.equal(torch.from_numpy(y), layer(x)[0])


def test_outputs_share_no_memory():
    layer = ft.LSTM(3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    y, (h_n, c_n) = layer(x)
    gradients = torch.autograd.grad(y.sum() + h_n.sum() + c_n.sum(), [x, *layer.parameters()])
    tensors = [x, y, h_n, c_n, *layer.parameters(), *gradients]
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)


def test_only_the_adapter_imports_pytorch():
    code = "import sys, fusedrnn, fusedrnn.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pages_examples_run(capsys):
    page = (Path(__file__).parents[2] / "docs/pytorch.md").read_text()
    variables: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/pytorch.md", "exec"), variables)
    assert capsys.readouterr().out.strip() in page
    assert not variables["y"].isnan().any()
