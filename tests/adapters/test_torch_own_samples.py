"""The samples that PyTorch tests its own modules with (``torch.testing._internal.common_modules``): arguments of
constructors, inputs, references and wrong calls, for our classes beside PyTorch's."""

from __future__ import annotations

import copy
import importlib.util
import io
import pickle
import re
import warnings
from functools import cache

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'fusedrnn[torch]'")

from torch.nn.utils.rnn import PackedSequence  # noqa: E402

import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("expecttest") is None, reason="PyTorch's samples need expecttest: pip install expecttest"
)

NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def precision(request):
    return request.param


@cache
def module_info(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever their imports say
        from torch.testing._internal.common_modules import module_db
    return next(info for info in module_db if info.module_cls is getattr(torch.nn, name))


def samples_of(name, dtype=torch.float64):
    """(arguments of the constructor, arguments of the call, reference) of each, packed rows among them."""
    info = module_info(name)
    torch.manual_seed(0)
    samples = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=True, with_packed_sequence=True
    )
    assert samples
    return [
        (sample.constructor_input.kwargs | {"dtype": dtype}, sample.constructor_input.args, sample.forward_input.args,
         sample.reference_fn)
        for sample in samples
    ]  # fmt: skip


def build(kind, name, keywords, arguments):
    torch.manual_seed(1)
    return getattr(kind, name)(*arguments, **keywords)


def floats(value):
    """The tensors in nested tuples and packed sequences that may have gradients."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    return [t for part in value for t in floats(part)] if isinstance(value, tuple) else []


def each(change, value):
    """Inputs with every such tensor changed."""
    if isinstance(value, PackedSequence):
        return PackedSequence(change(value.data), *value[1:])
    return change(value) if isinstance(value, torch.Tensor) else tuple(each(change, part) for part in value)


def scattered(tensor):
    """The same numbers, with NaN between them in memory."""
    other = torch.stack([tensor.detach(), torch.full_like(tensor, torch.nan)], -1)[..., 0]
    return other.requires_grad_(tensor.requires_grad)


def results(module, inputs, lay=lambda t: t):
    """Outputs, and gradients of inputs, states and parameters; ``lay`` lays out the outputs' gradients."""
    outputs = floats(module(*inputs))
    doutputs = [lay(torch.linspace(-1, 2, o.numel(), dtype=o.dtype).view_as(o)) for o in outputs]
    return outputs + list(torch.autograd.grad(outputs, [*floats(inputs), *module.parameters()], doutputs))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_outputs_and_gradients(name, precision, count_calls):
    """In training; in evaluation they are the same, see below."""
    calls = 0
    for keywords, arguments, inputs, reference in samples_of(name, precision):
        ours, theirs = (build(kind, name, keywords, arguments) for kind in (ft, torch.nn))
        for (a, p), (b, q) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
            assert a == b
            assert torch.equal(p, q)
        for a, b in zip(results(ours, inputs), results(theirs, inputs), strict=True):
            torch.testing.assert_close(a, b)
        if not isinstance(inputs[0], PackedSequence):
            torch.testing.assert_close(ours(*inputs), reference(ours, *inputs))
        assert count_calls() > calls
        calls = count_calls()


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # PyTorch's own, at its first vmap
@pytest.mark.filterwarnings("ignore:Please use `torch.vmap`:FutureWarning")  # PyTorch 2.6's, of its own call
def test_derivatives(name):
    """Of first and second order, one output at a time and batches of them."""
    for keywords, arguments, inputs, _ in samples_of(name):
        stateless = len(inputs) == 1 and isinstance(inputs[0], torch.Tensor)
        if keywords.get("batch_first") or stateless:  # the same calls, or less
            continue
        if keywords.get("bidirectional", keywords.get("bias")) != keywords.get("bias"):
            continue  # one way without biases and both ways with them do for what neither knows of the other
        module = build(ft, name, keywords, arguments)
        variables = (*floats(inputs), *module.parameters())

        def f(*_, module=module, inputs=inputs):
            return tuple(floats(module(*inputs)))

        assert torch.autograd.gradcheck(f, variables, check_batched_grad=True, fast_mode=True)
        if isinstance(inputs[0], torch.Tensor):
            assert torch.autograd.gradgradcheck(f, variables, check_batched_grad=True, fast_mode=True)


