"""Another kind of voice: whispering.

Axis letters: N samples.
"""

import numpy as np

from sertone.perturb.material import Material

FRAME, HOP = 512, 256
"""Length of a frame and its half, in samples: 32 ms and 16 ms."""
ORDER = 18
"""Coefficients of linear prediction: nine resonances below 8 kHz."""


def whisper(samples: np.ndarray, percent: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Replace a percentage of the power of the voice by breath, and keep the resonances of the vocal tract.

    Linear prediction divides every frame into resonances and excitation (Makhoul 1975). The excitation gets
    noise of its own level.

    Args:
        samples: 16 kHz, (N,).
        percent: share of the excitation's power; at 100 no pitch is left.
        rng: draws the noise.
        material: not used.

    Returns:
        float32, (N,).
    """
    window = np.hanning(FRAME + 1)[:-1] ** 0.5  # the squares of two overlapping frames add up to 1
    padded = np.pad(samples.astype(float), (FRAME, 2 * FRAME))
    breath = rng.standard_normal(len(padded))  # one for all frames, so that overlapping ones add up
    whispered = np.zeros_like(padded)
    for start in range(0, len(padded) - FRAME, HOP):
        place = slice(start, start + FRAME)
        frame = padded[place] * window
        if frame.any():
            whispered[place] += window * _breathe(frame, window * breath[place], percent / 100)
    return whispered[FRAME : FRAME + len(samples)].astype(np.float32)


def _breathe(frame: np.ndarray, breath: np.ndarray, share: float) -> np.ndarray:
    """Exchange a share of the excitation's power in one frame for breath, both with the same window."""
    # Imported here: recipes name perturbations where scipy is not installed.
    from scipy.linalg import solve_toeplitz
    from scipy.signal import lfilter

    correlation = np.array([frame[: FRAME - lag] @ frame[lag:] for lag in range(ORDER + 1)])
    correlation[0] *= 1 + 1e-6  # keeps the equations solvable for a pure tone
    predictor = np.concatenate([[1.0], -solve_toeplitz(correlation[:-1], correlation[1:])])
    excitation = np.asarray(lfilter(predictor, [1.0], frame))
    breath = breath * (excitation.std() / breath.std())
    mixed = (1 - share) ** 0.5 * excitation + share**0.5 * breath
    return np.asarray(lfilter([1.0], predictor, mixed))
