"""Statistics over time of signals such as pitch, loudness and cepstra, for `functionals`.

Weights, one or zero, say which frames count; frames behind the end of an utterance never do. All statistics
are sums, running counts and one maximum over the frames: padding changes nothing, and nothing is sorted.
Where no frame counts a statistic is 0, and a deviation nearly so.

Axis letters: B batch, T frames, M signals.
"""

import math
from collections.abc import Callable
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
"""Number of coefficients that describe the contour of a signal."""
CONTOUR_CEPSTRA = 6
"""Number of cepstra whose contours are taken: the first ones, with the level of the frame."""
CORRELATED_CEPSTRA = 8
"""Number of cepstra whose correlations are taken: the first ones, with the level of the frame."""


class Regions(NamedTuple):
    """Parts of the utterances: masks of frames, each (B, T), one or zero."""

    speech: Tensor
    voiced: Tensor
    unvoiced: Tensor

    @classmethod
    def detect(cls, prosody: Tensor, real: Tensor) -> "Regions":
        """Find speech, the loud frames, and voiced speech, the loud and periodic frames."""
        loudness = prosody[..., LOUDNESS].masked_fill(real == 0, -1e4)  # padding is never the loudest frame
        loud = loudness > loudness.amax(1, keepdim=True) - BELOW_LOUDEST_DB / LOUDNESS_DB
        voiced = loud & (prosody[..., VOICING] > 0.5)
        return cls(loud.float(), voiced.float(), (loud & ~voiced).float())

    def durations(self, real: Tensor) -> Tensor:
        """Return the voiced share of the speech, the speech share of all, and log seconds: (B, 3)."""
        speech = self.speech.sum(1)
        total = real.sum(1)
        seconds = total / 100  # frames of 10 ms
        return torch.stack([self.voiced.sum(1) / speech, speech / total, seconds.log()], -1)


class Signals(NamedTuple):
    """The signals of a batch, and where they count.

    Attributes:
        cepstra: cosine transform of the log-mel spectrum, (B, T, M).
        prosody: pitch, voicing and loudness, (B, T, 5).
        all: cepstra, then prosody.
        real: real frames, (B, T).
        regions: parts of the utterances.
    """

    cepstra: Tensor
    prosody: Tensor
    all: Tensor
    real: Tensor
    regions: Regions


def cosine_transform(bands: int, cepstra: int) -> Tensor:
    """Return the first coefficients of the discrete cosine transform of the second kind: (bands, cepstra)."""
    places = torch.arange(bands, device="cpu")
    orders = torch.arange(cepstra, device="cpu")
    angles = (places[:, None] + 0.5) * orders * math.pi / bands
    return angles.cos() * math.sqrt(2 / bands)


def weighted_mean(signals: Tensor, weights: Tensor) -> Tensor:
    """Average over the frames that count, 0 where none does: (B, T, M), (B, T) -> (B, M)."""
    return (weights[:, None] @ signals)[:, 0] / weights.sum(1, keepdim=True).clamp(min=1)


