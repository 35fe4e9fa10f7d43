"""Arrays of other libraries in place of NumPy's: DLPack and the buffer protocol, without a copy."""

from __future__ import annotations

import array
import ctypes
import gc
import weakref

import numpy as np
import pytest

SHAPE = (5, 3, 4, 7)  # T, N, I, H


class Exporter:
    """An array of a library that has DLPack and nothing else; ``version`` 0 is from before DLPack's read-only flag."""

    def __init__(self, values, version=1, device=(1, 0), writable=True):
        self.values, self.version, self.device, self.exports = values, version, device, 0
        self.values.flags.writeable = writable or version == 0  # NumPy exports nothing read-only without the flag

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **keywords):
        if self.version == 0 and keywords:
            raise TypeError("unexpected keyword")
        self.exports += 1
        return self.values.__dlpack__(**keywords)


def _torch(values):
    return pytest.importorskip("torch").from_numpy(values)


def _jax(values):
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    array = jax.device_put(values)
    jax.config.update("jax_enable_x64", before)
    return array


class Shifted(Exporter):
    """Whose arrays begin some bytes after the address that DLPack hands over."""

    def __dlpack__(self, **keywords):
        capsule = super().__dlpack__(**keywords)
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        versioned = "dltensor_versioned" in repr(capsule)
        tensor = pointer(capsule, b"dltensor_versioned" if versioned else b"dltensor") + 32 * versioned
        data, offset = (ctypes.c_uint64.from_address(tensor + at) for at in (0, 40))
        data.value, offset.value = data.value - 24, offset.value + 24
        return capsule


needs_versions = pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy exports no versions")
EXPORTERS = {
    "torch": _torch,
    "jax": _jax,
    "memoryview": memoryview,
    "dlpack": Exporter,
    "dlpack before 1.0": lambda values: Exporter(values, version=0),
    "dlpack of an offset": lambda values: Shifted(values, version=0),
}


@pytest.fixture(
    params=[
        pytest.param(make, id=name, marks=[needs_versions] * (name == "dlpack")) for name, make in EXPORTERS.items()
    ]
)
def export(request):
    return request.param


def test_the_bits_of_numpys_arrays(functional, cell, export, dtype, make_shape, make_problem, assert_same_bits):
    arguments, doutputs = make_problem(cell, make_shape(*SHAPE), dtype)
    expected, reserve = cell.forward(functional, arguments)
    gradients = cell.backward(functional, doutputs, reserve)
    outputs, reserve = cell.forward(functional, {name: export(a.copy()) for name, a in arguments.items()})
    assert all(type(a) is np.ndarray for a in outputs)
    assert_same_bits(outputs, expected)
    assert_same_bits(cell.backward(functional, tuple(export(a.copy()) for a in doutputs), reserve), gradients)


def test_nothing_is_copied(functional):
    """backward reads the memory that forward read: a change in between shows."""
    torch = pytest.importorskip("torch")
    x, weight_ih, weight_hh = torch.ones(1, 1, 1), torch.ones(1, 1), torch.zeros(1, 1)
    y, _, reserve = functional.rnn_forward(x, None, weight_ih, weight_hh, nonlinearity="relu")
    x.fill_(3)
    assert functional.rnn_backward(np.ones_like(y), None, reserve).dweight_ih == 3


@needs_versions
def test_memory_lives_as_long_as_the_call_and_the_reserve(functional):
    x = Exporter(np.ones((4, 2, 3), np.float32))
    alive = weakref.ref(x.values)
    weights = np.ones((5, 3), np.float32), np.zeros((5, 5), np.float32)
    y, _, reserve = functional.rnn_forward(x, None, *weights)
    assert x.exports == 1
    del x
    gc.collect()
    assert alive() is not None
    expected = functional.rnn_backward(y, None, functional.rnn_forward(alive(), None, *weights)[2])
    np.testing.assert_array_equal(functional.rnn_backward(y, None, reserve).dweight_ih, expected.dweight_ih)
    del reserve
    gc.collect()
    assert alive() is None


def test_biases_from_the_standard_library(functional):
    x, weights = np.ones((2, 1, 1)), (np.zeros((2, 1)), np.zeros((2, 2)))
    y, _, _ = functional.rnn_forward(x, None, *weights, array.array("d", [1, 2]), nonlinearity="relu")
    np.testing.assert_array_equal(y[0, 0], [1, 2])


def test_arrays_of_options(functional, make_case, make_shape, export, dtype, assert_same_bits, monkeypatch):
    monkeypatch.setenv("FUSEDRNN_CHECK", "1")
    options = ("peephole", "projection", "layer_norm", "return_c")
    case = make_case("lstm", make_shape(*SHAPE), dtype, options, data=("lengths",))
    expected = case.run(functional)

    def exported(value):
        if isinstance(value, (tuple, list)):
            return type(value)(exported(part) for part in value)
        return export(value.copy()) if isinstance(value, np.ndarray) and value.dtype == dtype else value

    for part in (case.arguments, case.keywords, case.doutputs):
        part.update({name: exported(value) for name, value in part.items()})
    ours = case.run(functional)
    for name, want in expected.items():
        assert_same_bits(ours[name], want, name)


