"""Statistics of an utterance, of signals such as pitch, loudness and cepstra, over the frames that count.

Weights say which do, one or zero; what lies behind the end of an utterance never does. Sums, running
counts and one maximum over the frames: padding changes nothing, and nothing is sorted. Where no frame
counts a statistic is 0, a deviation nearly so.

Axis letters: B batch, T frames, M signals.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sertone.nn.encoders.frontend import (
    HOP,
    LOUDNESS,
    LOUDNESS_DB,
    PITCH,
    RELATIVE_LOUDNESS,
    RELATIVE_PITCH,
    SAMPLING_RATE,
    VOICING,
)

BELOW_LOUDEST_DB = 21.0
"""Speech is no further below the loudest frame than this."""
CONTOUR_COSINES = 8
"""Coefficients that describe the contour of a signal."""
CONTOUR_CEPSTRA, CORRELATED_CEPSTRA = 6, 8
"""Cepstra whose contours and whose correlations are taken: the first ones, with the level of the frame."""


class Regions(NamedTuple):
    """Which frames count, each (B, T), one or zero."""

    speech: Tensor
    voiced: Tensor
    unvoiced: Tensor

    @classmethod
    def detect(cls, prosody: Tensor, real: Tensor) -> "Regions":
        """Speech is what is loud enough, voiced speech what is periodic as well."""
        loudness = prosody[..., LOUDNESS].masked_fill(real == 0, -1e4)
        loud = loudness > loudness.amax(1, keepdim=True) - BELOW_LOUDEST_DB / LOUDNESS_DB
        voiced = loud & (prosody[..., VOICING] > 0.5)
        return cls(loud.float(), voiced.float(), (loud & ~voiced).float())

    def shares(self, real: Tensor) -> Tensor:
        """Voiced of the speech, speech of all, log seconds: (B, 3)."""
        speech, total = self.speech.sum(1), real.sum(1)
        return torch.stack([self.voiced.sum(1) / speech, speech / total, (total / 100).log()], -1)


def cosine_transform(bands: int, cepstra: int) -> Tensor:
    """Discrete cosine transform of the second kind, its first coefficients: (bands, cepstra)."""
    places, orders = torch.arange(bands, device="cpu"), torch.arange(cepstra, device="cpu")
    angles = (places[:, None] + 0.5) * orders * math.pi / bands
    return angles.cos() * math.sqrt(2 / bands)


def weighted_mean(signals: Tensor, weights: Tensor) -> Tensor:
    """Over the frames that count, 0 where none does: (B, T, M), (B, T) -> (B, M)."""
    return (weights[:, None] @ signals)[:, 0] / weights.sum(1, keepdim=True).clamp(min=1)


def moments(signals: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the frames that count, each (B, M)."""
    mean = weighted_mean(signals, weights)
    variance = weighted_mean((signals - mean[:, None]).square(), weights)
    return mean, (variance + 1e-5).sqrt()


