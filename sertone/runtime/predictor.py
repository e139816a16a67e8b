"""Prediction: one answer per recording, always; a fault of a recording is an answer, not an exception."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np

from sertone import audio
from sertone.audio import SEGMENT_TOLERANCE_S, Recording
from sertone.errors import AudioError
from sertone.isolation import ChildDiedError, cores, in_order
from sertone.labels import has_words
from sertone.runtime.answering import NO_ANSWER, Answering, Model
from sertone.schema import Prediction

MAX_DECODERS = 4
Recogniser = Callable[[np.ndarray], str | None]
"""Samples (N,) at 16 kHz -> what is said."""


class Predictor:
    """Answers recordings by a model.

    Args:
        model: a bundle, or what was trained.
        answering: how its outputs are told.

    Attributes:
        model: as given.
        answering: as given.

    Raises:
        SertoneError: `unknown_class`, `bad_confidence`.
    """

    def __init__(self, model: Model, answering: Answering | None = None) -> None:
        self.model, self.answering = model, answering or Answering()
        self.answering.require_fit(model)

    def __repr__(self) -> str:
        inputs = f"mono waveform at 16 kHz, at least {self.model.min_samples} samples"
        inputs += ", text" if self.model.reads else ""
        rated = [f"{name} {scale.low:g}-{scale.high:g}" for name, scale in self.model.scales.items()]
        return f"Predictor({inputs} -> {', '.join([*self.answering.names(self.model), *rated])})"

    def predict(
        self, source: str | Path | np.ndarray, sampling_rate: int | None = None, *, text: str | None = None
    ) -> Prediction:
        """Predicts one recording.

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
        durations: Iterable[float | None] | None = None,
        recogniser: Recogniser | None = None,
    ) -> Iterator[Prediction]:
        """Predicts files in their order; they are decoded ahead, in processes of their own.

        Args:
            files: in any number; each gives one prediction.
            strict: refuse what would be answered with a warning.
            texts: what is said in each, for a model that reads; None where that is not known.
            durations: what each is said to last, in seconds; None where that is not known.
            recogniser: samples (N,) at 16 kHz -> text, asked where no text is given.
        """
        asked = recogniser if self.model.reads else None
        calls = zip(files, _or_none(durations), strict=durations is not None)
        with closing(in_order(min(cores(), MAX_DECODERS), _read, calls)) as decoded:
            for ((file, _), future), text in zip(decoded, _or_none(texts), strict=texts is not None):
                source = asked if text is None and asked else _given(text)
                made = self._answer(str(file), partial(_result, file, future), source)
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
        if len(samples) < self.model.min_samples:
            found = f"{len(samples)} samples, padded to the {self.model.min_samples} the model needs"
            warnings["padded"] = found
            samples = np.pad(samples, (0, self.model.min_samples - len(samples)))
        text, said = self._readable(text_of(recording.samples))
        warnings |= said
        (answer,) = self.answering.answers(self.model, self.model.outputs(samples[None], text))
        return Prediction(
            file=name,
            status="warning" if warnings else "ok",
            code=next(iter(warnings), ""),
            message="; ".join(warnings.values()),
            duration_s=round(recording.duration_s, 4),
            text=text,
            **answer,
        )

    def _readable(self, text: str | None) -> tuple[str | None, dict[str, str]]:
        """The text that the model reads, and what there is to say about it."""
        if not self.model.reads and text:
            return None, {"text_not_read": "the model hears only; the text made no difference"}
        if not self.model.reads:
            return None, {}
        if text is None or not has_words(text):
            self._require_ears()
            return None, {"no_text": "answered from the audio alone: no text, or none with a word in it"}
        if self.model.truncates(text):
            return text, {"text_truncated": "the text is longer than the model reads; its end was left out"}
        return text, {}

    def _require_ears(self) -> None:
        if not self.model.hears:
            raise AudioError(
                "no_text", "no text, or none with a word in it, and the model only reads", "what is said"
            )


def _given(text: str | None) -> Recogniser:
    return lambda _: text


def _or_none(values: Iterable | None) -> Iterable:
    return repeat(None) if values is None else values


def _read(file: str | Path, stated_s: float | None) -> Recording:
    """A recording, with a warning where it is not as long as is said."""
    recording = audio.read(file)
    if stated_s is None or abs(stated_s - recording.duration_s) <= SEGMENT_TOLERANCE_S:
        return recording
    message = f"{recording.duration_s:.3f} s; the table says {stated_s:.3f} s"
    return replace(recording, warnings=recording.warnings | {"other_duration": message})


def _result(file: str | Path, future: Future[Recording]) -> Recording:
    try:
        return future.result()
    except ChildDiedError as error:
        raise AudioError(
            "decoder_crashed", f"{file}: {error.found}", "audio that the decoder survives"
        ) from None
