"""Models of other packages, trained ten steps on PyTorch's layers and on ours."""

from __future__ import annotations

import pytest


@pytest.fixture
def twice(monkeypatch, tmp_path, threads):
    """``twice(run)`` calls ``run(accelerated, folder)`` both ways and compares what it returns, tensors by name: losses
    relative to each, as some are small. It returns how many forward calls of ours there were, none left to PyTorch."""
    torch = pytest.importorskip("torch")
    from fusedrnn.torch import calls, fallbacks

    threads(1)
    torch.set_num_threads(1)

    def compare(run):
        fallbacks.clear()  # tests silence warnings of other packages, and with them ours
        counted, forward = [], calls.forward
        monkeypatch.setattr(calls, "forward", lambda *a: counted.append(a) or forward(*a))
        results = []
        for accelerated in (False, True):
            folder = tmp_path / str(accelerated)
            folder.mkdir()
            torch.manual_seed(0)
            results.append(run(accelerated, folder))
            assert accelerated or not counted
        assert not fallbacks
        plain, ours = results
        assert plain.keys() == ours.keys()
        for name, values in plain.items():
            found, expected = torch.as_tensor(ours[name]), torch.as_tensor(values)
            atol = 0 if name == "losses" else 1e-5
            assert found.isfinite().all(), name
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
        return len(counted)

    return compare
