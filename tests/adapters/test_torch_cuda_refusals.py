"""What the layers of PyTorch refuse on a GPU, and leave to PyTorch, with words for it."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn  # noqa: E402
import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("LSTM", "layer_norm", True), ("LSTM", "peephole", True), ("LSTM", "coupled", True), ("LSTM", "cell_clip", 1.0),
     ("LSTM", "activations", ("sigmoid", "relu", "tanh")), ("GRU", "zoneout_h", 0.1), ("GRU", "reset_after", False),
     ("GRU", "recurrent_dropout", 0.1), ("RNN", "dropconnect", 0.1), ("RNN", "nonlinearity", "softsign"),
     ("RNN", "grad_clip", 1.0)],
)  # fmt: skip
def test_an_option_that_a_gpu_has_not_is_refused_by_name(name, option, value, emulated_gpu):
    layer = getattr(ft, name)(5, 17, **{option: value})
    with emulated_gpu(), pytest.raises(ValueError, match=f"^{option}: .* do not take {option} on a GPU"):
        layer(torch.randn(4, 3, 5))


def test_resets_are_refused(emulated_gpu):
    with emulated_gpu(), pytest.raises(ValueError, match=r"^resets: "):
        ft.GRU(5, 17)(torch.randn(4, 3, 5), resets=torch.zeros(4, 3, dtype=torch.bool))


@pytest.mark.parametrize("lengths", [[1, 2], [1, 2, 5]])
def test_wrong_lengths(lengths, emulated_gpu):
    with emulated_gpu(), pytest.raises(ValueError, match=r"^lengths: "):
        ft.GRU(5, 17)(torch.randn(4, 3, 5), lengths=lengths)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.filterwarnings("ignore:.* on a GPU")
def test_what_the_kernels_do_not_take_is_pytorchs_own(emulated_gpu, gpu_calls):
    with emulated_gpu():
        ft.LSTM(5, 17).double()(torch.randn(4, 3, 5, dtype=torch.float64))
        ft.LSTM(5, 17, proj_size=3)(torch.randn(4, 3, 5))
        ft.GRUCell(5, 17).double()(torch.randn(3, 5, dtype=torch.float64))
        assert dict(ft.fallbacks) == {
            "LSTM: torch.float64 on a GPU (float32, bfloat16 and float16 they do)": 1,
            "LSTM: proj_size on a GPU yet": 1,
            "GRUCell: torch.float64 on a GPU (float32, bfloat16 and float16 they do)": 1,
        }
        with pytest.raises(ValueError, match=re.escape("lengths: PyTorch's own layers have none")):
            ft.LSTM(5, 17).double()(torch.randn(4, 3, 5, dtype=torch.float64), lengths=[1, 2, 3])
    assert gpu_calls() == 0


def test_what_is_missing_is_said_where_a_layer_goes_to_pytorch(emulated_gpu, gpu_calls, monkeypatch):
    from fusedrnn.cuda import compiled

    monkeypatch.setattr(compiled, "missing", lambda: "no NVIDIA driver is installed")
    layer = ft.LSTM(5, 17)
    with (
        emulated_gpu(),
        pytest.warns(ft.FallbackWarning, match="LSTM: tensors on cpu: no NVIDIA driver is installed: not taken"),
    ):
        layer(torch.randn(4, 3, 5))
    assert gpu_calls() == 0
    with emulated_gpu():
        report = ft.accelerate(torch.nn.LSTM(5, 17))
    assert "no NVIDIA driver" in report.left[""]


def test_accelerate_takes_layers_on_a_gpu(emulated_gpu):
    model = torch.nn.ModuleList(
        [torch.nn.LSTM(5, 17).to(torch.bfloat16), torch.nn.GRU(5, 17).double(), torch.nn.GRUCell(5, 17)]
    )
    with emulated_gpu():
        report = ft.accelerate(model)
    assert list(report.swapped) == ["0", "2"]
    assert report.left["1"].endswith("the kernels take float32, bfloat16 and float16 on a GPU")


def test_tensors_that_record_gradients_are_refused_by_functional(emulated_gpu):
    """As on the CPU: no gradient would go by way of it."""
    weights = [p.detach() for p in torch.nn.GRU(5, 17).parameters()]
    weights[1].requires_grad_()
    with emulated_gpu(), pytest.raises(TypeError, match=r"^weight_hh: .* no gradients; use tensor.detach\(\)"):
        fusedrnn.gru_forward(torch.randn(4, 3, 5), None, *weights)


def test_what_the_kernels_do_not_take_is_said(emulated_gpu, monkeypatch):
    from fusedrnn.cuda import arrays
    from fusedrnn.torch.support import refusal

    x = torch.randn(3, 3)
    monkeypatch.setattr(arrays, "on_gpu", lambda value: True)

    class Own(torch.Tensor):
        pass

    assert refusal([x, x]) == ""
    assert refusal([x, x.to("meta")]) == "tensors on meta beside cpu"
    assert refusal([x, x.half()]) == "torch.float16 beside torch.float32"
    assert refusal([x, x.as_subclass(Own)]) == "tensors of type Own"
    assert refusal([x, x.to_sparse()]) == "tensors of layout torch.sparse_coo"
    assert refusal([x.double()]) == "torch.float64 on a GPU (float32, bfloat16 and float16 they do)"
    seen = []
    torch.func.vmap(lambda row: seen.append(refusal([row])) or row)(x)
    assert seen == ["transforms of torch.func on a GPU"]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert refusal([x]) == "torch.compile on a GPU"


def test_tensors_of_two_places(emulated_gpu):
    x = torch.randn(4, 3, 5)
    weight = np.zeros((68, 5), np.float32)
    with emulated_gpu(), pytest.raises(TypeError, match=r"^weight_ih: expected an array on a GPU, got numpy.ndarray"):
        fusedrnn.lstm_forward(x, None, None, weight, torch.zeros(68, 17))
