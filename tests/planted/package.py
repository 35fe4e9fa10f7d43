"""Bugs for the tests to find: package."""

from __future__ import annotations

from tests.planted.bug import Bug

BUGS: tuple[Bug, ...] = ()
