"""The compiled module: arrays in, arrays out. `fusedrnn.functional`, `nn` and `optim` are its documented faces.

Every function raises TypeError or ValueError for an array of the wrong dtype, shape or layout, before any work.
Arrays named d... in a backward call are added to, except those returned. ``options`` holds every option of the cell
that changes its equations, by name, and the counters of its random numbers; None is the plain cell.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

__version__: str
compiler: str
NO_STEPS: str  # why x without steps is refused, and the way round

def rnn_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    nonlinearity: str,
    lengths: npt.NDArray[np.int64] | None,
    batch_sizes: npt.NDArray[np.int64] | None,
    resets: npt.NDArray[np.bool_] | None,
    reverse: bool,
    training: bool,
    options: dict[str, Any] | None,
    y: Array | None = None,
) -> tuple[Array, Array, Array | None]: ...
def rnn_backward(
    dy: Array | None,
    dh_n: Array | None,
    x: Array,
    h0: Array | None,
    y: Array,
    weight_ih: Array,
    weight_hh: Array,
    reserve: Array,
    nonlinearity: str,
    lengths: npt.NDArray[np.int64] | None,
    batch_sizes: npt.NDArray[np.int64] | None,
    resets: npt.NDArray[np.bool_] | None,
    reverse: bool,
    options: dict[str, Any] | None,
    input_grad: bool,
    dweight_ih: Array,
    dweight_hh: Array,
    dbias_ih: Array | None,
    dbias_hh: Array | None,
    dlayer_norm: tuple[Sequence[Array], Sequence[Array | None]] | None,
) -> tuple[Array | None, Array]: ...
def lstm_forward(
    x: Array,
    h0: Array | None,
    c0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    lengths: npt.NDArray[np.int64] | None,
    batch_sizes: npt.NDArray[np.int64] | None,
    resets: npt.NDArray[np.bool_] | None,
    reverse: bool,
    training: bool,
    recompute: bool,
    options: dict[str, Any] | None,
    return_c: bool,
    y: Array | None = None,
) -> tuple[Array, Array, Array, Array | None, Array | None]: ...
def lstm_backward(
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    dc: Array | None,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    y: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    reserve: Array,
    lengths: npt.NDArray[np.int64] | None,
    batch_sizes: npt.NDArray[np.int64] | None,
    resets: npt.NDArray[np.bool_] | None,
    reverse: bool,
    recompute: bool,
    options: dict[str, Any] | None,
    input_grad: bool,
    dweight_ih: Array,
    dweight_hh: Array,
    dbias_ih: Array | None,
    dbias_hh: Array | None,
    dweight_peephole: Array | None,
    dweight_hr: Array | None,
    dlayer_norm: tuple[Sequence[Array], Sequence[Array | None]] | None,
) -> tuple[Array | None, Array, Array]: ...
def gru_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    reset_after: bool,
    lengths: npt.NDArray[np.int64] | None,
    batch_sizes: npt.NDArray[np.int64] | None,
    resets: npt.NDArray[np.bool_] | None,
    reverse: bool,
    training: bool,
    recompute: bool,
    options: dict[str, Any] | None,
    y: Array | None = None,
) -> tuple[Array, Array, Array | None]: ...
def gru_backward(
    dy: Array | None,
    dh_n: Array | None,
    x: Array,
    h0: Array | None,
    y: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    reserve: Array,
    reset_after: bool,
    lengths: npt.NDArray[np.int64] | None,
    batch_sizes: npt.NDArray[np.int64] | None,
    resets: npt.NDArray[np.bool_] | None,
    reverse: bool,
    recompute: bool,
    options: dict[str, Any] | None,
    input_grad: bool,
    dweight_ih: Array,
    dweight_hh: Array,
    dbias_ih: Array | None,
    dbias_hh: Array | None,
    dlayer_norm: tuple[Sequence[Array], Sequence[Array | None]] | None,
) -> tuple[Array | None, Array]: ...
def indrnn_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    nonlinearity: str,
    lengths: Array | None,
    batch_sizes: Array | None,
    resets: Array | None,
    reverse: bool,
    training: bool,
) -> tuple[Array, Array, Array | None]: ...
def indrnn_backward(
    dy: Array | None,
    dh_n: Array | None,
    x: Array,
    h0: Array | None,
    y: Array,
    weight_ih: Array,
    weight_hh: Array,
    reserve: Array,
    nonlinearity: str,
    lengths: Array | None,
    batch_sizes: Array | None,
    resets: Array | None,
    reverse: bool,
    input_grad: bool,
    dweight_ih: Array,
    dweight_hh: Array,
    dbias: Array | None,
) -> tuple[Array | None, Array]: ...
def mingru_forward(
    x: Array,
    h0: Array | None,
    weight_ih: Array,
    bias: Array | None,
    lengths: Array | None,
    batch_sizes: Array | None,
    resets: Array | None,
    reverse: bool,
    training: bool,
) -> tuple[Array, Array, Array | None]: ...
def mingru_backward(
    dy: Array | None,
    dh_n: Array | None,
    x: Array,
    h0: Array | None,
    y: Array,
    weight_ih: Array,
    reserve: Array,
    lengths: Array | None,
    batch_sizes: Array | None,
    resets: Array | None,
    reverse: bool,
    input_grad: bool,
    dweight_ih: Array,
    dbias: Array | None,
) -> tuple[Array | None, Array]: ...
def low_precision_forward(
    cell: str,
    precision: str,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    lengths: Array | None,
    batch_sizes: Array | None,
    resets: Array | None,
    reverse: bool,
    training: bool,
    y: Array | None = None,
) -> tuple[Array, Array, Array | None, Array | None]: ...
def low_precision_backward(
    cell: str,
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    y: Array,
    weight_ih: Array,
    weight_hh: Array,
    reserve: Array,
    lengths: Array | None,
    batch_sizes: Array | None,
    resets: Array | None,
    reverse: bool,
    input_grad: bool,
    dweight_ih: Array,
    dweight_hh: Array,
    dbias_ih: Array | None,
    dbias_hh: Array | None,
) -> tuple[Array | None, Array, Array | None]: ...
def linear_forward(x: Array, weight: Array, bias: Array | None) -> Array: ...
def linear_backward(
    dy: Array, x: Array, weight: Array, dweight: Array, dbias: Array | None, input_grad: bool
) -> Array | None: ...
def embedding_backward(dy: Array, indices: npt.NDArray[np.int64], dweight: Array) -> None: ...
def softmax_cross_entropy(
    logits: Array, targets: npt.NDArray[np.int64], weights: Array | None = None, smoothing: float = 0.0
) -> tuple[float, Array]: ...
def mixture_density(parameters: Array, target: Array, weights: Array | None) -> tuple[float, Array]: ...
def binary_cross_entropy(logits: Array, targets: Array, weights: Array | None = None) -> tuple[float, Array]: ...
def squared_error(prediction: Array, target: Array, weights: Array | None = None) -> tuple[float, Array]: ...
def sgd_step(
    data: Array,
    grad: Array,
    momentum_buffer: Array | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None: ...
def adagrad_step(
    data: Array, grad: Array, sum: Array, lr: float, eps: float, weight_decay: float, eps_inside: bool
) -> None: ...
def rmsprop_step(
    data: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None,
    momentum_buffer: Array | None,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
    eps_inside: bool,
) -> None: ...
def adam_step(
    data: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None: ...
def clip_value(grad: Array, limit: float) -> None: ...
def scale(grad: Array, factor: float) -> None: ...
def squared_norm(grad: Array) -> float: ...
def built_isas() -> list[str]: ...
def available_isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def as_array(object: Any, name: str) -> Array: ...
def views(objects: Sequence[Any]) -> list[Array | None]: ...
def math_sweep(name: str, x: Array) -> Array: ...

class FrozenFloat32:
    def __init__(
        self, cell: str, option: str, precision: str, batch: int, layers: list[list[Array | None]]
    ) -> None: ...
    def sequence(
        self, index: int, x: Array, h0: Array | None, c0: Array | None, reverse: bool
    ) -> tuple[Array, Array, Array | None]: ...
    def step(self, x: Array) -> Array: ...
    def state(self) -> tuple[Array, Array | None]: ...
    def set_state(self, h: Array, c: Array | None) -> None: ...

class FrozenFloat64:
    def __init__(
        self, cell: str, option: str, precision: str, batch: int, layers: list[list[Array | None]]
    ) -> None: ...
    def sequence(
        self, index: int, x: Array, h0: Array | None, c0: Array | None, reverse: bool
    ) -> tuple[Array, Array, Array | None]: ...
    def step(self, x: Array) -> Array: ...
    def state(self) -> tuple[Array, Array | None]: ...
    def set_state(self, h: Array, c: Array | None) -> None: ...

ELEMENTWISE: dict[str, int]

class Plan:
    def __init__(self, code: Array, constants: Array) -> None: ...

class ProgramRun:
    steps: int
    batch: int
    def __init__(
        self,
        steps: int,
        batch: int,
        lengths: Array | None = None,
        reverse: bool = False,
        seed: int = 0,
        row_offset: int = 0,
        step_offset: int = 0,
        checkpoint: int = 0,
        lanes: int = 0,
        chunk: int = 0,
    ) -> None: ...

class ProgramKept:
    nbytes: int

class FrozenProgram:
    def __init__(self, plan: Plan, doubles: bool, shared: list[Array]) -> None: ...

# shared, rows, states and inputs
_ProgramArrays = tuple[list[Any], list[Any], list[Any], list[Any]]

def program_forward(
    plan: Plan, run: ProgramRun, doubles: bool, arrays: _ProgramArrays, keep: bool, frozen: FrozenProgram | None = None
) -> tuple[list[Array], list[Array], list[Array], list[Array], ProgramKept | None]: ...
def program_backward(
    plan: Plan,
    forward_plan: Plan,
    run: ProgramRun,
    doubles: bool,
    arrays: _ProgramArrays,
    forward_arrays: _ProgramArrays,
    kept: ProgramKept,
) -> _ProgramArrays: ...
def program_block(batch: int) -> int: ...
