"""Live audio: push chunks of any size, and get a segment for every window or piece of speech.

`push` returns a segment once its last sample has passed the resampler, which takes at most 0.12 s, and the
model has run. Memory is that of one segment and does not grow.
"""

from collections.abc import Sequence

import numpy as np

from sertone.audio.converter import BlockConverter
from sertone.errors import AudioError, SertoneError
from sertone.runtime.answering import AnswerFormat, build_error_prediction
from sertone.runtime.timeline.cutting import AudioPiece
from sertone.runtime.timeline.plan import TimelinePlan
from sertone.runtime.timeline.summary import TimelineSummary, score_piece
from sertone.schema import Prediction, Segment

NAME = "<stream>"


class Stream:
    """Predicts live audio; see `Predictor.stream`.

    Args:
        answer_format: the model, and the format of its predictions.
        plan: how to cut the audio; the segments are not smoothed.
        sampling_rate: sampling rate of the live audio, in Hz.
        channels: number of channels of the live audio.

    Raises:
        AudioError: `bad_rate`, `bad_channels`, `channel_names`.
    """

    def __init__(
        self, answer_format: AnswerFormat, plan: TimelinePlan, sampling_rate: int, channels: int = 1
    ) -> None:
        self._answer_format = answer_format
        self._summary = TimelineSummary(answer_format)
        self._converter = BlockConverter(sampling_rate, channels, NAME, mix=plan.mixes_channels)
        self._cutter = plan.create_cutter(NAME, channels)
        self._finished = False

    def push(self, chunk: np.ndarray) -> list[Segment]:
        """Take the next samples.

        Args:
            chunk: floats from -1 to 1 or integers of 8, 16 or 32 bits, (N,) for one channel or (N, channels);
                N may be 0.

        Returns:
            the segments that are complete.

        Raises:
            AudioError: `bad_samples`, `non_finite`; the chunk is ignored, and the stream continues.
            SertoneError: `stream_finished`.
        """
        self._require_open()
        return self._predict(self._cutter.push(self._converter.push(chunk)))

    def finish(self) -> Prediction:
        """End the stream.

        Returns:
            the prediction for the whole stream, with its speakers, as `Predictor.timeline` gives it for the
            same samples. Its `segments` are those that no `push` has returned. Status `error` for too few
            samples.

        Raises:
            SertoneError: `stream_finished`.
        """
        self._require_open()
        self._finished = True
        try:
            last_block = self._converter.finish()
        except AudioError as error:
            return build_error_prediction(NAME, error)
        segments = self._predict([*self._cutter.push(last_block), *self._cutter.finish()])
        warnings = self._converter.warnings | self._cutter.warnings
        return self._summary.build_prediction(NAME, self._converter.duration_s, warnings, segments)

    def _predict(self, pieces: Sequence[AudioPiece]) -> list[Segment]:
        return [self._summary.add(score_piece(self._answer_format, piece)) for piece in pieces]

    def _require_open(self) -> None:
        if self._finished:
            raise SertoneError("stream_finished", "a finished stream", "a new stream for more audio")
