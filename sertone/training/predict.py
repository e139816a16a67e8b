"""Prediction straight from a training checkpoint: one answer per recording, always."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sertone import audio
from sertone.audio import Recording
from sertone.calibration import Calibration
from sertone.errors import AudioError
from sertone.isolation import ChildDiedError, Isolated
from sertone.labels import Scale, has_words
from sertone.nn.batch import Batch
from sertone.nn.tokens import truncated
from sertone.schema import Prediction
from sertone.sharing.folder import checkpoints
from sertone.training import checkpoint

NO_ANSWER: dict[str, Any] = {"label": None, "probabilities": {}, "confidence": None, "unsure": False}
NO_ANSWER |= {"dimensions": {}}
Recogniser = Callable[[np.ndarray], str | None]
"""Samples (N,) at 16 kHz -> what is said."""


class Predictor:
    """A trained model, or the models of all folds of a run together.

    Args:
        path: a checkpoint folder, a fold, a run, or OWNER/NAME on the Hugging Face hub. The answer of a
            run is the mean of the calibrated probabilities of its folds' models. Its threshold for
            `unsure` is the mean of theirs, which is approximate: a mean of models is as a rule less
            confident than each, so more recordings are unsure than the coverage says. None is new to all
            folds, so there is none to fit it on.

    Attributes:
        abouts: what `checkpoint.json` of each model holds.
        classes: names of the classes; none where the model rates dimensions alone.
        scales: dimension -> lowest and highest value, and unit, of what the model rates.
        hears: whether it hears the audio, or reads alone.
        reads: whether it reads text.
        class_map: emotion -> class.
        card: the protocol card.
        licences: the ledger of what the models are made of; see `sertone.licences`.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`.
    """

    def __init__(self, path: str | Path) -> None:
        loaded = [checkpoint.load_model(folder) for folder in checkpoints(path)]
        self.models = [model for model, _, _ in loaded]
        self.vocabularies = [vocabulary for _, vocabulary, _ in loaded]
        self.abouts = [about for _, _, about in loaded]
        self.about: dict = self.abouts[0]  # what follows is the same for all folds
        self.classes: list[str] = self.vocabularies[0].classes["emotion"]
        self.scales: dict[str, Scale] = self.vocabularies[0].ratings
        self.hears = self.models[0].encoder.width > 0
        self.reads = bool(self.vocabularies[0].tokenizer)
        self.class_map: dict[str, str] = self.vocabularies[0].class_map
        self.min_samples: int = self.about["min_samples"]
        self.card: dict = self.about["card"]
        self.licences: list[dict] = self.about["licences"]
        self.calibrations = [Calibration(**about.get("calibration", {})) for about in self.abouts]
        thresholds = [each.threshold for each in self.calibrations if each.threshold is not None]
        self.threshold = float(np.mean(thresholds)) if len(thresholds) == len(loaded) else None

    def __repr__(self) -> str:
        inputs = f"mono waveform at 16 kHz, at least {self.min_samples} samples"
        inputs += ", text" if self.reads else ""
        rated = [f"{name} {scale.low:g}-{scale.high:g}" for name, scale in self.scales.items()]
        return f"Predictor({len(self.models)} models: {inputs} -> {', '.join([*self.classes, *rated])})"

    def predict(
        self, source: str | Path | np.ndarray, sampling_rate: int | None = None, *, text: str | None = None
    ) -> Prediction:
        """Predicts one recording; a fault of the recording is an answer, not an exception.

        Args:
            source: a file, or samples (N,) or (N, channels).
            sampling_rate: of the samples, in Hz.
            text: what is said, for a model that reads; without it the audio alone answers, with a warning.

        Returns:
            the prediction, with status `error` where the recording cannot be used.

        Raises:
            ValueError: samples without a sampling rate.
        """
        if isinstance(source, np.ndarray):
            if sampling_rate is None:
                raise ValueError("samples need their sampling_rate in Hz")
            return self._answer("<array>", lambda: audio.from_array(source, sampling_rate), _given(text))
        return self._answer(str(source), lambda: audio.read(source), _given(text))

    def predict_files(
        self,
        files: Iterable[str | Path],
        *,
        strict: bool = False,
        texts: Iterable[str | None] | None = None,
        recogniser: Recogniser | None = None,
    ) -> Iterator[Prediction]:
        """Predicts files one by one; decoding runs in a process of its own.

        Args:
            files: in any number; each gives one prediction.
            strict: refuse what would be answered with a warning.
            texts: what is said in each, for a model that reads; None where that is not known.
            recogniser: samples (N,) at 16 kHz -> text, asked where no text is given.
        """
        with Isolated() as isolated:
            for file, text in zip(files, repeat(None) if texts is None else texts, strict=texts is not None):
                source = recogniser if text is None and recogniser and self.reads else _given(text)
                made = self._answer(str(file), lambda file=file: _read_apart(isolated, file), source)
                if strict and made.status == "warning":
                    made = replace(made, status="error", **NO_ANSWER)
                yield made

    def _answer(self, name: str, read: Callable[[], Recording], text_of: Recogniser) -> Prediction:
        try:
            return self._answered(name, read(), text_of)
        except AudioError as error:
            return Prediction(file=name, status="error", code=error.code, message=str(error))
        except Exception as error:  # one recording never ends a run
            message = f"{type(error).__name__}: {error}"
            return Prediction(file=name, status="error", code="failed", message=message)

    def _answered(self, name: str, recording: Recording, text_of: Recogniser) -> Prediction:
        warnings, samples = dict(recording.warnings), recording.samples
        if len(samples) < self.min_samples:
            found = f"{len(samples)} samples, padded to the {self.min_samples} the model needs"
            warnings["padded"] = found
            samples = np.pad(samples, (0, self.min_samples - len(samples)))
        text, said = self._readable(text_of(recording.samples))
        warnings |= said
        probabilities, dimensions = self._outputs(samples, text)
        confidence = max(probabilities.values(), default=None)
        return Prediction(
            file=name,
            status="warning" if warnings else "ok",
            code=next(iter(warnings), ""),
            message="; ".join(warnings.values()),
            duration_s=round(recording.duration_s, 4),
            label=max(probabilities, key=lambda name: probabilities[name], default=None),
            probabilities=probabilities,
            confidence=confidence,
            unsure=self.threshold is not None and confidence is not None and confidence < self.threshold,
            dimensions=dimensions,
            text=text,
        )

    def _readable(self, text: str | None) -> tuple[str | None, dict[str, str]]:
        """The text that the model reads, and what there is to say about it."""
        if not self.reads and text:
            return None, {"text_not_read": "the model hears only; the text made no difference"}
        if not self.reads:
            return None, {}
        if text is None or not has_words(text):
            self._require_ears()
            return None, {"no_text": "answered from the audio alone: no text, or none with a word in it"}
        if any(truncated(vocabulary.tokenizer, text) for vocabulary in self.vocabularies):
            return text, {"text_truncated": "the text is longer than the model reads; its end was left out"}
        return text, {}

    def _require_ears(self) -> None:
        if not self.hears:
            raise AudioError(
                "no_text", "no text, or none with a word in it, and the model only reads", "what is said"
            )

    @torch.inference_mode()
    def _outputs(self, samples: np.ndarray, text: str | None) -> tuple[dict[str, float], dict[str, float]]:
        """Probabilities by class, and ratings on the corpus's scale; means over the models."""
        batch = Batch(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
        rows, ratings = [], defaultdict(list)
        for model, vocabulary, by in zip(self.models, self.vocabularies, self.calibrations, strict=True):
            if text is not None:
                tokens, counts = vocabulary.tokens([text])
                batch = replace(batch, tokens=tokens, counts=counts)
            outputs = model(batch)
            if "emotion" in outputs:
                rows.append(by.probabilities(outputs["emotion"].logits[0].float().numpy()))
            for name in vocabulary.ratings:
                ratings[name] += model.heads[name].decode(outputs[name])
        mean = np.mean(rows, axis=0).tolist() if rows else []
        probabilities = dict(zip(self.classes, mean, strict=True))
        return probabilities, {name: float(np.mean(values)) for name, values in ratings.items()}


def _given(text: str | None) -> Recogniser:
    return lambda _: text


def _read_apart(isolated: Isolated, file: str | Path) -> Recording:
    try:
        return isolated(audio.read, file)
    except ChildDiedError as error:
        raise AudioError(
            "decoder_crashed", f"{file}: {error.found}", "audio that the decoder survives"
        ) from None
