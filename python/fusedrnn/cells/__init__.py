"""Published recurrent cells, each as one step of one sequence in NumPy, for `fusedrnn.scan_forward` and `nn.Scan`.

A lower-case name is a step, ``step(parameters, state, x) -> (new state, y)``; the name of the paper beside it takes
(input_size, hidden_size) and gives a `Cell` of the step with initial parameters and a zero state:

    layer = nn.Scan(*cells.JANET(28, 128))
"""

from __future__ import annotations

from fusedrnn.cells.attention import AttentionDecoder, DecoderOutput, DecoderState
from fusedrnn.cells.cell import Cell
from fusedrnn.cells.continuous import CfC, CoRNN, PhasedLSTM, cfc, co_rnn, phased_lstm
from fusedrnn.cells.dnc import DNC, DNCState
from fusedrnn.cells.elementwise import SRU, MinLSTM, min_lstm, sru
from fusedrnn.cells.gated import (
    AUGRU,
    GRU,
    JANET,
    LSTM,
    MGU,
    RNN,
    UGRNN,
    FastGRNN,
    augru,
    fast_grnn,
    gru,
    janet,
    lstm,
    mgu,
    rnn,
    ugrnn,
)
from fusedrnn.cells.memory import SLSTM, FastWeights, fast_weights, slstm
from fusedrnn.cells.normalised import LayerNormGRU, LayerNormLSTM, LiGRU, layer_norm_gru, layer_norm_lstm, li_gru
from fusedrnn.cells.ntm import NTM, NTMState
from fusedrnn.cells.window import SoftWindow, WindowLSTM, WindowOutput, WindowState, soft_window, window_lstm

__all__ = [
    "AUGRU",
    "DNC",
    "GRU",
    "JANET",
    "LSTM",
    "MGU",
    "NTM",
    "RNN",
    "SLSTM",
    "SRU",
    "UGRNN",
    "AttentionDecoder",
    "Cell",
    "CfC",
    "CoRNN",
    "DNCState",
    "DecoderOutput",
    "DecoderState",
    "FastGRNN",
    "FastWeights",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LiGRU",
    "MinLSTM",
    "NTMState",
    "PhasedLSTM",
    "SoftWindow",
    "WindowLSTM",
    "WindowOutput",
    "WindowState",
    "augru",
    "cfc",
    "co_rnn",
    "fast_grnn",
    "fast_weights",
    "gru",
    "janet",
    "layer_norm_gru",
    "layer_norm_lstm",
    "li_gru",
    "lstm",
    "mgu",
    "min_lstm",
    "phased_lstm",
    "rnn",
    "slstm",
    "soft_window",
    "sru",
    "ugrnn",
    "window_lstm",
]
