"""Models that `evaluate` can score: trained models run with torch, bundles with ONNX Runtime.

Axis letters: N utterances, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.export.bundle_cache import resolve_model_folder
from sertone.recipe import DataConfig
from sertone.runtime.answering import AnswerFormat, Model, Outputs
from sertone.runtime.bundle import Bundle, BundleSettings, is_bundle
from sertone.runtime.predictor import Predictor
from sertone.schema import Utterance
from sertone.scoring.calibration import Calibration, softmax
from sertone.training.data import durations
from sertone.training.data.recordings import Recordings

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class UtterancePredictions:
    """Predictions for utterances, in their order.

    Attributes:
        probabilities: calibrated, in the order of the model's classes, (N, K).
        uncalibrated: probabilities before calibration, (N, K); None where they are not known.
        ratings: dimension -> ratings on the scale of the model, (N,).
    """

    probabilities: np.ndarray
    uncalibrated: np.ndarray | None
    ratings: dict[str, list[float]]


SeenInTraining = Sequence[Mapping[str, Sequence[str]]]
"""Hashed recordings and speakers of a training (`contamination.hash_training_data`), one entry per model."""


class EvaluatedModel(Protocol):
    """Model together with what an evaluation needs to know about it.

    Attributes:
        model: predicts.
        class_map: emotion -> class.
        calibration: calibration of its probabilities.
        seen_in_training: the data it was trained on; None where nothing is known.
        name: name of the architecture, for the report.
        encoder: description of its encoders.
    """

    model: Model
    class_map: Mapping[str, str]
    calibration: Calibration
    seen_in_training: SeenInTraining | None
    name: str
    encoder: str

    def predict(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtterancePredictions:
        """Predict utterances whose audio `recordings` holds."""
        ...


def select_long_utterances(
    model: Model, utterances: Sequence[Utterance], recordings: Recordings
) -> list[Utterance]:
    """Return the utterances that are too long for one prediction: windows without their texts predict them.

    Args:
        model: evaluated.
        utterances: utterances to choose from.
        recordings: their loaded audio.
    """
    if not model.uses_audio:
        return []
    limit = round(model.max_seconds * SAMPLING_RATE)
    return [u for u in utterances if recordings.lengths[u.id] > limit]


def open_model(source: str | Path | None, threads: int | None = None) -> EvaluatedModel:
    """Open a model for evaluation.

    Args:
        source: a bundle, a checkpoint, a fold, a run, OWNER/NAME on the hub, or `hf:` and an
            audio-classification model of Hugging Face; None: the model that comes with the package.
        threads: for one recording; None: one per core.

    Raises:
        SertoneError: see `export.bundle_cache.resolve_model_folder`, `Bundle` and `TorchModel`.
    """
    folder = resolve_model_folder(source)
    if is_bundle(folder):
        return BundledModel(Bundle(folder, BundleSettings(threads=threads)))
    return TrainedModel(folder, threads)


def limit_durations(
    utterances: Sequence[Utterance], data: DataConfig, say: Callable[[str], None]
) -> tuple[list[Utterance], dict[str, Any]]:
    """Apply `data.max_seconds` and `data.longer`, see `training.data.durations.limit_durations`.

    Raises:
        SertoneError: `longer_utterances`; `no_targets`, where no utterance is left.
    """
    remaining, card = durations.limit_durations(utterances, data, say)
    if not remaining:
        raise SertoneError("no_targets", "data.longer leaves out every utterance", "at least one utterance")
    return remaining, card


class TrainedModel:
    """Checkpoint, or the models of a run: an `EvaluatedModel` that runs with torch.

    Args:
        folder: a checkpoint, a fold or a run.
        threads: number of torch's threads; None: as they are.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        from sertone.training.runs.results import describe_encoders
        from sertone.training.testing.trained import TorchModel

        self._trained = trained = TorchModel(folder, threads=threads)
        self.model: Model = trained
        self.class_map: Mapping[str, str] = trained.class_map
        self.calibration = _average_calibrations(trained.calibrations)
        self.seen_in_training: SeenInTraining | None = [about["card"]["heard"] for about in trained.abouts]
        self.name: str = trained.about["model"]["name"]
        self.encoder = describe_encoders(trained.about["model"])

    def predict(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtterancePredictions:
        """Predict in batches, on a GPU where there is one, and long utterances by windows."""
        from sertone.recipe.train_config import TrainConfig
        from sertone.training.fit import distributed

        trained = self._trained
        # These settings only choose device and precision. The batch size plays no part.
        fabric = distributed.make_fabric(TrainConfig(batch_size=1))
        trained.models = [model.to(fabric.device) for model in trained.models]
        trained.device = str(fabric.device)
        long_ids = {u.id for u in select_long_utterances(trained, utterances, recordings)}
        is_long = np.asarray([u.id in long_ids for u in utterances])
        probabilities = np.zeros((len(utterances), len(trained.classes)))
        uncalibrated = np.zeros_like(probabilities)
        ratings = np.zeros((len(utterances), len(trained.scales)))
        if not is_long.all():
            short = [u for u in utterances if u.id not in long_ids]
            batched = self._predict_batches(short, recordings, fabric)
            for column, rows in zip((probabilities, uncalibrated, ratings), batched, strict=True):
                column[~is_long] = rows
        for row, utterance in enumerate(utterances):
            if not is_long[row]:
                continue
            samples = _load_samples(recordings, utterance)
            outputs = _predict_windows(trained, utterance, samples)
            probabilities[row] = outputs.probabilities[0]
            ratings[row] = outputs.ratings[0]
            plain_outputs = _predict_windows(self._copy_uncalibrated(), utterance, samples)
            uncalibrated[row] = plain_outputs.probabilities[0]
        ratings_by_name = dict(zip(trained.scales, ratings.T.tolist(), strict=True))
        return UtterancePredictions(probabilities, uncalibrated, ratings_by_name)

    def _predict_batches(
        self, utterances: Sequence[Utterance], recordings: Recordings, fabric: "Fabric"
    ) -> list[np.ndarray]:
        """Return probabilities (N, K), the same before calibration, and ratings (N, R)."""
        from sertone.training.testing import ensemble

        trained = self._trained
        outputs = ensemble.predict_per_model(trained, utterances, recordings, fabric)
        ratings = [ensemble.average_ratings(trained, outputs, *item) for item in trained.scales.items()]
        uncalibrated = np.mean([output.probabilities for output in outputs], axis=0)
        return [
            ensemble.average_probabilities(trained, outputs) if trained.classes else uncalibrated,
            uncalibrated,
            # A model without ratings gives (N, 0), which an empty stack could not.
            np.reshape(ratings, (len(ratings), len(utterances))).T,
        ]

    def _copy_uncalibrated(self) -> Model:
        """Return the same models without their calibration. The copy shares the loaded networks."""
        plain = object.__new__(type(self._trained))
        vars(plain).update(vars(self._trained), calibrations=[Calibration()] * len(self._trained.models))
        return plain


class BundledModel:
    """Bundle: an `EvaluatedModel` that predicts without torch.

    Args:
        bundle: the model.
    """

    def __init__(self, bundle: Bundle) -> None:
        metadata = bundle.metadata
        self.model: Model = bundle
        self.class_map: Mapping[str, str] = metadata["class_map"]
        self._models: int = metadata["models"]
        self.calibration = _load_calibration(metadata["calibration"], self._models)
        # A bundle of a Hugging Face model does not say what the model was trained on.
        self.seen_in_training: SeenInTraining | None = (
            [metadata["card"]["heard"]] if "heard" in metadata["card"] else None
        )
        self.name: str = metadata.get("model", metadata)["name"]
        self.encoder: str = metadata.get("model", {}).get("encoders", "not known")

    def predict(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtterancePredictions:
        """Predict one utterance after the other, as `predict` does."""
        long_ids = {u.id for u in select_long_utterances(self.model, utterances, recordings)}
        outputs = [
            self._predict_utterance(u, _load_samples(recordings, u), is_long=u.id in long_ids)
            for u in utterances
        ]
        probabilities = np.concatenate([output.probabilities for output in outputs])
        ratings = np.concatenate([output.ratings for output in outputs])
        ratings_by_name = dict(zip(self.model.scales, ratings.T.tolist(), strict=True))
        return UtterancePredictions(probabilities, self._undo_calibration(probabilities), ratings_by_name)

    def _predict_utterance(self, utterance: Utterance, samples: np.ndarray, *, is_long: bool) -> Outputs:
        if is_long:
            return _predict_windows(self.model, utterance, samples)
        text = utterance.text if self.model.uses_text else None
        # Only a model without audio input gets more than this here, and it ignores the waveform.
        limit = round(self.model.max_seconds * SAMPLING_RATE)
        missing = max(0, self.model.min_samples - len(samples))
        return self.model.outputs(np.pad(samples[:limit], (0, missing))[None], text)

    def _undo_calibration(self, probabilities: np.ndarray) -> np.ndarray | None:
        """Undo the temperature. Return None for a mean of several models, which hides their temperatures."""
        if self._models > 1:
            return None
        if not self.model.classes:
            return probabilities
        # Log-probabilities are the scaled logits up to a constant, which the softmax ignores.
        logits = self.calibration.temperature * np.log(np.maximum(probabilities, np.finfo(float).tiny))
        return softmax(logits)


def _load_samples(recordings: Recordings, utterance: Utterance) -> np.ndarray:
    # The cache holds 16-bit integers; models take floats from -1 to 1.
    return recordings.samples(utterance).astype(np.float32) / 2**15


def _predict_windows(model: Model, utterance: Utterance, samples: np.ndarray) -> Outputs:
    """Predict a long utterance by windows, as `predict` does.

    `predict` gives no label for silence. A score needs one, so the model then gets the beginning at once.

    Raises:
        SertoneError: `not_answered`.
    """
    prediction = Predictor(AnswerFormat(model, any_sound=True)).predict(samples, SAMPLING_RATE)
    if prediction.status == "error":
        problem = f"{utterance.id}: {prediction.message}"
        raise SertoneError("not_answered", problem, "a recording that the model can predict")
    if not (prediction.probabilities or prediction.dimensions):
        return model.outputs(samples[None, : round(model.max_seconds * SAMPLING_RATE)])
    probabilities = np.asarray([list(prediction.probabilities.values())], float)
    ratings = np.asarray([list(prediction.dimensions.values())], float)
    return Outputs(probabilities, ratings)


def _average_calibrations(calibrations: Sequence[Calibration]) -> Calibration:
    """Return the common calibration of several models: mean temperature, and all utterances of the fits."""
    if len(calibrations) == 1:
        return calibrations[0]
    speakers = {name for calibration in calibrations for name in calibration.fitted_on.get("speakers", ())}
    utterances = sum(calibration.fitted_on.get("utterances", 0) for calibration in calibrations)
    return Calibration(
        temperature=float(np.mean([calibration.temperature for calibration in calibrations])),
        coverage=calibrations[0].coverage,
        fitted_on={"speakers": sorted(speakers), "utterances": utterances} if utterances else {},
        note=f"mean of {len(calibrations)} models, each with a temperature of its own",
    )


def _load_calibration(values: Mapping[str, Any], models: int) -> Calibration:
    """Return the calibration of `bundle.json`, which may lack keys that no result depends on.

    Args:
        values: part `calibration` of `bundle.json`.
        models: number of models in the bundle. With several, the file states temperature and speakers of the
            first model, which do not hold for their mean.
    """
    names = {field.name for field in fields(Calibration)} & values.keys()
    calibration = Calibration(**{name: values[name] for name in names})
    if models == 1:
        return calibration
    note = f"mean of {models} models, each with a temperature of its own, which the bundle does not state"
    return replace(calibration, temperature=1.0, fitted_on={}, note=note)
