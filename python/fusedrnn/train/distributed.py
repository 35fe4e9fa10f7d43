"""Several processes that train as one, on one machine or many: ``mpirun -n 2 python script.py``.

Each process takes its rows of every batch, in the order of their ranks, and weighs its gradient by its share of them;
one Allreduce over the flat gradient buffer makes the sum that of the joint batch. All else that a process could decide
alone (to stop, to save, a metric) is decided by the first one and told to the others. Needs mpi4py (extra ``mpi``),
which is imported only where an MPI launcher started more than one process.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, TypeAlias, TypeVar

import numpy as np

from fusedrnn import _core, runtime
from fusedrnn.arrays import Array
from fusedrnn.extras import how_to_install
from fusedrnn.nn import Dropout, FlatParameters, Module, Scan
from fusedrnn.nn.module import Rows
from fusedrnn.optim import Optimizer
from fusedrnn.train.display import say

T = TypeVar("T")
# The axes of the rows in x and in target; of a tuple of arrays one for each of them.
RowAxes: TypeAlias = "tuple[int | tuple[int, ...], int | tuple[int, ...]]"
_PATIENCE = 5.0  # seconds in which processes that fail alike should do so
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # Open MPI; MPICH and Intel MPI; MVAPICH


_finding = threading.Lock()  # two threads that initialise MPI at once would wait for other processes twice


class DistributedError(RuntimeError):
    """Processes that cannot train as one: mpi4py missing or of another MPI, models or batches that differ."""


class World:
    """One process alone: it has all rows, and what it finds holds.

    Attributes:
        rank, size: the number of this process, from 0, and how many there are.
    """

    rank, size = 0, 1

    def check(self, model: Module, axes: RowAxes | None) -> None:
        """Raise ValueError for what several processes would not do as one does."""

    def begin(self, model: Module, optimizer: Optimizer, facts: Callable[[], dict[str, Any]]) -> None:
        """Give all processes the first one's parameters, random state and state of the optimizer.

        Raises DistributedError where facts, by name, or the kind of model or optimizer differ.
        """

    def take(self, x: Any, target: Any, axes: RowAxes | None, *, compare: bool = False) -> tuple[Any, Any, Rows | None]:
        """This process's part of a batch, ``axes`` being those of the rows in x and target; which rows they are.

        x and target are an array, or a tuple of arrays.

        With ``compare`` raise DistributedError where the batch is not the same in all processes.
        """
        return x, target, None

    def sum(self, value: float, params: FlatParameters, share: float) -> float:
        """The loss of the joint batch, from each process's and the weight that it has there; the gradients of
        ``params`` likewise, in place."""
        return value

    def share(self, weight: float) -> float:
        """Return this process's part of the sum of all processes' weights; 0 where that is 0."""
        return 1.0 if weight else 0.0

    def any(self, flag: bool) -> bool:
        """Whether the flag of any process is set."""
        return flag

    def first(self, function: Callable[[], T]) -> T:
        """What ``function`` gives or raises in the first process, which alone calls it."""
        return function()

    def after_first(self, function: Callable[[], T]) -> T:
        """What ``function`` gives, called in the other processes when the first is done: what it fetched is there."""
        return function()

    def same(self, what: str, value: Callable[[], Any]) -> None:
        """Raise DistributedError in every process unless all have the same value. One alone does not ask for it."""

    def join_rows(self, arrays: dict[str, Array], rows: Rows | None) -> dict[str, Array]:
        """All processes' rows of states [..., N, H], by name; this one has ``rows``. ValueError for other shapes."""
        return arrays

    def own_rows(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """This process's rows of states [..., N, H], by name."""
        return arrays

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Within, an error of one process ends all of them rather than leave the others waiting for ever."""
        yield


class MpiWorld(World):
    """The processes of an MPI communicator, one member each.

    Args:
        comm: as ``mpi4py.MPI.COMM_WORLD``. Making one is a call that all its processes make together, as are all
            methods.
        patience: seconds that ``guard`` waits for the other processes to raise as well.
    """

    def __init__(self, comm: Any, *, patience: float = _PATIENCE) -> None:
        self.comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.patience = patience
        self._errors = comm.Dup()  # a barrier there cannot be taken for a call that others make on `comm`

    def _rows(self, total: int, axis: int) -> Rows:
        start, stop = (total * k // self.size for k in (self.rank, self.rank + 1))
        return Rows(start, stop, total, axis)

    def check(self, model: Module, axes: RowAxes | None) -> None:
        """As of ``World``."""
        if axes is None:
            raise ValueError(
                f"row_axes: expected the axes of x and target along which {self.size} processes share the rows of a "
                "batch, such as (1, 0), got None"
            )
        for module in model.modules():
            if not isinstance(module, (Dropout, Scan)) and any(
                isinstance(v, np.random.Generator) for v in vars(module).values()
            ):
                raise ValueError(
                    f"model: {type(module).__name__} has a random generator of its own, whose numbers {self.size} "
                    "processes cannot share by rows; draw with nn.Dropout, or keep no generator"
                )

    def begin(self, model: Module, optimizer: Optimizer, facts: Callable[[], dict[str, Any]]) -> None:
        """As of ``World``."""
        shapes = {name: (p.data.shape, str(p.data.dtype)) for name, p in model.named_parameters()}
        kinds = {"parameters": shapes, "optimizer": type(optimizer).__name__, "instruction set": _core.isa()}
        moved = {"parameters that the optimizer moves": optimizer.part_of(model)}
        for what, value in {**kinds, **moved, **facts()}.items():
            self.same(what, partial(_given, value))
        self.comm.Bcast(model.flatten().data)
        model.set_rng_state(self.comm.bcast(model.rng_state()))
        optimizer.load_state_dict(self.comm.bcast(optimizer.state_dict()))

    def take(self, x: Any, target: Any, axes: RowAxes | None, *, compare: bool = False) -> tuple[Any, Any, Rows | None]:
        """As of ``World``. ValueError where arrays differ in rows."""
        assert axes is not None
        parts = {"x": _leaves("x", x, axes[0]), "target": _leaves("target", target, axes[1])}
        if compare:
            self.same(
                "batches, x and target",
                lambda: tuple(fingerprint(array) for leaves in parts.values() for array, _ in leaves),
            )
        first, first_axis = parts["x"][0]
        count = np.shape(first)[first_axis]
        for name, leaves in parts.items():
            for array, axis in leaves:
                if np.shape(array)[axis] != count:
                    raise ValueError(
                        f"row_axes: expected as many rows in x {np.shape(first)} as in {name} {np.shape(array)}, "
                        f"got {count, np.shape(array)[axis]}"
                    )
        rows = self._rows(count, first_axis)
        part = slice(rows.start, rows.stop)
        own = [[_part(array, part, axis) for array, axis in leaves] for leaves in parts.values()]
        return _like(x, own[0]), _like(target, own[1]), rows

    def sum(self, value: float, params: FlatParameters, share: float) -> float:
        """As of ``World``."""
        grad = params.grad
        grad *= share
        self.comm.Allreduce(None, grad)  # None is MPI's IN_PLACE, and sums are the default
        total = np.array([share * value])
        self.comm.Allreduce(None, total)
        return float(total[0])

    def share(self, weight: float) -> float:
        """As of ``World``."""
        total = np.array([weight])
        self.comm.Allreduce(None, total)
        return weight / float(total[0]) if total[0] else 0.0

    def any(self, flag: bool) -> bool:
        """As of ``World``."""
        flags = np.array([flag], np.intc)
        self.comm.Allreduce(None, flags)
        return bool(flags[0])

    def first(self, function: Callable[[], T]) -> T:
        """As of ``World``; what it gives goes to the others pickled."""
        told: tuple[Any, Exception | None] | None = None
        if self.rank == 0:
            try:
                told = function(), None
            except Exception as error:
                told = None, error if _survives_pickling(error) else DistributedError(repr(error))
        told = self.comm.bcast(told)
        assert told is not None
        value, failure = told
        if failure is not None:
            raise failure
        result: T = value
        return result

    def after_first(self, function: Callable[[], T]) -> T:
        """As of ``World``; what it raises in the first process all raise."""
        kept: list[T] = []
        self.first(lambda: kept.append(function()))
        return kept[0] if kept else function()

    def same(self, what: str, value: Callable[[], Any]) -> None:
        """As of ``World``."""
        values = self.comm.allgather(value())
        for rank, other in enumerate(values):
            if other != values[0]:
                raise DistributedError(
                    f"{what}: expected the same in all {self.size} processes, got {values[0]!s:.200} in process 0 and "
                    f"{other!s:.200} in process {rank}"
                )

    def join_rows(self, arrays: dict[str, Array], rows: Rows | None) -> dict[str, Array]:
        """As of ``World``."""
        for name, array in arrays.items():
            if rows is not None and (array.ndim < 2 or array.shape[-2] != rows.stop - rows.start):
                raise ValueError(
                    f"{name}: expected a state [..., N, H] of {rows.stop - rows.start} rows, got {array.shape}"
                )
        parts = self.comm.allgather(arrays)
        return {name: np.concatenate([part[name] for part in parts], axis=-2) for name in arrays}

    def own_rows(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """As of ``World``."""
        own = {}
        for name, array in arrays.items():
            if array.ndim < 2:
                raise ValueError(f"{name}: expected a state [..., N, H], got {array.shape}")
            start, stop, *_ = self._rows(array.shape[-2], array.ndim - 2)
            own[name] = _part(array, slice(start, stop), array.ndim - 2)
        return own

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """As of ``World``: an error that all processes raise is raised as ever; after ``patience`` seconds without the
        others it is this one's alone, and MPI ends them all."""
        try:
            yield
        except BaseException as error:
            others = self._errors.Ibarrier()
            end = time.monotonic() + self.patience
            while not others.Test():
                if time.monotonic() > end:
                    told = "".join(traceback.format_exception(error))
                    say(f"{told}fusedrnn: error in process {self.rank} of {self.size}; ending all")
                    time.sleep(0.5)  # launchers lose what was written just before they kill
                    self.comm.Abort(1)
                time.sleep(0.01)
            raise


def fingerprint(array: Array) -> int:
    """A number that tells arrays apart."""
    return zlib.crc32(np.ascontiguousarray(array).data)


def find_world() -> World:
    """All processes that an MPI launcher (mpirun, mpiexec, srun) started; this one alone where there was none.

    The first call initialises MPI. It also gives every process its share of the cores, unless a number of threads was
    asked for: cores of the affinity mask that several processes have in theirs are divided by them.
    Raises DistributedError without mpi4py, or with one that was built for another MPI than the launcher's.
    """
    with _finding:
        return _find_world()


@cache
def _find_world() -> World:
    launched = max((int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdigit()), default=1)
    if launched == 1 and "PMIX_RANK" not in os.environ:
        return World()
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise DistributedError(
            f"an MPI launcher started {launched} processes, but mpi4py cannot be imported ({error}); "
            f"{how_to_install('mpi')}"
        ) from None
    comm: Any = MPI.COMM_WORLD
    if comm.Get_size() == 1:
        if launched > 1:
            raise DistributedError(
                f"the launcher started {launched} processes, but mpi4py finds only its own: it uses another MPI "
                f"({MPI.Get_library_version().splitlines()[0].strip()}) than the launcher"
            )
        return World()
    if not runtime.threads_were_chosen():
        share = _share_of_cores(comm.Split_type(MPI.COMM_TYPE_SHARED))
        runtime.set_num_threads(min(share, runtime.get_num_threads()))  # OMP_NUM_THREADS may allow fewer
    return MpiWorld(comm)


def _share_of_cores(machine: Any) -> int:
    """How many cores are this process's, of those in its affinity mask; ``machine``: the processes beside it."""
    own = os.sched_getaffinity(0)
    masks = machine.allgather(own)
    return max(1, int(sum(1 / sum(core in mask for mask in masks) for core in own) + 1e-9))


def _given(value: Any) -> Any:
    return value


def _leaves(name: str, value: Any, axes: int | tuple[int, ...]) -> list[tuple[Any, int]]:
    """Pair the arrays of x or target with the axes of their rows. ValueError for axes that they do not have."""
    arrays = value if isinstance(value, tuple) else (value,)
    own = axes if isinstance(axes, tuple) else (axes,) * len(arrays)
    if len(own) != len(arrays):
        raise ValueError(f"row_axes: expected {len(arrays)} axes, one for each array of {name}, got {axes}")
    for array, axis in zip(arrays, own, strict=True):
        if not 0 <= axis < np.ndim(array):
            raise ValueError(f"row_axes: expected an axis of {name} {np.shape(array)}, got {axis}")
    return list(zip(arrays, own, strict=True))


def _like(value: Any, arrays: list[Array]) -> Any:
    """Put arrays into a tuple of the kind of value, or give the one that stands for an array."""
    if not isinstance(value, tuple):
        return arrays[0]
    return type(value)(*arrays) if hasattr(value, "_fields") else tuple(arrays)


def _part(a: Array, part: slice, axis: int) -> Array:
    own = np.asanyarray(a)[(slice(None),) * axis + (part,)]
    return own.copy() if np.ma.isMaskedArray(own) else np.ascontiguousarray(own)  # masks say where rows end


def _survives_pickling(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False
