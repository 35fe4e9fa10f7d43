"""`functional` over arrays on a GPU: kernels on the emulator, and arrays of NumPy that look like CuPy's."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

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
def test_one_step_relu_and_rows_of_no_length(kind, problem, emulated_gpu, functional, in_float64, assert_close):
    for shape, lengths in (((1, 3, 2, 20), None), ((3, 4, 2, 5), [0, 3, 1, 0])):
        case, gpu = problem(kind, ("reverse",), shape=shape)
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
    "c0": ({"c0": np.zeros((4, 17), np.float32)}, ValueError, r"^c0: expected shape \(5, 17\), got \(4, 17\)"),
    "steps": ({"x": np.zeros((0, 5, 4), np.float32)}, ValueError, r"^x: expected at least one step"),
    "axes": ({"x": np.zeros((5, 4), np.float32)}, ValueError, r"^x: expected shape \(T, N, I\), got \(5, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_wrong_arrays_are_refused_by_name(error, problem, emulated_gpu, functional, gpu_array):
    changed, kind, message = ERRORS[error]
    _, gpu = problem("lstm")
    gpu.arguments.update({name: gpu_array(a) for name, a in changed.items()})
    with pytest.raises(kind, match=message):
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
