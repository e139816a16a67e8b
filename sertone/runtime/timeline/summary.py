"""Predictions for recordings of any length: for each piece, for the whole recording, and by speaker.

Axis letters: B batch, N samples, J classes of the prediction, R dimensions.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.audio.block_stream import stream_array
from sertone.audio.decoder import Warnings
from sertone.audio.isolated import borrow_decoder
from sertone.runtime.answering import AnswerFormat, Model, build_prediction, empty_answer
from sertone.runtime.recording_source import Request
from sertone.runtime.speech import LIMITS, check_sound, measure_levels
from sertone.runtime.timeline.cutting import AudioPiece, PieceReader
from sertone.runtime.timeline.isolated import IsolatedPieceReader
from sertone.runtime.timeline.plan import TimelinePlan, TimelineSettings
from sertone.schema import Prediction, Segment, Speaker
from sertone.utils.processes import ChildProcess
from sertone.utils.wording import format_count


@dataclass(frozen=True, slots=True)
class PieceScores:
    """Scores of a piece: probabilities of the classes (J,) and ratings (R,), both empty without speech.

    `warnings` are those of its sound, code -> message.
    """

    start_s: float
    end_s: float
    speaker: str
    probabilities: np.ndarray
    ratings: np.ndarray
    warnings: Mapping[str, str]

    @property
    def has_answer(self) -> bool:
        """True if there is speech, so that the model was asked."""
        return "no_speech" not in self.warnings


def predict_timeline(
    answer_format: AnswerFormat,
    request: Request,
    plan: TimelinePlan,
    decoder: ChildProcess | None = None,
    warnings: Mapping[str, str] | None = None,
) -> Prediction:
    """Predict a recording piece by piece, with the memory of one piece and one block.

    Args:
        answer_format: the model, and the format of its predictions.
        request: a file, which a child process decodes, or samples.
        plan: how to cut the recording.
        decoder: the child process; None: an idle or a new one.
        warnings: further warnings, code -> message.

    Raises:
        AudioError: for a recording that cannot be used.
    """
    with _open_pieces(request, plan, decoder) as pieces:
        with closing(iter(pieces)) as groups:
            scores = [score_piece(answer_format, piece) for group in groups for piece in group]
        duration_s, audio_warnings = pieces.finish()
    if "no_speech" in audio_warnings:  # resampling can turn a constant into a click, which is no speech
        scores = [replace(piece, warnings=audio_warnings) for piece in scores]
    summary = TimelineSummary(answer_format)
    ordered = sorted(scores, key=lambda piece: (piece.start_s, piece.speaker))
    segments = [summary.add(piece) for piece in smooth_scores(ordered, plan.settings.smoothing)]
    warnings = {**(warnings or {}), **audio_warnings}
    return summary.build_prediction(request.name, duration_s, warnings, segments)


def measure_recording(
    request: Request, model: Model, decoder: ChildProcess | None = None
) -> tuple[float, Warnings]:
    """Return the length of a recording in seconds and its warnings. All samples are read, none predicted."""
    plan = replace(TimelinePlan.from_settings(TimelineSettings(), model), spans={})
    with _open_pieces(request, plan, decoder) as pieces:
        assert not list(pieces)
        return pieces.finish()


def score_piece(answer_format: AnswerFormat, piece: AudioPiece) -> PieceScores:
    """Return the scores of a piece. A piece shorter than the model needs is padded with silence.

    Pieces never form a batch: the order of summation in a batch depends on its size. A stream has one piece
    at a time, and would get other numbers than the file.
    """
    warnings = _check_piece(answer_format, piece)
    if "no_speech" in warnings:
        empty = np.zeros(0)
        return PieceScores(piece.start_s, piece.end_s, piece.speaker, empty, empty, warnings)
    model = answer_format.model
    missing = max(0, model.min_samples - len(piece.samples))
    outputs = model.outputs(np.pad(piece.samples, (0, missing))[None])
    (probabilities,) = answer_format.map_probabilities(outputs)
    (ratings,) = outputs.ratings
    return PieceScores(piece.start_s, piece.end_s, piece.speaker, probabilities, ratings, warnings)


def _check_piece(answer_format: AnswerFormat, piece: AudioPiece) -> dict[str, str]:
    if piece.found_by_voice and len(piece.samples):
        return measure_levels(piece.samples).describe()
    return check_sound(piece.samples, any_sound=answer_format.any_sound)


def smooth_scores(scores: Sequence[PieceScores], width: int) -> list[PieceScores]:
    """Average the scores of `width` neighbours of one speaker; the ends have fewer, and no speech none.

    Args:
        scores: scores in order of time.
        width: an odd number; 1 changes nothing.
    """
    smoothed, half = list(scores), width // 2
    for speaker in {piece.speaker for piece in scores}:
        places = [n for n, piece in enumerate(scores) if piece.speaker == speaker and piece.has_answer]
        for order, place in enumerate(places):
            near = [scores[n] for n in places[max(0, order - half) : order + half + 1]]
            probabilities = np.mean([piece.probabilities for piece in near], 0)
            ratings = np.mean([piece.ratings for piece in near], 0)
            smoothed[place] = replace(scores[place], probabilities=probabilities, ratings=ratings)
    return smoothed


class TimelineSummary:
    """Summary of segments, for the whole recording and by speaker; keeps a few numbers per speaker."""

    def __init__(self, answer_format: AnswerFormat) -> None:
        self._answer_format = answer_format
        self._min_samples = answer_format.model.min_samples
        self._sums: dict[str, _SpeakerSums] = {}
        self._padded = 0
        self._counts: Counter[str] = Counter()  # segments by warning

    def add(self, scores: PieceScores) -> Segment:
        """Take the next scores, those of a speaker in order of time, and return their segment."""
        answer = empty_answer()
        if scores.has_answer:
            answer = self._answer_format.format_row(scores.probabilities, scores.ratings)
        segment = Segment(start_s=scores.start_s, end_s=scores.end_s, speaker=scores.speaker, **answer)
        self._sums.setdefault(scores.speaker, _SpeakerSums()).add(segment, scores)
        self._counts.update(["segments", *scores.warnings])
        self._padded += round((scores.end_s - scores.start_s) * SAMPLING_RATE) < self._min_samples
        return segment

    def build_prediction(
        self, name: str, duration_s: float, warnings: Mapping[str, str], segments: list[Segment]
    ) -> Prediction:
        """Return the prediction for the recording: the mean of its segments, see `Prediction`."""
        warnings = dict(warnings)
        if self._padded:
            needed = f"the {self._min_samples} samples that the model needs"
            warnings["padded"] = f"{format_count(self._padded, 'segment')}, padded to {needed}"
        for code in filter(self._counts.get, LIMITS):
            share = f"{self._counts[code]} of {format_count(self._counts['segments'], 'segment')}"
            warnings[code] = f"{code.replace('_', ' ')}: {share}, {LIMITS[code]}"
        sums = list(self._sums.values())
        if not any(speaker.weight for speaker in sums):
            warnings["no_speech"] = "no speech was found"
        answer = empty_answer() if "no_speech" in warnings else self._average(sums)
        speakers = [self._summarise_speaker(name, self._sums[name]) for name in sorted(self._sums)]
        return build_prediction(name, duration_s, warnings, answer, segments=segments, speakers=speakers)

    def _summarise_speaker(self, name: str, sums: "_SpeakerSums") -> Speaker:
        answer = self._average([sums])
        del answer["unsure"]  # a speaker has seconds of unsure segments instead
        return Speaker(
            name=name,
            segments=sums.count,
            speech_s=sums.speech_s,
            seconds_by_label=sums.seconds_by_label,
            unsure_s=sums.unsure_s,
            **answer,
        )

    def _average(self, sums: "Sequence[_SpeakerSums]") -> dict[str, Any]:
        """Return the answer of the mean scores, weighted by the length of the segments."""
        weight = sum(speaker.weight for speaker in sums)
        if not weight:
            return empty_answer()
        probabilities = sum(speaker.probabilities for speaker in sums)
        ratings = sum(speaker.ratings for speaker in sums)
        return self._answer_format.format_row(
            np.asarray(probabilities / weight), np.asarray(ratings / weight)
        )


@dataclass
class _SpeakerSums:
    """Sums over the segments of one speaker. Seconds of overlapping segments count for the earlier one."""

    count: int = 0
    weight: float = 0.0
    speech_s: float = 0.0
    unsure_s: float = 0.0
    probabilities: np.ndarray | float = 0.0
    ratings: np.ndarray | float = 0.0
    seconds_by_label: dict[str, float] = field(default_factory=dict)
    _counted_until_s: float = 0.0

    def add(self, segment: Segment, scores: PieceScores) -> None:
        self.count += 1
        if not scores.has_answer:
            return
        weight = segment.end_s - segment.start_s
        self.weight += weight
        # In double precision: the float32 scores of hours would lose digits.
        self.probabilities = self.probabilities + weight * scores.probabilities.astype(np.float64)
        self.ratings = self.ratings + weight * scores.ratings.astype(np.float64)
        self._count_seconds(segment)

    def _count_seconds(self, segment: Segment) -> None:
        """Count the seconds that no earlier segment covers."""
        seconds = max(0.0, segment.end_s - max(segment.start_s, self._counted_until_s))
        self._counted_until_s = max(self._counted_until_s, segment.end_s)
        self.speech_s += seconds
        if segment.unsure:
            self.unsure_s += seconds
        elif segment.label is not None:
            self.seconds_by_label[segment.label] = self.seconds_by_label.get(segment.label, 0.0) + seconds


@contextmanager
def _open_pieces(
    request: Request, plan: TimelinePlan, decoder: ChildProcess | None
) -> Iterator[PieceReader | IsolatedPieceReader]:
    source = request.source
    if isinstance(source, np.ndarray):
        assert request.sampling_rate is not None
        sound = stream_array(source, request.sampling_rate, mix=plan.mixes_channels)
        yield PieceReader(sound, plan.create_cutter(request.name, sound.info.channels))
    elif decoder is not None:
        yield IsolatedPieceReader(decoder, source, plan)
    else:
        with borrow_decoder() as borrowed:
            yield IsolatedPieceReader(borrowed, source, plan)
