"""The arrays that a step gets while it is traced: they look like NumPy's and note what is done to them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fusedrnn.arrays import Array
from fusedrnn.scan import instructions as ins
from fusedrnn.scan.graph import Shape, Value
from fusedrnn.scan.trace import FUNCTIONS, UFUNCS, VIEWS, TraceError, current, refused, user_line

_DTYPES = {"real": np.dtype(np.float64), "integer": np.dtype(np.int64), "boolean": np.dtype(np.bool_)}
KIND_NAMES = {"real": "real numbers", "integer": "integers", "boolean": "booleans"}
_NO_NUMBERS = "has no numbers while the step is traced"

# Functions that people use and that have no rule, and what to write instead.
_INSTEAD = {
    **dict.fromkeys(
        ("nonzero", "argwhere", "flatnonzero", "unique", "extract", "compress"),
        "The result's shape would depend on data: keep the shape and mask with np.where",
    ),
    **dict.fromkeys(("copyto", "put", "put_along_axis", "place", "putmask", "fill_diagonal"), "Build it by np.where"),
    **dict.fromkeys(
        ("inv", "pinv", "solve", "lstsq", "det", "slogdet", "svd", "eig", "eigh", "cholesky", "qr", "matrix_rank"),
        "Write it from products, sums and quotients: of a 1 x 1 matrix the inverse is 1 / a",
    ),
    **dict.fromkeys(("vectorize", "apply_along_axis", "piecewise", "select"), "Write it with np.where"),
    "convolve": "Write fusedrnn.ops.circular_convolve, over np.pad for one that is not circular",
    "kron": "Write np.outer(a, b).reshape(-1) of vectors",
    "isclose": "Write np.abs(a - b) <= tolerance",
    "median": "Write it with np.sort",
    "save": "A step has no effects beside what it returns",
}


class Memory:
    """What NumPy would keep in one piece of memory: an array and its views.

    Attributes:
        leaf: The name of the parameter or context that it belongs to, which no step may change; else "".
        changed: The user's line that changed it in place; else "".
    """

    __slots__ = ("changed", "leaf")

    def __init__(self, leaf: str = "") -> None:
        self.leaf = leaf
        self.changed = ""


class Traced(NDArrayOperatorsMixin):
    """An array whose numbers are not known yet. Operators and NumPy's functions give further ones."""

    __slots__ = ("memory", "value")
    __hash__ = None  # type: ignore[assignment]  # as of NumPy's arrays

    def __init__(self, value: Value, memory: Memory | None = None) -> None:
        self.value = value
        self.memory = memory or Memory()

    @property
    def shape(self) -> Shape:
        """Of one row."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.value.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64 for real numbers, which have the precision of the call later; int64; bool."""
        return _DTYPES[self.value.kind]

    @property
    def T(self) -> Any:
        """The transpose."""
        return np.transpose(self)

    @property
    def mT(self) -> Any:
        """The transpose of the last two axes."""
        return np.swapaxes(self, -1, -2)

    def __repr__(self) -> str:
        return f"<traced {self.value.kind} array of shape {self.shape}>"

    # NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__
        out = options.pop("out", None)
        if method == "at":
            raise refused(f"np.{name}.at changes an array in place", "Build a new one with np.where or np.concatenate")
        if out is not None and not (method == "__call__" and isinstance(out[0], Traced) and out[0] is inputs[0]):
            if isinstance(out[0], Traced):
                raise refused(f"np.{name} with out=", "Write result = " + f"np.{name}(...)")
            raise refused(
                f"np.{name} writes a traced array into an ordinary NumPy array in place (out=, or an operator like +=)",
                "Write a = a + b instead of a += b",
            )
        options.pop("dtype", None)
        if method == "__call__":
            known, arguments, more = UFUNCS.get(name), inputs, {}
        else:
            known, arguments, more = UFUNCS.get(f"{name}.{method}"), inputs, options
            options = {}
        if known is None:
            raise _unknown(name if method == "__call__" else f"{name}.{method}", list(UFUNCS))
        if options:
            raise refused(f"np.{name} with {', '.join(options)}=", "Leave it out; choose elements with np.where")
        result = _call(f"np.{name}", known, arguments, more)
        return result if out is None else _in_place(out[0], result, ufunc.__name__)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = function.__name__
        if kwargs.get("out") is not None:
            raise refused(f"np.{name} with out=", f"Write result = np.{name}(...)")
        known = FUNCTIONS.get(function)
        if known is None:
            raise _unknown(name, [each.__name__ for each in FUNCTIONS])
        first = args[0] if args else None
        memory = first.memory if function in VIEWS and isinstance(first, Traced) else None
        return _call(f"np.{name}", known, args, kwargs, memory)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise refused(
            f"a traced array was to become an ordinary NumPy array, but it {_NO_NUMBERS}",
            "Instead of np.array([a, b]) or np.asarray(a) write np.stack([a, b]) or a; instead of out[i] = a write "
            "np.where, np.stack or np.concatenate; instead of zeros[i] = 1 write "
            "fusedrnn.ops.one_hot(i, n); instead of constants[i] or np.take(constants, i) write "
            "fusedrnn.ops.take(constants, i); instead of softmax of scipy.special write fusedrnn.ops.softmax",
        )

    # what is not known while a step is traced

    def _number(self, what: str, instead: str) -> TraceError:
        return refused(f"{what}: a traced array {_NO_NUMBERS}", instead)

    def __bool__(self) -> bool:
        raise self._number(
            "a branch on the data (if, while, and, or, not, in, assert)", "Write np.where(condition, a, b)"
        )

    def __float__(self) -> float:
        raise self._number("float() or a function of math", "Leave it an array; use NumPy's functions")

    def __complex__(self) -> complex:
        raise self._number("complex()", "Complex numbers are not traced: keep two real arrays")

    def __int__(self) -> int:
        raise self._number("int()", "Write a.astype(int)")

    def __index__(self) -> int:
        raise self._number(
            "an array as a Python integer",
            "Shapes, ranges and lists need constants; entries of arrays are fusedrnn.ops.take(array, i)",
        )

    def __format__(self, format_spec: str) -> str:
        if format_spec:
            raise self._number("a number in a text", "Return it as an output of the step, and print that")
        return repr(self)

    def __copy__(self) -> Any:
        return np.copy(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return np.copy(self)

    def __round__(self, digits: int | None = None) -> Any:
        return np.round(self).astype(int) if digits is None else np.round(self, digits)

    def __len__(self) -> int:
        if not self.shape:
            raise refused("len() of a traced array without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise refused("iteration over a traced array without axes", "A single number cannot be taken apart")
        return (self[place] for place in range(self.shape[0]))

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise refused(
            "assignment to elements of a traced array", "Write np.where(mask, a, b), np.concatenate or np.stack"
        )

    def __delitem__(self, key: Any) -> NoReturn:
        raise refused("deletion of elements of a traced array", "Write np.concatenate of what stays")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in Traced.__slots__ or not hasattr(np.ndarray, name):
            raise AttributeError(f"a traced array has no attribute {name!r}")
        instead = {"sort": "Write np.sort(a)", "item": "Leave it an array", "fill": "Write np.full_like(a, value)"}

        def method(*args: Any, **kwargs: Any) -> NoReturn:
            raise refused(f"the method {name} of a traced array", instead.get(name, ""))

        return method

    def __getitem__(self, key: Any) -> Any:
        from fusedrnn.scan.indexing import is_view, item

        return _call("indexing", item, (self, key), {}, self.memory if is_view(key, self.ndim) else None)

    # NumPy's methods

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Stand for ``numpy.sum``."""
        return np.sum(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Stand for ``numpy.prod``."""
        return np.prod(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Stand for ``numpy.mean``."""
        return np.mean(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def var(self, axis: Any = None, dtype: Any = None, out: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
        """Stand for ``numpy.var``."""
        return np.var(self, axis=axis, dtype=dtype, out=out, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Any = None, dtype: Any = None, out: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
        """Stand for ``numpy.std``."""
        return np.std(self, axis=axis, dtype=dtype, out=out, ddof=ddof, keepdims=keepdims)

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Stand for ``numpy.max``."""
        return np.max(self, axis=axis, out=out, keepdims=keepdims)

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Stand for ``numpy.min``."""
        return np.min(self, axis=axis, out=out, keepdims=keepdims)

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Stand for ``numpy.all``."""
        return np.all(self, axis=axis, out=out, keepdims=keepdims)

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Stand for ``numpy.any``."""
        return np.any(self, axis=axis, out=out, keepdims=keepdims)

    def argmax(self, axis: int | None = None) -> Any:
        """Stand for ``numpy.argmax``."""
        return np.argmax(self, axis=axis)

    def argmin(self, axis: int | None = None) -> Any:
        """Stand for ``numpy.argmin``."""
        return np.argmin(self, axis=axis)

    def argsort(self, axis: int | None = -1, kind: Any = None) -> Any:
        """Stand for ``numpy.argsort``, stable."""
        return np.argsort(self, axis=axis, kind=kind)

    def cumsum(self, axis: int | None = None) -> Any:
        """Stand for ``numpy.cumsum``."""
        return np.cumsum(self, axis=axis)

    def cumprod(self, axis: int | None = None) -> Any:
        """Stand for ``numpy.cumprod``."""
        return np.cumprod(self, axis=axis)

    def dot(self, other: Any) -> Any:
        """Stand for ``numpy.dot``."""
        return np.dot(self, other)

    def take(self, indices: Any, axis: int | None = None) -> Any:
        """Stand for ``numpy.take``."""
        return np.take(self, indices, axis=axis)

    def repeat(self, repeats: Any, axis: int | None = None) -> Any:
        """Stand for ``numpy.repeat``."""
        return np.repeat(self, repeats, axis=axis)

    def reshape(self, *shape: Any, order: Any = "C") -> Any:
        """Stand for ``numpy.reshape``."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order=order)

    def transpose(self, *axes: Any) -> Any:
        """Stand for ``numpy.transpose``."""
        return np.transpose(self, (axes[0] if len(axes) == 1 else axes) if axes else None)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        """Stand for ``numpy.swapaxes``."""
        return np.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Any:
        """Stand for ``numpy.squeeze``."""
        return np.squeeze(self, axis=axis)

    def ravel(self, order: Any = "C") -> Any:
        """Stand for ``numpy.ravel``."""
        return np.ravel(self, order=order)

    def flatten(self, order: Any = "C") -> Any:
        """Stand for ``numpy.ravel``, but a copy."""
        return np.copy(np.ravel(self, order=order))

    def copy(self, order: Any = "C") -> Any:
        """Stand for ``numpy.copy``."""
        return np.copy(self)

    def clip(self, min: Any = None, max: Any = None) -> Any:
        """Stand for ``numpy.clip``."""
        return np.clip(self, min, max)

    def round(self, decimals: int = 0) -> Any:
        """Stand for ``numpy.round``."""
        return np.round(self, decimals)

    def astype(self, dtype: Any, **options: Any) -> Any:
        """Real numbers, integers or booleans; float32 and float64 are one, since the call settles the precision."""
        return _call("astype", converted, (self, dtype), {})


def lift(x: Any) -> Value:
    """The value of a traced array, or a constant; TraceError for what is neither."""
    trace = current()
    if isinstance(x, Traced):
        if trace is None or x.value.graph is not trace.graph:
            raise refused(
                f"an array of another trace (made at {x.value.where or 'its start'}), kept in a closure, a global or "
                "an attribute",
                "Return it with the state, and take it from the state at the next step",
            )
        if x.memory.changed:
            raise refused(
                f"an array that {x.memory.changed} changed in place under another name",
                "Write a = a + b instead of a += b: the other name would see the change in NumPy",
            )
        return x.value
    if trace is None:
        raise refused("an array of a trace that has ended, beside numbers", "Take it from what the scan returns")
    return trace.graph.constant(constant(x))


def constant(x: Any) -> Array:
    """Return what a step closes over as an array of real numbers, integers or booleans; TraceError for all else."""
    if x is None:
        raise refused("None among numbers", "Compare with `is None`")
    if isinstance(x, np.ma.MaskedArray):
        raise refused("a masked array among constants", "Fill it, and keep the mask as an array of its own")
    array = np.asarray(x)
    if array.dtype.kind in "biuf":
        return array
    what = {"c": "complex numbers", "U": "text", "S": "text", "O": "Python objects"}.get(array.dtype.kind, array.dtype)
    instead = "Keep real and imaginary parts as two real arrays" if array.dtype.kind == "c" else ""
    raise refused(f"expected numbers or booleans, got {what} ({type(x).__name__})", instead)


def converted(x: Any, dtype: Any) -> Value:
    """Convert as ``astype`` does."""
    value, kind = lift(x), np.dtype(dtype).kind
    if kind == "f":
        return ins.as_real(value)
    if kind in "iu":
        return ins.as_integer(value)
    if kind == "b":
        return value if value.kind == "boolean" else ins.compare("not_equal", value, 0)
    raise refused(f"astype({np.dtype(dtype)})", "Real numbers, integers and booleans are traced")


def _call(name: str, function: Any, args: Any, kwargs: Any, memory: Memory | None = None) -> Any:
    """Run an implementation, whose values become traced arrays; errors name the user's line."""
    trace = current()
    if trace is not None:
        trace.mark()
    try:
        result = function(*args, **kwargs)
    except ins.ShapeError as error:
        raise refused(f"{name}: {error}") from None
    except TypeError:
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            raise refused(f"{name}: its arguments cannot be traced: {error}") from None
        raise
    if isinstance(result, Value):
        return Traced(result, memory)
    if isinstance(result, (tuple, list)):
        return type(result)(Traced(each, memory) if isinstance(each, Value) else each for each in result)
    return result


def _in_place(target: Traced, result: Any, name: str) -> Traced:
    """Make ``a += b`` a new array; other names of the old one may not be used again."""
    if target.memory.leaf:
        raise refused(
            f"{target.memory.leaf} is changed in place: the change would last over the steps in NumPy",
            "Write a = a + b instead of a += b",
        )
    if result.shape != target.shape or (result.value.kind != target.value.kind and target.value.kind != "real"):
        raise refused(
            f"np.{name} in place: expected {KIND_NAMES[target.value.kind]} of shape {target.shape}, "
            f"got {KIND_NAMES[result.value.kind]} of shape {result.shape}",
            "Write a = a + b instead of a += b",
        )
    target.memory.changed = user_line()
    return Traced(ins.as_real(result.value) if target.value.kind == "real" else result.value)


def _unknown(name: str, known: list[str]) -> TraceError:
    close = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.75)
    instead = _INSTEAD.get(name) or (f"Functions of like names that have one: {', '.join(close)}" if close else "")
    return refused(f"{name} has no rule for traced arrays", instead)
