"""A checkpoint's schema: it is written here, and read by the one reader that knows it."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusedrnn.arrays import Array
from fusedrnn.json_values import plain
from fusedrnn.nn import Module
from fusedrnn.optim import Optimizer
from fusedrnn.train.checkpoint import Checkpoint
from fusedrnn.train.progress import Progress
from fusedrnn.train.stored import Part

_SAMPLES = 17  # steps at which two schedules are compared


@dataclass
class Snapshot:
    """A run at one step: ``tensors`` as ``model.NAME``, ``optimizer.NAME`` and ``state...`` (what windows carry).

    ``optimizer_state`` are its numbers, ``trained`` the parameters that it moves (None: all), ``rng`` the state of the
    model's generators, ``carried`` how the state of windows is put together, ``settings`` what `settings_of` gives,
    ``batches`` the `fusedrnn.train.batches.identity` of the epoch that ``run`` was in.
    """

    run: Progress
    seed: int
    optimizer: str
    optimizer_state: dict[str, Any]
    trained: list[str] | None
    rng: dict[str, Any]
    carried: Any
    metadata: dict[str, Any]
    settings: dict[str, Any]
    batches: Any
    tensors: dict[str, Array]

    def state(self) -> dict[str, Any]:
        """All but the tensors, fit for JSON."""
        entries = {name: value for name, value in vars(self).items() if name != "tensors"}
        return {**entries, "run": asdict(self.run)}


def read_snapshot(checkpoint: Checkpoint, source: Path) -> Snapshot:
    """A checkpoint of the Trainer, every field of it checked. Raises CheckpointError, which names the field."""
    state = Part(checkpoint.state, source)
    numbers: dict[str, Any] = {}  # a user's optimizer may have other things there
    for name, part in state.of("optimizer_state").entries().items():
        if name == "steps":
            part.integer()
        elif name == "lr" or type(part.value) in (int, float):
            part.number()
        numbers[name] = part.value
    run = state.of("run").fill(Progress)
    if run.batch and run.batch >= run.batches:
        state.of("run").of("batch").refuse(f"expected less than the {run.batches} of the epoch, got {run.batch}")
    if not numbers.get("lr", 0) >= 0:
        state.of("optimizer_state").of("lr").refuse(f"expected a number from 0, got {numbers['lr']}")
    if run.loss_count == 0 != run.loss_sum or run.epoch_count == 0 != run.epoch_sum:
        state.of("run").refuse("a sum of losses of no rows")
    for part in state.of("rng").entries().values():
        part.entries()
    return Snapshot(
        run=run,
        seed=state.of("seed").integer(least=-(2**200), most=None),
        optimizer=state.of("optimizer").text(),
        optimizer_state=numbers,
        trained=state.of("trained").optional(Part.texts),
        rng={name: part.value for name, part in state.of("rng").entries().items()},
        carried=state.of("carried").value,
        metadata={name: part.value for name, part in state.of("metadata").entries().items()},
        settings={name: part.value for name, part in state.of("settings").entries().items()},
        batches=state.of("batches").value,
        tensors=checkpoint.tensors,
    )


@contextlib.contextmanager
def undone_on_error(model: Module, optimizer: Optimizer) -> Iterator[None]:
    """An error within leaves parameters, optimizer state and random state as they were before."""
    parameters = [(parameter, parameter.data.copy()) for parameter in model.parameters()]
    state = optimizer.state_dict()
    generators = model.rng_state()
    try:
        yield
    except BaseException:
        for parameter, data in parameters:
            parameter.data[...] = data
        optimizer.load_state_dict(state)
        model.set_rng_state(generators)
        raise


# settings: what a run does, beside its parameters, as far as it can be written down


def settings_of(
    model: Module, optimizer: Optimizer, loss: Any, schedule: Callable[[int], float] | None, total: int, options: Any
) -> dict[str, Any]:
    """By name, fit for JSON: the ``options`` as they are given, simple attributes of the optimizer, the loss and the
    library's own layers, and what the schedule gives over ``total`` updates."""
    found: dict[str, Any] = dict(options)
    found |= {f"optimizer.{name}": v for name, v in _options(optimizer).items() if name not in ("lr", "steps")}
    found["loss"] = type(loss).__name__
    found |= {f"loss.{name}": v for name, v in _options(loss).items()}
    for prefix, module in model._named_modules():
        own = {name: v for name, v in _options(module).items() if name != "training"}
        found |= {f"model.{prefix}{name}": v for name, v in own.items()}
    steps = sorted({i * (total - 1) // (_SAMPLES - 1) for i in range(_SAMPLES)})
    found["schedule"] = [[step, _factor(schedule, step)] for step in steps]
    return {name: _told(value) for name, value in found.items()}


def differences(
    stored: Mapping[str, Any], now: Mapping[str, Any], schedule: Callable[[int], float] | None
) -> list[str]:
    """Say in words what is otherwise ``now`` than it is ``stored``."""
    found = []
    for name in sorted(stored.keys() | now.keys()):
        if name == "schedule":
            samples = stored.get(name)
            samples = samples if isinstance(samples, list) else []
            for sample in samples:
                if not (isinstance(sample, list) and len(sample) == 2 and type(sample[0]) is int):
                    continue
                if (factor := _factor(schedule, sample[0])) != sample[1]:
                    found.append(f"schedule of update {sample[0]} was {sample[1]}, is {factor}")
                    break
        elif stored.get(name) != now.get(name):
            found.append(f"{name} was {stored.get(name)!r:.60}, is {now.get(name)!r:.60}")
    return found


def _factor(schedule: Callable[[int], float] | None, step: int) -> float | None:
    if schedule is None:
        return 1.0
    try:
        factor = float(schedule(step))
    except Exception:  # a schedule need not know steps that never come
        return None
    return factor if math.isfinite(factor) else None


def _options(thing: Any) -> dict[str, Any]:
    """Simple attributes of an object of the library; of a user's subclass those that the library's class was given, for
    others may change from call to call."""
    names: set[str] = set()
    if _is_ours(type(thing)):
        names.update(vars(thing))
    else:
        for cls in filter(_is_ours, type(thing).__mro__):
            names.update(inspect.signature(cls).parameters)
    found = {name: getattr(thing, name, thing) for name in sorted(names) if not name.startswith("_")}
    return {name: value for name, value in found.items() if _is_simple(value)}


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("fusedrnn.")


def _is_simple(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_simple, value))
    return value is None or isinstance(value, (bool, int, float, str, np.generic, np.dtype))


def _told(value: Any) -> Any:
    try:
        return plain(value, "setting")
    except (TypeError, ValueError):
        return str(value)
