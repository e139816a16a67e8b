"""Parity: whether a bundle gives the outputs of torch, over lengths from the shortest to the longest."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.labels import scale_range
from sertone.runtime.answering import Model

LENGTHS_S = (0.4, 1.0, 2.37, 5.0, 11.3, 30.0)
"""Lengths of the test recordings, in seconds."""
TOLERANCES = {"fp32": 1e-4, "bf16": 0.05, "int8": math.inf}
"""Largest difference of a probability, and of a rating as a share of its scale. int8 has no limit here:
`precision_check` measures its loss on real recordings."""
TEXTS = (None, "well", "so what are we going to do about it now")


def check_parity(
    torch_model: Model,
    bundle: Model,
    seconds: Sequence[float] = LENGTHS_S,
    tolerance: float = TOLERANCES["fp32"],
) -> dict[str, Any]:
    """Compare the outputs of two models for a voice-like tone with silence, and for texts if they use text.

    Args:
        torch_model: the trained model.
        bundle: the exported model.
        seconds: lengths of the recordings.
        tolerance: largest difference of a probability, and of a rating as a share of its scale.

    Returns:
        `seconds`, `tolerance` (None: any), and the largest difference found of `probabilities` and `ratings`.

    Raises:
        SertoneError: `parity`, where they differ by more, or an output is not a number.
    """
    ranges = np.asarray([scale_range(scale) for scale in torch_model.scales.values()])
    largest = {"probabilities": 0.0, "ratings": 0.0}
    for length in seconds:
        waveform = _synthesise(max(round(length * SAMPLING_RATE), torch_model.min_samples))
        for text in _select_texts(torch_model):
            expected, actual = (model.outputs(waveform, text) for model in (torch_model, bundle))
            # Ratings are compared as shares of their scales, so that one tolerance fits all.
            differences = {
                "probabilities": expected.probabilities - actual.probabilities,
                "ratings": (expected.ratings - actual.ratings) / ranges,
            }
            for name, difference in differences.items():
                size = float(np.abs(difference).max(initial=0.0))
                _require_close(name, size, length, tolerance)
                largest[name] = max(largest[name], size)
    limit = None if math.isinf(tolerance) else tolerance
    return {"seconds": list(seconds), "tolerance": limit, "largest_difference": largest}


def _select_texts(model: Model) -> Sequence[str | None]:
    """Return the texts to test: only None for a model of audio, and no None for a model of text alone."""
    first = 0 if model.uses_audio else 1
    last = len(TEXTS) if model.uses_text else 1
    return TEXTS[first:last]


def _require_close(name: str, difference: float, length: float, tolerance: float) -> None:
    if not difference <= tolerance:  # also refuses NaN, which is never `<=`
        raise SertoneError(
            "parity",
            f"{name} of the bundle differ by {difference:.2g} from those of torch, at {length} s",
            f"no more than {tolerance:g}",
            "please report it with the recipe of the model",
        )


def _synthesise(samples: int) -> np.ndarray:
    """Return a changing tone in noise, loud and soft, with digital silence, always the same: (1, N)."""
    time = np.arange(samples) / SAMPLING_RATE
    # The pitch varies around 140 Hz, like that of a voice.
    tone = np.sin(2 * np.pi * (140 * time + 20 * np.sin(3 * time))) * (0.6 + 0.4 * np.sin(5 * time))
    noise = np.random.default_rng(samples).standard_normal(samples)
    level = 10.0 ** np.sin(4 * time) * (np.sin(9 * time) > -0.7)
    return (level * (0.04 * tone + 0.004 * noise)).astype(np.float32)[None]
