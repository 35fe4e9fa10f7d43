"""`functional` over arrays on a GPU: kernels on the emulator, and arrays of NumPy that look like CuPy's."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

KINDS = ("rnn", "lstm", "gru")


@pytest.fixture
def on_gpu(gpu_array):
    """A case with its arrays on a GPU."""

    def move(case):
        keywords = {name: value for name, value in case.keywords.items() if name != "seed"}
        arguments = {name: gpu_array(a) for name, a in case.arguments.items()}
        doutputs = {name: gpu_array(a) for name, a in case.doutputs.items()}
        return replace(case, arguments=arguments, keywords=keywords, doutputs=doutputs)

    return move


@pytest.fixture
def problem(make_case, make_shape, on_gpu):
    """(kind, data=(), options=()) -> the same case on the CPU and on a GPU."""

    def make(kind, data=(), options=(), shape=(3, 5, 4, 17), dtype=np.float32):
        case = make_case(kind, make_shape(*shape), dtype, options, data=data)
        return case, on_gpu(case)

    return make


DATA = {
    "plain": (),
    "reverse": ("reverse",),
    "lengths": ("lengths",),
    "reverse_lengths": ("reverse", "lengths"),
    "nothing_given": ("no_biases", "no_states", "no_doutputs"),
    "reverse_lengths_no_states": ("reverse", "lengths", "no_states"),
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA.keys())
@pytest.mark.parametrize("kind", KINDS)
def test_every_result_is_the_cpus(kind, data, problem, emulated_gpu, functional, in_float64, assert_close, gpu_array):
    case, gpu = problem(kind, data)
    results = gpu.run(functional)
    expected = in_float64(case).run(functional)
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert value is None or isinstance(results[name], type(gpu_array(np.zeros(1)))), name
        assert_close(results[name], value, np.float32, name)


@pytest.mark.parametrize("kind", KINDS)
def test_few_steps_relu_and_rows_of_no_length(kind, problem, emulated_gpu, functional, in_float64, assert_close):
    for shape, lengths, without in (
        ((1, 3, 2, 20), None, ()),
        ((1, 3, 2, 5), None, ("no_states",)),
        ((2, 3, 2, 5), None, ()),
        ((3, 4, 2, 5), [0, 3, 1, 0], ()),
    ):
        case, gpu = problem(kind, ("reverse", *without), shape=shape)
        for one in (case, gpu):
            one.keywords["lengths"] = lengths
            if kind == "rnn":
                one.keywords["nonlinearity"] = "relu"
        results = gpu.run(functional)
        for name, value in in_float64(case).run(functional).items():
            assert_close(results[name], value, np.float32, name)


@pytest.mark.parametrize("kind", KINDS)
def test_one_bias_of_two(kind, problem, emulated_gpu, functional, in_float64, assert_close):
    for absent in ("bias_ih", "bias_hh"):
        case, gpu = problem(kind)
        case.arguments[absent] = gpu.arguments[absent] = None
        results = gpu.run(functional)
        for name, value in in_float64(case).run(functional).items():
            assert_close(results[name], value, np.float32, name)


@pytest.mark.parametrize("kind", KINDS)
def test_float16(kind, problem, emulated_gpu, functional, in_float64):
    """Every value is rounded to 11 bits once or twice a step, h of 3 steps among them, and sums of 15 rows."""
    case, gpu = problem(kind, dtype=np.float16)
    results = gpu.run(functional)
    for name, value in in_float64(case).run(functional).items():
        if value is None:
            continue
        assert results[name].dtype == np.float16
        assert np.abs(results[name] - value).max() <= 8 * 2.0**-11 * max(1, np.abs(value).max()), name


def test_sums_of_float16_are_of_float32():
    from fusedrnn.cuda.arrays import CuPy

    total = CuPy(np).total(np.ones((4097, 2), np.float16))  # float16 would stay at 2048
    assert total.dtype == np.float16
    assert (total == 4096).all()


def test_tf32_is_a_switch(problem, emulated_gpu, functional, in_float64):
    from fusedrnn import cuda

    case, gpu = problem("lstm")
    expected = in_float64(case).run(functional)["y"]
    plain = np.abs(gpu.run(functional)["y"] - expected).max()
    cuda.allow_tf32(True)
    try:
        assert cuda.tf32_allowed()
        rounded = np.abs(gpu.run(functional)["y"] - expected).max()
    finally:
        cuda.allow_tf32(False)
    assert plain < 1e-6 < rounded < 2.0**-10
    assert not cuda.tf32_allowed()


def test_both_passes_round_to_tf32(problem, emulated_gpu, functional, monkeypatch):
    from fusedrnn.cuda import cells, compiled

    seen = []
    planned = cells._planned
    monkeypatch.setattr(cells, "_planned", lambda *a: seen.append(a[1:3]) or planned(*a))
    monkeypatch.setattr(compiled, "_tf32", True)
    problem("lstm")[1].run(functional)
    problem("lstm", dtype=np.float16)[1].run(functional)
    assert seen == [("tf32", False), ("tf32", True), ("float16", False), ("float16", True)]


def test_a_plan_is_made_for_each_problem_and_gpu_once(emulated_gpu, monkeypatch):
    from fusedrnn.cuda import cells, compiled

    class Names:
        def __class_getitem__(cls, name):
            return name

    module = SimpleNamespace(
        Cell=Names, Product=Names, Tier=Names, gpu=lambda ordinal: f"GPU {ordinal}",
        Problem=lambda *a: a, make_plan=lambda *a: a,
    )  # fmt: skip
    monkeypatch.setattr(compiled, "require", lambda: module)
    plain = ("lstm", "fma", False, (3, 2, 5, 1), 0, None)
    asked = [
        ("lstm", "fma", False, shape, 0, None) for shape in ((4, 2, 5, 1), (3, 1, 5, 1), (3, 2, 6, 1), (3, 2, 5, 2))
    ]
    others = {0: "gru", 1: "tf32", 2: True, 4: 1, 5: "grid"}
    asked += [plain, *[(*plain[:k], other, *plain[k + 1 :]) for k, other in others.items()]]
    for one in asked:
        cell, product, backward, shape, ordinal, tier = one
        problem, plan = cells._planned(*one)
        assert problem == (cell, product, backward, *shape)
        assert plan == (problem, f"GPU {ordinal}", tier)
        assert cells._planned(*one)[1] is plan


def test_kernels_run_on_the_current_stream_in_aligned_scratch(problem, emulated_gpu, functional, monkeypatch):
    from fusedrnn.cuda import arrays, compiled

    empty, module, given, calls = arrays.CuPy.empty, compiled.module(), [], []
    run = module.run

    def odd(self, shape, like, dtype=None):
        if dtype != "uint8":
            return empty(self, shape, like, dtype)
        given.append(empty(self, (shape[0] + 1,), like, dtype)[1:])
        return given[-1]

    def watched(*a):
        calls.append(a)
        run(*a)

    monkeypatch.setattr(arrays.CuPy, "empty", odd)
    monkeypatch.setattr(module, "run", watched)
    _, gpu = problem("lstm")
    monkeypatch.setattr(sys.modules["cupy"].cuda, "get_current_stream", lambda: SimpleNamespace(ptr=7))
    gpu.run(functional)
    for scratch, (_, plan, *_, start, stream) in zip(given, calls, strict=True):
        assert stream == 7
        assert start % 256 == 0
        assert scratch.data.ptr <= start
        assert start + plan.scratch_bytes <= scratch.data.ptr + scratch.nbytes


def test_cupy_computes_on_the_arrays_gpu(problem, emulated_gpu, functional, monkeypatch):
    """It allocates on the current one."""
    from fusedrnn.cuda import arrays

    current, computed = [], []

    @contextmanager
    def of(self, like):
        current.append(like.device.id)
        yield
        current.pop()

    def watch(name):
        method = getattr(arrays.CuPy, name)
        monkeypatch.setattr(arrays.CuPy, name, lambda *a: computed.append((name, *current[-1:])) or method(*a))

    monkeypatch.setattr(arrays.CuPy, "computing", of)
    names = ("linear", "total", "concatenate", "lengths", "integers", "empty", "last_rows")
    for name in names:
        watch(name)
    monkeypatch.setattr(sys.modules["cupy"].cuda, "get_current_stream", lambda: SimpleNamespace(ptr=len(current)))
    _, gpu = problem("gru", ("reverse",))
    gpu.keywords["lengths"] = [1, 2, 3, 0, 1]
    gpu.run(functional)
    assert set(computed) == {(name, 0) for name in names}
    with arrays.library_of(gpu.arguments["x"]).stream(gpu.arguments["x"]) as stream:
        assert stream == 1, "the stream of another GPU"


@pytest.mark.parametrize("kind", KINDS)
def test_backward_again_adds_and_leaves_out_dx(kind, problem, emulated_gpu, functional, gpu_array, assert_same_bits):
    _, gpu = problem(kind)
    _, reserve = gpu.forward(functional)
    first = gpu.backward(functional, reserve)
    total = tuple(gpu_array(np.ones_like(first[f"d{n}"])) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    again = gpu.backward(functional, reserve, input_grad=False, accumulate=total)
    assert again["dx"] is None
    assert_same_bits(again["dh0"], first["dh0"])
    for name, a in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), total, strict=True):
        assert again[f"d{name}"] is a
        np.testing.assert_array_equal(a, 1 + first[f"d{name}"])


def test_arrays_that_are_not_contiguous(problem, emulated_gpu, functional, gpu_array, assert_same_bits):
    _, gpu = problem("lstm")
    expected = gpu.run(functional)
    for given in (gpu.arguments, gpu.doutputs):
        given.update({name: gpu_array(np.repeat(a, 2, -1))[..., ::2] for name, a in given.items()})
    for name, value in gpu.run(functional).items():
        assert_same_bits(value, expected[name], name)


class Foreign:
    """Memory of another library than the others', any strides."""

    def __init__(self, a):
        self.owner = a
        self.__cuda_array_interface__ = self.__array_interface__ = dict(a.__array_interface__)


