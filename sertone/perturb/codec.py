"""Voice and music coding: a recording is encoded and decoded again by FFmpeg's codecs, through PyAV.

Axis letters: N samples.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import soxr

from sertone.audio import SAMPLING_RATE
from sertone.perturb.material import Material
from sertone.perturb.microphone import high_pass, low_pass

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

PADDING_S = 0.1
"""Zeros behind the recording, longer than the delay of any codec."""


@dataclass(frozen=True)
class Codec:
    """A codec of FFmpeg.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        decoder: FFmpeg's name of the decoder.
        sampling_rate: sampling rate at which it codes, in Hz.
        sample_format: FFmpeg's name of the encoder's sample format.
        delay_s: delay of the decoded sound in seconds, beyond what FFmpeg removes itself.
    """

    encoder: str
    decoder: str
    sampling_rate: int
    sample_format: str
    delay_s: float = 0.0

    def __call__(
        self, samples: np.ndarray, kbps: float, rng: np.random.Generator, material: Material
    ) -> np.ndarray:
        """Encode and decode a recording.

        Args:
            samples: 16 kHz, (N,).
            kbps: kilobits per second.
            rng: not used.
            material: not used.

        Returns:
            float32, (N,), without the codec's delay.
        """
        narrow = soxr.resample(samples.astype(np.float32), SAMPLING_RATE, self.sampling_rate)
        decoded = self._decode(*self._encode(narrow, kbps))
        wide = soxr.resample(decoded, self.sampling_rate, SAMPLING_RATE)
        start = round(self.delay_s * SAMPLING_RATE)
        return wide[start : start + len(samples)]

    def _encode(self, samples: np.ndarray, kbps: float) -> tuple[list, bytes | None]:
        """Return the packets and the header of the stream."""
        import av

        encoder = self._open(self.encoder, "w")
        encoder.format = self.sample_format
        encoder.bit_rate = round(1000 * kbps)
        # The codec's delay pushes the end of the recording into these zeros.
        padded = np.concatenate([samples, np.zeros(round(PADDING_S * self.sampling_rate), np.float32)])
        frame = av.AudioFrame.from_ndarray(np.clip(padded, -1, 1)[None], "fltp", "mono")
        frame.sample_rate = self.sampling_rate
        frame.pts = 0
        return [*encoder.encode(frame), *encoder.encode(None)], encoder.extradata

    def _decode(self, packets: list, header: bytes | None) -> np.ndarray:
        import av

        decoder = self._open(self.decoder, "r")
        decoder.extradata = header
        resampler = av.AudioResampler("fltp", "mono", self.sampling_rate)
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        converted = [part for frame in [*frames, None] for part in resampler.resample(frame)]
        return np.concatenate([part.to_ndarray()[0] for part in converted])

    def _open(self, name: str, mode: Literal["r", "w"]) -> "AudioCodecContext":
        import av  # an extra, and slow to import

        context = cast("AudioCodecContext", av.CodecContext.create(name, mode))
        context.sample_rate = self.sampling_rate
        context.layout = "mono"
        return context


AMR_NB = Codec("libopencore_amrnb", "amrnb", 8000, "s16", delay_s=0.005)  # its look-ahead
OPUS = Codec("libopus", "libopus", 16000, "s16")
MP3 = Codec("libmp3lame", "mp3float", 16000, "fltp")


def mu_law(samples: np.ndarray, bits: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Round the samples on the logarithmic scale of G.711 (mu 255), without a band limit.

    Args:
        samples: 16 kHz, (N,).
        bits: bits per sample; G.711 has 8.
        rng: not used.
        material: not used.

    Returns:
        float32, (N,).
    """
    compressed = np.sign(samples) * np.log1p(255 * np.minimum(np.abs(samples), 1)) / np.log(256)
    steps = 2 ** (bits - 1) - 1
    rounded = np.round(compressed * steps) / steps
    return (np.sign(rounded) * np.expm1(np.abs(rounded) * np.log(256)) / 255).astype(np.float32)


def telephone(samples: np.ndarray, bits: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Send a recording through a telephone line: 300 to 3400 Hz, 8 kHz, `mu_law`, (N,)."""
    band = high_pass(low_pass(samples, 3400, rng, material), 300, rng, material)
    narrow = mu_law(soxr.resample(band, SAMPLING_RATE, SAMPLING_RATE // 2), bits, rng, material)
    return np.resize(soxr.resample(narrow, SAMPLING_RATE // 2, SAMPLING_RATE), len(samples))
