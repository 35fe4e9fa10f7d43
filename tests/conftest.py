"""What the tests share: cells, shapes, instruction sets, random problems and the comparisons.

Test modules are imported by path (`--import-mode=importlib`), so helpers come as fixtures that return
functions. Asking for `cell`, `shape`, `dtype` or `isa` runs the test for every one of them.

Kernels are compiled once per instruction set, so their tests ask for `isa` or `each_isa`. The loops above them
(csrc/core) and all Python exist once, and their tests run on one set.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tests run side by side, and threads that wait slow the others

import numpy as np
import pytest


class Shape(NamedTuple):
    T: int
    N: int
    I: int  # noqa: E741 - the shape letters of the whole library
    H: int


# Named by the tail or path that each one exercises: vectors hold 4 to 16 units, tiles 2 to 6 or more rows.
SHAPES = {
    "one_of_everything": Shape(1, 1, 1, 1),
    "1_unit": Shape(3, 5, 4, 1),
    "7_units_below_a_half_vector": Shape(4, 6, 3, 7),
    "15_units_one_below_a_vector": Shape(3, 7, 5, 15),
    "16_units_no_tail": Shape(3, 6, 16, 16),
    "17_units_one_over_a_vector": Shape(3, 4, 2, 17),
    "24_units_half_vector_tail": Shape(5, 13, 1, 24),
    "33_units_one_over_two_vectors": Shape(3, 11, 9, 33),
    "1_row": Shape(6, 1, 8, 20),
    "1_step": Shape(1, 9, 3, 12),
    "2_rows_long": Shape(60, 2, 2, 8),
    "40_inputs": Shape(4, 23, 40, 19),
    "300_inputs": Shape(3, 5, 300, 10),
    "200_rows": Shape(4, 200, 1, 24),
    "130_units": Shape(3, 10, 31, 130),
}


@dataclass(frozen=True)
class Cell:
    """One cell with its options: a uniform face for functions whose arguments differ.

    `parameters` has the axes of each: I inputs, H units, and R = gates * H rows.
    """

    kind: str
    gates: int
    options: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(
        default_factory=lambda: {"weight_ih": "RI", "weight_hh": "RH", "bias_ih": "R", "bias_hh": "R"}
    )

    @property
    def states(self) -> tuple[str, ...]:
        return ("h0", "c0") if self.kind == "lstm" else ("h0",)

    def shapes(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """The shapes of the arguments of forward, in their order."""
        T, N, I, H = shape  # noqa: E741
        sizes = {"I": I, "H": H, "R": self.gates * H}
        weights = {name: tuple(sizes[axis] for axis in axes) for name, axes in self.parameters.items()}
        return {"x": (T, N, I), **dict.fromkeys(self.states, (N, H)), **weights}

    def forward(self, module: Any, arguments: dict[str, Any], **keywords: Any) -> tuple[Any, Any]:
        """((y, h_n[, c_n]), reserve) from `module`, which is fusedrnn.functional or fusedrnn.reference."""
        function = getattr(module, f"{self.kind}_forward")
        *outputs, reserve = function(*arguments.values(), **self.options, **keywords)
        return tuple(outputs), reserve

    def backward(self, module: Any, doutputs: tuple[Any, ...], reserve: Any, **keywords: Any) -> Any:
        return getattr(module, f"{self.kind}_backward")(*doutputs, reserve, **keywords)


CELLS = {
    "rnn_tanh": Cell("rnn", 1, {"nonlinearity": "tanh"}),
    "rnn_relu": Cell("rnn", 1, {"nonlinearity": "relu"}),
    "lstm": Cell("lstm", 4),
    "gru_reset_after": Cell("gru", 3, {"reset_after": True}),
    "gru_reset_before": Cell("gru", 3, {"reset_after": False}),
}

# Whose units see no state but their own: tests/test_elementwise_cells.py.
_INDRNN = {"weight_ih": "RI", "weight_hh": "H", "bias": "R"}
ELEMENTWISE_CELLS = {
    "indrnn_relu": Cell("indrnn", 1, {"nonlinearity": "relu"}, _INDRNN),
    "indrnn_tanh": Cell("indrnn", 1, {"nonlinearity": "tanh"}, _INDRNN),
    "mingru": Cell("mingru", 2, {}, {"weight_ih": "RI", "bias": "R"}),
}


GATES = {"rnn": 1, "lstm": 4, "gru": 3, "indrnn": 1, "mingru": 2}


class Call(NamedTuple):
    """One call of any cell with any options, and a gradient for everything that comes out of it.

    Gains and biases of layer normalization are arguments like others: gain_0, gain_1, norm_bias_0, ...
    """

    kind: str
    arguments: dict[str, Any]
    options: dict[str, Any]
    doutputs: tuple[Any, ...]  # of y, h_n and an LSTM's c_n and c

    def forward(self, module: Any) -> tuple[list[Any], Any]:
        """[y, h_n] or an LSTM's [y, h_n, c_n, c], and the reserve."""
        keywords = dict(self.options)
        plain = {name: a for name, a in self.arguments.items() if not name.startswith(("gain", "norm"))}
        norms = [name for name in self.arguments if name.startswith("gain")]
        if norms:
            biases = [self.arguments.get(name.replace("gain", "norm_bias")) for name in norms]
            keywords["layer_norm"] = tuple(self.arguments[name] for name in norms), tuple(biases)
        if self.kind == "lstm":
            y, h_n, c_n, reserve, c = module.lstm_forward(**plain, **keywords, return_c=True)
            return [y, h_n, c_n, c], reserve
        *outputs, reserve = getattr(module, f"{self.kind}_forward")(**plain, **keywords)
        return outputs, reserve

    def backward(self, module: Any, reserve: Any) -> dict[str, Any]:
        """The gradient of every argument, by its name."""
        keywords = {"dc": self.doutputs[3]} if self.kind == "lstm" else {}
        gradients = getattr(module, f"{self.kind}_backward")(*self.doutputs[:3], reserve, **keywords)._asdict()
        dgains, dbiases = gradients.pop("dlayer_norm", None) or ((), ())
        gradients.update({f"dgain_{k}": dgain for k, dgain in enumerate(dgains)})
        gradients.update({f"dnorm_bias_{k}": dbias for k, dbias in enumerate(dbiases)})
        return {name[1:]: d for name, d in gradients.items() if d is not None}

    def run(self, module: Any) -> tuple[list[Any], dict[str, Any]]:
        """Outputs and gradients."""
        outputs, reserve = self.forward(module)
        return outputs, self.backward(module, reserve)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", CELLS.values(), ids=CELLS.keys())
    if "elementwise_cell" in metafunc.fixturenames:
        metafunc.parametrize("elementwise_cell", ELEMENTWISE_CELLS.values(), ids=ELEMENTWISE_CELLS.keys())
    if "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", _isas(), indirect=True)
    if "low_precision_isa" in metafunc.fixturenames:
        from fusedrnn import runtime  # not above: the tests of the reference need no compiled module

        metafunc.parametrize("low_precision_isa", runtime.available_isas(), indirect=True)