def test_arrays_of_another_library_are_read_in_place(problem, emulated_gpu, functional, monkeypatch, assert_same_bits):
    _, gpu = problem("gru")
    expected = gpu.forward(functional)[0]
    gpu.arguments["h0"] = Foreign(np.repeat(gpu.arguments["h0"], 2, -1)[:, ::2])
    gpu.arguments["weight_hh"] = Foreign(gpu.arguments["weight_hh"].T.copy().T)
    found = gpu.forward(functional)[0]
    for name in expected:
        assert_same_bits(found[name], expected[name], name)

    def unknown(value):
        raise BufferError("a dtype without a name")

    monkeypatch.setattr(sys.modules["cupy"], "from_dlpack", unknown, raising=False)
    gpu.arguments["weight_hh"] = SimpleNamespace(__dlpack_device__=lambda: (2, 0))
    with pytest.raises(TypeError, match=r"^weight_hh: expected an array that cupy can read: a dtype.*PyTorch has$"):
        gpu.forward(functional)


def test_what_is_on_a_gpu():
    from fusedrnn.cuda.arrays import on_gpu

    places = {place: SimpleNamespace(__dlpack_device__=lambda place=place: (place, 0)) for place in (1, 2, 3, 13)}
    assert {place: on_gpu(a) for place, a in places.items()} == {1: False, 2: True, 3: False, 13: True}
    assert on_gpu(Foreign(np.zeros(1)))
    assert not on_gpu(np.zeros(1))
    assert not on_gpu([0.0])


