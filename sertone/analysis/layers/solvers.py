"""Solvers of the linear probes: ridge regression from sums, logistic regression for all penalties at once.

Ridge regression minimises the mean squared error plus `penalty` times the squared length of the weights.
Multinomial logistic regression minimises the mean cross-entropy plus `penalty` / 2 times that length.
Intercepts are not penalised.

Axis letters: N utterances, D features, T targets, K classes, P penalties.
"""

from collections.abc import Sequence

import numpy as np
from scipy import linalg

MAX_STEPS = 2000
"""Largest number of steps of logistic regression."""
TOLERANCE = 1e-4
"""Norm of the gradient at which logistic regression stops."""


def compute_gram_matrix(features: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Compute the products that ridge regression needs. Those of two sets together are their sum.

    Args:
        features: (N, D).
        ratings: (N, T).

    Returns:
        products of the columns [1, features, ratings], (1 + D + T, 1 + D + T), in double precision.
    """
    ones = np.ones((len(features), 1))
    columns = np.concatenate([ones, features, ratings], axis=1, dtype=features.dtype)
    return (columns.T @ columns).astype(float)


def solve_ridge(products: np.ndarray, targets: int, penalties: Sequence[float]) -> np.ndarray:
    """Solve ridge regression from the products of `compute_gram_matrix`.

    Args:
        products: products of one training set.
        targets: number of targets, T.
        penalties: P of them.

    Returns:
        intercepts and weights, (1 + D, P, T).
    """
    count = products[0, 0]
    sums = products[0, 1:]
    # Centred columns make the intercept drop out of the system.
    centred = products[1:, 1:] - np.outer(sums, sums) / count
    inner = centred[:-targets, :-targets]
    width = len(inner)
    solution = np.empty((1 + width, len(penalties), targets))
    # One Cholesky factor per penalty is cheaper than the eigenvectors, which would serve all penalties.
    for number, penalty in enumerate(penalties):
        system = inner.copy()
        system.flat[:: width + 1] += penalty * count
        factor = linalg.cho_factor(system, overwrite_a=True, check_finite=False)
        weights = linalg.cho_solve(factor, centred[:-targets, -targets:], check_finite=False)
        solution[0, number] = (sums[-targets:] - sums[:-targets] @ weights) / count
        solution[1:, number] = weights
    return solution


def rotate_features(features: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate features to axes on which those of a training set do not correlate, and add a column of ones.

    Args:
        features: (N, D), with mean zero over the training set.
        training: true for the rows of the training set, (N,).

    Returns:
        [1, features], (N, 1 + D), and the sums of squares of its columns over the training set, (1 + D,).
        With fewer rows than features, the empty axes are left out, and D is the number of the others.
    """
    training_features = features[training]
    squares, axes = np.linalg.eigh(training_features.T @ training_features)
    # N centred rows span at most N - 1 axes. `eigh` sorts the axes, the largest last.
    rank = min(len(squares), max(1, len(training_features) - 1))
    squares = np.maximum(squares[-rank:], 0.0)  # rounding may make a zero negative
    ones = np.ones((len(features), 1), features.dtype)
    rotated = features @ axes[:, -rank:]
    return np.concatenate([ones, rotated], axis=1), np.append(len(training_features), squares)


def solve_logistic(
    features: np.ndarray,
    classes: np.ndarray,
    squares: np.ndarray,
    penalties: Sequence[float],
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """Solve multinomial logistic regression for all penalties at once.

    The Hessian of the cross-entropy never exceeds half of the features' Gram matrix (Boehning, Multinomial
    Logistic Regression Algorithm, Ann. Inst. Statist. Math. 44, 1992), nor half of that of a larger set. On
    rotated features this bound is diagonal, so it scales every step, for any penalty and any subset of the
    training set. The steps have Nesterov's momentum, which restarts where it leads uphill (O'Donoghue and
    Candes 2012, arXiv 1204.3982).

    Args:
        features: rows of the result of `rotate_features`, (N, 1 + D); the first column is one.
        classes: one-hot, (N, K).
        squares: second result of `rotate_features`, for the same rows or for more, (1 + D,).
        penalties: P of them.
        tolerance: norm of the gradient at which a solution is accepted.

    Returns:
        intercepts and weights, (1 + D, P, K).
    """
    count, width = features.shape
    class_count = classes.shape[1]
    decay = np.tile(np.asarray(penalties, features.dtype), (width, 1))[..., None]  # (1 + D, P, 1)
    decay[0] = 0.0  # the intercept is not penalised
    scale = (squares[:, None, None] / (2 * count) + decay).astype(features.dtype)
    weights = look = np.zeros((width, len(penalties), class_count), features.dtype)
    momentum = np.ones(len(penalties))
    for _ in range(MAX_STEPS):
        logits = (features @ look.reshape(width, -1)).reshape(count, -1, class_count)
        errors = _softmax(logits) - classes[:, None]
        slope = (features.T @ errors.reshape(count, -1)).reshape(look.shape) / count + decay * look
        if np.sqrt(np.square(slope).sum((0, 2))).max() <= tolerance:
            break
        stepped = look - slope / scale
        forward = stepped - weights
        # Each penalty restarts its own momentum where its last move went uphill.
        momentum[(slope * forward).sum((0, 2)) > 0] = 1.0
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = ((momentum - 1) / grown).astype(features.dtype)
        look = stepped + share[:, None] * forward
        weights = stepped
        momentum = grown
    return look


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
