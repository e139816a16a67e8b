"""What a model is asked, and how its outputs become answers: classes, confidence, scales of dimensions.

Axis letters: B batch, N samples, K classes, R dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from sertone.errors import AudioError, SertoneError, first_line, is_out_of_memory
from sertone.labels import Scale, class_names, remap, rescale
from sertone.schema import Prediction

UNIT_SCALE = Scale(0.0, 1.0, "share")
DEFAULT_MAX_SECONDS = 30.0
"""What our models answer at once, in seconds: longer recordings are answered by windows."""

ROUNDING = 1e-3
"""How far probabilities may be from adding up to 1."""


def empty_answer() -> dict[str, Any]:
    """What is told where nothing was answered."""
    return {"label": None, "probabilities": {}, "confidence": None, "unsure": False, "dimensions": {}}


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch.

    Attributes:
        probabilities: calibrated, in the order of the model's classes, (B, K).
        ratings: on the scales of the corpus, in the order of the model's scales, (B, R).
    """

    probabilities: np.ndarray
    ratings: np.ndarray


class Model(Protocol):
    """What answers: a bundle, or what was trained, where torch is installed.

    Attributes:
        classes: names; none where it rates dimensions alone.
        scales: dimension -> scale of the corpus; None where the model does not say on which it rates.
        hears: whether it hears the audio, or reads alone.
        reads: whether it reads text.
        min_samples: at 16 kHz; what is shorter is padded with silence.
        max_seconds: longest stretch that it answers at once, in seconds.
        threshold: confidence below which an answer is unsure, or None.
        card: protocol card.
        licences: the ledger of what it is made of, see `sertone.licences`.
    """

    classes: list[str]
    uses_audio: bool
    uses_text: bool
    min_samples: int
    max_seconds: float
    threshold: float | None
    card: dict[str, Any]
    licences: list[dict[str, Any]]

    @property
    def scales(self) -> Mapping[str, Scale | None]: ...

    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Answers recordings of one length.

        Args:
            waveforms: float32 at 16 kHz, (B, N), N at least `min_samples`.
            text: what is said in the only one; None: nothing is known.
        """
        ...

    def truncates(self, text: str) -> bool:
        """Whether a text is longer than it reads."""
        ...


@dataclass(frozen=True)
class AnswerFormat:
    """How outputs are told.

    Attributes:
        classes: class of the model -> class wanted; what is merged is added, what is left out is divided
            among the rest. None: the model's own.
        min_confidence: below it an answer is unsure; None: as the model was calibrated, for its own classes.
        dimensions: on the scale of the `corpus`, or from 0 to 1 (`unit`), where what is beyond an end of the
            scale is at that end.
    """

    classes: Mapping[str, str] | None = None
    min_confidence: float | None = None
    dimensions: Literal["corpus", "unit"] = "corpus"

    def names(self, model: Model) -> list[str]:
        """The classes that are told.

        Raises:
            SertoneError: `unknown_class`, where one is asked for that the model does not know.
        """
        if self.classes is None:
            return list(model.classes)
        remap(np.zeros((1, len(model.classes))), model.classes, self.classes)
        return class_names(dict(self.classes))

    def require_compatible(self, model: Model) -> None:
        """Refuses what cannot be told of a model.

        Raises:
            SertoneError: `unknown_class`, `bad_confidence`, `no_scale`.
        """
        self.names(model)
        unknown = [name for name, scale in model.scales.items() if scale is None]
        if self.dimensions == "unit" and unknown:
            found = f"{', '.join(unknown)}, which the model rates on no known scale, from 0 to 1"
            raise SertoneError("no_scale", found, "a scale to convert from", "leave out `dimensions`")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise SertoneError("bad_confidence", f"a min_confidence of {self.min_confidence}", "0 to 1")

    def format_outputs(self, model: Model, outputs: Outputs) -> list[dict[str, Any]]:
        """`label`, `probabilities`, `confidence`, `unsure` and `dimensions` of every row.

        Raises:
            AudioError: `non_finite_answer`.
        """
        pairs = zip(self.map_probabilities(model, outputs), outputs.ratings, strict=True)
        return [self.format_row(model, *pair) for pair in pairs]

    def map_probabilities(self, model: Model, outputs: Outputs) -> np.ndarray:
        """Probabilities of the model's classes (B, K) as those of the classes that are told.

        Raises:
            AudioError: `non_finite_answer`, `not_probabilities`.
        """
        require_valid_outputs(outputs)
        if self.classes is None or not model.classes:
            return outputs.probabilities
        return remap(outputs.probabilities, model.classes, self.classes)

    def format_row(self, model: Model, shares: np.ndarray, ratings: np.ndarray) -> dict[str, Any]:
        """One of `answers`, from the shares of the classes that are told and the ratings (R,)."""
        probabilities = dict(zip(self.names(model), map(float, shares), strict=True))
        confidence = max(probabilities.values(), default=None)
        threshold = model.threshold if self.min_confidence is None else self.min_confidence
        rated = zip(model.scales.items(), map(float, ratings), strict=True)
        told = [(name, self._told(value, scale)) for (name, scale), value in rated]
        return {
            "label": max(probabilities, key=lambda name: probabilities[name], default=None),
            "probabilities": probabilities,
            "confidence": confidence,
            "unsure": threshold is not None and confidence is not None and confidence < threshold,
            "dimensions": dict(told),
        }

    def _told(self, value: float, scale: Scale | None) -> float:
        if scale is None or self.dimensions == "corpus":
            return value
        return min(1.0, max(0.0, rescale(value, scale, UNIT_SCALE)))


def require_valid_outputs(outputs: Outputs) -> None:
    """Refuse outputs that are no answer, whichever graph or model they come from.

    Raises:
        AudioError: `non_finite_answer`, `not_probabilities`.
    """
    if not (np.isfinite(outputs.probabilities).all() and np.isfinite(outputs.ratings).all()):
        raise AudioError(
            "non_finite_answer", "the model's answer is no number", "samples from -1 to 1, or a sound model"
        )
    shares = outputs.probabilities
    if shares.size and (abs(shares.sum(-1) - 1).max() > ROUNDING or shares.min() < -ROUNDING):
        found = f"outputs from {shares.min():.3g} to {shares.max():.3g} that add up to {shares[0].sum():.3g}"
        raise AudioError("not_probabilities", found, "a sum of 1, and none below 0", "export the model again")


def build_memory_error(error: Exception) -> AudioError:
    """Return the error about a recording for which there is not enough memory."""
    found, way_out = first_line(error), "answer it by windows, or on a machine with more memory"
    return AudioError("out_of_memory", found, "memory for the recording", way_out)


def build_error_prediction(name: str, error: AudioError) -> Prediction:
    """What is told of a recording that was not answered."""
    return Prediction(file=name, status="error", code=error.code, message=str(error))


def build_failure_prediction(name: str, error: Exception) -> Prediction:
    """Return what is told of a recording that met a fault of ours, or for which there was no memory."""
    if is_out_of_memory(error):
        return build_error_prediction(name, build_memory_error(error))
    message = f"{type(error).__name__}: {error}"
    return Prediction(file=name, status="error", code="failed", message=message)


def build_prediction(
    name: str, duration_s: float, warnings: Mapping[str, str], answer: Mapping[str, Any], **more: Any
) -> Prediction:
    """What is told of a recording that was answered, with its warnings (code -> message)."""
    return Prediction(
        file=name,
        status="warning" if warnings else "ok",
        code=next(iter(warnings), ""),
        message="; ".join(warnings.values()),
        duration_s=round(duration_s, 4),
        **answer,
        **more,
    )
