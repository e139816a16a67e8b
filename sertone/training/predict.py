"""Prediction straight from a training checkpoint: one answer per recording, always."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sertone import audio
from sertone.audio import Recording
from sertone.calibration import Calibration
from sertone.errors import AudioError
from sertone.isolation import ChildDiedError, Isolated
from sertone.nn.batch import Batch
from sertone.schema import Prediction
from sertone.sharing.folder import checkpoints
from sertone.training import checkpoint

NO_ANSWER: dict[str, Any] = {"label": None, "probabilities": {}, "confidence": None, "unsure": False}


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
        classes: names of the classes.
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
        self.class_map: dict[str, str] = self.vocabularies[0].class_map
        self.min_samples: int = self.about["min_samples"]
        self.card: dict = self.about["card"]
        self.licences: list[dict] = self.about["licences"]
        self.calibrations = [Calibration(**about.get("calibration", {})) for about in self.abouts]
        thresholds = [each.threshold for each in self.calibrations if each.threshold is not None]
        self.threshold = float(np.mean(thresholds)) if len(thresholds) == len(loaded) else None

    def __repr__(self) -> str:
        return (
            f"Predictor({len(self.models)} models: mono waveform at 16 kHz, at least "
            f"{self.min_samples} samples -> {', '.join(self.classes)})"
        )

    def predict(self, source: str | Path | np.ndarray, sampling_rate: int | None = None) -> Prediction:
        """Predicts one recording.

        Args:
            source: a file, or samples (N,) or (N, channels).
            sampling_rate: of samples, in Hz.

        Returns:
            a prediction, with status `error` where the recording cannot be used.

        Raises:
            ValueError: samples without a sampling rate.
        """
        if isinstance(source, np.ndarray):
            if sampling_rate is None:
                raise ValueError("samples need their sampling_rate in Hz")
            return self._answer("<array>", lambda: audio.from_array(source, sampling_rate))
        return self._answer(str(source), lambda: audio.read(source))

    def predict_files(self, files: Iterable[str | Path], *, strict: bool = False) -> Iterator[Prediction]:
        """Predicts files one by one; decoding runs in a process of its own.

        Args:
            files: in any number; each gives one prediction.
            strict: refuse what would be answered with a warning.
        """
        with Isolated() as isolated:
            for file in files:
                made = self._answer(str(file), lambda file=file: _read_apart(isolated, file))
                if strict and made.status == "warning":
                    made = replace(made, status="error", **NO_ANSWER)
                yield made

    def _answer(self, name: str, read) -> Prediction:
        try:
            recording: Recording = read()
        except AudioError as error:
            return Prediction(file=name, status="error", code=error.code, message=str(error))
        except Exception as error:  # one recording never ends a run
            message = f"{type(error).__name__}: {error}"
            return Prediction(file=name, status="error", code="failed", message=message)
        warnings, samples = dict(recording.warnings), recording.samples
        if len(samples) < self.min_samples:
            found = f"{len(samples)} samples, padded to the {self.min_samples} the model needs"
            warnings["padded"] = found
            samples = np.pad(samples, (0, self.min_samples - len(samples)))
        probabilities = self._probabilities(samples)
        confidence = max(probabilities.values())
        return Prediction(
            file=name,
            status="warning" if warnings else "ok",
            code=next(iter(warnings), ""),
            message="; ".join(warnings.values()),
            duration_s=round(recording.duration_s, 4),
            label=max(probabilities, key=lambda name: probabilities[name]),
            probabilities=probabilities,
            confidence=confidence,
            unsure=self.threshold is not None and confidence < self.threshold,
        )

    @torch.inference_mode()
    def _probabilities(self, samples: np.ndarray) -> dict[str, float]:
        batch = Batch(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
        logits = [model(batch)["emotion"].logits[0].float().numpy() for model in self.models]
        pairs = zip(self.calibrations, logits, strict=True)
        mean = np.mean([by.probabilities(row) for by, row in pairs], axis=0)
        return {name: float(p) for name, p in zip(self.classes, mean, strict=True)}


def _read_apart(isolated: Isolated, file: str | Path) -> Recording:
    try:
        return isolated(audio.read, file)
    except ChildDiedError as error:
        raise AudioError(
            "decoder_crashed", f"{file}: {error.found}", "audio that the decoder survives"
        ) from None
