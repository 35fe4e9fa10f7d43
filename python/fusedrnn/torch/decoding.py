"""Beam search and sampling over a stepper of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusedrnn import decoding
from fusedrnn.arrays import Array
from fusedrnn.decoding import Hypothesis, Stepper
from fusedrnn.scan.trees import map_leaves
from fusedrnn.torch.support import drawn_seed

TensorStepper = Callable[[Tensor, Any], "tuple[Any, ...]"]


def _over_arrays(step: TensorStepper) -> Stepper:
    """Make a stepper of arrays of one of tensors, without gradients."""

    def stepped(tokens: Array, state: Any) -> tuple[Any, ...]:
        with torch.no_grad():
            logits, after, *weights = step(torch.from_numpy(tokens), map_leaves(torch.from_numpy, state))
        return (_array(logits), map_leaves(_array, after), *map(_array, weights))

    return stepped


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


def beam_search(
    step: TensorStepper,
    state: Any,
    *,
    rows: int,
    begin: int,
    end: int,
    most: int,
    width: int = 5,
    length_penalty: float = 0.0,
    never: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Write the best sequences: ``fusedrnn.nn.beam_search`` over a stepper of tensors.

    Args:
        step: ``step(tokens [B], state) -> (logits [B, V], state)``, or with weights [B, S] as a third, of tensors.
        state: A tree of tensors [rows, ...]. Others: As there.
    """
    return decoding.beam_search(
        _over_arrays(step), map_leaves(_array, state), rows=rows, begin=begin, end=end, most=most, width=width,
        length_penalty=length_penalty, never=never,
    )  # fmt: skip


def sample(
    step: TensorStepper,
    state: Any,
    *,
    rows: int,
    begin: int,
    end: int,
    most: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    never: Sequence[int] = (),
) -> list[Hypothesis]:
    """Write a sequence for each row: ``fusedrnn.nn.sample`` over a stepper of tensors, drawn by PyTorch's generator.

    Args:
        step, state: As `beam_search`. Others: As there.
    """
    draw = partial(decoding.sample, rng=np.random.default_rng(drawn_seed()))
    return draw(
        _over_arrays(step), map_leaves(_array, state), rows=rows, begin=begin, end=end, most=most,
        temperature=temperature, top_k=top_k, top_p=top_p, never=never,
    )  # fmt: skip
