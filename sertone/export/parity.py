"""Whether a bundle answers what torch does, over lengths from the shortest to the longest."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.labels import scale_range
from sertone.runtime.answering import Model

SECONDS = (0.4, 1.0, 2.37, 5.0, 11.3, 30.0)
TOLERANCES = {"fp32": 1e-4, "bf16": 0.05, "int8": math.inf}
"""Largest difference of a probability, and of a rating as a share of its scale. How far int8 is off says
`agreement`, on real recordings."""
TEXTS = (None, "well", "so what are we going to do about it now")


def check_parity(
    torch_model: Model,
    bundle: Model,
    seconds: Sequence[float] = SECONDS,
    tolerance: float = TOLERANCES["fp32"],
) -> dict[str, Any]:
    """Compares the answers of two models about a voice-like tone and silence, and of texts where they read.

    Args:
        torch_model: what was trained.
        bundle: what was exported of it.
        seconds: lengths of the recordings.
        tolerance: largest difference of a probability, and of a rating as a share of its scale.

    Returns:
        `seconds`, `tolerance` (None: any), and the largest difference found of `probabilities` and `ratings`.

    Raises:
        SertoneError: `parity`, where they differ by more, or an answer is not a number.
    """
    spans = np.asarray([scale_range(scale) for scale in torch_model.scales.values()])
    worst = {"probabilities": 0.0, "ratings": 0.0}
    for length in seconds:
        waveform = _recording(max(round(length * SAMPLING_RATE), torch_model.min_samples))
        for text in TEXTS[0 if torch_model.uses_audio else 1 : len(TEXTS) if torch_model.uses_text else 1]:
            first, second = (model.outputs(waveform, text) for model in (torch_model, bundle))
            found = {
                "probabilities": first.probabilities - second.probabilities,
                "ratings": (first.ratings - second.ratings) / spans,
            }
            for name, difference in found.items():
                most = float(np.abs(difference).max(initial=0.0))
                if not most <= tolerance:
                    raise SertoneError(
                        "parity",
                        f"{name} of the bundle differ by {most:.2g} from torch's, at {length} s",
                        f"no more than {tolerance:g}",
                        "please report it with the recipe of the model",
                    )
                worst[name] = max(worst[name], most)
    limit = None if math.isinf(tolerance) else tolerance
    return {"seconds": list(seconds), "tolerance": limit, "largest_difference": worst}


def _recording(samples: int) -> np.ndarray:
    """A tone that changes, in noise, loud and soft, and digital silence; the same at every call: (1, N)."""
    time = np.arange(samples) / SAMPLING_RATE
    tone = np.sin(2 * np.pi * (140 * time + 20 * np.sin(3 * time))) * (0.6 + 0.4 * np.sin(5 * time))
    noise = np.random.default_rng(samples).standard_normal(samples)
    level = 10.0 ** np.sin(4 * time) * (np.sin(9 * time) > -0.7)
    return (level * (0.04 * tone + 0.004 * noise)).astype(np.float32)[None]
