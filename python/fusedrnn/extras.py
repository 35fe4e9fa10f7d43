"""The libraries that are no dependencies: which extra brings them, and the one sentence that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def how_to_install(extra: str) -> str:
    """How an extra is installed today: no registry has fusedrnn, so it takes a clone."""
    return f"in a clone of fusedrnn: pip install '.[{extra}]'"


@contextmanager
def needed_for(what: str, extra: str) -> Iterator[None]:
    """Around imports that ``what`` needs: where a library is missing, the error names it and the extra that has it.

    Raises ModuleNotFoundError, whose ``name`` is the library's. A library that is there but broken says so itself.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0] or "a library"
        message = f"{what} needs {library}, which is not installed; {how_to_install(extra)}"
        raise ModuleNotFoundError(message, name=library) from error