def test_gradients_share_no_memory(problem, emulated_gpu, functional):
    _, gpu = problem("lstm")
    _, reserve = gpu.forward(functional)
    arrays = [a for a in gpu.backward(functional, reserve).values() if a is not None]
    assert not any(np.shares_memory(a, b) for k, a in enumerate(arrays) for b in arrays[:k])


def test_without_training_nothing_is_kept(problem, emulated_gpu, functional, assert_same_bits):
    _, gpu = problem("gru")
    kept, _ = gpu.forward(functional)
    outputs, reserve = gpu.forward(functional, training=False)
    assert reserve is None
    assert_same_bits(outputs["y"], kept["y"])


def test_no_rows(problem, emulated_gpu, functional):
    for kind in KINDS:
        _, gpu = problem(kind, shape=(3, 0, 4, 17))
        results = gpu.run(functional)
        assert results["y"].shape == (3, 0, 17)
        assert results["dx"].shape == (3, 0, 4)
        assert not results["dweight_hh"].any()


def test_lengths_on_the_gpu_are_clamped_and_not_read(problem, emulated_gpu, functional, gpu_array, assert_same_bits):
    _, gpu = problem("gru", ("reverse",))
    expected = gpu.forward(functional, lengths=[3, 1, 2, 0, 3])[0]
    found = gpu.forward(functional, lengths=gpu_array(np.array([7, 1, 2, -4, 3])))[0]
    for name in expected:
        assert_same_bits(found[name], expected[name], name)


