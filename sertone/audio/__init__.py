"""Read recordings of any rate, channel count and container as 16 kHz mono float32.

`reader` reads a recording as a whole, `block_stream` reads it block by block, `decoder` opens files,
`converter` mixes and resamples, `containers` checks the headers of sound files, and `isolated` decodes in a
separate process.
"""

from sertone.audio.converter import MIN_SAMPLES, SAMPLING_RATE, SILENCE, as_columns, is_silent
from sertone.audio.decoder import AudioInfo, Warnings
from sertone.audio.reader import (
    MAX_SECONDS,
    SEGMENT_TOLERANCE_S,
    SUFFIXES,
    Recording,
    file_hash,
    from_array,
    inspect,
    read,
)
from sertone.errors import AudioError

__all__ = [
    "MAX_SECONDS", "MIN_SAMPLES", "SAMPLING_RATE", "SEGMENT_TOLERANCE_S", "SILENCE", "SUFFIXES",
    "AudioError", "AudioInfo", "Recording", "Warnings",
    "as_columns", "file_hash", "from_array", "inspect", "is_silent", "read",
]  # fmt: skip
