"""Recordings of any length: answers of their pieces, and what they amount to, in all and by speaker.

Axis letters: B batch, N samples, J classes that are told, R dimensions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.audio.block_stream import stream_array
from sertone.audio.decoder import Warnings
from sertone.runtime.answering import Model, build_prediction, empty_answer
from sertone.runtime.recording_source import AudioSource, get_source_name
from sertone.runtime.timeline.cutting import AudioPiece, PieceReader
from sertone.runtime.timeline.isolated import IsolatedPieceReader, borrow_decoder
from sertone.runtime.timeline.plan import TimelinePlan, TimelineSettings
from sertone.schema import Prediction, Segment, Speaker
from sertone.scoring.display import format_count
from sertone.utils.processes import ChildProcess

if TYPE_CHECKING:
    from sertone.runtime.predictor import Predictor


@dataclass(frozen=True, slots=True)
class PieceScores:
    """What the model says of a piece: shares of the classes that are told (J,), and ratings (R,).

    Where it is `silent` nothing is said.
    """

    start_s: float
    end_s: float
    speaker: str
    shares: np.ndarray
    ratings: np.ndarray
    silent: bool


def predict_timeline(
    predictor: "Predictor",
    source: AudioSource,
    plan: TimelinePlan,
    sampling_rate: int | None = None,
    isolated: ChildProcess | None = None,
    warnings: Mapping[str, str] | None = None,
) -> Prediction:
    """Answers a recording piece by piece, with the memory of one piece and one block.

    Args:
        predictor: whose model and way of telling are used.
        source: a file, which is decoded in a child process, or samples.
        plan: where it is cut.
        sampling_rate: of the samples, in Hz.
        isolated: the child process; None: one of its own.
        warnings: what else there is to say.

    Raises:
        AudioError: for a recording that cannot be used.
    """
    with _opened(source, plan, sampling_rate, isolated) as pieces:
        with closing(iter(pieces)) as groups:
            stretches = [score_piece(predictor, piece) for group in groups for piece in group]
        duration_s, doubts = pieces.finish()
    if "no_speech" in doubts:  # also where resampling has made a click of a constant
        stretches = [replace(stretch, silent=True) for stretch in stretches]
    tally = TimelineSummary(predictor)
    in_order = sorted(stretches, key=lambda stretch: (stretch.start_s, stretch.speaker))
    segments = [tally.add(stretch) for stretch in smooth_scores(in_order, plan.settings.smoothing)]
    return tally.prediction(get_source_name(source), duration_s, {**(warnings or {}), **doubts}, segments)


def measure_recording(
    source: AudioSource, model: Model, sampling_rate: int | None = None, isolated: ChildProcess | None = None
) -> tuple[float, Warnings]:
    """Seconds of a recording and warnings about it, from all of its samples, none of which are answered."""
    plan = replace(TimelinePlan.from_settings(TimelineSettings(), model), turns=())
    with _opened(source, plan, sampling_rate, isolated) as pieces:
        assert not list(pieces)
        return pieces.finish()


def score_piece(predictor: "Predictor", piece: AudioPiece) -> PieceScores:
    """What the model says of a piece; one shorter than it needs is padded with silence.

    Pieces are never answered several at once: the order in which a batch is added up depends on its size, and
    a stream, which has one piece at a time, would get other numbers than the file.
    """
    at = piece.start_s, piece.end_s, piece.speaker
    if not len(piece.samples):
        return PieceScores(*at, np.zeros(0), np.zeros(0), silent=True)
    missing = max(0, predictor.model.min_samples - len(piece.samples))
    outputs = predictor.model.outputs(np.pad(piece.samples, (0, missing))[None])
    (shares,) = predictor.answer_format.map_probabilities(predictor.model, outputs)
    return PieceScores(*at, shares, outputs.ratings[0], silent=False)


def smooth_scores(stretches: Sequence[PieceScores], width: int) -> list[PieceScores]:
    """Averages the answers of `width` neighbours of one speaker, without silent ones; at the ends are fewer.

    Args:
        stretches: in order of time.
        width: an odd number; 1 changes nothing.
    """
    result, half = list(stretches), width // 2
    for speaker in {stretch.speaker for stretch in stretches}:
        places = [n for n, each in enumerate(stretches) if each.speaker == speaker and not each.silent]
        for at, place in enumerate(places):
            near = [stretches[n] for n in places[max(0, at - half) : at + half + 1]]
            shares, ratings = np.mean([s.shares for s in near], 0), np.mean([s.ratings for s in near], 0)
            result[place] = replace(stretches[place], shares=shares, ratings=ratings)
    return result


class TimelineSummary:
    """What segments amount to, in all and by speaker; the memory of a few numbers per speaker."""

    def __init__(self, predictor: "Predictor") -> None:
        self._model, self._answering = predictor.model, predictor.answer_format
        self._sums: dict[str, _Sums] = {}
        self._padded = 0

    def add(self, stretch: PieceScores) -> Segment:
        """Takes the next stretch, those of a speaker in order of time; gives what is told of it."""
        shares, ratings = stretch.shares, stretch.ratings
        answer = (
            empty_answer() if stretch.silent else self._answering.format_row(self._model, shares, ratings)
        )
        at = {"start_s": stretch.start_s, "end_s": stretch.end_s, "speaker": stretch.speaker}
        segment = Segment(**at, **answer)
        self._sums.setdefault(stretch.speaker, _Sums()).add(segment, stretch)
        self._padded += round((stretch.end_s - stretch.start_s) * SAMPLING_RATE) < self._model.min_samples
        return segment

    def prediction(
        self, name: str, duration_s: float, warnings: Mapping[str, str], segments: list[Segment]
    ) -> Prediction:
        """The answer about the recording: the mean of its segments, see `Prediction`."""
        found = dict(warnings)
        if self._padded:
            needed = self._model.min_samples
            found["padded"] = (
                f"{format_count(self._padded, 'segment')}, padded to the {needed} samples the model needs"
            )
        parts = list(self._sums.values())
        if not any(part.weight for part in parts):
            found["no_speech"] = "no speech was found"
        answer = empty_answer() if "no_speech" in found else self._mean(parts)
        return build_prediction(name, duration_s, found, answer, segments=segments, speakers=self._speakers())

    def _speakers(self) -> list[Speaker]:
        return [self._speaker(name, self._sums[name]) for name in sorted(self._sums)]

    def _speaker(self, name: str, sums: "_Sums") -> Speaker:
        answer = self._mean([sums])
        del answer["unsure"]
        return Speaker(
            name=name,
            segments=sums.count,
            speech_s=sums.speech_s,
            seconds_by_label=sums.seconds_by_label,
            unsure_s=sums.unsure_s,
            **answer,
        )

    def _mean(self, parts: "Sequence[_Sums]") -> dict[str, Any]:
        weight = sum(part.weight for part in parts)
        if not weight:
            return empty_answer()
        shares, ratings = sum(part.shares for part in parts), sum(part.ratings for part in parts)
        return self._answering.format_row(
            self._model, np.asarray(shares / weight), np.asarray(ratings / weight)
        )


class _Sums:
    """Of one speaker. Where segments overlap, the seconds are those of the earlier one."""

    def __init__(self) -> None:
        self.count, self.weight, self.speech_s, self.unsure_s = 0, 0.0, 0.0, 0.0
        self.shares: np.ndarray | float = 0.0
        self.ratings: np.ndarray | float = 0.0
        self.seconds_by_label: dict[str, float] = {}
        self._counted_s = 0.0  # up to here

    def add(self, segment: Segment, stretch: PieceScores) -> None:
        self.count += 1
        if stretch.silent:
            return
        weight = segment.end_s - segment.start_s
        self.weight += weight
        self.shares = self.shares + weight * stretch.shares.astype(np.float64)
        self.ratings = self.ratings + weight * stretch.ratings.astype(np.float64)
        self._count(segment)

    def _count(self, segment: Segment) -> None:
        """Counts the seconds that no earlier segment has."""
        seconds = max(0.0, segment.end_s - max(segment.start_s, self._counted_s))
        self._counted_s = max(self._counted_s, segment.end_s)
        self.speech_s += seconds
        if segment.unsure:
            self.unsure_s += seconds
        elif segment.label is not None:
            self.seconds_by_label[segment.label] = self.seconds_by_label.get(segment.label, 0.0) + seconds


@contextmanager
def _opened(
    source: AudioSource, plan: TimelinePlan, sampling_rate: int | None, isolated: ChildProcess | None
) -> "Iterator[PieceReader | IsolatedPieceReader]":
    if isinstance(source, np.ndarray):
        assert sampling_rate is not None
        sound = stream_array(source, sampling_rate, mix=plan.mixes_channels)
        yield PieceReader(sound, plan.create_cutter("<array>", sound.info.channels))
    elif isolated is not None:
        yield IsolatedPieceReader(isolated, source, plan)
    else:
        with borrow_decoder() as own:
            yield IsolatedPieceReader(own, source, plan)