def _isas() -> list[str]:
    """The instruction sets of this machine whose tables differ: `avx512_bf16_vnni` has products in low precision of its
    own and shares all else with `avx512` (csrc/core/dispatch.cpp)."""
    from fusedrnn import runtime

    return [name for name in runtime.available_isas() if name != "avx512_bf16_vnni"]


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine with kernels of its own, in use while the test runs."""
    from fusedrnn import runtime

    with runtime.use_isa(request.param):
        yield request.param


low_precision_isa = isa  # those with products in low precision of their own: all


@pytest.fixture
def each_isa() -> Callable[[], Iterator[str]]:
    """`for isa in each_isa()` has each in use, as `isa` does, within one test: what is expected is computed once."""
    from fusedrnn import runtime

    def each() -> Iterator[str]:
        for name in _isas():
            with runtime.use_isa(name):
                yield name

    return each


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """set_num_threads, undone after the test."""
    from fusedrnn import runtime

    before = runtime.get_num_threads()
    yield runtime.set_num_threads
    runtime.set_num_threads(before)


@pytest.fixture(params=["RNN", "RNN relu", "LSTM", "GRU", "GRU reset before"])
def make_layer(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Every recurrent layer and option of it, as a constructor."""
    from fusedrnn import nn

    name, *option = request.param.split(maxsplit=1)
    options = {"relu": {"nonlinearity": "relu"}, "reset before": {"reset_after": False}}
    return partial(getattr(nn, name), **(options[option[0]] if option else {}))


