"""The interface of a model that predicts, and the format of its predictions.

`Model` is the interface, `Outputs` its raw results, `AnswerFormat` turns them into classes, confidence and
dimensions. The `build_…` functions make the record `Prediction`.

Axis letters: B batch, N samples, K classes, J classes after mapping, R dimensions.
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
"""Longest recording that a model predicts at once by default, in seconds; windows cover longer ones."""

SUM_TOLERANCE = 1e-3
"""Largest deviation of the sum of probabilities from 1."""


def empty_answer() -> dict[str, Any]:
    """Return the fields of a prediction without a result."""
    return {"label": None, "probabilities": {}, "confidence": None, "unsure": False, "dimensions": {}}


@dataclass(frozen=True)
class Outputs:
    """Outputs of a model for a batch.

    Attributes:
        probabilities: calibrated, in the order of the model's classes, (B, K).
        ratings: ratings on the scales of the corpus, in the order of the model's scales, (B, R).
    """

    probabilities: np.ndarray
    ratings: np.ndarray


class Model(Protocol):
    """A model that predicts: a bundle or, where torch is installed, a trained model.

    Attributes:
        classes: names; empty where the model rates dimensions alone.
        scales: dimension -> scale of the corpus; None where the model does not state its scale.
        uses_audio: False for a model of text alone.
        uses_text: whether the model uses a transcript.
        min_samples: shortest input, in samples at 16 kHz; shorter recordings are padded with silence.
        max_seconds: longest recording that the model predicts at once, in seconds.
        threshold: confidence below which a prediction is unsure, or None.
        card: protocol card.
        licences: the licences of its parts, see `sertone.licences`.
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
        """Return the outputs for recordings of one length.

        Args:
            waveforms: float32 at 16 kHz, (B, N), N at least `min_samples`.
            text: transcript of a single recording; None: not known.
        """
        ...

    def truncates(self, text: str) -> bool:
        """Return whether a text is longer than the model uses."""
        ...


