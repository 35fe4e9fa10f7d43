"""Random steps of every instruction: numbers stay of order one, and gradients are defined where they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fusedrnn.scan import instructions as to
from fusedrnn.scan.derivative import Derivative, derive
from fusedrnn.scan.graph import Graph, Level, Step

MOST = 160  # elements of a value
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17)
LARGEST = 4.0  # of a real value; larger ones are scaled


@dataclass(frozen=True, eq=False)
class Program:
    """A step, its derivative, and the limit below which each integer leaf lies (the negative of it included)."""

    seed: int
    step: Step
    derivative: Derivative
    limits: dict[Any, int]

    def arrays(self, steps: int, batch: int, dtype: Any = np.float64, seed: int = 0) -> tuple[list[Any], ...]:
        """Arrays (shared, rows, states, inputs) whose reals float32 holds exactly; integers in the call's dtype."""
        rng = np.random.default_rng((self.seed, seed))
        return tuple(
            [np.asarray(self._array(rng, leaf, lead), dtype) for leaf in leaves]
            for leaves, lead in (
                (self.step.shared, ()),
                (self.step.rows, (batch,)),
                (self.step.states, (batch,)),
                (self.step.inputs, (steps, batch)),
            )
        )

    def _array(self, rng: np.random.Generator, leaf: Any, lead: tuple[int, ...]) -> Any:
        shape = (*lead, *leaf.shape)
        if leaf.kind == "boolean":
            return rng.random(shape) < 0.5
        if leaf.kind == "integer":
            return rng.integers(0 if leaf in self.step.states else -self.limits[leaf], self.limits[leaf], shape)
        return _reals(rng, shape)

    def gradients(self, steps: int, batch: int, dtype: Any = np.float64, seed: int = 0) -> tuple[list[Any], ...]:
        """Gradients of the results that have one: of new states, outputs, row outputs, shared outputs."""
        rng = np.random.default_rng((self.seed, seed, 1))
        d = self.derivative
        given = (d.step.states, d.step.inputs[-_present(d.outputs) or len(d.step.inputs) :])
        given += (d.step.rows[len(self.step.rows) :], d.step.shared[len(self.step.shared) :])
        return tuple(
            [np.asarray(_reals(rng, (*lead, *value.shape)), dtype) for value in values]
            for values, lead in zip(given, ((batch,), (steps, batch), (batch,), ()), strict=True)
        )


