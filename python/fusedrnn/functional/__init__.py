"""The pure interface: one call is one layer in one direction over a whole sequence.

Arrays are float32 or float64, all of one dtype, C-contiguous, used in place; nothing is cast or copied. T is
time, N batch, I input size, H hidden size, G the gates of the cell (RNN and IndRNN 1, minGRU 2, GRU 3, LSTM 4).
Arrays of other libraries are taken as they lie in the CPU's memory, if they export it through DLPack (torch's tensors,
jax's arrays) or the buffer protocol (array.array, memoryview); results are NumPy's. What gradients are added to must be
writable.

``rnn``, ``lstm`` and ``gru`` also take arrays on an NVIDIA GPU, where the build has CUDA (``fusedrnn.cuda``): float32,
bfloat16 or float16, of PyTorch, CuPy, or with ``__cuda_array_interface__`` or DLPack, on the library's current stream.
Results are the library's arrays; lengths may be on the GPU too, and are then clamped to 0 to T rather than checked.
Options that a GPU has not are ValueErrors that name them.

``reserve`` is what a forward call keeps for its backward call: opaque, never altered, so backward may run more
than once. It refers to x, the initial states, y and the weights: changing one of them in between is an error of
the caller, which ``FUSEDRNN_CHECK=1`` in the environment finds (a hash at either end, so it costs time). Of lengths,
batch_sizes and resets it has copies.
"""

from fusedrnn.functional.gru import gru_backward, gru_forward
from fusedrnn.functional.indrnn import indrnn_backward, indrnn_forward
from fusedrnn.functional.lstm import lstm_backward, lstm_forward
from fusedrnn.functional.mingru import mingru_backward, mingru_forward
from fusedrnn.functional.mixture_density import mixture_density_loss, mixture_density_mean, mixture_density_sample
from fusedrnn.functional.reserve import Accumulate, Reserve
from fusedrnn.functional.rnn import rnn_backward, rnn_forward
from fusedrnn.functional.scan import scan_backward, scan_forward, trace
from fusedrnn.functional.scan_second import scan_double_backward

__all__ = [
    "Accumulate",
    "Reserve",
    "gru_backward",
    "gru_forward",
    "indrnn_backward",
    "indrnn_forward",
    "lstm_backward",
    "lstm_forward",
    "mingru_backward",
    "mingru_forward",
    "mixture_density_loss",
    "mixture_density_mean",
    "mixture_density_sample",
    "rnn_backward",
    "rnn_forward",
    "scan_backward",
    "scan_double_backward",
    "scan_forward",
    "trace",
]
