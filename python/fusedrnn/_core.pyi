"""The compiled module: arrays in, arrays out. `fusedrnn.functional`, `nn` and `optim` are its documented faces.

Every function raises TypeError or ValueError for an array of the wrong dtype, shape or layout, before any work.
Arrays named d... that a backward call is given are added to.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

__version__: str
compiler: str
NO_STEPS: str  # why x without steps is refused, and the way round

class Settings:
    """A cell and its options, read once; tests/test_spec.py has the names. ``reverse`` is one of every cell's."""

    def __init__(self, cell: str, **options: Any) -> None: ...
    @property
    def cell(self) -> str: ...
    @property
    def options(self) -> dict[str, Any]: ...  # as they were given
    @property
    def changed(self) -> list[str]: ...  # those that make it another cell than the plain one
    def replace(self, **options: Any) -> Settings: ...

# Tuples of states are (h0[, c0]), of parameters as `fusedrnn.spec` has them, and may end early; sequences are (lengths,
# batch_sizes, resets) or None. Any part may be None that the cell does without.
class Reserve:
    """What forward keeps for backward. The constructor is for those who save the arrays in their own way."""

    def __init__(
        self,
        settings: Settings,
        x: Array,
        states: tuple[Array | None, ...],
        parameters: tuple[Array | None, ...],
        sequences: tuple[Any, Any, Any] | None,
        y: Array,
        buffer: Array,
    ) -> None: ...
    digests: Any  # of the arrays, for whoever checks that they did not change
    @property
    def cell(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def x(self) -> Array: ...
    @property
    def states(self) -> tuple[Any, ...]: ...
    @property
    def parameters(self) -> tuple[Any, ...]: ...
    @property
    def sequences(self) -> tuple[Any, Any, Any] | None: ...
    @property
    def y(self) -> Array: ...
    @property
    def buffer(self) -> Array: ...

def forward(
    settings: Settings,
    x: Array,
    states: tuple[Array | None, ...],
    parameters: tuple[Array | None, ...],
    sequences: tuple[Any, Any, Any] | None,
    training: bool,
    y: Array | None = None,
    return_c: bool = False,
) -> tuple[Any, ...]: ...  # y, h_n[, c_n], reserve or None[, c]
def backward(
    reserve: Reserve, doutputs: tuple[Array | None, ...], input_grad: bool, dparameters: tuple[Array | None, ...]
) -> tuple[Any, ...]: ...  # dx or None, dh0[, dc0]

class Stack:
    """The layers and directions of a stack, run in one call. sizes: of each layer the widths of its states; a state is
    one array [L * D, N, W], or a tuple of arrays [D, N, W] where layers differ in size."""

    def __init__(
        self, settings: list[Settings], sizes: Sequence[Sequence[int]], residual: bool
    ) -> None: ...  # of one direction or two
    def forward(
        self,
        x: Array,
        states: tuple[Any, ...],
        parameters: list[tuple[Array | None, ...]],  # of each layer and direction
        sequences: tuple[Any, Any, Any] | None,
        training: bool,
        masks: list[Array] | None,  # times the outputs of all layers but the last
        draws: tuple[int, int] | None,  # seed and row_offset
    ) -> tuple[Array, tuple[Any, ...], list[Reserve]]: ...
    def backward(
        self,
        reserves: list[Reserve],
        dy: Array | None,
        dstates: tuple[Any, ...],
        input_grad: bool,
        dparameters: list[tuple[Array | None, ...]],
        masks: list[Array] | None,
    ) -> tuple[Array | None, tuple[Any, ...]]: ...

def cell_facts() -> dict[str, tuple[int, list[str], dict[str, str], list[str]]]: ...
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
    def __init__(self, settings: Settings, batch: int, layers: list[tuple[Array | None, ...]]) -> None: ...
    def sequence(self, index: int, x: Array, states: tuple[Array | None, ...], reverse: bool) -> tuple[Array, ...]: ...
    def step(self, x: Array) -> Array: ...
    def state(self) -> tuple[Array, ...]: ...
    def set_state(self, states: tuple[Array, ...]) -> None: ...

class FrozenFloat64:
    def __init__(self, settings: Settings, batch: int, layers: list[tuple[Array | None, ...]]) -> None: ...
    def sequence(self, index: int, x: Array, states: tuple[Array | None, ...], reverse: bool) -> tuple[Array, ...]: ...
    def step(self, x: Array) -> Array: ...
    def state(self) -> tuple[Array, ...]: ...
    def set_state(self, states: tuple[Array, ...]) -> None: ...

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