def test_tensors_that_do_not_lie_in_order(name, precision):
    for keywords, arguments, inputs, _ in samples_of(name, precision):
        module = build(ft, name, keywords, arguments)
        expected = results(module, inputs)
        apart = each(scattered, inputs)
        for a, b in zip(results(module, apart, scattered), expected, strict=True):
            assert torch.equal(a, b)
        for key, parameter in list(module.named_parameters()):
            setattr(module, key, torch.nn.Parameter(scattered(parameter)))
        for a, b in zip(results(module, apart, scattered), expected, strict=True):
            assert torch.equal(a, b)


def test_copies_files_and_text(name):
    for keywords, arguments, inputs, _ in samples_of(name, torch.float32):
        ours, theirs = (build(kind, name, keywords, arguments) for kind in (ft, torch.nn))
        assert repr(ours) == repr(theirs)
        assert str(ours) == str(theirs)
        expected = results(ours, inputs)
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False)):
            assert type(other) is type(ours)
            for a, b in zip(results(other, inputs), expected, strict=True):
                assert torch.equal(a, b)


def test_training_and_evaluation(name):
    """No sample has dropout between its layers, so both are the same."""
    for keywords, arguments, inputs, _ in samples_of(name, torch.float32):
        module = build(ft, name, keywords, arguments)
        for a, b in zip(results(module, inputs), results(module.eval(), inputs), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_errors(name, precision, training):
    info = module_info(name)
    cases = info.module_error_inputs_func(info, device="cpu", dtype=precision, requires_grad=False, training=training)
    assert cases
    for case in cases:
        construct, call = case.module_error_input.constructor_input, case.module_error_input.forward_input
        found = []
        for kind in (ft, torch.nn):
            module = None
            try:
                module = getattr(kind, name)(*construct.args, **construct.kwargs).train(training)
                module(*call.args, **call.kwargs)
            except case.error_type as error:
                found.append((type(error), str(error), module is None))
        assert found[0] == found[1]
        assert re.search(case.error_regex, found[0][1])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_devices_and_dtypes_of_parameters(name, device):
    """As the constructor is told, or its surroundings. Several devices at once take a machine that has them."""
    for keywords, arguments, _, _ in samples_of(name)[::3]:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            keywords |= {"dtype": dtype}
            found = []
            for kind in (ft, torch.nn):
                given = build(kind, name, keywords | {"device": device}, arguments)
                with torch.device(device):
                    around = build(kind, name, keywords, arguments)
                found += [[(k, p.dtype, p.device) for k, p in m.named_parameters()] for m in (given, around)]
            assert found[0] == found[1] == found[2] == found[3]
            assert {(d, place.type) for _, d, place in found[0]} == {(dtype, device)}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("swap", [False, True], ids=["set", "swapped"])
def test_conversions(name, swap, monkeypatch):
    """Of parameters and their gradients, in place, after a backward; memory formats are of tensors with more axes."""
    for keywords, arguments, inputs, _ in samples_of(name):
        module = build(ft, name, keywords | {"dtype": torch.float32}, arguments)
        single = each(torch.Tensor.float, inputs)
        for _ in range(2):
            sum(o.sum() for o in floats(module(*single))).backward()
        with monkeypatch.context() as patch:
            patch.setattr(torch.__future__, "_swap_module_params_on_conversion", swap)
            assert module.to(memory_format=torch.channels_last).double() is module
        assert {t.dtype for p in module.parameters() for t in (p, p.grad)} == {torch.float64}
        other = build(torch.nn, name, keywords, arguments)
        other.load_state_dict(module.state_dict())
        for a, b in zip(results(module, inputs), results(other, inputs), strict=True):
            torch.testing.assert_close(a, b)
        assert {p.device.type for p in module.to_empty(device="meta").parameters()} == {"meta"}
