"""What the adapters' tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def count_calls(monkeypatch):
    """The number of forward calls into the kernels so far."""
    from fusedrnn.torch import calls

    counted = []
    forward = calls.forward
    monkeypatch.setattr(calls, "forward", lambda *a: counted.append(a) or forward(*a))
    return lambda: len(counted)
