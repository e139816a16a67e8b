"""Models that `evaluate` can score: trained ones answer with torch, bundles with ONNX Runtime.

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
from sertone.runtime.answering import Model, Outputs
from sertone.runtime.bundle import Bundle, is_bundle
from sertone.runtime.predictor import Predictor
from sertone.schema import Utterance
from sertone.scoring.calibration import Calibration, softmax
from sertone.training.data import durations
from sertone.training.data.recordings import Recordings
from sertone.transcripts import Transcripts

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class UtterancePredictions:
    """Answers about utterances, in their order.

    Attributes:
        probabilities: calibrated, in the order of the model's classes, (N, K).
        uncalibrated: the same before calibration, (N, K); None where that is not known.
        ratings: dimension -> ratings on the model's own scale, (N,).
    """

    probabilities: np.ndarray
    uncalibrated: np.ndarray | None
    ratings: dict[str, list[float]]


SeenInTraining = Sequence[Mapping[str, Sequence[str]]]
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
    seen_in_training: SeenInTraining | None
    name: str
    encoder: str

    def predict(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtterancePredictions:
        """Answer utterances whose audio `recordings` holds."""
        ...


def select_long_utterances(
    model: Model, utterances: Sequence[Utterance], recordings: Recordings
) -> list[Utterance]:
    """Return the utterances that are longer than a model answers at once.

    They are answered by windows, without their texts, as `predict` does.

    Args:
        model: that answers.
        utterances: to choose from.
        recordings: their audio, loaded.
    """
    limit = round(model.max_seconds * SAMPLING_RATE)
    return [u for u in utterances if recordings.lengths[u.id] > limit] if model.uses_audio else []


def open_model(source: str | Path | None) -> EvaluatedModel:
    """Open a model for evaluation.

    Args:
        source: a bundle, a checkpoint, a fold, a run, OWNER/NAME on the hub, or `hf:` and an
            audio-classification model of Hugging Face; None: the model that comes with the package.

    Raises:
        SertoneError: as `export.cached.model_folder`, `Bundle` and `training.predict.Trained`.
    """
    folder = resolve_model_folder(source)
    return BundledModel(Bundle(folder)) if is_bundle(folder) else TrainedModel(folder)


def limit_durations(
    utterances: Sequence[Utterance], data: DataConfig, say: Callable[[str], None]
) -> tuple[list[Utterance], dict[str, Any]]:
    """Apply `data.max_seconds` and `data.longer` as `training.durations.limited` does.

    Raises:
        SertoneError: `longer_utterances`; `no_targets`, where nothing is left.
    """
    kept, card = durations.limit_durations(utterances, data, say)
    if not kept:
        raise SertoneError("no_targets", "data.longer leaves out every utterance", "at least one")
    return kept, card


def describe_texts(texts: Transcripts, undivided: int) -> dict[str, Any]:
    """Return what the protocol card records of the texts; those that nobody read do not count."""
    counts = {"with_text": texts.with_text - undivided, "without_text": texts.without_text + undivided}
    return texts.card | counts


def list_text_warnings(model: Model, utterances: Sequence[Utterance], undivided: int) -> list[str]:
    """Return what the reader of a score must know of the texts.

    Args:
        model: that answered.
        utterances: with their texts.
        undivided: how many texts were left out, see `answered_by_windows`.
    """
    if not model.uses_text:
        return []
    unread, total = sum(u.text is None for u in utterances), len(utterances)
    alone = "the audio alone answered" if model.uses_audio else "their answers are all the same"
    said = [f"{unread} of {total} utterances have no text; {alone}"] if unread else []
    if undivided:
        longer = f"{undivided} of {total} utterances have a text and are longer than {model.max_seconds:g} s"
        said.append(f"{longer}: windows answered, without the text")
    return said


class TrainedModel:
    """A trained model, or the models of a run: an `EvaluatedModel`.

    Args:
        folder: a checkpoint, a fold or a run.
    """

    def __init__(self, folder: Path) -> None:
        from sertone.training.runs.results import describe_encoders
        from sertone.training.testing.trained import TorchModel

        self._trained = trained = TorchModel(folder)
        self.model: Model = trained
        self.class_map: Mapping[str, str] = trained.class_map
        self.calibration = _mean_calibration(trained.calibrations)
        self.seen_in_training: SeenInTraining | None = [about["card"]["heard"] for about in trained.abouts]
        self.name: str = trained.about["model"]["name"]
        self.encoder = describe_encoders(trained.about["model"])

    def predict(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtterancePredictions:
        """Answer in batches, on a GPU where there is one; long utterances by windows."""
        from sertone.recipe.train_config import TrainConfig
        from sertone.training.fit import distributed

        fabric = distributed.make_fabric(TrainConfig(batch_size=1))
        self._trained.models = [model.to(fabric.device) for model in self._trained.models]
        self._trained.device = str(fabric.device)
        long = {u.id for u in select_long_utterances(self._trained, utterances, recordings)}
        is_long = np.asarray([u.id in long for u in utterances])
        each = [self._trained.classes, self._trained.classes, self._trained.scales]
        shares, plain, ratings = columns = [np.zeros((len(utterances), len(names))) for names in each]
        if not is_long.all():
            found = self._at_once([u for u in utterances if u.id not in long], recordings, fabric)
            for column, rows in zip(columns, found, strict=True):
                column[~is_long] = rows
        for row, utterance in enumerate(utterances):
            if utterance.id in long:
                samples = _samples(recordings, utterance)
                outputs = _by_windows(self._trained, utterance, samples)
                shares[row], ratings[row] = outputs.probabilities[0], outputs.ratings[0]
                plain[row] = _by_windows(self._uncalibrated(), utterance, samples).probabilities[0]
        rated = dict(zip(self._trained.scales, ratings.T.tolist(), strict=True))
        return UtterancePredictions(shares, plain, rated)

    def _at_once(
        self, utterances: Sequence[Utterance], recordings: Recordings, fabric: "Fabric"
    ) -> list[np.ndarray]:
        """Return probabilities (N, K), the same before calibration, and ratings (N, R)."""
        from sertone.training.testing import together

        trained = self._trained
        each = together.predict_per_model(trained, utterances, recordings, fabric)
        rated = [together.average_ratings(trained, each, *item) for item in trained.scales.items()]
        plain = np.mean([own.probabilities for own in each], axis=0)
        return [
            together.average_probabilities(trained, each) if trained.classes else plain,
            plain,
            np.reshape(rated, (len(rated), len(utterances))).T,
        ]

    def _uncalibrated(self) -> Model:
        """Return the same models before their calibration; a copy would load them again."""
        plain = object.__new__(type(self._trained))
        vars(plain).update(vars(self._trained), calibrations=[Calibration()] * len(self._trained.models))
        return plain


class BundledModel:
    """A bundle: an `EvaluatedModel` that needs no torch to answer.

    Args:
        bundle: the model.
    """

    def __init__(self, bundle: Bundle) -> None:
        about = bundle.metadata
        self.model: Model = bundle
        self.class_map: Mapping[str, str] = about["class_map"]
        self._models: int = about["models"]
        self.calibration = _stated_calibration(about["calibration"], self._models)
        self.seen_in_training: SeenInTraining | None = (
            [about["card"]["heard"]] if "heard" in about["card"] else None
        )
        self.name: str = about.get("model", about)["name"]
        self.encoder: str = about.get("model", {}).get("encoders", "not known")

    def predict(self, utterances: Sequence[Utterance], recordings: Recordings) -> UtterancePredictions:
        """Answer one utterance after the other, as `predict` does."""
        long = {u.id for u in select_long_utterances(self.model, utterances, recordings)}
        outputs = [self._outputs(u, _samples(recordings, u), long=u.id in long) for u in utterances]
        shares = np.concatenate([each.probabilities for each in outputs])
        ratings = np.concatenate([each.ratings for each in outputs])
        columns = zip(self.model.scales, ratings.T.tolist(), strict=True)
        return UtterancePredictions(shares, self._uncalibrated(shares), dict(columns))

    def _outputs(self, utterance: Utterance, samples: np.ndarray, *, long: bool) -> Outputs:
        if long:
            return _by_windows(self.model, utterance, samples)
        text = utterance.text if self.model.uses_text else None
        limit = round(self.model.max_seconds * SAMPLING_RATE)
        missing = max(0, self.model.min_samples - len(samples))
        return self.model.outputs(np.pad(samples[:limit], (0, missing))[None], text)

    def _uncalibrated(self, shares: np.ndarray) -> np.ndarray | None:
        """Undo the temperature; None for a mean of several models, where that is impossible."""
        if self._models > 1:
            return None
        if not self.model.classes:
            return shares
        logits = self.calibration.temperature * np.log(np.maximum(shares, np.finfo(float).tiny))
        return softmax(logits)


def _samples(recordings: Recordings, utterance: Utterance) -> np.ndarray:
    return recordings.samples(utterance).astype(np.float32) / 2**15


def _by_windows(model: Model, utterance: Utterance, samples: np.ndarray) -> Outputs:
    """Answer a long utterance by windows, as `predict` does.

    `predict` has no answer about silence; a score needs one, so the model answers the beginning at once.
    """
    answer = Predictor(model).predict(samples, SAMPLING_RATE)
    if answer.status == "error":
        found = f"{utterance.id}: {answer.message}"
        raise SertoneError("not_answered", found, "a recording that the model can answer")
    if not (answer.probabilities or answer.dimensions):
        return model.outputs(samples[None, : round(model.max_seconds * SAMPLING_RATE)])
    rows = (list(answer.probabilities.values()), list(answer.dimensions.values()))
    return Outputs(*(np.asarray([row], float) for row in rows))


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


def _stated_calibration(stated: Mapping[str, Any], models: int) -> Calibration:
    """Return the calibration of `bundle.json`, which may leave out what nothing depends on.

    A bundle of several models states the temperature and the speakers of its first model, which do not hold
    for their mean.
    """
    known = {field.name for field in fields(Calibration)} & stated.keys()
    own = Calibration(**{name: stated[name] for name in known})
    if models == 1:
        return own
    note = f"mean of {models} models, each with a temperature of its own, which the bundle does not state"
    return replace(own, temperature=1.0, fitted_on={}, note=note)
