"""`fusedrnn selftest --cuda`: parity and report over the emulator, with another clock; what it says without a GPU."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")

from fusedrnn.cuda import cells, compiled, selftest  # noqa: E402
from fusedrnn.cuda.arrays import Torch  # noqa: E402

torch.set_num_threads(1)  # tests run side by side

LIBRARY, DEVICE = Torch(torch), torch.device("cpu")
SIZE = selftest.Size(3, 3, 2, 17, uneven=True)


def in_turn(calls, repeats):
    """A clock by which each call takes a second longer than the one before."""
    for call in calls:
        call()
    return [float(k + 1) for k in range(len(calls))]


def test_every_cell_product_and_tier_is_run_and_right(emulated_gpu):
    found = list(selftest.parity(LIBRARY, DEVICE, [SIZE]))
    assert {(r.cell, r.product, r.tier) for r in found} == {
        (cell, product, tier) for cell in cells.GATES for product in selftest.DTYPES for tier in selftest.TIERS
    }
    assert all(r.passed for r in found), [r for r in found if not r.passed]
    assert all(r.error > 0 for r in found)
    assert all(r.error > 1e-5 for r in found if r.product == "tf32"), "not rounded to TF32"
    assert cells.forced_tier is None
    assert not compiled.tf32_allowed()


def test_each_tier_is_forced_and_lengths_differ(emulated_gpu, monkeypatch):
    seen, run = [], cells._run

    def watched(library, layer, backward, shape, arrays):
        lengths = arrays["lengths"]
        seen.append((cells.forced_tier, None if lengths is None else lengths.tolist()))
        run(library, layer, backward, shape, arrays)

    monkeypatch.setattr(cells, "_run", watched)
    monkeypatch.setattr(selftest, "DTYPES", {"fma": "float32"})
    monkeypatch.setattr(compiled, "_tf32", True)
    sizes = [SIZE, selftest.Size(2, 3, 1, 17)]
    assert all(r.passed for r in selftest.parity(LIBRARY, DEVICE, sizes))
    assert {(t, tuple(n)) for t, n in seen if n} == {(tier, (0, 3, 2)) for tier in selftest.TIERS}
    assert any(lengths is None for _, lengths in seen)
    assert compiled.tf32_allowed(), "as it was before"


def test_the_largest_error_that_passes():
    largest = {"fma": 3e-5, "tf32": 4e-3, "bfloat16": 3e-2, "float16": 4e-3}
    assert largest.keys() == selftest.DTYPES.keys()
    for product, error in largest.items():
        assert selftest.Result("gru", product, "grid", SIZE, error).passed
        assert not selftest.Result("gru", product, "grid", SIZE, 1.01 * error).passed


def test_a_tier_that_does_not_fit_is_left_out(emulated_gpu):
    sizes = [selftest.Size(1, 1, 1, 5)]  # of one block alone
    assert {r.tier for r in selftest.parity(LIBRARY, DEVICE, sizes)} == {"block", "grid", "steps"}


@pytest.mark.parametrize("bug", ["last step", "nan", "launch", "dh0"])
def test_what_is_wrong_is_found_and_reported(bug, emulated_gpu, monkeypatch, tmp_path):
    run = cells._run

    def wrong(library, layer, backward, shape, arrays):
        if bug == "launch":
            raise RuntimeError("too many resources requested for launch")
        run(library, layer, backward, shape, arrays)
        if backward and bug == "dh0":
            arrays["dh0"][0, 0, 0] += 1
        if not backward and bug != "dh0":
            arrays["h_n"][-1, -1, -1] = math.nan if bug == "nan" else arrays["h_n"][-1, -1, -1] + 1

    monkeypatch.setattr(cells, "_run", wrong)
    monkeypatch.setattr(selftest, "DTYPES", {"fma": "float32"})
    results = list(selftest.parity(LIBRARY, DEVICE, [SIZE]))
    assert not any(r.passed for r in results)
    lines = []
    out = tmp_path / "report.json"
    assert not selftest.run({}, iter(results), iter(()), out, lines.append)
    assert sum("WRONG" in line for line in lines) == len(results) == 12
    assert f"{len(results)} passes and 0 timings, 12 wrong" in out.with_suffix(".txt").read_text()


def test_the_report(emulated_gpu, tmp_path):
    size = selftest.Size(4, 2, 2, 5)
    with emulated_gpu():
        times = list(selftest.timings(LIBRARY, DEVICE, in_turn, [size], 1))
    assert [(t.cell, t.dtype) for t in times] == [
        (c, d) for c in cells.GATES for d in ("float32", "bfloat16", "float16")
    ]
    for t in times:
        assert t.ours == (1e6 / 4, 3e6 / 4)
        assert t.theirs == (2e6 / 4, 4e6 / 4)
        assert 0 < t.error < (1e-5 if t.dtype == "float32" else 0.1)
    result = selftest.Result("gru", "fma", "grid", size, 1e-7)
    out = tmp_path / "report.json"
    assert selftest.run({"gpu": "an emulator"}, iter([result]), iter(times), out, lambda line: None)
    report = json.loads(out.read_text())
    assert report["machine"] == {"gpu": "an emulator"}
    assert report["parity"][0]["size"] == {"T": 4, "N": 2, "D": 2, "H": 5, "uneven": False}
    assert len(report["timings"]) == 9
    text = out.with_suffix(".txt").read_text()
    assert "250000.00 750000.00 500000.00 1000000.00" in text
    assert "1 passes and 9 timings, 0 wrong" in text
    for error in (1.01 * times[0].limit, math.nan):
        lines = []
        wrong = [dataclasses.replace(times[0], error=error)]
        assert not selftest.run({}, iter([result]), iter(wrong), out, lines.append)
        assert "1 passes and 1 timings, 1 wrong" in lines[-2]
        assert sum("WRONG: expected at most 3e-05" in line for line in lines) == 1


def test_nothing_run_is_nothing_right(tmp_path):
    assert not selftest.run({}, iter(()), iter(()), tmp_path / "report.json", lambda line: None)


def test_without_a_gpu_it_says_what_is_missing(tmp_path):
    if compiled.available():
        pytest.skip("there is a GPU")
    lines = []
    out = tmp_path / "report.json"
    assert selftest.main(out, say=lines.append) == 1
    assert lines == [f"fusedrnn selftest: {compiled.missing()}"]
    assert not out.exists()


def test_the_clock_is_the_gpus_without_the_first_calls(monkeypatch):
    now = [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = now[0]

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return end.at - self.at

    def call(milliseconds):
        taken = iter(milliseconds)

        def run():
            now[0] += next(taken)

        return run

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert selftest.time_on_gpu([call([90, 80, 1, 3, 2]), call([70, 60, 6, 4, 5])], 3) == [0.002, 0.005]


@pytest.mark.parametrize("error", [1e-7, 1.0])
def test_the_exit_status(error, emulated_gpu, monkeypatch, tmp_path):
    sizes = []

    def parity(library, device, given):
        sizes.append(len(given))
        yield selftest.Result("gru", "fma", "grid", SIZE, error)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(selftest, "parity", parity)
    monkeypatch.setattr(selftest, "timings", lambda *a: iter(()))
    monkeypatch.setattr(selftest, "machine", lambda *a: {})
    for quick in (True, False):
        assert selftest.main(tmp_path / "report.json", quick, lambda line: None) == (error > 1e-3)
    assert sizes == [2, 5]


def test_a_pytorch_without_cuda_is_said(emulated_gpu, tmp_path):
    lines = []
    if torch.cuda.is_available():
        pytest.skip("this one has it")
    assert selftest.main(tmp_path / "report.json", say=lines.append) == 1
    assert lines == ["fusedrnn selftest: this PyTorch sees no GPU; the test needs a build of it with CUDA"]


def test_without_pytorch_it_says_so(emulated_gpu, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    lines = []
    assert selftest.main(tmp_path / "report.json", say=lines.append) == 1
    assert lines == ["fusedrnn selftest: the test needs PyTorch; in a clone of fusedrnn: pip install '.[torch]'"]
