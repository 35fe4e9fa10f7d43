"""``fusedrnn selftest --cuda``: whether the kernels are right on this GPU, and how fast, as a report to send us.

    python -m fusedrnn.cuda.selftest [--out FILE] [--quick]

runs every cell, direction of the pass, kind of product and tier that fits, in odd sizes, against float64 on the CPU's
kernels; then times layers against ``torch.nn`` (cuDNN) in turns. It needs PyTorch for memory, products and the clock.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fusedrnn
from fusedrnn.cuda import cells, compiled
from fusedrnn.cuda.arrays import Library
from fusedrnn.extras import how_to_install

TIERS = ("block", "cluster", "grid", "steps")
DTYPES = {"fma": "float32", "tf32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
# Largest error, relative to the largest value or 1: float32's as on the CPU; else of factors and of what is stored, of
# 2^-11 (TF32), 2^-9 and 2^-12, over the steps of a walk.
TOLERANCE = {"fma": 3e-5, "tf32": 4e-3, "bfloat16": 3e-2, "float16": 4e-3}

Time = Callable[[Sequence[Callable[[], Any]], int], list[float]]  # (calls, repeats) -> median seconds of each
Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """T steps, N rows, D directions, H units; with lengths from 0 to T, where ``uneven``."""

    T: int
    N: int
    D: int
    H: int
    uneven: bool = False


PARITY = (Size(1, 1, 1, 1), Size(5, 3, 2, 33), Size(7, 9, 1, 128, True), Size(4, 70, 2, 257, True), Size(3, 5, 1, 1024))
TIMED = (
    Size(128, 1, 1, 256), Size(128, 8, 2, 256), Size(128, 64, 1, 512), Size(64, 64, 2, 1024), Size(64, 32, 1, 2048),
)  # fmt: skip


@dataclass
class Result:
    """The largest error of a pass in one tier; ``error`` None: it ended with ``note``."""

    cell: str
    product: str
    tier: str
    size: Size
    error: float | None
    note: str = ""

    @property
    def limit(self) -> float:
        return TOLERANCE[self.product]

    @property
    def passed(self) -> bool:
        return self.error is not None and self.error <= self.limit


@dataclass
class Timing:
    """Microseconds a step of a layer, forward and forward with backward, beside PyTorch's own, with the largest error
    of y against float64."""

    cell: str
    dtype: str
    size: Size
    ours: tuple[float, float]
    theirs: tuple[float, float]
    error: float

    @property
    def limit(self) -> float:
        return TOLERANCE["fma" if self.dtype == "float32" else self.dtype]

    @property
    def passed(self) -> bool:
        return self.error <= self.limit


def parity(library: Library, device: Any, sizes: Sequence[Size] = PARITY, seed: int = 0) -> Iterator[Result]:
    """Every cell, product and tier that fits, in these sizes. ``device``: of PyTorch."""
    for size in sizes:
        for cell in cells.GATES:
            arguments, doutputs = _problem(cell, size, seed)
            for product, dtype in DTYPES.items():
                rounded = [_move(library, a, dtype, device) for a in (*arguments.values(), *doutputs)]
                there = dict(zip(arguments, rounded, strict=False))
                douts = rounded[len(arguments) :]
                expected = _expected(cell, size, {n: _back(a) for n, a in there.items()}, [_back(d) for d in douts])
                for tier in TIERS:
                    with _forced(tier, product):
                        found = _measured(library, cell, size, there, douts, expected)
                    if found is not None:
                        yield Result(cell, product, tier, size, *found)


def timings(
    library: Library, device: Any, time: Time, sizes: Sequence[Size] = TIMED, repeats: int = 15
) -> Iterator[Timing]:
    """Every cell and dtype in these sizes; x is as wide as h."""
    import fusedrnn.torch as ours_torch

    torch = library.xp
    for size in sizes:
        for cell in cells.GATES:
            for dtype in ("float32", "bfloat16", "float16"):
                name = cell.upper()
                options = {"bidirectional": size.D == 2, "device": device, "dtype": getattr(torch, dtype)}
                ours = getattr(ours_torch, name)(size.H, size.H, **options)
                theirs = getattr(torch.nn, name)(size.H, size.H, **options)
                theirs.load_state_dict(ours.state_dict())
                exact = getattr(torch.nn, name)(size.H, size.H, bidirectional=size.D == 2, dtype=torch.float64)
                exact.load_state_dict(ours.state_dict())
                x = torch.randn(size.T, size.N, size.H, device=device, dtype=getattr(torch, dtype))

                def forward(layer: Any, x: Any = x) -> Any:
                    with torch.no_grad():
                        return layer(x)[0]

                def both(layer: Any, x: Any = x) -> None:
                    layer.zero_grad()
                    layer(x)[0].sum().backward()

                calls = [lambda layer=layer, run=run: run(layer) for run in (forward, both) for layer in (ours, theirs)]
                t = [1e6 * seconds / size.T for seconds in time(calls, repeats)]
                with torch.no_grad():
                    error = (forward(ours).cpu().double() - exact(x.cpu().double())[0]).abs().max()
                yield Timing(cell, dtype, size, (t[0], t[2]), (t[1], t[3]), float(error))


def time_on_gpu(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each call by the GPU's clock, the calls in turns, after two of each that nobody counts."""
    import torch

    found: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 2):
        for place, call in enumerate(calls):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            if repeat >= 2:
                found[place].append(begin.elapsed_time(end) / 1000)
    return [statistics.median(times) for times in found]