OPTIONS = {
    "lstm": ("layer_norm", "zoneout_h", "zoneout_c", "recurrent_dropout", "dropconnect", "grad_clip", "peephole",
             "projection", "coupled", "cell_clip", "return_c"),
    "gru": ("layer_norm", "zoneout_h", "recurrent_dropout", "dropconnect", "grad_clip", "reset_before"),
    "rnn": ("layer_norm", "zoneout_h", "recurrent_dropout", "dropconnect", "grad_clip"),
}  # fmt: skip
NAMES = {"peephole": "weight_peephole", "projection": "weight_hr", "reset_before": "reset_after"}


@pytest.mark.parametrize(("kind", "option"), [(kind, option) for kind in KINDS for option in OPTIONS[kind]])
def test_an_option_that_a_gpu_has_not_is_refused_by_name(kind, option, problem, emulated_gpu, functional):
    _, gpu = problem(kind, options=(option,))
    with pytest.raises(ValueError, match=rf"^{NAMES.get(option, option)}: .*GPU"):
        gpu.forward(functional)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("recompute", True), ("precision", "bfloat16"), ("batch_sizes", [5, 5, 5]), ("resets", np.zeros((3, 5), bool)),
     ("activations", ("sigmoid", "relu", "tanh"))],
)  # fmt: skip
def test_more_that_is_refused_by_name(keyword, value, problem, emulated_gpu, functional):
    _, gpu = problem("lstm")
    with pytest.raises(ValueError, match=rf"^{keyword}: .*GPU"):
        gpu.forward(functional, **{keyword: value})


def test_a_plain_activation_is_none(problem, emulated_gpu, functional):
    _, gpu = problem("lstm")
    gpu.forward(functional, activations=["sigmoid", "tanh", "tanh"])
    problem("gru")[1].forward(functional, activations=("sigmoid", "tanh"))
    _, gpu = problem("rnn")
    with pytest.raises(ValueError, match=r"^nonlinearity: expected 'tanh' or 'relu' on a GPU, got 'softsign'"):
        gpu.forward(functional, nonlinearity="softsign")


