"""The two solvers of linear probes: ridge regression from sums, logistic regression along all penalties.

Ridge regression minimises the mean squared error plus `penalty` times the squared length of the weights;
multinomial logistic regression the mean cross-entropy plus `penalty` / 2 times that. Intercepts are free.

Axis letters: N utterances, D features, T targets, K classes, P penalties.
"""

from collections.abc import Sequence

import numpy as np
from scipy import linalg

STEPS = 2000
"""At most, of logistic regression."""
TOLERANCE = 1e-4
"""Norm of the gradient at which it has arrived."""


def compute_gram_matrix(features: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """All that ridge regression needs; that of two sets together is the sum of theirs.

    Args:
        features: (N, D).
        ratings: (N, T).

    Returns:
        products of the columns [1, features, ratings], (1 + D + T, 1 + D + T), in double precision.
    """
    columns = np.concatenate([np.ones((len(features), 1)), features, ratings], axis=1, dtype=features.dtype)
    return (columns.T @ columns).astype(float)


def solve_ridge(products: np.ndarray, targets: int, penalties: Sequence[float]) -> np.ndarray:
    """Ridge regression from what `gram` gives.

    Args:
        products: of one training side.
        targets: T.
        penalties: P of them; a Cholesky factor for each is cheaper than eigenvectors for all.

    Returns:
        intercepts and weights, (1 + D, P, T).
    """
    count, sums = products[0, 0], products[0, 1:]
    centred = products[1:, 1:] - np.outer(sums, sums) / count
    inside, width = centred[:-targets, :-targets], len(centred) - targets
    found = np.empty((1 + width, len(penalties), targets))
    for number, penalty in enumerate(penalties):
        system = inside.copy()
        system.flat[:: width + 1] += penalty * count
        factor = linalg.cho_factor(system, overwrite_a=True, check_finite=False)
        weights = linalg.cho_solve(factor, centred[:-targets, -targets:], check_finite=False)
        found[0, number] = (sums[-targets:] - sums[:-targets] @ weights) / count
        found[1:, number] = weights
    return found


def rotate_features(features: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features, and a column of ones, along the axes on which a training side does not correlate.

    Args:
        features: (N, D), of mean zero over the training side.
        training: which rows are of it, (N,).

    Returns:
        [1, features], (N, 1 + D), and the sums of its columns' squares over the training side, (1 + D,).
        Of few rows the axes on which nothing lies are left out, so that D is theirs.
    """
    side = features[training]
    squares, axes = np.linalg.eigh(side.T @ side)
    rank = min(len(squares), max(1, len(side) - 1))
    squares, axes = np.maximum(squares[-rank:], 0.0), axes[:, -rank:]
    ones = np.ones((len(features), 1), features.dtype)
    return np.concatenate([ones, features @ axes], axis=1), np.append(len(side), squares)


def solve_logistic(
    features: np.ndarray,
    classes: np.ndarray,
    squares: np.ndarray,
    penalties: Sequence[float],
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """Multinomial logistic regression, all penalties together.

    The Hessian of the cross-entropy never exceeds half of the features' Gram matrix (Boehning, Multinomial
    Logistic Regression Algorithm, Ann. Inst. Statist. Math. 44, 1992), nor that of a set which contains
    them. On `rotated` features this bound is diagonal, so it is every step's scale, for any penalty and
    any subset of the training side. The steps have Nesterov's momentum, given up where it leads uphill
    (O'Donoghue and Candes 2012, arXiv 1204.3982).

    Args:
        features: rows of what `rotated` gives, (N, 1 + D); the first column is one.
        classes: one-hot, (N, K).
        squares: from `rotated`, of the same rows or of more, (1 + D,).
        penalties: P of them.
        tolerance: norm of the gradient at which a solution is one.

    Returns:
        intercepts and weights, (1 + D, P, K).
    """
    count, (width, kinds) = len(features), (features.shape[1], classes.shape[1])
    decay = np.tile(np.asarray(penalties, features.dtype), (width, 1))[..., None]  # (1 + D, P, 1)
    decay[0] = 0.0
    scale = (squares[:, None, None] / (2 * count) + decay).astype(features.dtype)
    weights = look = np.zeros((width, len(penalties), kinds), features.dtype)
    momentum = np.ones(len(penalties))
    for _ in range(STEPS):
        logits = (features @ look.reshape(width, -1)).reshape(count, -1, kinds)
        errors = _softmax(logits) - classes[:, None]
        slope = (features.T @ errors.reshape(count, -1)).reshape(look.shape) / count + decay * look
        if np.sqrt(np.square(slope).sum((0, 2))).max() <= tolerance:
            break
        stepped = look - slope / scale
        forward = stepped - weights
        momentum[(slope * forward).sum((0, 2)) > 0] = 1.0
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = ((momentum - 1) / grown).astype(features.dtype)
        weights, momentum, look = stepped, grown, stepped + share[:, None] * forward
    return look


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)
