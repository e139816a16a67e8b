"""Live audio: chunks of any size in, an answer for every window or stretch of speech that is complete.

A segment is told as soon as its last sample has come through the resampler, which is at most 0.12 s late, and
the model has answered. Memory is that of one segment and does not grow.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sertone.audio.converter import BlockConverter
from sertone.errors import AudioError, SertoneError
from sertone.runtime.answering import build_error_prediction
from sertone.runtime.timeline.cutting import AudioPiece
from sertone.runtime.timeline.plan import TimelinePlan
from sertone.runtime.timeline.summary import TimelineSummary, score_piece
from sertone.schema import Prediction, Segment

if TYPE_CHECKING:
    from sertone.runtime.predictor import Predictor

NAME = "<stream>"


class Stream:
    """Answers audio as it comes; see `Predictor.stream`.

    Args:
        predictor: whose model and way of telling are used.
        plan: where it is cut; it is not smoothed.
        sampling_rate: of what comes, in Hz.
        channels: of what comes.

    Raises:
        AudioError: `bad_rate`, `bad_channels`, `channel_names`.
    """

    def __init__(
        self, predictor: "Predictor", plan: TimelinePlan, sampling_rate: int, channels: int = 1
    ) -> None:
        self._predictor, self._tally = predictor, TimelineSummary(predictor)
        self._intake = BlockConverter(sampling_rate, channels, NAME, mix=plan.mixes_channels)
        self._cutter = plan.create_cutter(NAME, channels)
        self._finished = False

    def push(self, chunk: np.ndarray) -> list[Segment]:
        """Takes the next samples.

        Args:
            chunk: floats from -1 to 1 or integers of 8, 16 or 32 bits, (N,) of one channel or (N, channels);
                N may be 0.

        Returns:
            the segments that are complete by now.

        Raises:
            AudioError: `bad_samples`, `non_finite`; the chunk is not taken, and the stream goes on.
            SertoneError: `stream_finished`.
        """
        self._require_open()
        return self._told(self._cutter.push(self._intake.push(chunk)))

    def finish(self) -> Prediction:
        """Ends the stream.

        Returns:
            the answer about the whole, with its speakers, as `Predictor.timeline` of the same samples gives
            it; its `segments` are those that no `push` has told. Status `error` where too little came.

        Raises:
            SertoneError: `stream_finished`.
        """
        self._require_open()
        self._finished = True
        try:
            rest = self._intake.finish()
        except AudioError as error:
            return build_error_prediction(NAME, error)
        segments = self._told([*self._cutter.push(rest), *self._cutter.finish()])
        warnings = self._intake.warnings | self._cutter.warnings
        return self._tally.prediction(NAME, self._intake.duration_s, warnings, segments)

    def _told(self, pieces: Sequence[AudioPiece]) -> list[Segment]:
        return [self._tally.add(score_piece(self._predictor, piece)) for piece in pieces]

    def _require_open(self) -> None:
        if self._finished:
            raise SertoneError("stream_finished", "a stream that is finished", "a new one for more audio")