@pytest.fixture
def functional() -> ModuleType:
    import fusedrnn.functional

    return fusedrnn.functional


@pytest.fixture
def reference() -> ModuleType:
    import fusedrnn.reference

    return fusedrnn.reference


@pytest.fixture
def make_cell() -> Callable[[str], Cell]:
    """A cell by name, for tests that need one and not all."""
    return {**CELLS, **ELEMENTWISE_CELLS}.__getitem__


@pytest.fixture
def make_shape() -> Callable[[int, int, int, int], Shape]:
    """A shape from T, N, I, H."""
    return Shape


@pytest.fixture
def make_problem() -> Callable[..., tuple[dict[str, Any], tuple[Any, ...]]]:
    """make_problem(cell, shape, dtype, seed=0) -> (arguments of forward by name, gradients of its outputs).

    Weights and biases are uniform in +-1/sqrt(H), as every library initialises them; the rest is normal.
    """

    def make(cell: Cell, shape: Shape, dtype: Any, seed: int = 0) -> tuple[dict[str, Any], tuple[Any, ...]]:
        rng = np.random.default_rng(seed)
        bound = shape.H**-0.5
        arguments: dict[str, Any] = {}
        for name, dimensions in cell.shapes(shape).items():
            if name.startswith(("weight", "bias")):
                arguments[name] = rng.uniform(-bound, bound, dimensions).astype(dtype)
            else:
                arguments[name] = rng.standard_normal(dimensions).astype(dtype)
        outputs = [(shape.T, shape.N, shape.H), *[(shape.N, shape.H)] * len(cell.states)]
        return arguments, tuple(rng.standard_normal(dimensions).astype(dtype) for dimensions in outputs)

    return make


@pytest.fixture
def make_call() -> Callable[..., Call]:
    """make_call(kind, shape, problem=0, peephole=False, projection=None, norm=False, **options) -> Call, in float64.

    Weights are large enough for gates to differ. `projection` is P; with `norm` the last bias of layer normalization
    is absent. `problem` seeds the numbers. Options are those of the cell, data options included.
    """

    def make(
        kind: str,
        shape: tuple[int, int, int, int],
        problem: int = 0,
        peephole: bool = False,
        projection: int | None = None,
        norm: bool = False,
        **options: Any,
    ) -> Call:
        T, N, I, H = shape  # noqa: E741
        P = projection or H
        rows = (GATES[kind] - bool(options.get("coupled"))) * H
        sizes = options.get("batch_sizes")
        lead = (T, N) if sizes is None else (sum(sizes),)
        shapes = {"x": (*lead, I), "h0": (N, P), "c0": (N, H), "weight_ih": (rows, I)}
        if kind == "indrnn":
            shapes.update({"weight_hh": (H,), "bias": (H,)})
        elif kind == "mingru":
            shapes.update({"bias": (rows,)})
        else:
            shapes.update({"weight_hh": (rows, P), "bias_ih": (rows,), "bias_hh": (rows,)})
        if kind != "lstm":
            del shapes["c0"]
        if peephole:
            shapes["weight_peephole"] = (3, H)
        if projection:
            shapes["weight_hr"] = (P, H)
        if norm:
            widths = [rows, rows, H] if kind == "lstm" else [rows, rows]
            shapes.update({f"gain_{k}": (width,) for k, width in enumerate(widths)})
            shapes.update({f"norm_bias_{k}": (width,) for k, width in enumerate(widths[:-1])})
        outputs = [(*lead, P), (N, P), (N, H), (*lead, H)][: 4 if kind == "lstm" else 2]
        rng = np.random.default_rng(problem)
        scale = {"weight_ih": 0.7, "weight_hh": 0.7, "bias_ih": 0.3, "bias_hh": 0.3}
        arguments = {name: rng.standard_normal(shape) * scale.get(name, 1) for name, shape in shapes.items()}
        return Call(kind, arguments, options, tuple(rng.standard_normal(shape) for shape in outputs))

    return make


