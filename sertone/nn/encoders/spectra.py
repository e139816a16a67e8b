"""Short-time spectra in two forms: one for torch, and one that ONNX Runtime computes fast.

Axis letters: B batch, N samples, T frames, K samples of a frame.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def cut_frames(signal: Tensor, size: int, hop: int) -> Tensor:
    """Split a signal into frames: (B, N) -> (B, T, size)."""
    if not torch.compiler.is_exporting():
        return signal.unfold(1, size, hop)
    # ONNX Runtime gathers an unfolded signal number by number, but copies blocks of `step` samples at once.
    step = math.gcd(size, hop)
    blocks = signal[:, : signal.shape[1] // step * step].unflatten(1, (-1, step))
    total = (signal.shape[1] - size) // hop + 1
    return torch.cat([blocks[:, first :: hop // step][:, :total] for first in range(size // step)], -1)


def power_products(slices: Tensor, size: int, matrix: Tensor, window: Tensor | None = None) -> Tensor:
    """Multiply power spectra by a matrix, as two matrix products: the fastest form for ONNX Runtime.

    Args:
        slices: (..., K), padded to `size` for the Fourier transform.
        size: size of the transform.
        matrix: (size // 2 + 1, M).
        window: factors of the samples of a slice, (K,); None: none.

    Returns:
        (..., M).
    """
    waves = _waves(slices.shape[-1], size)
    if window is not None:
        waves = waves * window[:, None]
    return (slices @ waves).square() @ torch.cat([matrix, matrix])


def constant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Mark a function whose result is a constant of a graph, and not computed in it, however torch traces.

    This is all that `torch.compiler.assume_constant_result` does; importing that takes
    seconds and makes a folder.
    """
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


@constant
def _waves(count: int, size: int) -> Tensor:
    """Return the first rows of a Fourier transform, cosines and sines: (count, 2 (size // 2 + 1))."""
    angles = 2 * np.pi * np.outer(np.arange(count), np.arange(size // 2 + 1)) / size
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
