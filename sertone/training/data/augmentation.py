"""Augment waveforms in training at random: remove frequency bands, zero chunks, crop.

With speed perturbation this is SpecAugment in the time domain, as SpeechBrain's `TimeDomainSpecAugment` does
it. All draws follow from one seed, so a resumed training repeats them. The code uses numpy only, because
batches are made in threads beside the training.

Axis letters: N samples.
"""

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.models.contract import EmotionModel
from sertone.nn.vocabulary import TRANSCRIPT
from sertone.recipe.train_parts import Augmentation

TAPS = 101
"""The length of the filter that removes bands, as in SpeechBrain."""
GRID = 1024
"""The length of the FFT that turns the frequency response into the filter."""


def augment(samples: np.ndarray, seed: int, config: Augmentation) -> np.ndarray:
    """Crop a recording, remove bands and set chunks to zero.

    Args:
        samples: without padding, (N,).
        seed: seed of all draws.
        config: the strength of each change.

    Returns:
        float32, (N,), or shorter after a crop. The input array is not changed.
    """
    rng = np.random.default_rng(seed)
    if config.crop_seconds:
        samples = _crop(samples, round(config.crop_seconds * SAMPLING_RATE), rng)
    centres = rng.uniform(0, SAMPLING_RATE / 2, rng.integers(config.drop_frequencies + 1))
    samples = samples.astype(np.float32)
    if len(centres):
        # "same" returns more samples than the recording has where that is shorter than the filter.
        samples = np.convolve(samples, design_band_stop(centres, config.band_hz), "same")[: len(samples)]
    for chunk in _draw_chunks(len(samples), config, rng):
        samples[chunk] = 0
    return samples


def design_band_stop(centres: np.ndarray, width_hz: float) -> np.ndarray:
    """Design a linear-phase filter that removes bands, by the window method.

    Args:
        centres: centres of the bands, in Hz.
        width_hz: width of each band.

    Returns:
        The impulse response, (TAPS,), float32.
    """
    frequencies = np.fft.rfftfreq(GRID, 1 / SAMPLING_RATE)
    distances = np.abs(frequencies[:, None] - centres)
    passes = (distances > width_hz / 2).all(1)
    response = np.fft.irfft(passes.astype(float), GRID)
    # The ideal response is centred on 0: move it to the middle of the taps, then fade it out by a window.
    return (np.roll(response, TAPS // 2)[:TAPS] * np.hamming(TAPS)).astype(np.float32)


def _crop(samples: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(max(0, len(samples) - length) + 1))
    return samples[start : start + length]


def _draw_chunks(samples: int, config: Augmentation, rng: np.random.Generator) -> list[slice]:
    """Draw the chunks to zero, each so short that all of them never fill the utterance."""
    shortest, longest = config.chunk_samples
    lengths = rng.integers(shortest, longest + 1, rng.integers(config.drop_chunks + 1))
    lengths = np.minimum(lengths, samples // (config.drop_chunks + 1))
    starts = rng.integers(samples - lengths + 1)
    return [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def require_uncropped_transcripts(model: EmotionModel, config: Augmentation) -> None:
    """Refuse crops where the model learns transcripts, because a crop lacks a part of the transcript.

    Raises:
        SertoneError: `bad_recipe`.
    """
    if config.crop_seconds and TRANSCRIPT in model.heads:
        raise SertoneError(
            "bad_recipe",
            f"train.augmentation.crop_seconds is {config.crop_seconds:g}, and the model learns transcripts",
            "whole recordings, because a crop contains only a part of its transcript",
            f"leave crop_seconds null, or set model.tasks.{TRANSCRIPT}: 0",
        )