@pytest.fixture
def in_float64() -> Callable[[Any], Any]:
    """The same numbers in float64: of a case, a dict's values, a tuple's members, or an array; all else stays."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: convert(member) for name, member in value.items()}
        if isinstance(value, tuple):
            return tuple(convert(member) for member in value)
        if is_dataclass(value) and not isinstance(value, type):
            return replace(
                value, **{part: convert(getattr(value, part)) for part in ("arguments", "keywords", "doutputs")}
            )
        return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value

    return convert


@pytest.fixture
def tolerance() -> Callable[[Any, Any], float]:
    """The library's promise: how far a result of this dtype may be from `expected`, its float64 reference."""

    def bound(dtype: Any, expected: Any) -> float:
        relative = {"float32": 3e-5, "float64": 1e-11}[np.dtype(dtype).name]
        return relative * max(1.0, float(np.max(np.abs(expected), initial=0.0)))

    return bound


@pytest.fixture
def assert_close(tolerance: Callable[[Any, Any], float]) -> Callable[..., None]:
    """assert_close(ours, expected, dtype, what): dtype and shape equal, values within `tolerance`."""

    def check(ours: Any, expected: Any, dtype: Any, what: str) -> None:
        if expected is None:
            assert ours is None, f"{what}: expected None"
            return
        assert ours.dtype == dtype, what
        assert ours.shape == expected.shape, what
        error = float(np.max(np.abs(ours - expected), initial=0.0))
        assert error <= tolerance(dtype, expected), f"{what}: differs from the reference by {error:.3g}"

    return check


@pytest.fixture
def assert_same_bits() -> Callable[..., None]:
    """assert_same_bits(ours, expected, what): arrays, or tuples of arrays and None, equal bit for bit."""

    def check(ours: Any, expected: Any, what: str = "") -> None:
        if expected is None:
            assert ours is None, f"{what}: expected None"
        elif isinstance(expected, tuple):
            assert len(ours) == len(expected), what
            names = getattr(expected, "_fields", [str(k) for k in range(len(expected))])
            for name, mine, theirs in zip(names, ours, expected, strict=True):
                check(mine, theirs, f"{what} {name}")
        else:
            assert ours.dtype == expected.dtype, what
            assert ours.shape == expected.shape, what
            different = int(np.sum(ours.view(np.uint8) != expected.view(np.uint8))) if ours.size else 0
            assert different == 0, f"{what}: {different} bytes of {ours.nbytes} differ"

    return check


@pytest.fixture
def finite_differences() -> Callable[..., dict[str, Any]]:
    """The gradient of sum(doutput * output) over all outputs, for every argument, by central differences."""

    def differences(
        forward: Callable[[dict[str, Any]], tuple[Any, ...]],
        arguments: dict[str, Any],
        doutputs: tuple[Any, ...],
        step: float = 1e-6,
    ) -> dict[str, Any]:
        def loss(changed: dict[str, Any]) -> float:
            return sum(float(np.sum(d * out)) for d, out in zip(doutputs, forward(changed), strict=True))

        gradients = {}
        for name, value in arguments.items():
            gradient = np.empty_like(value)
            for index in np.ndindex(value.shape):
                above, below = value.copy(), value.copy()
                above[index] += step
                below[index] -= step
                difference = loss({**arguments, name: above}) - loss({**arguments, name: below})
                gradient[index] = difference / (2 * step)
            gradients[name] = gradient
        return gradients

    return differences


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """run_python(code, timeout=60, **environment): in a fresh interpreter; a hang or crash is one failure."""

    def run(code: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FUSEDRNN_")}
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**inherited, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


# The CUDA kernels over the emulator, and arrays that count as a GPU's.
_cuda = runpy.run_path(str(Path(__file__).parent / "cuda/fixtures.py"))
emulated, emulated_gpu, gpu_array = (_cuda[name] for name in ("emulated", "emulated_gpu", "gpu_array"))


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Bytes go by their argument's name: gzip's hold the second in which they were made, and processes must agree."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _cuda["mark_emulator"](items)


_command = runpy.run_path(str(Path(__file__).parent / "command.py"))
no_pictures, command = _command["no_pictures"], _command["command"]
make_case = runpy.run_path(str(Path(__file__).parent / "cases.py"))["make_case"]
_skips = runpy.run_path(str(Path(__file__).parent / "skips.py"))
pytest_addoption, pytest_configure = _skips["pytest_addoption"], _skips["pytest_configure"]
