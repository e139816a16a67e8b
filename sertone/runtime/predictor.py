"""Prediction: one answer per recording, always; a fault of a recording is an answer, not an exception."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import tee
from typing import Any, Literal

import numpy as np

from sertone import audio
from sertone.audio import Recording, is_silent
from sertone.errors import AudioError, SertoneError
from sertone.labels import Scale
from sertone.runtime.answering import AnswerFormat, Model, build_prediction, empty_answer
from sertone.runtime.batch import workers
from sertone.runtime.prefetch import Request, build_requests, check_prediction, decode_ahead, drop_texts
from sertone.runtime.recording_source import (
    AnySource,
    AudioSource,
    FileSource,
    catch_errors,
    get_source_name,
    resolve_source,
)
from sertone.runtime.texts import collect_window_warnings, require_audio_input, select_text
from sertone.runtime.timeline.isolated import borrow_decoder, read_isolated
from sertone.runtime.timeline.plan import TimelinePlan, TimelineSettings
from sertone.runtime.timeline.streaming import Stream
from sertone.runtime.timeline.summary import measure_recording, predict_timeline
from sertone.schema import Prediction
from sertone.utils.processes import ChildProcess

LONG_WINDOW_S = 10.0  # of recordings that are longer than the model answers at once
MOST_JOBS = 256
"""Processes side by side."""
SpeechRecogniser = Callable[[np.ndarray], str | None]
"""Samples (N,) at 16 kHz -> what is said."""


class Predictor:
    """Answers recordings by a model.

    Pickled, it holds the path of its model, which is loaded again where it is unpickled, once per process.

    Args:
        model: a bundle, or what was trained.
        answering: how its outputs are told.

    Attributes:
        model: as given.
        answering: as given.

    Raises:
        SertoneError: `unknown_class`, `bad_confidence`.
    """

    def __init__(self, model: Model, answering: AnswerFormat | None = None) -> None:
        self.model, self.answer_format = model, answering or AnswerFormat()
        self.answer_format.require_compatible(model)

    def __repr__(self) -> str:
        inputs = f"mono waveform at 16 kHz, at least {self.model.min_samples} samples"
        inputs += ", text" if self.model.uses_text else ""
        scales = self.model.scales.items()
        rated = [f"{name} {scale.low:g}-{scale.high:g}" if scale else name for name, scale in scales]
        return f"Predictor({inputs} -> {', '.join([*self.answer_format.names(self.model), *rated])})"

    @property
    def classes(self) -> list[str]:
        """The classes that are answered, in their order; empty where the model rates dimensions alone."""
        return self.answer_format.names(self.model)

    @property
    def scales(self) -> Mapping[str, Scale | None]:
        """Dimension -> scale on which the model rates it; None where it does not say."""
        return self.model.scales

    @property
    def card(self) -> dict[str, Any]:
        """What is known of the model's training: corpus, split, selection (`protocol_card`)."""
        return self.model.card

    def predict(
        self, source: AnySource, sampling_rate: int | None = None, *, text: str | None = None
    ) -> Prediction:
        """Predicts one recording.

        Args:
            source: a file's path, its bytes, a file opened in binary mode, or samples (N,) or (N, channels),
                see `audio.columns_of`.
            sampling_rate: of the samples, in Hz.
            text: what is said, for a model that reads; without it the audio alone answers, with a warning.

        Returns:
            the prediction, with status `error` where the recording cannot be used.

        Raises:
            TypeError: neither a path, bytes, a binary file nor an array.
            ValueError: samples without a sampling rate.
        """
        given = resolve_source(source, sampling_rate)
        return self._predict(given, sampling_rate, text, partial(self._read, given, sampling_rate))

    def timeline(
        self,
        source: AnySource,
        sampling_rate: int | None = None,
        *,
        text: str | None = None,
        settings: TimelineSettings | None = None,
    ) -> Prediction:
        """Predicts a recording of any length piece by piece, from the audio alone.

        Args:
            source: as of `predict`.
            sampling_rate: of the samples, in Hz.
            text: what is said; it cannot be divided among the pieces, and is left out with a warning.
            settings: where it is cut, and who speaks; None: by voice activity.

        Returns:
            the prediction with segments and speakers, with status `error` where the recording cannot be used.

        Raises:
            SertoneError: `bad_timeline`, `missing_rttm`, `bad_rttm`.
            TypeError: as `predict`.
            ValueError: samples without a sampling rate.
        """
        given = resolve_source(source, sampling_rate)
        plan = TimelinePlan.from_settings(settings or TimelineSettings(), self.model)
        return self._timeline(given, plan, text, sampling_rate)

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
            window_s: length of a window, in seconds; None: `plan.DEFAULT_WINDOW_S`.
            hop_s: from one window to the next, in seconds; None: as long as a window.
            channels: of what comes.
            names: of the speakers, one per channel, each of which is then answered by itself; None: mixed.

        Raises:
            SertoneError: `bad_timeline`, `bad_rate`, `bad_channels`, `channel_names`; `no_text`, where the
                model only reads.
        """
        require_audio_input(self.model)
        settings = TimelineSettings(segmentation=segmentation, window_s=window_s, hop_s=hop_s, channels=names)
        return Stream(self, TimelinePlan.from_settings(settings, self.model), sampling_rate, channels)

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
        """Predicts files in the order given; processes of their own decode ahead.

        As a table: `pandas.DataFrame(answer.to_row() for answer in model.predict_files(files))`.

        Args:
            files: in any number; each gives one prediction.
            strict: refuse what would be answered with a warning.
            texts: what is said in each, for a model that reads; None where that is not known.
            durations: how long each is said to be, in seconds; the file has the last word, with a warning.
            recogniser: samples (N,) at 16 kHz -> text, asked where no text is given, but not about silence.
            settings: answer each piece by piece, as `timeline` does.
            alone: there is one file: turns of a single name in an RTTM file are its own, whatever the name.
            jobs: processes that answer side by side, each with the model and the threads it was loaded with;
                load it with `threads=1` for more than one. With the same `threads` the answers do not depend
                on it; with another number their last digits may differ.

        Raises:
            SertoneError: as `timeline`; `bad_jobs`, also for a recogniser, which stays in this process.
        """
        _require_jobs(jobs, recogniser)
        given = build_requests(
            files, texts if texts is None or self.model.uses_text else drop_texts(texts), durations
        )
        plan = replace(TimelinePlan.from_settings(settings, self.model), alone=alone) if settings else None
        if jobs > 1:
            yield from workers.predict_in_processes(self, given, plan, jobs, strict=strict)
            return
        ahead, behind = tee(given)
        with borrow_decoder() as apart:
            if plan is None:
                made = self._predictions(ahead, recogniser if self.model.uses_text else None, apart)
            else:
                made = (self._timeline(row.file, plan, row.text, isolated=apart) for row in ahead)
            with closing(made):
                for row, prediction in zip(behind, made, strict=True):
                    yield check_prediction(prediction, row, strict=strict)

    def predict_request(self, row: Request, plan: TimelinePlan | None) -> Prediction:
        """Answer one of the rows of `predict_files`, in the process that calls."""
        if plan is None:
            return self._predict(row.file, None, row.text, partial(self._read, row.file, None))
        return self._timeline(row.file, plan, row.text)

    def _timeline(
        self,
        source: AudioSource,
        plan: TimelinePlan,
        text: str | None,
        sampling_rate: int | None = None,
        isolated: ChildProcess | None = None,
    ) -> Prediction:
        """Piece by piece; decoded in a child process, of its own where none is given."""

        def answer() -> Prediction:
            require_audio_input(self.model)
            return predict_timeline(
                self, source, plan, sampling_rate, isolated, collect_window_warnings(self.model, text)
            )

        return catch_errors(source, answer)

    def _predictions(
        self, given: Iterable[Request], recogniser: SpeechRecogniser | None, apart: ChildProcess
    ) -> Generator[Prediction, None, None]:
        with closing(decode_ahead(given, self.model.max_seconds)) as recordings:
            for row, read in recordings:
                yield self._predict(row.file, None, row.text, read, recogniser, apart)

    def _predict(
        self,
        source: AudioSource,
        sampling_rate: int | None,
        text: str | None,
        read: Callable[[], Recording],
        recogniser: SpeechRecogniser | None = None,
        isolated: ChildProcess | None = None,
    ) -> Prediction:
        """One answer; by windows where the recording is longer than the model answers at once."""

        def answer() -> Prediction:
            try:
                recording = read()
            except AudioError as error:
                if error.code != "too_long":
                    raise
                return self._answered_long(source, sampling_rate, text, isolated)
            asked = recogniser and text is None and not is_silent(recording.samples)
            said = recogniser(recording.samples) if recogniser and asked else text
            return self._answered(get_source_name(source), recording, said)

        return catch_errors(source, answer)

    def _read(self, source: AudioSource, sampling_rate: int | None) -> Recording:
        if not isinstance(source, np.ndarray):
            return read_isolated(source, self.model.max_seconds)
        assert sampling_rate is not None
        if source.ndim and len(source) > self.model.max_seconds * sampling_rate:
            raise AudioError("too_long", f"{len(source)} samples")
        return audio.from_array(source, sampling_rate)

    def _answered(self, name: str, recording: Recording, said: str | None) -> Prediction:
        found, samples = dict(recording.warnings), recording.samples
        if len(samples) < self.model.min_samples:
            found["padded"] = f"{len(samples)} samples, padded to the {self.model.min_samples} it needs"
            samples = np.pad(samples, (0, self.model.min_samples - len(samples)))
        text, doubts = select_text(self.model, said)
        if "no_speech" not in found and is_silent(samples):
            found["no_speech"] = "there is nothing to hear"
        outputs = None if "no_speech" in found and text is None else self.model.outputs(samples[None], text)
        (answer,) = self.answer_format.format_outputs(self.model, outputs) if outputs else [empty_answer()]
        return build_prediction(name, recording.duration_s, found | doubts, answer, text=text)

    def _answered_long(
        self, source: AudioSource, sampling_rate: int | None, text: str | None, isolated: ChildProcess | None
    ) -> Prediction:
        """By windows; a text cannot be divided among them. What only reads needs none."""
        if not self.model.uses_audio:
            said, doubts = select_text(self.model, text)
            silence = np.zeros((1, self.model.min_samples), np.float32)
            (answer,) = self.answer_format.format_outputs(self.model, self.model.outputs(silence, said))
            duration_s, found = measure_recording(source, self.model, sampling_rate, isolated)
            return build_prediction(get_source_name(source), duration_s, found | doubts, answer, text=said)
        window_s = min(LONG_WINDOW_S, self.model.max_seconds)
        plan = TimelinePlan.from_settings(
            TimelineSettings(segmentation="windows", window_s=window_s), self.model
        )
        return predict_timeline(
            self, source, plan, sampling_rate, isolated, collect_window_warnings(self.model, text)
        )


def _require_jobs(jobs: int, recogniser: SpeechRecogniser | None) -> None:
    if not 1 <= jobs <= MOST_JOBS:
        raise SertoneError("bad_jobs", f"{jobs} jobs", f"1 to {MOST_JOBS}")
    if jobs > 1 and recogniser:
        raise SertoneError("bad_jobs", f"{jobs} jobs and speech recognition", "one of the two")
