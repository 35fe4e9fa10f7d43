"""Which words of two languages belong together, from pairs of texts: IBM model 1, and vectors in one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusedrnn.arrays import Array


class Counts(NamedTuple):
    """How often tokens of a source and of a target were translations of each other: ``source``, ``target`` [K] int64
    say which, each pair once, in order; ``times`` [K] float64."""

    source: Array
    target: Array
    times: Array


def expected_counts(sources: Sequence[Array], targets: Sequence[Array], iterations: int) -> Counts:
    """Count translations by IBM model 1 (Brown et al. 1993): every target's token comes from one of its source's.

    Args:
        sources, targets: Integers [S_i] and [T_i] of at least 0, pair by pair. iterations: Of expectation
            maximisation; with the first all tokens of a source are as likely.
    """
    sizes = np.array([(len(one), len(other)) for one, other in zip(sources, targets, strict=True)])
    f, e = np.concatenate(sources), np.concatenate(targets)
    width = int(e.max()) + 1
    # One entry for each token of a source beside each of its target, in the target's order.
    per_target = np.repeat(sizes[:, 0], sizes[:, 1])  # entries of one occurrence of a target's token
    occurrence = np.repeat(np.arange(len(e)), per_target)
    starts = np.repeat(np.cumsum(sizes[:, 0]) - sizes[:, 0], sizes[:, 1])
    within = np.arange(len(occurrence)) - np.repeat(np.cumsum(per_target) - per_target, per_target)
    keys, entry = np.unique(f[starts[occurrence] + within] * width + e[occurrence], return_inverse=True)
    source = keys // width
    counts: Array = np.ones(len(keys))
    probability: Array = counts
    for _ in range(iterations):
        share = probability[entry]
        share /= np.bincount(occurrence, share)[occurrence]
        counts = np.bincount(entry, share, len(keys))
        probability = counts / np.bincount(source, counts)[source]
    return Counts(source, keys % width, counts)


def bilingual_vectors(
    counts: Counts, sizes: tuple[int, int], dimensions: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return vectors of all tokens of a source and of a target, [V, E] float32 each, of mean 0 and variance about 1.

    Vectors of translations are alike: they are a factorisation, by a randomised singular value decomposition (Halko et
    al. 2011, arXiv:0909.4061), of the positive pointwise mutual information of the counts, in the manner of Levy and
    Goldberg (2014), turned at random so that no dimension is special. Rare pairs count less, by c / (c + 1/2).

    Args:
        sizes: How many tokens there are. dimensions: E, at most the smaller of the two.
    """
    matrix = np.zeros(sizes)
    matrix[counts.source, counts.target] = counts.times
    ours, theirs = matrix.sum(1, keepdims=True), matrix.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(matrix * matrix.sum() / (ours * theirs))
    matrix = np.where(matrix > 0, np.maximum(information, 0) * (matrix / (matrix + 0.5)), 0)
    basis = rng.standard_normal((sizes[1], min(dimensions + 20, *sizes)))
    for _ in range(3):
        basis = matrix @ (matrix.T @ np.linalg.qr(matrix @ basis)[0])
        basis = matrix.T @ np.linalg.qr(basis)[0]
    basis = np.linalg.qr(matrix @ basis)[0]
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    root = np.sqrt(values[:dimensions])
    turn = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0]
    vectors = (basis @ left[:, :dimensions] * root) @ turn, (right[:dimensions].T * root) @ turn
    one, other = ((each / each.std()).astype(np.float32) for each in vectors)
    return one, other
