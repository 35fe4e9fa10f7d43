"""The classes that `accelerate` gives to layers: over any class of a user's, with its names, in files."""

from __future__ import annotations

import abc
import io
import pickle
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

import fusedrnn.torch as ft  # noqa: E402

torch.set_num_threads(1)  # tests run side by side
nn = torch.nn
X = torch.linspace(-1, 1, 40).reshape(2, 5, 4)


class Named(nn.LSTM):
    """Another constructor and initial values; PyTorch's forward."""

    def __init__(self, size, *, scale=1.0):
        super().__init__(size, 2 * size, batch_first=True)
        self.scale = scale

    def reset_parameters(self):
        super().reset_parameters()
        self.was_reset = True


class Abstract(nn.GRU, abc.ABC):
    """Has a metaclass."""


class Counting:
    def __call__(self, *arguments):
        self.calls = getattr(self, "calls", 0) + 1
        return super().__call__(*arguments)


class Mixed(Counting, nn.LSTM):
    """A mixin before PyTorch's class."""


class Hidden(nn.RNN):
    """Has a method of the name of one of ours."""

    def _kernel_walk(self):
        return "its own"


class Slotted(nn.RNN):
    """Has another layout in memory."""

    __slots__ = ("more",)


class Registered(nn.GRUCell):
    """Keeps a register of its subclasses, which need a name."""

    register: ClassVar[dict[str, type]] = {}
    made = 0

    def __init_subclass__(cls, /, name, **keywords):
        super().__init_subclass__(**keywords)
        cls.register[name] = cls

    def count(self):
        type(self).made += 1


class Strict(type):
    """A metaclass that wants no other below it."""

    def __init_subclass__(cls):
        raise ValueError("only one")


class OfStrict(nn.GRU, metaclass=Strict):
    """Has a metaclass that cannot be mixed."""


class Noting(type):
    """A metaclass that keeps a register."""

    register: ClassVar[list[str]] = []

    def __new__(cls, name, bases, members):
        cls.register.append(name)
        return super().__new__(cls, name, bases, members)


class OfNoting(nn.GRU, metaclass=Noting):
    """Is in a register once."""


def test_unusual_subclasses():
    model = nn.ModuleDict({
        "abstract": Abstract(2, 3), "mixed": Mixed(2, 3), "hidden": Hidden(2, 3), "slotted": Slotted(2, 3),
        "registered": Registered(2, 3), "strict": OfStrict(2, 3), "noting": OfNoting(2, 3),
    })  # fmt: skip
    report = ft.accelerate(model)
    taken = ("abstract", "mixed", "slotted", "registered", "noting")
    assert report.swapped == {name: type(model[name]).__name__ for name in taken}
    assert report.left["hidden"].endswith("Hidden, whose own _kernel_walk would be lost")
    assert report.left["strict"].endswith("OfStrict, of which Python makes no other: only one")
    assert not Registered.register
    assert Noting.register == ["OfNoting"]
    model["registered"].count()
    assert Registered.made == 1  # by way of type(self)
    for name in ("abstract", "mixed", "slotted", "noting"):
        x = torch.ones(4, 1, 2)
        again = pickle.loads(pickle.dumps(model[name]))
        assert torch.equal(again(x)[0], model[name](x)[0])
        assert type(again) is type(model[name])
    assert ft.restore(model).swapped == report.swapped


def test_files_of_a_whole_model():
    """Also those of the old protocols, those that PyTorch's careful reader takes, and a layer's class by itself."""
    model = nn.Sequential(nn.GRU(4, 3), Named(3))
    ft.accelerate(model)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(model, protocol))
        assert [type(layer) for layer in again] == [type(layer) for layer in model]
        assert isinstance(again[0], ft.GRU)
    assert pickle.loads(pickle.dumps(type(model[1]))) is type(model[1])
    file = io.BytesIO()
    model[0](X)[0].sum().backward()  # what a layer remembers of its calls is in no file
    torch.save(model, file)
    file.seek(0)
    with torch.serialization.safe_globals([nn.Sequential, nn.GRU, Named, set]):
        again = torch.load(file, weights_only=True)
    assert torch.equal(again[0](X)[0], model[0](X)[0])
    assert isinstance(again[1], ft.LSTM)
    file.seek(0)
    with torch.serialization.safe_globals([nn.Sequential, nn.GRU, set]), pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)  # Named is not among them


def test_classes_of_plain_and_accelerated_layers_are_one_kind():
    plain, other = Named(3), Named(3)
    ft.accelerate(other)
    assert isinstance(plain, type(other))
    assert isinstance(other, type(plain))
    assert issubclass(Named, type(other))
    assert not isinstance(nn.LSTM(2, 3), type(other))


def test_names_that_a_layer_may_have_for_itself():
    """Buffers of a loop with states, for example."""
    layer = nn.GRU(4, 3)
    ft.accelerate(layer)
    for name in ("states", "_states", "_lengths", "_options", "_run", "kernel_options"):
        layer.register_buffer(name, torch.zeros(1))
    assert layer(X)[0].shape[-1] == 3


def test_attributes_that_somebody_changed():
    layer = nn.GRU(4, 3)
    ft.accelerate(layer)
    layer.bidirectional = True
    with pytest.raises(RuntimeError):
        layer(X)
    cell = nn.GRUCell(4, 3)
    ft.accelerate(cell)
    with pytest.raises(AttributeError, match="'tuple' object has no attribute 'dim'"):
        cell(X[0], (torch.zeros(len(X[0]), 3),))


def test_names_of_a_class_and_what_is_set_on_it():
    layer = Named(3)
    ft.accelerate(layer)
    kind = type(layer)
    assert (kind.__module__, kind.__qualname__) == (Named.__module__, "Named")
    kind.of_all = 1
    assert Named.of_all == 1
    del kind.of_all
    assert not hasattr(Named, "of_all")
