"""Random changes of waveforms in training: removed frequency bands, zeroed chunks, crops.

With speed perturbation this is SpecAugment in the time domain, as SpeechBrain's `TimeDomainSpecAugment` does
it. All draws follow from one seed per utterance and epoch, so an interrupted training repeats them. Numpy
alone: batches are made in a thread beside the training.

Axis letters: N samples.
"""

import math
from collections.abc import Sequence

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.models.contract import EmotionModel
from sertone.nn.vocabulary import TRANSCRIPT
from sertone.recipe.train_config import Augmentation, TrainConfig

TAPS = 101
"""Length of the filter that removes bands, as SpeechBrain's."""
GRID = 1024
"""Points of the frequency response that the filter is designed for."""


Drawn = tuple[list[float], list[int | None], list[float]]


def draw_epoch(config: TrainConfig, draw: np.random.Generator, lengths: Sequence[int]) -> Drawn:
    """Draw what an epoch hears of every utterance.

    Args:
        config: the `train` part of the recipe.
        draw: of the epoch.
        lengths: of the recordings at speed 1, in samples.

    Returns:
        Playback speeds; seeds of `augmented`, None where the waveforms stay as they are; seconds that remain.
    """
    speeds = draw.choice(config.playback_speeds, len(lengths)).tolist()
    seeds: list[int | None] = [None] * len(lengths)
    if config.augmentation.is_active:
        seeds = draw.integers(2**62, size=len(lengths)).tolist()
    longest = config.augmentation.crop_seconds or math.inf
    whole = (samples / SAMPLING_RATE / speed for samples, speed in zip(lengths, speeds, strict=True))
    return speeds, seeds, [min(seconds, longest) for seconds in whole]


def augment(samples: np.ndarray, seed: int, config: Augmentation) -> np.ndarray:
    """Crop a recording, remove bands and set chunks to zero.

    Args:
        samples: without padding, (N,).
        seed: of all draws.
        config: how much.

    Returns:
        float32, (N,) or shorter where it was cropped; the input stays as it is.
    """
    draw = np.random.default_rng(seed)
    if config.crop_seconds:
        samples = _cropped(samples, round(config.crop_seconds * SAMPLING_RATE), draw)
    centres = draw.uniform(0, SAMPLING_RATE / 2, draw.integers(config.drop_frequencies + 1))
    samples = samples.astype(np.float32)
    if len(centres):
        samples = np.convolve(samples, design_band_stop(centres, config.band_hz), "same")[: len(samples)]
    for chunk in _chunks(len(samples), config, draw):
        samples[chunk] = 0
    return samples


def design_band_stop(centres: np.ndarray, width_hz: float) -> np.ndarray:
    """Design a linear-phase filter that removes bands: the window method.

    Args:
        centres: of the bands, in Hz.
        width_hz: of each of them.

    Returns:
        The impulse response, (TAPS,), float32.
    """
    frequencies = np.fft.rfftfreq(GRID, 1 / SAMPLING_RATE)
    distances = np.abs(frequencies[:, None] - centres)
    kept = (distances > width_hz / 2).all(1)
    response = np.fft.irfft(kept.astype(float), GRID)
    return (np.roll(response, TAPS // 2)[:TAPS] * np.hamming(TAPS)).astype(np.float32)


def _cropped(samples: np.ndarray, length: int, draw: np.random.Generator) -> np.ndarray:
    start = int(draw.integers(max(0, len(samples) - length) + 1))
    return samples[start : start + length]


def _chunks(samples: int, config: Augmentation, draw: np.random.Generator) -> list[slice]:
    """Draw which chunks to zero, each so short that together they never fill the utterance."""
    low, high = config.chunk_samples
    lengths = draw.integers(low, high + 1, draw.integers(config.drop_chunks + 1))
    lengths = np.minimum(lengths, samples // (config.drop_chunks + 1))
    starts = draw.integers(samples - lengths + 1)
    return [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def require_uncropped_transcripts(model: EmotionModel, config: Augmentation) -> None:
    """Refuse crops of recordings whose whole transcript is to be learnt.

    Raises:
        SertoneError: `bad_recipe`.
    """
    if config.crop_seconds and TRANSCRIPT in model.heads:
        raise SertoneError(
            "bad_recipe",
            f"train.augmentation.crop_seconds {config.crop_seconds:g}, and the model learns transcripts",
            "whole recordings, as a crop does not say all of its transcript",
            f"leave crop_seconds null, or set model.tasks.{TRANSCRIPT}: 0",
        )
