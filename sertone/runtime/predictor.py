"""Prediction: every recording gets exactly one. An error is a prediction too, not an exception."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import tee
from typing import Any, Literal

import numpy as np

from sertone.audio import Recording
from sertone.audio.isolated import borrow_decoder
from sertone.errors import AudioError
from sertone.labels import Scale
from sertone.runtime.answering import AnswerFormat, build_prediction, empty_answer
from sertone.runtime.batch import workers
from sertone.runtime.prefetch import build_requests, check_prediction, decode_ahead, drop_texts
from sertone.runtime.recording_source import (
    AnySource,
    FileSource,
    Request,
    catch_errors,
    load_recording,
    resolve_source,
)
from sertone.runtime.speech import check_sound
from sertone.runtime.texts import collect_window_warnings, require_audio_input, select_text
from sertone.runtime.timeline.plan import TimelinePlan, TimelineSettings
from sertone.runtime.timeline.streaming import Stream
from sertone.runtime.timeline.summary import measure_recording, predict_timeline
from sertone.schema import Prediction
from sertone.utils.processes import ChildProcess

MAX_WINDOW_S = 10.0
"""Longest window, in seconds, for recordings that are longer than the model predicts at once."""
SpeechRecogniser = Callable[[np.ndarray], str | None]
"""Samples (N,) at 16 kHz -> transcript."""


class Predictor:
    """Predicts recordings with a model.

    A pickled predictor holds the path of its model. Each process that unpickles it loads the model once.

    Args:
        answer_format: the model, and the format of its predictions.

    Attributes:
        answer_format: as given.
        model: the model.
    """

    def __init__(self, answer_format: AnswerFormat) -> None:
        self.answer_format = answer_format
        self.model = answer_format.model

    def __repr__(self) -> str:
        inputs = f"mono waveform at 16 kHz, at least {self.model.min_samples} samples"
        inputs += ", text" if self.model.uses_text else ""
        scales = self.model.scales.items()
        rated = [f"{name} {scale.low:g}-{scale.high:g}" if scale else name for name, scale in scales]
        return f"Predictor({inputs} -> {', '.join([*self.classes, *rated])})"

    @property
    def classes(self) -> list[str]:
        """Classes of the predictions, in their order; empty where the model rates dimensions alone."""
        return self.answer_format.class_names

    @property
    def scales(self) -> Mapping[str, Scale | None]:
        """Dimension -> scale on which the model rates it; None where the model does not state it."""
        return self.model.scales

    @property
    def card(self) -> dict[str, Any]:
        """Information about the model's training: corpus, split, selection (`protocol_card`)."""
        return self.model.card

    def predict(
        self, source: AnySource, sampling_rate: int | None = None, *, text: str | None = None
    ) -> Prediction:
        """Predict one recording.

        Args:
            source: a file's path, its bytes, a file opened in binary mode, or samples (N,) or (N, channels),
                see `audio.as_columns`.
            sampling_rate: sampling rate of the samples, in Hz.
            text: transcript, for a model that uses text. Without it the model uses the audio alone, and the
                prediction carries a warning.

        Returns:
            the prediction, with status `error` where the recording cannot be used.

        Raises:
            TypeError: neither a path, bytes, a binary file nor an array.
            ValueError: samples without a sampling rate.
        """
        request = Request(resolve_source(source, sampling_rate), sampling_rate, text)
        return self.predict_request(request, None)

    def timeline(
        self,
        source: AnySource,
        sampling_rate: int | None = None,
        *,
        text: str | None = None,
        settings: TimelineSettings | None = None,
    ) -> Prediction:
        """Predict a recording of any length piece by piece, from the audio alone.

        Args:
            source: as for `predict`.
            sampling_rate: sampling rate of the samples, in Hz.
            text: transcript. It cannot be divided among the pieces, so it is left out with a warning.
            settings: how to cut the recording, and its speakers; None: by voice activity.

        Returns:
            the prediction with segments and speakers, with status `error` where the recording cannot be used.

        Raises:
            SertoneError: `bad_timeline`, `missing_rttm`, `bad_rttm`.
            TypeError: as `predict`.
            ValueError: samples without a sampling rate.
        """
        request = Request(resolve_source(source, sampling_rate), sampling_rate, text)
        return self.predict_request(
            request, TimelinePlan.from_settings(settings or TimelineSettings(), self.model)
        )

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
        """Predict live audio, from the audio alone.

        Args:
            sampling_rate: sampling rate of the live audio, in Hz.
            segmentation: `windows` predicts all audio, `speech` only speech.
            window_s: length of a window, in seconds; None: `plan.DEFAULT_WINDOW_S`.
            hop_s: time from one window to the next, in seconds; None: the length of a window.
            channels: number of channels of the live audio.
            names: speaker of each channel, which is then predicted separately. None: mixes the channels.

        Raises:
            SertoneError: `bad_timeline`, `bad_rate`, `bad_channels`, `channel_names`; `no_text`, if the model
                uses only text.
        """
        require_audio_input(self.model)
        settings = TimelineSettings(segmentation=segmentation, window_s=window_s, hop_s=hop_s, channels=names)
        plan = TimelinePlan.from_settings(settings, self.model)
        return Stream(self.answer_format, plan, sampling_rate, channels)

    def predict_files(
        self,
        files: Iterable[FileSource],
        *,
        strict: bool = False,
        texts: Iterable[str | None] | None = None,
        durations: Iterable[float | None] | None = None,
        recogniser: SpeechRecogniser | None = None,
        settings: TimelineSettings | None = None,
        alone: bool = False,
        jobs: int = 1,
    ) -> Iterator[Prediction]:
        """Predict files in the order given; separate processes decode the next files meanwhile.

        As a table: `pandas.DataFrame(answer.to_row() for answer in model.predict_files(files))`.

        Args:
            files: any number of files; each gets one prediction.
            strict: turn a prediction with a warning into an error.
            texts: transcript of each file, for a model that uses text; None where it is not known.
            durations: stated length of each file, in seconds; another length of the file is a warning.
            recogniser: transcribes files without a text; it gets samples (N,) at 16 kHz, of speech.
            settings: predict each file piece by piece, as `timeline` does.
            alone: there is one file: if an RTTM file names a single recording, its turns belong to this file,
                whatever the name.
            jobs: number of processes that predict side by side. Each has the model with the threads it was
                loaded with; load it with `threads=1` for more than one job. The predictions do not depend on
                `jobs`; with another number of `threads` their last digits may differ.

        Raises:
            SertoneError: as `timeline`; `bad_jobs`, also with a recogniser, which stays in this process.
        """
        workers.require_jobs(jobs, recognises=recogniser is not None)
        if not self.model.uses_text:
            recogniser = None
            texts = None if texts is None else drop_texts(texts)
        requests = build_requests(files, texts, durations)
        plan = None
        if settings:
            plan = replace(TimelinePlan.from_settings(settings, self.model), alone=alone)
        if jobs > 1:
            yield from workers.predict_in_processes(self.predict_request, requests, plan, jobs, strict=strict)
            return
        ahead, behind = tee(requests)
        with borrow_decoder() as decoder:
            if plan is None:
                predictions = self._predict_decoded(ahead, recogniser, decoder)
            else:
                predictions = (self._predict_timeline(request, plan, decoder) for request in ahead)
            with closing(predictions):
                for request, prediction in zip(behind, predictions, strict=True):
                    yield check_prediction(prediction, request, strict=strict)

    def predict_request(self, request: Request, plan: TimelinePlan | None) -> Prediction:
        """Predict one request in the calling process; with a plan, piece by piece."""
        if plan is None:
            return self._predict(request, partial(load_recording, request, self.model.max_seconds))
        return self._predict_timeline(request, plan)

    def _predict_timeline(
        self, request: Request, plan: TimelinePlan, decoder: ChildProcess | None = None
    ) -> Prediction:
        """Predict piece by piece. A child process decodes; None: an idle or a new one."""

        def predict() -> Prediction:
            require_audio_input(self.model)
            warnings = collect_window_warnings(self.model, request.text)
            return predict_timeline(self.answer_format, request, plan, decoder, warnings)

        return catch_errors(request, predict)

    def _predict_decoded(
        self, requests: Iterable[Request], recogniser: SpeechRecogniser | None, decoder: ChildProcess
    ) -> Generator[Prediction, None, None]:
        with closing(decode_ahead(requests, self.model.max_seconds)) as recordings:
            for request, load in recordings:
                yield self._predict(request, load, recogniser, decoder)

    def _predict(
        self,
        request: Request,
        load: Callable[[], Recording],
        recogniser: SpeechRecogniser | None = None,
        decoder: ChildProcess | None = None,
    ) -> Prediction:
        """Predict one recording; by windows if it is longer than the model predicts at once."""

        def predict() -> Prediction:
            try:
                recording = load()
            except AudioError as error:
                if error.code != "too_long":
                    raise
                return self._predict_long(request, decoder)
            text, warnings = request.text, self._check_sound(recording)
            if recogniser and text is None and "no_speech" not in warnings:
                text = recogniser(recording.samples)
            return self._predict_recording(request.name, recording, text, warnings)

        return catch_errors(request, predict)

    def _check_sound(self, recording: Recording) -> Mapping[str, str]:
        """Return the warnings of the decoder and of the sound: code -> message."""
        if "no_speech" in recording.warnings:
            return recording.warnings
        # A model of text alone does not depend on the sound.
        any_sound = self.answer_format.any_sound or not self.model.uses_audio
        return recording.warnings | check_sound(recording.samples, any_sound=any_sound)

    def _predict_recording(
        self, name: str, recording: Recording, text: str | None, sound_warnings: Mapping[str, str]
    ) -> Prediction:
        warnings, samples = dict(sound_warnings), recording.samples
        needed = self.model.min_samples
        if len(samples) < needed:
            warnings["padded"] = f"{len(samples)} samples, padded to the {needed} that the model needs"
            samples = np.pad(samples, (0, needed - len(samples)))
        text, text_warnings = select_text(self.model, text)
        answer = empty_answer()
        # A recording without speech, but with a text still has words to predict from.
        if "no_speech" not in warnings or text is not None:
            (answer,) = self.answer_format.format_outputs(self.model.outputs(samples[None], text))
        return build_prediction(name, recording.duration_s, warnings | text_warnings, answer, text=text)

    def _predict_long(self, request: Request, decoder: ChildProcess | None) -> Prediction:
        """Predict by windows, without the text. A model of text alone needs no windows."""
        if not self.model.uses_audio:
            return self._predict_text(request, decoder)
        window_s = min(MAX_WINDOW_S, self.model.max_seconds)
        settings = TimelineSettings(segmentation="windows", window_s=window_s)
        plan = TimelinePlan.from_settings(settings, self.model)
        warnings = collect_window_warnings(self.model, request.text)
        return predict_timeline(self.answer_format, request, plan, decoder, warnings)

    def _predict_text(self, request: Request, decoder: ChildProcess | None) -> Prediction:
        """Predict from the text alone; the audio only gives the length and warnings."""
        text, text_warnings = select_text(self.model, request.text)
        silence = np.zeros((1, self.model.min_samples), np.float32)
        (answer,) = self.answer_format.format_outputs(self.model.outputs(silence, text))
        duration_s, warnings = measure_recording(request, self.model, decoder)
        return build_prediction(request.name, duration_s, warnings | text_warnings, answer, text=text)
