"""The probe of a bundle: a question whose answer is known, asked again on every machine that loads it.

Processors, drivers and versions of ONNX Runtime compute with kernels of their own. A kernel that is wrong
does not fail: it answers something else. So a bundle carries one second of a synthetic waveform
(`probe.npy`) and, in `bundle.json`, the answer that it gave when it was exported.

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
"""Environment variable: 1 loads bundles without asking."""
PROBE_FIELDS = {"text": (str, None), "probabilities": [float], "ratings": [float], "tolerance": float}
"""What `bundle.json` holds about it, see `shape`."""
FULL_SCALE = 2**15
TEXT = "so what are we going to do about it now"
TOLERANCES = {"fp32": 0.005, "bf16": 0.005, "int8": 0.05}
"""Precision -> largest difference of a probability, and of a rating as a share of its scale.

Sums in another order differ by some 1e-6, TF32 on a GPU by some 1e-3. In int8 a number that lies between
two levels may go to either, and all later layers see that."""


class UnverifiedBundleWarning(UserWarning):
    """A bundle without a probe: nothing shows that this machine computes it rightly."""


def create_probe(model: Model, precision: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a probe for a model, and its answer on this machine.

    Of several voice-like signals the probe is the one of which the model is least sure: a probability of
    .999 hardly moves, whatever goes wrong.

    Args:
        model: what was exported.
        precision: of its weights.

    Returns:
        the waveform, 16-bit integers (N,), and what `bundle.json` holds about it.
    """
    signals = _signals(max(SAMPLING_RATE, model.min_samples))
    asked = [(signal, _outputs(model, signal, TEXT if model.uses_text else None)) for signal in signals]
    signal, outputs = min(asked, key=lambda pair: pair[1].probabilities.max(initial=0.0))
    return signal, {
        "text": TEXT if model.uses_text else None,
        "probabilities": outputs.probabilities[0].tolist(),
        "ratings": outputs.ratings[0].tolist(),
        "tolerance": TOLERANCES[precision],
    }


def require_correct_arithmetic(model: Model, folder: Path, probe: dict[str, Any] | None) -> None:
    """Ask the probe of a bundle, and refuse the bundle where this machine answers something else.

    Args:
        model: the bundle, loaded.
        folder: of the bundle.
        probe: what `bundle.json` holds about it; None: a bundle of an older format.

    Raises:
        SertoneError: `wrong_arithmetic`; `bad_bundle` where the probe does not fit the model.
    """
    if os.environ.get(SKIP) == "1":
        return
    if probe is None:
        warnings.warn(
            f"{folder}: an older bundle without a probe, so it is not known whether this machine computes it "
            "rightly; export it again",
            UnverifiedBundleWarning,
            stacklevel=4,
        )
        return
    distance = _distance(model, folder, _outputs(model, _read(folder), probe["text"]), probe)
    if not distance <= probe["tolerance"]:
        raise SertoneError(
            "wrong_arithmetic",
            f"{folder}: this machine's answer to the bundle's probe is off by {distance:.2g}",
            f"no more than {probe['tolerance']:g}",
            "use another version of onnxruntime, or the bundle in fp32; "
            f"{SKIP}=1 loads it all the same, with answers that may be wrong",
        )


def _distance(model: Model, folder: Path, outputs: Outputs, probe: dict[str, Any]) -> float:
    """Return the largest difference of a probability, or of a rating as a share of its scale."""
    if (len(probe["probabilities"]), len(probe["ratings"])) != (len(model.classes), len(model.scales)):
        raise _damaged(folder, "its probe has not one answer per class and dimension")
    spans = np.asarray([scale_range(scale) for scale in model.scales.values()])
    differences = [
        outputs.probabilities[0] - np.asarray(probe["probabilities"]),
        (outputs.ratings[0] - np.asarray(probe["ratings"])) / spans,
    ]
    return float(np.abs(np.concatenate(differences)).max())


def _outputs(model: Model, signal: np.ndarray, text: str | None) -> Outputs:
    return model.outputs((signal / FULL_SCALE).astype(np.float32)[None], text)


def _read(folder: Path) -> np.ndarray:
    try:
        signal = np.load(folder / PROBE, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        signal = None
    if signal is None or signal.ndim != 1 or signal.dtype != np.int16:
        raise _damaged(folder, f"{PROBE} is no waveform")
    return signal


def _damaged(folder: Path, found: str) -> SertoneError:
    return SertoneError("bad_bundle", f"{folder}: {found}", "an intact bundle", "export or fetch it again")


def _signals(samples: int) -> Iterator[np.ndarray]:
    """Yield harmonics of a gliding pitch with breaks, low and high, soft and loud: 16-bit integers (N,)."""
    time = np.arange(samples) / SAMPLING_RATE
    syllables = np.maximum(0.0, np.sin(2 * np.pi * 3.5 * time)) ** 0.5
    for pitch_hz in (110.0, 160.0, 230.0, 330.0):
        phase = 2 * np.pi * pitch_hz * (time - 0.03 * np.cos(2 * np.pi * time) / np.pi)
        voice = sum(np.sin(order * phase) / order for order in range(1, 12))
        for level in (0.02, 0.2):
            noise = np.random.default_rng(round(pitch_hz)).standard_normal(samples)
            yield np.rint(FULL_SCALE * level * (syllables * voice + 0.02 * noise)).astype(np.int16)