def machine(library: Library, device: Any) -> dict[str, Any]:
    """What the report says of where it ran."""
    torch = library.xp
    gpu = torch.cuda.get_device_properties(device)
    return {
        "fusedrnn": fusedrnn.__version__,
        "compiler": getattr(compiled.module(), "compiler", ""),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "pytorch": torch.__version__,
        "cuda of pytorch": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpu": gpu.name,
        "compute capability": f"{gpu.major}.{gpu.minor}",
        "multiprocessors": gpu.multi_processor_count,
        "memory": f"{gpu.total_memory / 2**30:.0f} GiB",
        "driver": _driver(),
    }


def run(where: dict[str, Any], results: Iterator[Result], times: Iterator[Timing], out: Path, say: Say = print) -> bool:
    """Print what comes and write the report, ``out`` (JSON) and the same text beside it; whether all is right."""
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        say(line)

    for name, value in where.items():
        tell(f"{name:20} {value}")
    tell("\nlargest error against float64, relative to the largest value or 1")
    tell(f"{'cell':5} {'product':9} {'tier':8} {'T':>4} {'N':>4} {'D':>2} {'H':>5}  error")
    found = []
    for r in results:
        found.append(r)
        shown = r.note if r.error is None else f"{r.error:.1e}"
        tell(f"{r.cell:5} {r.product:9} {r.tier:8} {_size(r.size)}  {shown}{_verdict(r)}")
    tell("\nmicroseconds a step, forward / forward and backward; error of y against float64")
    tell(f"{'cell':5} {'dtype':9} {'T':>4} {'N':>4} {'D':>2} {'H':>5} {'fusedrnn':>18} {'PyTorch':>18}  error")
    timed = []
    for t in times:
        timed.append(t)
        pairs = [f"{a:8.2f} {b:9.2f}" for a, b in (t.ours, t.theirs)]
        tell(f"{t.cell:5} {t.dtype:9} {_size(t.size)} {pairs[0]} {pairs[1]}  {t.error:.1e}{_verdict(t)}")
    wrong = sum(not r.passed for r in found) + sum(not t.passed for t in timed)
    tell(f"\n{len(found)} passes and {len(timed)} timings, {wrong} wrong")
    report = {"machine": where, "parity": [asdict(r) for r in found], "timings": [asdict(t) for t in timed]}
    text = out.with_suffix(".txt")
    out.write_text(json.dumps(report, indent=1) + "\n")
    text.write_text("\n".join(lines) + "\n")
    say(f"report: {out} and {text}; please send us both")
    return wrong == 0 and bool(found)


def main(out: Path = Path("fusedrnn-selftest.json"), quick: bool = False, say: Say = print) -> int:
    """0 where everything is right, else 1; what is missing is said."""
    missing = compiled.missing()
    if missing is None:
        try:
            import torch
        except ModuleNotFoundError:
            missing = f"the test needs PyTorch; {how_to_install('torch')}"
        else:
            if not torch.cuda.is_available():
                missing = "this PyTorch sees no GPU; the test needs a build of it with CUDA"
    if missing is not None:
        say(f"fusedrnn selftest: {missing}")
        return 1
    from fusedrnn.cuda.arrays import Torch

    library, device = Torch(torch), torch.device("cuda")
    sizes, timed = (PARITY[:2], TIMED[:1]) if quick else (PARITY, TIMED)
    results, times = parity(library, device, sizes), timings(library, device, time_on_gpu, timed)
    return 0 if run(machine(library, device), results, times, out, say) else 1


def _verdict(of: Result | Timing) -> str:
    return "" if of.passed else f"  WRONG: expected at most {of.limit:.0e}"


def _size(s: Size) -> str:
    return f"{s.T:4} {s.N:4} {s.D:2} {s.H:5}"


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0].strip() if path.exists() else "unknown"