def test_gradients_are_added_to_writable_memory_alone(functional, make_cell, make_shape, make_problem):
    torch = pytest.importorskip("torch")
    cell = make_cell("gru_reset_after")
    arguments, doutputs = make_problem(cell, make_shape(*SHAPE), np.float32)
    _, reserve = cell.forward(functional, arguments)
    fresh = cell.backward(functional, doutputs, reserve)
    names = ("dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh")
    into = tuple(torch.zeros(getattr(fresh, name).shape) for name in names)
    again = cell.backward(functional, doutputs, reserve, accumulate=into)
    for name, tensor in zip(names, into, strict=True):
        assert getattr(again, name) is tensor
        np.testing.assert_array_equal(tensor.numpy(), getattr(fresh, name))
    for read_only in (_jax, lambda a: Exporter(a, version=0), lambda a: memoryview(a).toreadonly()):
        wrong = (read_only(into[0].numpy().copy()), *into[1:])
        with pytest.raises(ValueError, match=r"^dweight_ih: expected a writeable array"):
            cell.backward(functional, doutputs, reserve, accumulate=wrong)


@needs_versions
def test_the_flag_of_read_only_memory_counts(functional, make_cell, make_shape, make_problem):
    """Since version 1 DLPack says which memory may be written to."""
    cell = make_cell("rnn_tanh")
    arguments, doutputs = make_problem(cell, make_shape(*SHAPE), np.float32)
    _, reserve = cell.forward(functional, arguments)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    zeros = [np.zeros_like(arguments[name]) for name in names]
    cell.backward(functional, doutputs, reserve, accumulate=tuple(map(Exporter, zeros)))
    assert all(array.any() for array in zeros)
    frozen = Exporter(np.zeros_like(zeros[0]), writable=False)
    with pytest.raises(ValueError, match=r"^dweight_ih: expected a writeable array"):
        cell.backward(functional, doutputs, reserve, accumulate=(frozen, *zeros[1:]))
    assert not frozen.values.any()


@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bidirectional": True}], ids=str)
def test_layers(make_layer, export, options, assert_same_bits):
    layer = make_layer(4, 6, 2, rng=0, **options)
    x = np.random.default_rng(1).standard_normal((3, 3, 4)).astype(np.float32)
    y, state = layer(x)
    dx, _ = layer.backward(y)
    ours, again = layer(export(x.copy()))
    assert_same_bits((ours, again), (y, state))
    assert_same_bits(layer.backward(export(y.copy()))[0], dx)


def refused(functional, x, match, error=TypeError):
    weights = np.ones((5, 3), np.float32), np.ones((5, 5), np.float32)
    with pytest.raises(error, match=match):
        functional.rnn_forward(x, None, *weights)


def test_errors_name_the_argument(functional):
    x = np.ones((4, 2, 3), np.float32)
    refused(functional, x.tolist(), "^x: expected a NumPy array, got list, which exports neither DLPack nor a buffer")
    refused(functional, memoryview(x.astype(np.int32)), "^x: expected float32 or float64, got int32")
    refused(functional, b"text", "^x: expected float32 or float64, got uint8")
    refused(functional, x[0, 0, 0], r"^x: expected shape \[T, N, I\], got \(\)", ValueError)
    refused(functional, Exporter(x, device=(8, 0)), r"^x: Exporter cannot .*another device \(.*type 8\); copy it to")
    with pytest.raises(TypeError, match=r"^weight_hh: expected dtype float32 like x, got float64"):
        functional.rnn_forward(
            memoryview(x), None, memoryview(np.ones((5, 3), np.float32)), memoryview(np.ones((5, 5)))
        )


def test_an_array_on_a_gpu_needs_one(functional, monkeypatch):
    monkeypatch.setattr("fusedrnn.cuda.compiled.missing", lambda: "no NVIDIA driver is installed")
    weights = np.ones((5, 3), np.float32), np.ones((5, 5), np.float32)
    with pytest.raises(RuntimeError, match=r"^fusedrnn cannot use a GPU: no NVIDIA driver is installed"):
        functional.rnn_forward(Exporter(np.ones((4, 2, 3), np.float32), device=(2, 0)), None, *weights)


def test_errors_with_torch(functional):
    torch = pytest.importorskip("torch")
    x = torch.ones(4, 2, 3)
    refused(functional, torch.ones(4, 2, 3, requires_grad=True), "^x: Tensor cannot .* use tensor.detach()")
    refused(functional, x.to("meta"), "^x: Tensor cannot be read in place: .*meta")
    refused(functional, x.half(), "^x: expected float32 or float64, got float16")
    refused(functional, x.bfloat16(), "^x: expected float32 or float64, got bfloat16, which goes together with a prec")
    refused(functional, x.to_sparse(), "^x: Tensor cannot be read in place: .*layout")
    refused(functional, x.to(torch.float8_e5m2), "^x: Tensor cannot be read in place: its elements have DLPack's type")
    refused(functional, torch.ones(2, 4, 3).transpose(0, 1), "^x: expected a C-contiguous array", ValueError)


def test_a_traced_array_of_jax(functional):
    jax = pytest.importorskip("jax")
    refused(functional, np.ones((4, 2, 3)), "^weight_ih")
    with pytest.raises(TypeError, match=r"^x: DynamicJaxprTracer cannot be read in place"):
        jax.jit(lambda x: functional.rnn_forward(x, None, np.ones((5, 3)), np.ones((5, 5)))[0])(np.ones((4, 2, 3)))