@dataclass(frozen=True)
class AnswerFormat:
    """The format in which the outputs of a model are presented.

    Attributes:
        model: its outputs are presented.
        class_map: class of the model -> wanted class. Merged classes add up; the probability of classes that
            are left out is divided among the rest. None: the model's own classes.
        min_confidence: predictions below it are unsure; None: the threshold of the model, calibrated for its
            own classes.
        dimensions: scale of the ratings: that of the `corpus`, or from 0 to 1 (`unit`), where values beyond
            an end of the scale are set to that end.
        any_sound: answer for sounds that are no speech, too; False: they get no answer.

    Raises:
        SertoneError: `unknown_class`, `bad_confidence`, `no_scale`.
    """

    model: Model
    class_map: Mapping[str, str] | None = None
    min_confidence: float | None = None
    dimensions: Literal["corpus", "unit"] = "corpus"
    any_sound: bool = False

    def __post_init__(self) -> None:
        if self.class_map is not None:
            # A dummy row: `remap` refuses classes that the model does not have.
            remap(np.zeros((1, len(self.model.classes))), self.model.classes, self.class_map)
        unknown = [name for name, scale in self.model.scales.items() if scale is None]
        if self.dimensions == "unit" and unknown:
            problem = f"{', '.join(unknown)} from 0 to 1, but the model does not state their scale"
            raise SertoneError("no_scale", problem, "a scale to convert from", "leave out `dimensions`")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise SertoneError("bad_confidence", f"a min_confidence of {self.min_confidence}", "0 to 1")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in a prediction, in their order."""
        return list(self.model.classes) if self.class_map is None else class_names(dict(self.class_map))

    def format_outputs(self, outputs: Outputs) -> list[dict[str, Any]]:
        """Return `label`, `probabilities`, `confidence`, `unsure` and `dimensions` of every row.

        Raises:
            AudioError: `non_finite_answer`, `not_probabilities`.
        """
        pairs = zip(self.map_probabilities(outputs), outputs.ratings, strict=True)
        return [self.format_row(*pair) for pair in pairs]

    def map_probabilities(self, outputs: Outputs) -> np.ndarray:
        """Return the probabilities of the wanted classes (B, J) from those of the model's classes (B, K).

        Raises:
            AudioError: `non_finite_answer`, `not_probabilities`.
        """
        require_valid_outputs(outputs)
        if self.class_map is None or not self.model.classes:
            return outputs.probabilities
        return remap(outputs.probabilities, self.model.classes, self.class_map)

    def format_row(self, probabilities: np.ndarray, ratings: np.ndarray) -> dict[str, Any]:
        """Return one element of `format_outputs`, from mapped probabilities (J,) and ratings (R,)."""
        by_class = dict(zip(self.class_names, map(float, probabilities), strict=True))
        confidence = max(by_class.values(), default=None)
        threshold = self.model.threshold if self.min_confidence is None else self.min_confidence
        rated = zip(self.model.scales.items(), map(float, ratings), strict=True)
        return {
            "label": max(by_class, key=lambda name: by_class[name], default=None),
            "probabilities": by_class,
            "confidence": confidence,
            "unsure": threshold is not None and confidence is not None and confidence < threshold,
            "dimensions": {name: self._convert_rating(value, scale) for (name, scale), value in rated},
        }

    def _convert_rating(self, value: float, scale: Scale | None) -> float:
        if scale is None or self.dimensions == "corpus":
            return value
        return min(1.0, max(0.0, rescale(value, scale, UNIT_SCALE)))


def require_valid_outputs(outputs: Outputs) -> None:
    """Refuse outputs that no sound model gives, whichever graph or model they come from.

    Raises:
        AudioError: `non_finite_answer`, `not_probabilities`.
    """
    if not (np.isfinite(outputs.probabilities).all() and np.isfinite(outputs.ratings).all()):
        problem = "the model's output is not a finite number"
        raise AudioError("non_finite_answer", problem, "samples from -1 to 1, or an intact model")
    probabilities = outputs.probabilities
    # Size 0: the model rates dimensions alone.
    if probabilities.size and (
        abs(probabilities.sum(-1) - 1).max() > SUM_TOLERANCE or probabilities.min() < -SUM_TOLERANCE
    ):
        limits = f"{probabilities.min():.3g} to {probabilities.max():.3g}"
        problem = f"outputs from {limits} that add up to {probabilities[0].sum():.3g}"
        raise AudioError(
            "not_probabilities", problem, "a sum of 1, and none below 0", "export the model again"
        )


def build_memory_error(error: Exception) -> AudioError:
    """Return the error for a recording that does not fit into memory."""
    way_out = "predict it by windows, or on a machine with more memory"
    return AudioError("out_of_memory", first_line(error), "memory for the recording", way_out)


def build_error_prediction(name: str, error: AudioError) -> Prediction:
    """Return the prediction for a recording that cannot be used."""
    return Prediction(file=name, status="error", code=error.code, message=str(error))


def build_failure_prediction(name: str, error: Exception) -> Prediction:
    """Return the prediction for a recording that met a bug of Sertone, or for which memory was short."""
    if is_out_of_memory(error):
        return build_error_prediction(name, build_memory_error(error))
    message = f"{type(error).__name__}: {error}"
    return Prediction(file=name, status="error", code="failed", message=message)


def build_prediction(
    name: str, duration_s: float, warnings: Mapping[str, str], answer: Mapping[str, Any], **more: Any
) -> Prediction:
    """Return the prediction for a recording.

    Args:
        name: name of the recording.
        duration_s: its length in seconds.
        warnings: code -> message; the prediction carries the first code and all messages.
        answer: an element of `format_outputs`, or `empty_answer()`.
        **more: other fields of `Prediction`.
    """
    return Prediction(
        file=name,
        status="warning" if warnings else "ok",
        code=next(iter(warnings), ""),
        message="; ".join(warnings.values()),
        duration_s=round(duration_s, 4),
        **answer,
        **more,
    )
