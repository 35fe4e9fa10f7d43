"""Layers with forward and backward, and losses."""

from __future__ import annotations

from fusedrnn.decoding import Hypothesis, beam_search, sample
from fusedrnn.nn.activation import ELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from fusedrnn.nn.attention import Attention, AttentionDecoder
from fusedrnn.nn.cells import GRUCell, LSTMCell, RNNCell
from fusedrnn.nn.elementwise import IndRNN, MinGRU
from fusedrnn.nn.frozen import Frozen, Stream
from fusedrnn.nn.linear import Dropout, Embedding, LastStep, Linear
from fusedrnn.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MixtureDensityLoss, MSELoss, Weighted
from fusedrnn.nn.many_to_one import ManyToMany, ManyToOne, Pooling
from fusedrnn.nn.memory import DNC, NTM
from fusedrnn.nn.module import Module, Sequential
from fusedrnn.nn.parameters import FlatParameters, Parameter
from fusedrnn.nn.recurrent import GRU, LSTM, RNN
from fusedrnn.nn.scan import Scan
from fusedrnn.nn.scan_stream import FrozenScan, ScanStream
from fusedrnn.nn.seq2seq import Seq2Seq
from fusedrnn.nn.token_decoder import TokenDecoder
from fusedrnn.nn.window import MixtureDensity, SoftWindow, WindowLSTM

__all__ = [
    "DNC",
    "ELU",
    "GRU",
    "LSTM",
    "NTM",
    "RNN",
    "Attention",
    "AttentionDecoder",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "FlatParameters",
    "Frozen",
    "FrozenScan",
    "GRUCell",
    "Hypothesis",
    "IndRNN",
    "LSTMCell",
    "LastStep",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "ManyToMany",
    "ManyToOne",
    "MinGRU",
    "MixtureDensity",
    "MixtureDensityLoss",
    "Module",
    "Parameter",
    "Pooling",
    "RNNCell",
    "ReLU",
    "Scan",
    "ScanStream",
    "Seq2Seq",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SoftWindow",
    "Softmax",
    "Softplus",
    "Stream",
    "Tanh",
    "TokenDecoder",
    "Weighted",
    "WindowLSTM",
    "beam_search",
    "sample",
]