def _reals(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return np.float32(rng.uniform(-1, 1, shape))


def _present(places: tuple[int | None, ...]) -> int:
    return sum(place is not None for place in places)


class _Draw:
    """Makes a step. `anywhere`: whether steps (floor, compare) may be taken of results, where rounding can tell."""

    def __init__(self, seed: int, size: int, anywhere: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.anywhere = anywhere
        self.graph = Graph()
        self.leaves: dict[str, list[Any]] = {"shared": [], "rows": [], "states": [], "inputs": []}
        self.limits: dict[Any, int] = {}
        self.bounds: dict[Any, float] = {}
        self.exact: list[Any] = []
        self.pool: list[Any] = []
        self.booleans: list[Any] = []
        self.streams = 0
        for _ in range(self.rng.integers(0, 4)):
            self.leaf("states", self.shape())
        if not self.leaves["states"] or self.rng.random() < 0.9:
            self.leaf("inputs", self.shape())
        if self.rng.random() < 0.3:
            self.counter = self._new("states", (), "integer", 5)
        else:
            self.counter = None
        names = [name for name in dir(self) if name.startswith("do_")]
        for name in self.rng.permutation(names * (1 + size // len(names)))[:size]:
            getattr(self, name)()

    # what there is to choose from

    def shape(self, ndim: int | None = None) -> tuple[int, ...]:
        ndim = int(self.rng.integers(0, 4)) if ndim is None else ndim
        while True:
            shape = tuple(int(n) for n in self.rng.choice(SIZES, ndim))
            if np.prod(shape, dtype=int) <= MOST:
                return shape

    def some(self, several: Any) -> Any:
        return several[self.rng.integers(len(several))]

    def _new(self, where: str, shape: tuple[int, ...], kind: Any, limit: int = 0) -> Any:
        level = {"shared": Level.SHARED, "rows": Level.ROW}.get(where, Level.STEP)
        value = self.graph.leaf(f"{where} {len(self.leaves[where])}", shape, kind, level)
        self.leaves[where].append(value)
        self.limits[value] = limit
        return value

    def leaf(self, where: str, shape: tuple[int, ...]) -> Any:
        value = self._new(where, shape, "real")
        self.bounds[value] = 1.0
        self.pool.append(value)
        if where != "states":
            self.exact.append(value)
        return value

    def fresh(self, shape: tuple[int, ...]) -> Any:
        """A value of a shape that nothing has been done to: an old leaf or a new one, or a constant."""
        old = [value for value in self.exact if value.shape == shape]
        if old and self.rng.random() < 0.5:
            return self.some(old)
        if self.rng.random() < 0.15:
            value = self.graph.constant(self.rng.uniform(-1, 1, shape).astype(np.float32))
            self.bounds[value] = 1.0
            return value
        return self.leaf(self.some(("shared", "shared", "rows", "inputs")), shape)

    def one(self, least: int = 0, most: int = 3) -> Any:
        """A real value, mostly a late one, of at least so many axes."""
        fitting = [value for value in self.pool if least <= value.ndim <= most]
        if not fitting:
            return self.fresh(self.shape(int(self.rng.integers(least, most + 1))))
        return fitting[-1 - min(int(self.rng.exponential(4)), len(fitting) - 1)]

    def like(self, shape: tuple[int, ...]) -> Any:
        """A value that broadcasts to a shape."""
        fitting = [value for value in self.pool if _broadcasts(value.shape, shape)]
        if fitting and self.rng.random() < 0.8:
            return self.some(fitting)
        drop = int(self.rng.integers(0, len(shape) + 1)) if self.rng.random() < 0.3 else 0
        return self.fresh(tuple(n if self.rng.random() < 0.8 else 1 for n in shape[drop:]))

    def steady(self, most: int = 3, least: int = 0) -> Any:
        """A value whose steps (floor, order) rounding does not move."""
        if self.anywhere and self.rng.random() < 0.5:
            return self.one(least, most)
        fitting = [value for value in self.exact if least <= value.ndim <= most]
        return self.some(fitting) if fitting else self.fresh(self.shape(max(1, least)))

    def index(self, shape: tuple[int, ...], limit: int) -> Any:
        if self.rng.random() < 0.3:
            return self.graph.constant(self.rng.integers(-limit, limit, shape))
        return self._new(self.some(("shared", "rows", "inputs")), shape, "integer", limit)

    def condition(self, shape: tuple[int, ...]) -> Any:
        fitting = [value for value in self.booleans if _broadcasts(value.shape, shape)]
        if fitting and self.rng.random() < 0.7:
            return self.some(fitting)
        value = self._new(self.some(("shared", "rows", "inputs")), shape, "boolean")
        self.booleans.append(value)
        return value

    def keep(self, value: Any, bound: float, exact: bool = False) -> Any:
        """Adds a value to those that later instructions read, scaled where it could be large."""
        if value.size > MOST:
            return value
        if bound > LARGEST:
            name = self.some(("tanh", "sin", "scale"))
            value = to.multiply(value, 2 / bound) if name == "scale" else to.unary(name, value)
            bound = 2.0 if name == "scale" else 1.0
        known = self.bounds.setdefault(value, bound)
        self.bounds[value] = max(known, bound)
        self.pool.append(value)
        if exact and value not in self.exact:
            self.exact.append(value)
        return value

    def positive(self, x: Any) -> tuple[Any, float]:
        return to.add(to.unary("square", x), 0.5), self.bounds[x] ** 2 + 0.5

    def is_exact(self, *values: Any) -> bool:
        return all(value in self.exact for value in values)

    # instructions

    def do_smooth(self) -> None:
        x = self.one()
        b = self.bounds[x]
        op = self.some(("negative", "square", "exp", "expm1", "sin", "cos", "tanh", "sigmoid", "softplus"))
        bound = {"negative": b, "square": b * b, "exp": np.exp(b), "expm1": np.exp(b), "softplus": b + 1}.get(op, 1.0)
        self.keep(to.unary(op, x), float(bound))

    do_more_smooth = do_smooth

    def do_of_positive(self) -> None:
        x, b = self.positive(self.one())
        op = self.some(("sqrt", "log", "log1p", "reciprocal"))
        self.keep(to.unary(op, x), 2.0 if op == "reciprocal" else b)

    def do_bent(self) -> None:
        x = self.one()
        self.keep(to.unary(self.some(("relu", "absolute")), x), self.bounds[x])

    def do_stepped(self) -> None:
        x = self.steady()
        op = self.some(("floor", "sign"))
        self.keep(to.unary(op, to.multiply(x, 2.0) if self.rng.random() < 0.5 else x), 2 * self.bounds[x] + 1)

    def do_binary(self) -> None:
        a = self.one()
        b = self.like(a.shape)
        if self.rng.random() < 0.3:
            a, b = b, a
        op = self.some(("add", "add", "subtract", "multiply", "multiply", "maximum", "minimum", "divide"))
        of_a, of_b = self.bounds[a], self.bounds[b]
        if op == "divide":
            self.keep(to.divide(a, self.positive(b)[0]), 2 * of_a)
        else:
            self.keep(to.binary(op, a, b), of_a * of_b if op == "multiply" else of_a + of_b)

    do_binary_again = do_more_binary = do_binary

    def do_with_number(self) -> None:
        x, number = self.one(), float(np.float32(self.rng.uniform(-1.5, 1.5)))
        op = self.some(("add", "subtract", "multiply", "maximum", "minimum"))
        pair = (x, number) if self.rng.random() < 0.5 else (number, x)
        self.keep(to.binary(op, *pair), 1.5 * self.bounds[x] + 1.5)
        self.keep(to.divide(number, self.positive(x)[0]), 3.0)

    def do_sum_of_many(self) -> None:
        terms = [self.one()]
        for _ in range(int(self.rng.integers(2, 5))):
            terms.append(self.like(terms[0].shape))
        found = terms[0]
        for term in terms[1:]:
            found = to.add(found, term)
        self.keep(found, sum(self.bounds[term] for term in terms))

    def do_gradient(self) -> None:
        a = self.one()
        v = to.unary("tanh", self.like(a.shape))
        self.keep(to.binary(self.some(("tanh_gradient", "sigmoid_gradient")), a, v), 2 * self.bounds[a])

    def do_compare(self) -> None:
        a = self.steady()
        b = self.some((0.25, self.fresh(a.shape)))
        found = to.compare(self.some(to.COMPARISONS), a, b)
        if self.rng.random() < 0.5:
            found = to.logical("logical_not", found)
        if self.rng.random() < 0.5:
            found = to.logical(self.some(("logical_and", "logical_or")), found, self.condition(found.shape))
        self.booleans.append(found)

    def do_where(self) -> None:
        a = self.one()
        b = self.like(a.shape)
        self.keep(to.where(self.condition(a.shape), a, b), max(self.bounds[a], self.bounds[b]))

    def do_numbers_of_booleans(self) -> None:
        if self.booleans:
            self.keep(to.as_real(self.some(self.booleans)), 1.0)

    def do_whole_numbers(self) -> None:
        whole = to.as_integer(to.multiply(self.steady(), 3.0))
        whole = self.some((whole, to.unary("negative", whole), to.add(whole, 1), to.unary("absolute", whole)))
        self.keep(to.as_real(to.sum_(whole) if self.rng.random() < 0.3 else whole), 13.0 * MOST)

    def do_stop(self) -> None:
        x = self.one()
        self.keep(to.stop_gradient(x), self.bounds[x])

    def do_broadcast(self) -> None:
        x = self.one(0, 2)
        self.keep(to.broadcast(x, (int(self.some(SIZES)), *x.shape)), self.bounds[x], self.is_exact(x))

    def do_reshape(self) -> None:
        x = self.one()
        rest, shape = x.size, []
        while rest > 1 and len(shape) < 2:
            shape.append(self.some([n for n in range(1, rest + 1) if rest % n == 0]))
            rest //= shape[-1]
        self.keep(to.reshape(x, (*shape, rest)), self.bounds[x], self.is_exact(x))

    def do_transpose(self) -> None:
        x = self.one(2)
        self.keep(to.transpose(x, self.rng.permutation(x.ndim)), self.bounds[x], self.is_exact(x))

    def do_slice(self) -> None:
        x = self.one(1)
        starts, sizes, steps = [], [], []
        for n in x.shape:
            step = int(self.some((1, 1, 2, 3, -1, -2)))
            start = int(self.rng.integers(n))
            room = (n - 1 - start if step > 0 else start) // abs(step) + 1
            starts.append(start)
            sizes.append(int(self.rng.integers(1, room + 1)))
            steps.append(step)
        self.keep(to.slice_(x, starts, sizes, steps), self.bounds[x], self.is_exact(x))

    do_slice_again = do_slice

    def do_parts(self) -> None:
        x = self.one(1)
        axis = int(self.rng.integers(x.ndim))
        parts = int(self.some([n for n in range(1, x.shape[axis] + 1) if x.shape[axis] % n == 0]))
        size = [n // parts if i == axis else n for i, n in enumerate(x.shape)]
        for part in range(min(parts, 4)):
            start = [part * n if i == axis else 0 for i, n in enumerate(size)]
            self.keep(to.slice_(x, start, size), self.bounds[x], self.is_exact(x))

    def do_pad(self) -> None:
        x = self.one()
        steps = [int(self.some((1, 1, 2, -1))) for _ in x.shape]
        room = [int(self.rng.integers(0, 3)) for _ in x.shape]
        shape = [abs(s) * (n - 1) + 1 + 2 * r for n, s, r in zip(x.shape, steps, room, strict=True)]
        starts = [r if s > 0 else m - 1 - r for m, s, r in zip(shape, steps, room, strict=True)]
        self.keep(to.pad(x, tuple(shape), starts, steps), self.bounds[x])

    def do_concatenate(self) -> None:
        first = self.one(1)
        axis = int(self.rng.integers(first.ndim))
        parts = [first]
        for _ in range(int(self.rng.integers(1, 4))):
            shape = tuple(int(self.some(SIZES[:8])) if i == axis else n for i, n in enumerate(first.shape))
            fitting = [
                each
                for each in self.pool
                if each.ndim == first.ndim and _beside(each.shape, axis) == _beside(first.shape, axis)
            ]
            parts.append(self.some(fitting) if fitting and self.rng.random() < 0.7 else self.fresh(shape))
        self.keep(to.concatenate(parts, axis), max(self.bounds[part] for part in parts))

    def do_sum(self) -> None:
        x = self.one()
        axes = [axis for axis in range(x.ndim) if self.rng.random() < 0.6]
        count = int(np.prod([x.shape[axis] for axis in axes], dtype=int))
        self.keep(to.sum_(x, axes), self.bounds[x] * count)

    def do_max(self) -> None:
        x = self.one(1)
        self.keep(to.max_(x, int(self.rng.integers(x.ndim))), self.bounds[x])

    def do_softmax(self) -> None:
        x = self.one(1)
        self.keep(to.softmax(x, int(self.rng.integers(x.ndim))), 1.0)

    def do_order(self) -> None:
        x = self.steady(3, 1)
        axis = int(self.rng.integers(x.ndim))
        y = self.some([each for each in self.pool if each.shape == x.shape] or [x])
        self.keep(to.gather(y, to.argsort(x, axis), axis), self.bounds[y])

    def do_argmax(self) -> None:
        x = self.steady(2, 1)
        axis = int(self.rng.integers(x.ndim))
        table = self.fresh((x.shape[axis], *self.shape(1)))
        self.keep(to.take(table, to.argmax(x, axis)), self.bounds[table])

    def do_recurrence(self) -> None:
        b = self.one(1)
        a = to.multiply(to.unary("tanh", self.like(b.shape)), 0.75)
        a = self.some((a, self.graph.constant(0.5)))
        axis, reverse = int(self.rng.integers(b.ndim)), bool(self.rng.integers(2))
        self.keep(to.recurrence(a, b, axis, reverse), 4 * self.bounds[b])

    def do_gather(self) -> None:
        x = self.one(1)
        axis = int(self.rng.integers(x.ndim))
        shape = tuple(int(self.some(SIZES[:8])) if i == axis else n for i, n in enumerate(x.shape))
        if self.rng.random() < 0.5:
            self.keep(to.gather(x, self.index(shape, x.shape[axis]), axis), self.bounds[x])
        else:
            size = int(self.some(SIZES))
            self.keep(to.scatter(x, self.index(x.shape, size), axis, size), self.bounds[x] * x.shape[axis])

    def do_take(self) -> None:
        if self.rng.random() < 0.5:
            table = self.one(1, 2)
            index = self.index(self.shape(int(self.rng.integers(0, 2))), table.shape[0])
            self.keep(to.take(table, index), self.bounds[table])
        else:
            x, size = self.one(1, 2), int(self.some(SIZES))
            index = self.index(x.shape[: int(self.rng.integers(0, x.ndim + 1))], size)
            self.keep(to.put(x, index, size), self.bounds[x] * max(1, index.size))

    def do_affine(self) -> None:
        x = self.one(1, 2)
        n = int(self.some(SIZES))
        flipped = self.rng.random() < 0.5
        weights = self.fresh((n, x.shape[-1]) if flipped else (x.shape[-1], n))
        if x.ndim == 1 and flipped:
            y = to.matmul(weights, x)
        else:
            y = to.matmul(x, to.transpose(weights) if flipped else weights)
        terms = int(self.rng.integers(0, 5))
        for _ in range(terms):
            y = to.add(y, self.like(y.shape))
        self.keep(y, x.shape[-1] * self.bounds[x] + LARGEST * (terms + 1))

    do_affine_again = do_affine

    def do_product(self) -> None:
        a = self.one(1)
        shape = (*a.shape[:-2], a.shape[-1], int(self.some(SIZES)))
        b = self.some([each for each in self.pool if each.ndim > 1 and each.shape[:-1] == shape[:-1]] or [None])
        b = self.fresh(shape) if b is None else b
        self.keep(to.matmul(a, b), a.shape[-1] * self.bounds[a] * self.bounds[b])

    def do_outer(self) -> None:
        a, b = self.one(1, 1), self.one(1, 1)
        y = to.product(to.reshape(a, (-1, 1)), to.reshape(b, (1, -1)))
        self.keep(y, self.bounds[a] * self.bounds[b])

    def do_uniform(self) -> None:
        self.streams += 1
        self.keep(to.uniform(self.graph, self.shape(), self.streams), 1.0, exact=True)

    # the step

    def fit(self, value: Any, shape: tuple[int, ...]) -> Any:
        """A value's elements in another shape, the first of them or with zeros behind."""
        size = int(np.prod(shape, dtype=int))
        flat = to.reshape(value, (value.size,))
        flat = to.slice_(flat, (0,), (size,)) if value.size >= size else to.pad(flat, (size,), (0,))
        return to.reshape(flat, shape)

    def step(self) -> Step:
        new_states = []
        for state in self.leaves["states"]:
            if state is self.counter:
                more = to.add(state, 1)
                new_states.append(to.where(to.compare("less", more, 5), more, 0))
                self.keep(to.take(self.fresh((5, *self.shape(1))), state), 1.0)
                continue
            found = self.fit(self.one(), state.shape)
            new_states.append(self.some((to.unary("tanh", found), found, to.multiply(found, 0.5))))
        read = {each for value in self.graph.values for each in value.inputs}
        unread = [value for value in self.pool if value not in read and value.op != "leaf"]
        outputs = [self.one() for _ in range(int(self.rng.integers(1, 3)))] + unread[-6:]
        if self.booleans and self.rng.random() < 0.2:
            outputs.append(self.some(self.booleans))
        if self.leaves["states"] and self.rng.random() < 0.2:
            outputs.append(self.some(new_states))
        row_outputs, shared_outputs = [], []
        if self.rng.random() < 0.4:
            found = to.total(to.lift(self.one(), Level.STEP), Level.ROW)
            row_outputs.append(self.some((found, to.multiply(found, 0.5))))  # linear, as derivatives need
        if self.rng.random() < 0.4:
            found = to.total(to.lift(self.some((self.one(), self.one(1, 2))), Level.STEP), Level.SHARED)
            shared_outputs.append(self.some((found, to.transpose(found), to.sum_(found))))
        rows = [value for value in self.pool if value.level is Level.ROW]
        if rows and self.rng.random() < 0.3:
            shared_outputs.append(to.total(self.some(rows), Level.SHARED))
        if rows and self.rng.random() < 0.3:
            row_outputs.append(self.some(rows))
        leaves = (tuple(self.leaves[where]) for where in ("shared", "rows", "states", "inputs"))
        return Step(self.graph, *leaves, *(tuple(each) for each in (new_states, outputs, row_outputs, shared_outputs)))


def _broadcasts(shape: tuple[int, ...], to_shape: tuple[int, ...]) -> bool:
    return len(shape) <= len(to_shape) and all(n in (1, m) for n, m in zip(shape[::-1], to_shape[::-1], strict=False))


def _beside(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def draw(seed: int, size: int = 12, *, anywhere: bool = False) -> Program:
    """A random step of about so many instructions, the same for a seed always.

    With `anywhere` floors, orders and comparisons are taken of computed values too, where float32 may step otherwise.
    """
    drawn = _Draw(seed, size, anywhere)
    step = drawn.step()
    return Program(seed, step, derive(step), drawn.limits)
