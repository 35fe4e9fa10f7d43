"""Fused forward and backward kernels for recurrent networks on CPUs.

``fusedrnn.lstm_forward`` and its like are the pure functions, ``fusedrnn.nn`` the layers built on them,
``fusedrnn.reference`` the same functions in plain NumPy.
"""

from __future__ import annotations

from fusedrnn import cells, environment, nn, ops
from fusedrnn._core import __version__
from fusedrnn.differentiation import clipped_sum, gradcheck, hessian_vector_product, jvp, per_sequence_gradients
from fusedrnn.functional import (
    gru_backward,
    gru_forward,
    indrnn_backward,
    indrnn_forward,
    lstm_backward,
    lstm_forward,
    mingru_backward,
    mingru_forward,
    mixture_density_loss,
    mixture_density_mean,
    mixture_density_sample,
    rnn_backward,
    rnn_forward,
    scan_backward,
    scan_forward,
    trace,
)
from fusedrnn.interop.files import load, save
from fusedrnn.runtime import get_num_threads, set_num_threads, show_config

environment.warn_of_unknown_names()

__all__ = [
    "__version__",
    "cells",
    "clipped_sum",
    "get_num_threads",
    "gradcheck",
    "gru_backward",
    "gru_forward",
    "hessian_vector_product",
    "indrnn_backward",
    "indrnn_forward",
    "jvp",
    "load",
    "lstm_backward",
    "lstm_forward",
    "mingru_backward",
    "mingru_forward",
    "mixture_density_loss",
    "mixture_density_mean",
    "mixture_density_sample",
    "nn",
    "ops",
    "per_sequence_gradients",
    "rnn_backward",
    "rnn_forward",
    "save",
    "scan_backward",
    "scan_forward",
    "set_num_threads",
    "show_config",
    "trace",
]