def standardise(signals: Tensor, weights: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the frames that count: (B, T, M)."""
    mean, deviation = moments(signals, weights)
    return (signals - mean[:, None]) / deviation[:, None]


def skewness(signals: Tensor, weights: Tensor) -> Tensor:
    """Mean cube of the standardised signals over the frames that count: (B, M)."""
    return weighted_mean(standardise(signals, weights) ** 3, weights)


def slope(signals: Tensor, clock: Tensor, weights: Tensor) -> Tensor:
    """Least-squares change from the first frame of `clock` to its last, over the frames that count.

    Args:
        signals: (B, T, M).
        clock: frames in which time passes, (B, T): pauses have no length.
        weights: frames that count, (B, T), among those of the clock.
    """
    time = clock.cumsum(1) / clock.sum(1, keepdim=True).clamp(min=1)
    time = (time - weighted_mean(time[..., None], weights))[..., None]
    covariance = weighted_mean(signals * time, weights)
    return covariance / weighted_mean(time.square(), weights).clamp(min=1e-3)


def means_of_thirds(signals: Tensor, weights: Tensor) -> Tensor:
    """Mean over the first, the second and the last third of the frames that count: (B, 3 M)."""
    place = 3 * places(weights)
    parts = [weights * (place >= third) * (place < third + 1) for third in range(3)]
    return torch.cat([weighted_mean(signals, part) for part in parts], -1)


def places(weights: Tensor) -> Tensor:
    """Where the middle of each frame that counts lies among them, 0 to 1: (B, T) -> (B, T)."""
    return (weights.cumsum(1) - 0.5 * weights) / weights.sum(1, keepdim=True).clamp(min=1)


def contours(cepstra: Tensor, prosody: Tensor, region: Regions) -> list[Tensor]:
    """Contours of the prosody over the speech, and of the spectrum over its voiced part.

    Relative pitch is 0 where there is none, so its contour says as well where the voice pauses.
    """
    course = prosody[..., [RELATIVE_PITCH, VOICING, RELATIVE_LOUDNESS]]
    return [contour(course, region.speech), contour(cepstra[..., :CONTOUR_CEPSTRA], region.voiced)]


def contour(signals: Tensor, weights: Tensor) -> Tensor:
    """Cosine transform over the frames that count, without its mean: (B, T, M), (B, T) -> (B, K M).

    Of n frames it has n - 1 coefficients; the others of the K, `CONTOUR_COSINES`, are 0.
    """
    order = torch.arange(1, CONTOUR_COSINES + 1, device=signals.device)[:, None]
    counted = weights.sum(1)[:, None, None]
    waves = (places(weights)[:, None] * (math.pi * order)).cos() * weights[:, None]  # (B, K, T)
    return (waves * (order < counted) @ signals / counted.clamp(min=1)).flatten(1)


def correlated_signals(cepstra: Tensor, prosody: Tensor) -> Tensor:
    """The signals whose correlations are taken: pitch, voicing, loudness, cepstra, (B, T, M)."""
    return torch.cat([prosody[..., [PITCH, VOICING, LOUDNESS]], cepstra[..., :CORRELATED_CEPSTRA]], -1)


def correlations(signals: Tensor, weights: Tensor) -> Tensor:
    """Of all pairs, over the frames that count: (B, T, M), (B, T) -> (B, M (M - 1) / 2)."""
    standard = standardise(signals, weights)
    products = (standard * weights[..., None]).mT @ standard / weights.sum(1).clamp(min=1)[:, None, None]
    count = signals.shape[-1]
    first, second = torch.triu_indices(count, count, 1, device=signals.device)
    return products[:, first, second]


def segment_statistics(weights: Tensor, real: Tensor) -> Tensor:
    """Unbroken runs of frames that count: how many per second of the recording, log of their mean frames.

    Args:
        weights: (B, T).
        real: the frames of the recording, (B, T).

    Returns:
        (B, 2).
    """
    starts = (weights - F.pad(weights, (1, -1))).clamp(min=0).sum(1)
    seconds = real.sum(1) * (HOP / SAMPLING_RATE)
    length = weights.sum(1).clamp(min=1) / starts.clamp(min=1)
    return torch.stack([starts / seconds, length.log()], -1)


def delta_statistics(cepstra: Tensor, prosody: Tensor, region: Regions) -> list[Tensor]:
    """Of the changes from frame to frame: spread of the cepstra's, moments of the prosody's; each (B, M)."""
    moved, inner = deltas(prosody), inner_frames(region.voiced)
    spread = moments(deltas(cepstra), inner_frames(region.speech))[1]
    return [spread, *moments(moved, inner), *moments(moved.abs(), inner)]


def deltas(signals: Tensor) -> Tensor:
    """Half the difference of the two neighbours of each frame: (B, T, M)."""
    padded = F.pad(signals, (0, 0, 1, 1))
    return (padded[:, 2:] - padded[:, :-2]) / 2


def inner_frames(weights: Tensor) -> Tensor:
    """The frames that count and whose neighbours do: (B, T)."""
    padded = F.pad(weights, (1, 1))
    return padded[:, 2:] * weights * padded[:, :-2]
