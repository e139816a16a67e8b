"""The probe of a bundle: an input with a known output, computed again on every machine that loads the bundle.

Each processor, driver and version of ONNX Runtime has its own kernels. A wrong kernel does not fail; it
returns other numbers. So a bundle holds one second of a synthetic waveform (`probe.npy`), and in
`bundle.json` the outputs that it gave at the export.

Axis letters: N samples, K classes, R dimensions.
"""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.labels import scale_range
from sertone.runtime.answering import Model, Outputs

PROBE = "probe.npy"
SKIP = "SERTONE_SKIP_PROBE"
"""Environment variable: 1 loads bundles without the check."""
PROBE_FIELDS = {"text": (str, None), "probabilities": [float], "ratings": [float], "tolerance": float}
"""The probe's part of `bundle.json`, see `utils.json_shape`."""
FULL_SCALE = 2**15
TEXT = "so what are we going to do about it now"
TOLERANCES = {"fp32": 0.005, "bf16": 0.005, "int8": 0.05}
"""Precision -> largest difference of a probability, and of a rating as a share of its scale.

Another order of summation changes results by about 1e-6, TF32 on a GPU by about 1e-3. In int8, a number
between two levels may round to either, and all later layers see the difference."""


class UnverifiedBundleWarning(UserWarning):
    """The bundle has no probe, so the arithmetic of this machine cannot be verified."""


def create_probe(model: Model, precision: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a probe for a model, with its outputs on this machine.

    The probe is the voice-like signal for which the model is least sure: a probability of .999 hardly moves,
    whatever goes wrong.

    Args:
        model: the exported model.
        precision: precision of its weights.

    Returns:
        the waveform, 16-bit integers (N,), and the probe's part of `bundle.json`.
    """
    text = TEXT if model.uses_text else None
    signals = _generate_signals(max(SAMPLING_RATE, model.min_samples))
    candidates = [(signal, _compute_outputs(model, signal, text)) for signal in signals]
    signal, outputs = min(candidates, key=lambda pair: pair[1].probabilities.max(initial=0.0))
    return signal, {
        "text": text,
        "probabilities": outputs.probabilities[0].tolist(),
        "ratings": outputs.ratings[0].tolist(),
        "tolerance": TOLERANCES[precision],
    }


def require_correct_arithmetic(model: Model, folder: Path, probe: dict[str, Any] | None) -> None:
    """Run the probe of a bundle, and refuse the bundle where this machine computes other outputs.

    Args:
        model: the bundle, loaded.
        folder: folder of the bundle.
        probe: the probe's part of `bundle.json`; None: a bundle of an older format.

    Raises:
        SertoneError: `wrong_arithmetic`; `bad_bundle` where the probe does not fit the model.
    """
    if os.environ.get(SKIP) == "1":
        return
    if probe is None:
        warnings.warn(
            f"{folder}: this older bundle has no probe, so the arithmetic of this machine cannot be "
            "verified; export it again",
            UnverifiedBundleWarning,
            stacklevel=4,
        )
        return
    outputs = _compute_outputs(model, _load_signal(folder), probe["text"])
    difference = _measure_difference(model, folder, outputs, probe)
    if not difference <= probe["tolerance"]:  # also refuses NaN, which compares as false
        raise SertoneError(
            "wrong_arithmetic",
            f"{folder}: this machine's output for the bundle's probe is off by {difference:.2g}",
            f"no more than {probe['tolerance']:g}",
            "use another version of onnxruntime, or the bundle in fp32; "
            f"{SKIP}=1 loads it anyway, but its predictions may be wrong",
        )


def _measure_difference(model: Model, folder: Path, outputs: Outputs, probe: dict[str, Any]) -> float:
    """Return the largest difference of a probability, or of a rating as a share of its scale."""
    if (len(probe["probabilities"]), len(probe["ratings"])) != (len(model.classes), len(model.scales)):
        raise build_damage_error(folder, "its probe does not have one output per class and dimension")
    spans = np.asarray([scale_range(scale) for scale in model.scales.values()])
    differences = [
        outputs.probabilities[0] - np.asarray(probe["probabilities"]),
        (outputs.ratings[0] - np.asarray(probe["ratings"])) / spans,
    ]
    return float(np.abs(np.concatenate(differences)).max())


def _compute_outputs(model: Model, signal: np.ndarray, text: str | None) -> Outputs:
    return model.outputs((signal / FULL_SCALE).astype(np.float32)[None], text)


def _load_signal(folder: Path) -> np.ndarray:
    try:
        signal = np.load(folder / PROBE, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        signal = None
    if signal is None or signal.ndim != 1 or signal.dtype != np.int16:
        raise build_damage_error(folder, f"{PROBE} is not a waveform")
    return signal


def build_damage_error(folder: Path, problem: str) -> SertoneError:
    """Return the error for a bundle whose files are not as the export wrote them."""
    return SertoneError("bad_bundle", f"{folder}: {problem}", "an intact bundle", "export or fetch it again")


def _generate_signals(samples: int) -> Iterator[np.ndarray]:
    """Yield harmonics of a gliding pitch with breaks, low and high, soft and loud: 16-bit integers (N,)."""
    time = np.arange(samples) / SAMPLING_RATE
    # 3.5 syllables per second, with a pause after each.
    syllables = np.maximum(0.0, np.sin(2 * np.pi * 3.5 * time)) ** 0.5
    for pitch_hz in (110.0, 160.0, 230.0, 330.0):
        phase = 2 * np.pi * pitch_hz * (time - 0.03 * np.cos(2 * np.pi * time) / np.pi)
        voice = sum(np.sin(order * phase) / order for order in range(1, 12))
        for level in (0.02, 0.2):
            noise = np.random.default_rng(round(pitch_hz)).standard_normal(samples)
            yield np.rint(FULL_SCALE * level * (syllables * voice + 0.02 * noise)).astype(np.int16)
