"""Prediction: one answer per recording, always; a fault of a recording is an answer, not an exception."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Literal

import numpy as np

from sertone import audio
from sertone.audio import Recording, silent
from sertone.errors import AudioError
from sertone.isolation import Isolated
from sertone.labels import has_words
from sertone.runtime.ahead import Row, decoded, held_against, rows, unread
from sertone.runtime.answering import Answering, Model, failed, no_answer, prediction, refused
from sertone.runtime.apart import decoder, read_apart
from sertone.runtime.plan import Plan, TimelineSettings
from sertone.runtime.streaming import Stream
from sertone.runtime.timeline import Source, heard, timeline
from sertone.schema import Prediction

LONG_WINDOW_S = 10.0  # of recordings that are longer than the model answers at once
UNREAD = "answered from the audio alone: no text, or none with a word in it"
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
            source: a file, or samples (N,) or (N, channels), see `audio.columns_of`.
            sampling_rate: of the samples, in Hz.
            text: what is said, for a model that reads; without it the audio alone answers, with a warning.

        Returns:
            the prediction, with status `error` where the recording cannot be used.

        Raises:
            TypeError: neither a path nor an array.
            ValueError: samples without a sampling rate.
        """
        _require_source(source, sampling_rate)
        return self._predict(source, sampling_rate, text, partial(self._read, source, sampling_rate))

    def timeline(
        self,
        source: str | Path | np.ndarray,
        sampling_rate: int | None = None,
        *,
        text: str | None = None,
        settings: TimelineSettings | None = None,
    ) -> Prediction:
        """Predicts a recording of any length piece by piece, from the audio alone.

        Args:
            source: a file, or samples (N,) or (N, channels), see `audio.columns_of`.
            sampling_rate: of the samples, in Hz.
            text: what is said; it cannot be divided among the pieces, and is left out with a warning.
            settings: where it is cut, and who speaks; None: by voice activity.

        Returns:
            the prediction with segments and speakers, with status `error` where the recording cannot be used.

        Raises:
            SertoneError: `bad_timeline`, `missing_rttm`, `bad_rttm`.
            TypeError: neither a path nor an array.
            ValueError: samples without a sampling rate.
        """
        _require_source(source, sampling_rate)
        plan = Plan.of(settings or TimelineSettings(), self.model)
        return self._timeline(source, plan, text, sampling_rate)

    def stream(
        self,
        sampling_rate: int,
        *,
        segmentation: Literal["speech", "windows"] = "windows",
        window_s: float | None = None,
        hop_s: float | None = None,
        channels: int = 1,
        names: tuple[str, ...] | None = None,
    ) -> Stream:
        """Answers live audio, from the audio alone.

        Args:
            sampling_rate: of what comes, in Hz.
            segmentation: `windows` answers everything, `speech` where somebody speaks.
            window_s: length of a window, in seconds; None: `plan.WINDOW_S`.
            hop_s: from one window to the next, in seconds; None: as long as a window.
            channels: of what comes.
            names: of the speakers, one per channel, each of which is then answered by itself; None: mixed.

        Raises:
            SertoneError: `bad_timeline`, `bad_rate`, `bad_channels`, `channel_names`; `no_text`, where the
                model only reads.
        """
        self._require_ears()
        settings = TimelineSettings(segmentation=segmentation, window_s=window_s, hop_s=hop_s, channels=names)
        return Stream(self, Plan.of(settings, self.model), sampling_rate, channels)

    def predict_files(
        self,
        files: Iterable[str | Path],
        *,
        strict: bool = False,
        texts: Iterable[str | None] | None = None,
        durations: Iterable[float | None] | None = None,
        recogniser: Recogniser | None = None,
        settings: TimelineSettings | None = None,
        alone: bool = False,
    ) -> Iterator[Prediction]:
        """Predicts files in the order given; processes of their own decode ahead.

        Args:
            files: in any number; each gives one prediction.
            strict: refuse what would be answered with a warning.
            texts: what is said in each, for a model that reads; None where that is not known.
            durations: how long each is said to be, in seconds; the file has the last word, with a warning.
            recogniser: samples (N,) at 16 kHz -> text, asked where no text is given, but not about silence.
            settings: answer each piece by piece, as `timeline` does.
            alone: there is one file: turns of a single name in an RTTM file are its own, whatever the name.

        Raises:
            SertoneError: as `timeline`.
        """
        given = rows(files, texts if texts is None or self.model.reads else unread(texts), durations)
        ahead, behind = tee(given)
        with decoder() as apart:
            if settings is None:
                made = self._predictions(ahead, recogniser if self.model.reads else None, apart)
            else:
                plan = replace(Plan.of(settings, self.model), alone=alone)
                made = (self._timeline(row.file, plan, row.text, isolated=apart) for row in ahead)
            with closing(made):
                for row, prediction in zip(behind, made, strict=True):
                    held = held_against(prediction, row.duration_s)
                    if strict and held.status == "warning":
                        held = replace(held, status="error", **no_answer(), segments=[], speakers=[])
                    yield held

    def _timeline(
        self,
        source: Source,
        plan: Plan,
        text: str | None,
        sampling_rate: int | None = None,
        isolated: Isolated | None = None,
    ) -> Prediction:
        """Piece by piece; decoded in a child process, of its own where none is given."""

        def answer() -> Prediction:
            self._require_ears()
            return timeline(self, source, plan, sampling_rate, isolated, self._undivided(text))

        return _safely(source, answer)

    def _predictions(
        self, given: Iterable[Row], recogniser: Recogniser | None, apart: Isolated
    ) -> Generator[Prediction, None, None]:
        with closing(decoded(given, self.model.max_seconds)) as recordings:
            for row, read in recordings:
                yield self._predict(row.file, None, row.text, read, recogniser, apart)

    def _predict(
        self,
        source: Source,
        sampling_rate: int | None,
        text: str | None,
        read: Callable[[], Recording],
        recogniser: Recogniser | None = None,
        isolated: Isolated | None = None,
    ) -> Prediction:
        """One answer; by windows where the recording is longer than the model answers at once."""

        def answer() -> Prediction:
            try:
                recording = read()
            except AudioError as error:
                if error.code != "too_long":
                    raise
                return self._answered_long(source, sampling_rate, text, isolated)
            asked = recogniser and text is None and not silent(recording.samples)
            said = recogniser(recording.samples) if recogniser and asked else text
            return self._answered(_name(source), recording, said)

        return _safely(source, answer)

    def _read(self, source: Source, sampling_rate: int | None) -> Recording:
        if not isinstance(source, np.ndarray):
            return read_apart(source, self.model.max_seconds)
        assert sampling_rate is not None
        if source.ndim and len(source) > self.model.max_seconds * sampling_rate:
            raise AudioError("too_long", f"{len(source)} samples")
        return audio.from_array(source, sampling_rate)

    def _answered(self, name: str, recording: Recording, said: str | None) -> Prediction:
        found, samples = dict(recording.warnings), recording.samples
        if len(samples) < self.model.min_samples:
            found["padded"] = f"{len(samples)} samples, padded to the {self.model.min_samples} it needs"
            samples = np.pad(samples, (0, self.model.min_samples - len(samples)))
        text, doubts = self._readable(said)
        if "no_speech" not in found and silent(samples):
            found["no_speech"] = "there is nothing to hear"
        outputs = None if "no_speech" in found and text is None else self.model.outputs(samples[None], text)
        (answer,) = self.answering.answers(self.model, outputs) if outputs else [no_answer()]
        return prediction(name, recording.duration_s, found | doubts, answer, text=text)

    def _answered_long(
        self, source: Source, sampling_rate: int | None, text: str | None, isolated: Isolated | None
    ) -> Prediction:
        """By windows; a text cannot be divided among them. What only reads needs none."""
        if not self.model.hears:
            said, doubts = self._readable(text)
            silence = np.zeros((1, self.model.min_samples), np.float32)
            (answer,) = self.answering.answers(self.model, self.model.outputs(silence, said))
            duration_s, found = heard(source, self.model, sampling_rate, isolated)
            return prediction(_name(source), duration_s, found | doubts, answer, text=said)
        window_s = min(LONG_WINDOW_S, self.model.max_seconds)
        plan = Plan.of(TimelineSettings(segmentation="windows", window_s=window_s), self.model)
        return timeline(self, source, plan, sampling_rate, isolated, self._undivided(text))

    def _undivided(self, text: str | None) -> dict[str, str]:
        """What there is to say about the text of a recording that is answered by windows."""
        if not (self.model.reads and text and has_words(text)):
            return self._readable(None if self.model.reads else text)[1]
        found = "the text cannot be divided among windows: answered from the audio alone"
        return {"text_not_divided": found}

    def _readable(self, text: str | None) -> tuple[str | None, dict[str, str]]:
        """The text that the model reads, and what there is to say about it."""
        if not self.model.reads and text:
            return None, {"text_not_read": "the model hears only; the text made no difference"}
        if not self.model.reads:
            return None, {}
        if text is None or not has_words(text):
            self._require_ears()
            return None, {"no_text": UNREAD}
        if self.model.truncates(text):
            return text, {"text_truncated": "the text is longer than the model reads; its end was left out"}
        return text, {}

    def _require_ears(self) -> None:
        if not self.model.hears:
            raise AudioError(
                "no_text", "no text, or none with a word in it, and the model only reads", "what is said"
            )


def _name(source: Source) -> str:
    return "<array>" if isinstance(source, np.ndarray) else str(source)


def _require_source(source: Source, sampling_rate: int | None) -> None:
    if not isinstance(source, str | Path | np.ndarray):
        raise TypeError(f"found a {type(source).__name__}; expected one path, or a numpy array of samples")
    if isinstance(source, np.ndarray) and sampling_rate is None:
        raise ValueError("samples need their sampling_rate in Hz")


def _safely(source: Source, answer: Callable[[], Prediction]) -> Prediction:
    """The answer, or the fault of the recording as one."""
    try:
        return answer()
    except AudioError as error:
        return refused(_name(source), error)
    except Exception as error:  # one recording never ends a run
        return failed(_name(source), error)