def _problem(cell: str, s: Size, seed: int) -> tuple[dict[str, Any], list[Any]]:
    """Arguments by name, and gradients of y and the final states; D directions along the first axis of weights."""
    rng = np.random.default_rng(seed)
    inputs, rows = 7, cells.GATES[cell] * s.H
    bound = s.H**-0.5

    def weight(*shape: int) -> Any:
        return rng.uniform(-bound, bound, (s.D, *shape))

    arguments = {
        "x": rng.standard_normal((s.T, s.N, inputs)),
        "h0": rng.standard_normal((s.D, s.N, s.H)),
        "c0": rng.standard_normal((s.D, s.N, s.H)),
        "weight_ih": weight(rows, inputs), "weight_hh": weight(rows, s.H), "bias_ih": weight(rows),
        "bias_hh": weight(rows),
    }  # fmt: skip
    doutputs = [rng.standard_normal(shape) for shape in ((s.T, s.N, s.D * s.H), *[(s.D, s.N, s.H)] * 2)]
    if cell != "lstm":
        del arguments["c0"], doutputs[2]
    return arguments, doutputs


def _lengths(s: Size) -> Any:
    return np.arange(s.N) * 3 % (s.T + 1) if s.uneven else None


def _expected(cell: str, s: Size, arguments: dict[str, Any], doutputs: Sequence[Any]) -> dict[str, Any]:
    """The same in float64 on the CPU, direction by direction."""
    found: dict[str, list[Any]] = {}
    states = ("h0", "c0") if cell == "lstm" else ("h0",)
    dx = 0
    for d in range(s.D):
        own = {n: np.ascontiguousarray(a if n == "x" else a[d]) for n, a in arguments.items()}
        forward, backward = (getattr(fusedrnn, f"{cell}_{way}") for way in ("forward", "backward"))
        y, *final, reserve = forward(**own, reverse=d == 1, lengths=_lengths(s))
        dy = np.ascontiguousarray(doutputs[0][:, :, d * s.H : (d + 1) * s.H])
        gradients = backward(dy, *[np.ascontiguousarray(g[d]) for g in doutputs[1:]], reserve)._asdict()
        dx = dx + gradients["dx"]
        values = {"y": y, **dict(zip(("h_n", "c_n"), final, strict=False))}
        names = (*states, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
        values.update({f"d{n}": gradients[f"d{n}"] for n in names})
        for name, a in values.items():
            found.setdefault(name, []).append(a)
    joined = {name: np.concatenate(a, -1) if name == "y" else np.stack(a) for name, a in found.items()}
    return {**joined, "dx": dx}


def _measured(
    library: Library,
    cell: str,
    s: Size,
    arguments: dict[str, Any],
    doutputs: Sequence[Any],
    expected: dict[str, Any],
) -> tuple[float | None, str] | None:
    """The largest error and a note; None where the size has no plan in the tier in use."""
    lengths = _lengths(s)
    x = arguments["x"]
    if lengths is not None:
        lengths = library.lengths(lengths, s.N, s.T, x)
    layer = cells.Layer(cell, (False, True)[: s.D])
    names = cells.Weights._fields
    weights = [cells.Weights(*[arguments[n][d] for n in names]) for d in range(s.D)]
    try:
        out = cells.forward(library, layer, x, arguments["h0"], arguments.get("c0"), weights, lengths)
        assert out.kept is not None
        dy, dh_n, dc_n = (*doutputs, None)[:3]
        grads = cells.backward(library, layer, out.kept, [cells.Weights(True, True, True, True)] * s.D, dy, dh_n, dc_n)
        found = {"y": out.y, "h_n": out.h_n, "c_n": out.c_n, "dx": grads.dx, "dh0": grads.dh0, "dc0": grads.dc0}
        ours = {name: _back(a) for name, a in found.items() if a is not None}
        ours.update({f"d{n}": np.stack([_back(getattr(w, n)) for w in grads.weights]) for n in names})
    except ValueError:  # of the planner
        return None
    except RuntimeError as error:  # a launch that failed: the others may still say something
        return None, str(error)
    assert ours.keys() == expected.keys()
    errors = [np.abs(ours[n] - e).max() / max(1.0, np.abs(e).max()) for n, e in expected.items()]
    return float(np.max(errors)), ""  # NaN where there is one


class _forced:
    """Plans of one tier, and products of one kind, within."""

    def __init__(self, tier: str, product: str) -> None:
        self.tier, self.tf32 = tier, product == "tf32"

    def __enter__(self) -> None:
        self.before = cells.forced_tier, compiled.tf32_allowed()
        cells.forced_tier = self.tier
        compiled.allow_tf32(self.tf32)

    def __exit__(self, *_: object) -> None:
        cells.forced_tier = self.before[0]
        compiled.allow_tf32(self.before[1])


def _move(library: Library, a: Any, dtype: str, device: Any) -> Any:
    torch = library.xp
    return torch.from_numpy(np.ascontiguousarray(a)).to(device, getattr(torch, dtype))


def _back(a: Any) -> Any:
    return a.detach().cpu().double().numpy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m fusedrnn.cuda.selftest", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("fusedrnn-selftest.json"), help="the report; text beside it")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes alone")
    given = parser.parse_args()
    sys.exit(main(given.out, given.quick))