def moments(signals: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the frames that count, each (B, M)."""
    mean = weighted_mean(signals, weights)
    variance = weighted_mean((signals - mean[:, None]).square(), weights)
    return mean, (variance + 1e-5).sqrt()  # the constant keeps the gradient of the root finite


def standardise(signals: Tensor, weights: Tensor) -> Tensor:
    """Scale to mean 0 and variance 1 over the frames that count: (B, T, M)."""
    mean, deviation = moments(signals, weights)
    return (signals - mean[:, None]) / deviation[:, None]


def skewness(signals: Tensor, weights: Tensor) -> Tensor:
    """Return the mean cube of the standardised signals over the frames that count: (B, M)."""
    return weighted_mean(standardise(signals, weights) ** 3, weights)


def slope(signals: Tensor, clock: Tensor, weights: Tensor) -> Tensor:
    """Return the least-squares change from the first frame of `clock` to its last: (B, M).

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
    """Return the means over the first, second and last third of the frames that count: (B, 3 M)."""
    place = 3 * relative_places(weights)
    thirds = [weights * (place >= third) * (place < third + 1) for third in range(3)]
    return torch.cat([weighted_mean(signals, third) for third in thirds], -1)


def relative_places(weights: Tensor) -> Tensor:
    """Return the place of each frame's middle among the frames that count, 0 to 1: (B, T)."""
    return (weights.cumsum(1) - 0.5 * weights) / weights.sum(1, keepdim=True).clamp(min=1)


def contours(cepstra: Tensor, prosody: Tensor, region: Regions) -> list[Tensor]:
    """Return the contours of the prosody over the speech, and of the spectrum over its voiced part.

    Relative pitch is 0 where there is none, so its contour also shows where the voice pauses.
    """
    course = prosody[..., [RELATIVE_PITCH, VOICING, RELATIVE_LOUDNESS]]
    return [contour(course, region.speech), contour(cepstra[..., :CONTOUR_CEPSTRA], region.voiced)]


def contour(signals: Tensor, weights: Tensor) -> Tensor:
    """Return the cosine transform over the frames that count, without its mean: (B, T, M) -> (B, K M).

    n frames have n - 1 coefficients; the others of the K, `CONTOUR_COSINES`, are 0.
    """
    order = torch.arange(1, CONTOUR_COSINES + 1, device=signals.device)[:, None]
    count = weights.sum(1)[:, None, None]
    waves = (relative_places(weights)[:, None] * (math.pi * order)).cos() * weights[:, None]  # (B, K, T)
    return (waves * (order < count) @ signals / count.clamp(min=1)).flatten(1)


def select_correlated(cepstra: Tensor, prosody: Tensor) -> Tensor:
    """Return the signals whose correlations are taken: pitch, voicing, loudness, cepstra, (B, T, M)."""
    return torch.cat([prosody[..., [PITCH, VOICING, LOUDNESS]], cepstra[..., :CORRELATED_CEPSTRA]], -1)


def correlations(signals: Tensor, weights: Tensor) -> Tensor:
    """Return the correlations of all pairs over the frames that count: (B, T, M) -> (B, M (M - 1) / 2)."""
    standard = standardise(signals, weights)
    products = (standard * weights[..., None]).mT @ standard / weights.sum(1).clamp(min=1)[:, None, None]
    count = signals.shape[-1]
    first, second = torch.triu_indices(count, count, 1, device=signals.device)
    return products[:, first, second]


def segment_statistics(weights: Tensor, real: Tensor) -> Tensor:
    """Return the number of unbroken runs of frames that count per second, and the log of their mean frames.

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
    """Return the deviation of the cepstra's deltas, and moments of the prosody's deltas; each (B, M)."""
    prosody_deltas = deltas(prosody)
    inner = inner_frames(region.voiced)
    _, cepstra_deviation = moments(deltas(cepstra), inner_frames(region.speech))
    return [cepstra_deviation, *moments(prosody_deltas, inner), *moments(prosody_deltas.abs(), inner)]


def deltas(signals: Tensor) -> Tensor:
    """Return half the difference of the two neighbours of each frame: (B, T, M)."""
    padded = F.pad(signals, (0, 0, 1, 1))
    return (padded[:, 2:] - padded[:, :-2]) / 2


def inner_frames(weights: Tensor) -> Tensor:
    """Return the frames that count and whose neighbours do: (B, T)."""
    padded = F.pad(weights, (1, 1))
    return padded[:, 2:] * weights * padded[:, :-2]


STATISTICS: dict[str, Callable[[Signals], list[Tensor]]] = {
    "thirds": lambda s: [means_of_thirds(s.prosody, s.regions.speech)],
    "skewness": lambda s: [skewness(s.all, s.regions.voiced)],
    "changes": lambda s: delta_statistics(s.cepstra, s.prosody, s.regions),
    "slopes": lambda s: [slope(s.all, s.regions.speech, s.regions.voiced)],
    "contours": lambda s: contours(s.cepstra, s.prosody, s.regions),
    "correlations": lambda s: [correlations(select_correlated(s.cepstra, s.prosody), s.regions.voiced)],
    "rhythm": lambda s: [
        segment_statistics(region, s.real) for region in (s.regions.speech, s.regions.voiced)
    ],
}
"""The table of statistics beside means and deviations. To add one, add a line here and its place below."""
PLACES = ("thirds", "skewness", "slopes", "changes", "contours", "correlations", "rhythm")
"""The order of the statistics in the vector. A trained model finds them by their places: another order is
another format."""
