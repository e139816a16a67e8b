"""Models that `evaluate` can score: trained ones answer with torch, bundles with ONNX Runtime.

Axis letters: N utterances, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.calibration import Calibration, probabilities
from sertone.errors import SertoneError
from sertone.export.cached import model_folder
from sertone.runtime.answering import Model, Outputs
from sertone.runtime.bundle import Bundle, is_bundle
from sertone.runtime.predictor import Predictor
from sertone.schema import Utterance
from sertone.training.recordings import Recordings


@dataclass(frozen=True)
class UtteranceAnswers:
    """Answers about utterances, in their order.

    Attributes:
        probabilities: calibrated, in the order of the model's classes, (N, K).
        uncalibrated: the same before calibration, (N, K).
        ratings: dimension -> ratings on the model's own scale, (N,).
    """

    probabilities: np.ndarray
    uncalibrated: np.ndarray
    ratings: dict[str, list[float]]


Heard = Sequence[Mapping[str, Sequence[str]]]
"""Recordings and speakers of a training, as `training.heard.names` hashes them: one entry for each model."""


class EvaluatedModel(Protocol):
    """A model with what an evaluation has to know of it.

    Attributes:
        model: what answers.
        class_map: emotion -> class.
        calibration: how its probabilities were calibrated.
        heard: what its models have heard in training; None where nothing is known.
        name: of the architecture, for the report.
        encoder: in words.
    """

    model: Model
    class_map: Mapping[str, str]
    calibration: Calibration
    heard: Heard | None
    name: str
    encoder: str

    def answers(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtteranceAnswers:
        """Answer utterances whose audio `recordings` holds."""
        ...


def open_model(source: str | Path | None) -> EvaluatedModel:
    """Open a model for evaluation.

    Args:
        source: a bundle, a checkpoint, a fold, a run, OWNER/NAME on the hub, or `hf:` and an
            audio-classification model of Hugging Face; None: the model that comes with the package.

    Raises:
        SertoneError: as `export.cached.model_folder`, `Bundle` and `training.predict.Trained`.
    """
    folder = model_folder(source)
    return BundledModel(Bundle(folder)) if is_bundle(folder) else TrainedModel(folder)


class TrainedModel:
    """A trained model, or the models of a run: an `EvaluatedModel`.

    Args:
        folder: a checkpoint, a fold or a run.
    """

    def __init__(self, folder: Path) -> None:
        from sertone.training.predict import Trained
        from sertone.training.results import encoders_in_words

        self._trained = trained = Trained(folder)
        self.model: Model = trained
        self.class_map: Mapping[str, str] = trained.class_map
        self.calibration = _mean_calibration(trained.calibrations)
        self.heard: Heard | None = [about["card"]["heard"] for about in trained.abouts]
        self.name: str = trained.about["model"]["name"]
        self.encoder = encoders_in_words(trained.about["model"])

    def answers(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtteranceAnswers:
        """Answer in batches, on a GPU where there is one."""
        from sertone.train_config import TrainConfig
        from sertone.training import ranks, together

        fabric = ranks.fabric(TrainConfig(batch_size=1))
        each = together.answers_of(self._trained, utterances, recordings, fabric)
        return UtteranceAnswers(
            probabilities=together.mean_probabilities(self._trained, each),
            uncalibrated=np.mean([own.probabilities for own in each], axis=0),
            ratings={
                name: together.mean_ratings(self._trained, each, name, scale)
                for name, scale in self._trained.scales.items()
            },
        )


class BundledModel:
    """A bundle: an `EvaluatedModel` that needs no torch to answer.

    Args:
        bundle: the model.
    """

    def __init__(self, bundle: Bundle) -> None:
        about = bundle.about
        self.model: Model = bundle
        self.class_map: Mapping[str, str] = about["class_map"]
        self.calibration = _stated_calibration(about["calibration"])
        self._models: int = about["models"]
        self.heard: Heard | None = [about["card"]["heard"]] if "heard" in about["card"] else None
        self.name: str = about.get("model", about)["name"]
        self.encoder: str = about.get("model", {}).get("encoders", "not known")

    def answers(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtteranceAnswers:
        """Answer one utterance after the other, as `predict` does."""
        outputs = [self._outputs(u, recordings.samples(u).astype(np.float32) / 2**15) for u in utterances]
        shares = np.concatenate([each.probabilities for each in outputs])
        ratings = np.concatenate([each.ratings for each in outputs])
        columns = zip(self.model.scales, ratings.T.tolist(), strict=True)
        return UtteranceAnswers(shares, self._uncalibrated(shares), dict(columns))

    def _outputs(self, utterance: Utterance, samples: np.ndarray) -> Outputs:
        text = utterance.text if self.model.reads else None
        limit = round(self.model.max_seconds * SAMPLING_RATE)
        if self.model.hears and len(samples) > limit:
            return self._windows(utterance, samples)
        missing = max(0, self.model.min_samples - len(samples))
        return self.model.outputs(np.pad(samples[:limit], (0, missing))[None], text)

    def _windows(self, utterance: Utterance, samples: np.ndarray) -> Outputs:
        """Answer a long utterance by windows, as `predict` does."""
        answer = Predictor(self.model).predict(samples, SAMPLING_RATE)
        if not (answer.probabilities or answer.dimensions):
            raise SertoneError("not_answered", f"{utterance.id}: {answer.message}", "speech to answer")
        rows = (list(answer.probabilities.values()), list(answer.dimensions.values()))
        return Outputs(*(np.asarray([row], float) for row in rows))

    def _uncalibrated(self, shares: np.ndarray) -> np.ndarray:
        """Undo the temperature; of a mean of several models that cannot be done, and nothing changes."""
        if self._models > 1 or not self.model.classes:
            return shares
        logits = self.calibration.temperature * np.log(np.maximum(shares, np.finfo(float).tiny))
        return probabilities(logits)


def _mean_calibration(calibrations: Sequence[Calibration]) -> Calibration:
    """Return what several models were calibrated on, together."""
    if len(calibrations) == 1:
        return calibrations[0]
    speakers = sorted({name for each in calibrations for name in each.fitted_on.get("speakers", ())})
    utterances = sum(each.fitted_on.get("utterances", 0) for each in calibrations)
    return Calibration(
        temperature=float(np.mean([each.temperature for each in calibrations])),
        coverage=calibrations[0].coverage,
        fitted_on={"speakers": speakers, "utterances": utterances} if utterances else {},
        note=f"mean of {len(calibrations)} models, each with a temperature of its own",
    )


def _stated_calibration(stated: Mapping[str, Any]) -> Calibration:
    """Return the calibration of `bundle.json`, which may leave out what nothing depends on."""
    known = {field.name for field in fields(Calibration)} & stated.keys()
    return Calibration(**{name: stated[name] for name in known})
