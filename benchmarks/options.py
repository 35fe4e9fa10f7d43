"""What the experiments' command lines share: options of one meaning everywhere, and errors of one line."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.report import DISTRIBUTIONS, OWN

# Only where asked for: compiling takes far longer than the measurement, and this library's own variants are no rivals.
ON_REQUEST = ("pytorch-compiled", *OWN)


def installed() -> list[str]:
    """Libraries beside ours that can be imported here."""
    return [name for name, package in DISTRIBUTIONS.items() if importlib.util.find_spec(package)]


def number(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number in these bounds."""
    wanted = f"a whole number from {low} to {high}" if high is not None else f"at least {low}"

    def parse(text: str) -> int:
        value = int(text) if text.isdecimal() else low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text}")
        return value

    return parse


def numbers(low: int, high: int) -> Callable[[str], list[int]]:
    """Whole numbers in these bounds, between commas."""

    def parse(text: str) -> list[int]:
        values = [int(part) if part.isdecimal() else low - 1 for part in text.split(",")]
        if not all(low <= value <= high for value in values):
            raise argparse.ArgumentTypeError(f"expected numbers from {low} to {high}, got {text!r}")
        return list(dict.fromkeys(values))

    return parse


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Names out of these, between commas; each once, in the order given."""
    names = list(known)

    def parse(text: str) -> list[str]:
        values = [value for value in text.split(",") if value]
        for value in values:
            if value not in names:
                raise argparse.ArgumentTypeError(f"expected some of {', '.join(names)}, got {value!r}")
        return list(dict.fromkeys(values))

    return parse


def one_of(known: Iterable[str]) -> Callable[[str], str]:
    """One name out of these."""
    names = list(known)

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return parse


def _peers(text: str) -> list[str]:
    values = some_of(DISTRIBUTIONS)(text)
    for name in values:
        if name not in installed():
            package = DISTRIBUTIONS[name]
            raise argparse.ArgumentTypeError(f"{name} is not installed: pip install {package}, or leave it out")
    return values


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a file in a folder that can be written to, got {text!r}")
    return path


def _picture(text: str) -> Path:
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("expected matplotlib to be installed: pip install matplotlib")
    return _file(text)


class Parser(argparse.ArgumentParser):
    """Of one experiment; each method adds an option that has the same name and meaning in all of them."""

    def __init__(self, name: str, about: str, **keywords: Any) -> None:
        super().__init__(prog=f"python -m benchmarks {name}".strip(), description=about, **keywords)

    def error(self, message: str) -> NoReturn:
        """One line, exit status 2."""
        self.exit(2, f"{self.prog}: {message}\n")

    def add_peers(self, *default: str) -> None:
        """``--peers``; by default all that are installed, but for those `ON_REQUEST`, or ``default`` ("": none)."""
        names = [name for name in installed() if (name in default if default else name not in ON_REQUEST)]
        self.add_argument(
            "--peers", type=_peers, default=names, metavar="LIST",
            help=f"libraries beside ours, of {', '.join(DISTRIBUTIONS)} (default: {','.join(names) or 'none'})",
        )  # fmt: skip

    def add_pytorch(self) -> None:
        """``--peers`` where PyTorch is the only other library."""
        self.add_argument(
            "--peers", type=some_of(["pytorch"]), default=["pytorch"], metavar="LIST",
            help='pytorch, or "" for ours alone',
        )  # fmt: skip

    def add_some(self, name: str, known: Iterable[str], default: str, what: str = "") -> None:
        """``--name`` that takes some of ``known``."""
        text = f"{what + ', ' if what else ''}of {','.join(known)} (default: {default})"
        self.add_argument(f"--{name}", type=some_of(known), default=default.split(","), metavar="LIST", help=text)

    def add_one(self, name: str, known: Iterable[str], default: str) -> None:
        """``--name`` that takes one of ``known``."""
        text = f"one of {', '.join(known)} (default: {default})"
        self.add_argument(f"--{name}", type=one_of(known), default=default, metavar="NAME", help=text)

    def add_threads(self, default: int = 1) -> None:
        """``--threads``, one number."""
        self.add_argument(
            "--threads",
            type=number(1, 256),
            default=default,
            metavar="K",
            help="for each library (default: %(default)s)",
        )

    def add_size(self, name: str, default: int, what: str, most: int = 100_000) -> None:
        """``--name``, a size of a shape or a count."""
        text = f"{what} (default: %(default)s)"
        self.add_argument(f"--{name}", type=number(1, most), default=default, metavar="N", help=text)

    def add_rounds(self, default: int) -> None:
        """``--rounds``."""
        self.add_argument(
            "--rounds", type=number(1), default=default, metavar="N", help="turns of each (default: %(default)s)"
        )

    def add_files(self, picture: str = "") -> None:
        """``--json``, and ``--plot`` where there is a picture."""
        self.add_argument("--json", type=_file, metavar="FILE", help="also write all figures there")
        if picture:
            self.add_argument("--plot", type=_picture, metavar="FILE", help=f"also draw {picture} there, a PNG")


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """Counts on standard error, where that is a terminal."""

    def __init__(self, total: int, what: str = "rounds") -> None:
        self.total, self.what, self.done = total, what, 0

    def __call__(self) -> None:
        """One more is done."""
        self.done += 1
        if sys.stderr.isatty():
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.done} of {self.total} {self.what}", end=end, file=sys.stderr, flush=True)