ERRORS = {
    "dtype": (
        {"x": np.zeros((3, 5, 4))}, TypeError, r"^x: expected float32, bfloat16 or float16 on a GPU, got float64",
    ),
    "mixed": ({"h0": np.zeros((5, 17), np.float16)}, TypeError, r"^h0: expected float32 as x, got float16"),
    "weight_hh": (
        {"weight_hh": np.zeros((68, 16), np.float32)}, ValueError, r"^weight_hh: expected shape \(64, 16\), got",
    ),
    "weight_ih": (
        {"weight_ih": np.zeros((68, 5), np.float32)}, ValueError, r"^weight_ih: expected shape \(68, 4\), got",
    ),
    "h0": ({"h0": np.zeros((4, 17), np.float32)}, ValueError, r"^h0: expected shape \(5, 17\), got \(4, 17\)"),
    "bias_ih": ({"bias_ih": np.zeros(67, np.float32)}, ValueError, r"^bias_ih: expected shape \(68,\), got \(67,\)"),
    "bias_hh": ({"bias_hh": np.zeros(67, np.float32)}, ValueError, r"^bias_hh: expected shape \(68,\), got \(67,\)"),
    "no_weight": ({"weight_hh": None}, TypeError, r"^weight_hh: expected an array on a GPU, got None"),
    "c0": ({"c0": np.zeros((4, 17), np.float32)}, ValueError, r"^c0: expected shape \(5, 17\), got \(4, 17\)"),
    "steps": ({"x": np.zeros((0, 5, 4), np.float32)}, ValueError, r"^x: expected a sequence length of at least 1"),
    "axes": ({"x": np.zeros((5, 4), np.float32)}, ValueError, r"^x: expected shape \(T, N, I\), got \(5, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_wrong_arrays_are_refused_by_name(error, problem, emulated_gpu, functional, gpu_array):
    changed, kind, message = ERRORS[error]
    _, gpu = problem("lstm")
    gpu.arguments.update({name: gpu_array(a) for name, a in changed.items()})
    with pytest.raises(kind, match=message):
        gpu.forward(functional)


@pytest.mark.parametrize("name", ["dy", "dh_n", "dc_n"])
def test_wrong_gradients_are_refused_by_name(name, problem, emulated_gpu, functional):
    _, gpu = problem("lstm")
    _, reserve = gpu.forward(functional)
    right = gpu.doutputs[name]
    for wrong, error, message in (
        (right[..., :16], ValueError, r"expected shape \(.*17\), got \(.*16\)"),
        (right.astype(np.float16), TypeError, "expected float32 as y, got float16"),
    ):
        gpu.doutputs[name] = wrong
        with pytest.raises(error, match=f"^{name}: {message}"):
            gpu.backward(functional, reserve)
    gpu.doutputs[name] = right
    with pytest.raises(ValueError, match=r"^dc: not on a GPU"):
        gpu.backward(functional, reserve, dc=gpu.doutputs["dy"])


def test_wrong_arrays_to_add_to_are_refused_by_name(problem, emulated_gpu, functional):
    _, gpu = problem("gru")
    _, reserve = gpu.forward(functional)
    right = tuple(gpu.arguments[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    before = [a.copy() for a in right]
    for wrong, error, message in (
        (right[:3], TypeError, r"accumulate: expected \(dweight_ih, "),
        ((*right[:3], None), ValueError, "dbias_hh: expected an array"),
        ((right[0], right[1][:, :1], *right[2:]), ValueError, r"dweight_hh: expected shape \(51, 17\), got \(51, 1\)"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            gpu.backward(functional, reserve, accumulate=wrong)
    for a, was in zip(right, before, strict=True):
        np.testing.assert_array_equal(a, was)


def test_arrays_of_two_gpus_are_refused_by_name(problem, emulated_gpu, functional):
    _, gpu = problem("lstm")

    class Second(type(gpu.arguments["x"])):
        device = SimpleNamespace(id=1)

    gpu.arguments["c0"] = gpu.arguments["c0"].view(Second)
    with pytest.raises(ValueError, match=r"^c0: expected to be on GPU 0 as x, got GPU 1"):
        gpu.forward(functional)


def test_an_array_on_the_cpu_among_those_of_a_gpu(problem, emulated_gpu, functional):
    case, gpu = problem("lstm")
    gpu.arguments["weight_ih"] = case.arguments["weight_ih"]
    with pytest.raises(TypeError, match=r"^weight_ih: expected an array on a GPU, got numpy.ndarray on the CPU"):
        gpu.forward(functional)
    _, gpu = problem("lstm")
    _, reserve = gpu.forward(functional)
    gpu.doutputs["dy"] = case.doutputs["dy"]
    with pytest.raises(TypeError, match=r"^dy: expected an array on a GPU"):
        gpu.backward(functional, reserve)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [([1, 2], ValueError, r"expected shape \(5,\), got \(2,\)"), ([1, 2, 3, 4, 1], ValueError, "from 0 to 3"),
     ([1.0] * 5, TypeError, "expected integers")],
)  # fmt: skip
def test_wrong_lengths(lengths, error, message, problem, emulated_gpu, functional, gpu_array):
    _, gpu = problem("lstm")
    with pytest.raises(error, match=f"^lengths: .*{message}"):
        gpu.forward(functional, lengths=lengths)
    if message != "from 0 to 3":
        with pytest.raises(error, match=f"^lengths: .*{message}"):
            gpu.forward(functional, lengths=gpu_array(np.array(lengths)))


def test_a_module_that_cannot_be_loaded_is_not_one_that_was_not_built(monkeypatch):
    from fusedrnn.cuda import compiled

    def module():
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(compiled, "module", module)
    reason = compiled.missing.__wrapped__()
    assert reason == "the compiled module fusedrnn._cuda cannot be loaded: libcuda.so.1: cannot open shared object file"


def test_numpy_arrays_do_not_import_the_compiled_module(run_python):
    done = run_python(
        "import sys, numpy as np, fusedrnn\n"
        "w = np.zeros((4, 1), np.float32)\n"
        "fusedrnn.lstm_forward(np.zeros((1, 1, 1), np.float32), None, None, w, w)\n"
        "print(sorted(m for m in sys.modules if m.startswith('fusedrnn._cuda') or m == 'fusedrnn.cuda.cells'))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_what_is_missing_is_said(problem, functional):
    from fusedrnn import cuda

    reason = cuda.missing()
    if reason is None:
        pytest.skip("nothing is: there is a GPU")
    assert not cuda.available()
    if find_spec("fusedrnn._cuda") is None:
        assert reason.startswith("fusedrnn was built without CUDA")
        assert "pip install" in reason
        assert "FUSEDRNN_CUDA=ON" in reason
    else:
        assert "driver" in reason or "GPU" in reason
    with pytest.raises(RuntimeError, match=r"^fusedrnn cannot use a GPU: "):
        cuda.require()
    _, gpu = problem("lstm")
    with pytest.raises(RuntimeError, match=r"^fusedrnn cannot use a GPU: "):
        gpu.forward(functional)
