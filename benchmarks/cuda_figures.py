"""What the model of the CUDA path assumes, each figure with where it comes from, and what others have published.

Nothing here was measured by us. *Recalled* is a figure of papers or of NVIDIA's documents, quoted from memory and still
to be checked; *assumed* is a guess; *SASS* was counted in the kernels that nvcc 13.0 makes of csrc/cuda for sm_90a.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import NamedTuple


def _of(unit: str, source: str) -> float:
    figure: float = field(metadata={"unit": unit, "source": source})
    return figure


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU. Cycles are of its clock; a multiprocessor holds one block of a persistent kernel."""

    name: str
    major: int
    multiprocessors: int = field(metadata={"unit": "", "source": "recalled: NVIDIA's data sheet"})
    clock: float = _of("GHz", "assumed: a boost clock that holds for a kernel that waits most of the time")
    tensor: float = _of(
        "multiply-adds of bfloat16 a cycle and multiprocessor by mma.sync",
        "A100: the peak; H100: 62 % of the peak of 2048, recalled; B200: assumed to be the H100's",
    )
    tf32: float = _of("the same in TF32", "recalled: half of bfloat16's rate")
    fma: float = _of("multiply-adds of float32 a cycle and multiprocessor", "recalled: NVIDIA's data sheet")
    mma_latency: float = _of("cycles until a sum can be added to again", "recalled, B200 assumed")
    shared_latency: float = _of("cycles of a load from shared memory", "recalled, B200 assumed")
    sync: float = _of("cycles of __syncthreads where all are there", "assumed")
    l2_latency: float = _of("cycles of a trip to L2 and back", "recalled; B200, whose L2 is on two dies, assumed")
    l2_bandwidth: float = _of("TB/s from L2 to all multiprocessors", "H100 recalled; A100 and B200 assumed")
    l2_port: float = _of("bytes a cycle from L2 to one multiprocessor", "recalled")
    near_latency: float = _of("cycles of a push to a block of the cluster", "recalled (arXiv 2402.13499), B200 assumed")
    near_bandwidth: float = _of(
        "bytes a cycle and multiprocessor within clusters", "recalled: 3.3 TB/s over 132; B200 assumed"
    )
    clusters: int = field(metadata={"unit": "GPCs", "source": "recalled; as many clusters of 8 fit as twice that"})
    memory_latency: float = _of("cycles of a load from memory", "assumed")
    memory_bandwidth: float = _of("TB/s from memory", "recalled: NVIDIA's data sheet")
    launch: float = _of(
        "us from one kernel to the next in a CUDA graph", "recalled for the H100, assumed for the others"
    )


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100", 8, 108, 1.41, 1024, 512, 64, 33, 29, 30, 200, 4.0, 64, 0, 0, 0, 500, 1.55, 1.5),
        Gpu("H100", 9, 132, 1.755, 1270, 635, 128, 33, 29, 30, 270, 5.5, 64, 180, 14, 8, 650, 3.35, 1.3),
        Gpu("B200", 10, 148, 1.85, 1270, 635, 128, 33, 29, 30, 350, 8.0, 64, 180, 14, 8, 800, 8.0, 1.3),
    )
}


class Code(NamedTuple):
    """Instructions that a warp issues, and the cycles that it takes for them alone: the stall counts of their control
    words, which know the latency of arithmetic but not that of memory."""

    instructions: float
    cycles: float


class Cell(NamedTuple):
    """What a step does beside products, to one unit of one row. `read` and `written` count elements of the storage type
    in memory; `float_read` and `float_written` those in float32 (c of the LSTM)."""

    prefetch: Code  # starts the loads of what the formulas read
    formulas: Code  # the formulas, their addresses and stores
    two_splits: Code  # adds the sums of two more warps
    reciprocals: int  # by the unit that also has exp2 and so on
    read: int
    written: int
    float_read: int
    float_written: int


# SASS of the bfloat16 kernels of the grid; the other tiers and float32 differ by less than a tenth.
CELLS = {
    ("rnn", False): Cell(Code(37, 111), Code(103, 330), Code(8, 20), 1, 1, 1, 0, 0),
    ("lstm", False): Cell(Code(49, 129), Code(242, 713), Code(20, 45), 5, 4, 5, 0, 1),
    ("gru", False): Cell(Code(46, 132), Code(184, 487), Code(16, 38), 3, 3, 5, 0, 0),
    ("rnn", True): Cell(Code(46, 127), Code(78, 230), Code(8, 20), 0, 2, 1, 0, 0),
    ("lstm", True): Cell(Code(86, 240), Code(163, 418), Code(8, 20), 1, 5, 4, 1, 0),
    ("gru", True): Cell(Code(84, 247), Code(125, 316), Code(8, 20), 0, 6, 4, 0, 0),
}
COPY = Code(130, 375)  # SASS: a block's copy of the operand from the team's memory, its addresses; once a step
PUSH = Code(9, 25)  # SASS: 16 bytes to another block of the cluster
PUSHES = Code(40, 100)  # SASS: what stands around the pushes
FMA_LATENCY = 4.0  # cycles until a sum can be added to again; recalled
SHARED_BYTES = 128  # of shared memory a cycle and multiprocessor; NVIDIA's programming guide
QUAD_TURNS = 4  # cycles of a warp's load of 16 bytes a lane from shared memory: a quarter of it at a time
RECIPROCAL = 20.0  # cycles until a reciprocal is there; assumed
RELEASE_TRIPS = 1.0  # to L2: until the block's stores are there and the flag may follow; assumed
FLAG_TRIPS = 0.5  # until the flag is there
POLL_TRIPS = 1.5  # of a poll that sees it: half a poll too early, and its own trip; assumed
COPY_TRIPS = 1.0  # until the first bytes of the operand are here
HIDING_TRIPS = 1.0  # of these, while which the block starts its loads for the next step; assumed


class Published(NamedTuple):
    """Microseconds a step of an LSTM on an H100, B=16, T=1024, H=768, as FlashRNN's authors give them. Backward is the
    difference of two figures, and has the gradients of the weights in it."""

    who: str
    dtype: str
    forward: float
    backward: float


# FlashRNN's repository, figure head_dim--lstm.svg (arXiv 2412.07752): milliseconds of 1024 steps, forward, and forward
# and backward. The product with x is part of cuDNN's and Haste's figures, not of FlashRNN's.
PUBLISHED = tuple(
    Published(who, dtype, forward / 1.024, (both - forward) / 1.024)
    for who, dtype, forward, both in (
        ("cuDNN (PyTorch nn.LSTM)", "float16", 2.01, 5.19),
        ("FlashRNN, CUDA fused", "bfloat16", 4.87, 13.61),
        ("FlashRNN, CUDA alternating", "bfloat16", 10.79, 26.49),
        ("Haste", "float32", 18.41, 43.86),
        ("PyTorch, a loop in Python", "bfloat16", 147.5, 484.3),
    )
)


def assumptions() -> list[tuple[str, str, str, list[float]]]:
    """Name, unit, source and each GPU's figure, of all that is assumed of GPUs."""
    return [
        (f.name, f.metadata["unit"], f.metadata["source"], [float(getattr(gpu, f.name)) for gpu in GPUS.values()])
        for f in fields(Gpu)
        if f.metadata
    ]
