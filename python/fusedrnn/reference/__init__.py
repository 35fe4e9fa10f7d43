"""The specification: every cell forward and backward in plain NumPy, equation by equation.

The compiled kernels are tested against this package. It is slow and checks little (`fusedrnn.functional` does
both better), but it can be read. The functions have the names, arguments and results of `fusedrnn.functional`,
except that backward has no `accumulate`.

Shapes: T steps, N rows of the batch, I inputs, H hidden units, P units of the state h (H unless an LSTM projects
it), G gates (1 RNN, 3 GRU, 4 LSTM): x [T, N, I]; h0, h_n [N, P]; c0, c_n [N, H]; weight_ih [G*H, I]; weight_hh
[G*H, P]; bias_ih, bias_hh [G*H]; y [T, N, P]. All float32 or all float64; results keep the dtype. h0, c0, the
biases, and dy, dh_n, dc_n, dc may be None, which means zero.

Gate order and the GRU's default form are PyTorch's (documentation of torch.nn.RNN, torch.nn.LSTM and
torch.nn.GRU).

Options that are data, for every cell (`sequences`):

- `reverse=True` walks time from the last step to the first: then y[t] still belongs to x[t], and h_n equals y[0].
- `lengths`: N integers from 0 to T. Row n is x[:lengths[n], n]; with `reverse` it starts at its own last step. y is
  zero past the end, whatever x and dy hold there; h_n is the state after the row's own last step (length 0: h0).
- `batch_sizes`: x, y and their gradients are packed, [sum(batch_sizes), ...], as in PyTorch's PackedSequence: step
  t has the first batch_sizes[t] rows.
- `resets`: [T, N] booleans, packed [sum(batch_sizes)]: the state is zero before a step that resets.

Options of the equations stand in the docstring of the cell that they change; these are shared (`products`,
`random`):

- `layer_norm`: (gains, biases) of layer normalization (`norm`); each bias may be None.
- `recurrent_dropout`: the step's product with weight_hh sees h times a mask of 0 and 1/(1-p), one for each row of
  the batch and the same at all steps (Gal and Ghahramani 2016; Semeniuta et al. 2016).
- `dropconnect`: weight_hh times a mask of 0 and 1/(1-p), one a call (Wan et al. 2013; Merity et al. 2018).
- `zoneout_h`: each unit of h keeps its previous value with this probability (Krueger et al. 2017); at inference
  h is the mean of both.
- `grad_clip`: backward clips what reaches h_{t-1} through weight_hh to [-grad_clip, grad_clip] (Graves 2013).
- `seed`, `layer`, `row_offset`, `step_offset` choose the random numbers; `training=False` draws none and keeps no
  reserve.
"""

from __future__ import annotations

from .gru import gru_backward, gru_forward
from .indrnn import indrnn_backward, indrnn_forward
from .lstm import lstm_backward, lstm_forward
from .mingru import mingru_backward, mingru_forward
from .mixture_density import mixture_density_loss
from .rnn import rnn_backward, rnn_forward

__all__ = [
    "gru_backward",
    "gru_forward",
    "indrnn_backward",
    "indrnn_forward",
    "lstm_backward",
    "lstm_forward",
    "mingru_backward",
    "mingru_forward",
    "mixture_density_loss",
    "rnn_backward",
    "rnn_forward",
]
