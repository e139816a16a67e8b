"""A fixed front end without weights: log-mel energies and, on request, pitch and loudness.

Frames of 25 ms every 10 ms at 16 kHz. No frame reaches beyond the end of its utterance, so padding
never changes a value. All features are computed in float32. The export to ONNX takes other formulas for the
same values, where ONNX Runtime lacks an operator or computes it slowly.

Axis letters: B batch, N samples, T frames, C features.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn.encoders.spectra import constant, cut_frames, power_products
from sertone.nn.masks import frame_mask, masked_mean

SAMPLING_RATE = 16000
WINDOW = 400  # 25 ms
HOP = 160  # 10 ms
FFT = 512
PITCH_WINDOW = 800  # 50 ms: two periods of a 60 Hz voice and a margin
PITCH_DECIMATION = 4
OCTAVE_COST = 0.06  # correlation given up per octave of a longer lag
PITCH_MIN_HZ, PITCH_MAX_HZ = 60.0, 450.0
MEL_UNIT = 3.0  # of the mel features, in log energy
LOUDNESS_UNIT = 4.0  # of the loudness features, in log energy
MEL_DB, LOUDNESS_DB = (unit * 10 / math.log(10) for unit in (MEL_UNIT, LOUDNESS_UNIT))  # the same in dB
PITCH, RELATIVE_PITCH, VOICING, LOUDNESS, RELATIVE_LOUDNESS = range(5)  # places in the prosody


def mel_filters(bands: int, low_hz: float = 60.0, high_hz: float = 7600.0) -> Tensor:
    """Return triangular filters on the mel scale (O'Shaughnessy's formula): (FFT // 2 + 1, bands)."""
    # On the CPU also where a model is built on the meta device, whose arithmetic imports torch's compiler.
    mel = torch.linspace(_hz_to_mel(low_hz), _hz_to_mel(high_hz), bands + 2, device="cpu")
    edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    bins = torch.linspace(0, SAMPLING_RATE / 2, FFT // 2 + 1, device="cpu")[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0.0)


def _hz_to_mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


MEMORY = 42.0
"""Bytes per sample while it runs, measured."""


class FrontEnd(nn.Module):
    """Waveforms (B, N), lengths (B,) -> features (B, T, C), frames (B,).

    Args:
        bands: mel bands.
        prosody: add log pitch, voicing and loudness; pitch and loudness also relative to their means.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, bands: int = 64, prosody: bool = False) -> None:
        super().__init__()
        self.prosody = prosody
        self.feature_count = bands + (5 if prosody else 0)
        self.min_samples = PITCH_WINDOW if prosody else WINDOW
        self.register_buffer("filters", mel_filters(bands), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW, device="cpu"), persistent=False)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        waveforms = waveforms.float()
        frames = torch.div(lengths - self.min_samples, HOP, rounding_mode="floor") + 1
        total = (waveforms.shape[1] - self.min_samples) // HOP + 1
        mel = self._log_mel(waveforms).narrow(1, 0, total)
        # One mean over frames and bands: the level is removed, but the long-term spectrum stays, because its
        # tilt shows a raised voice.
        parts = [(mel - masked_mean(mel, frames).mean(1)[:, None, None]) / MEL_UNIT]
        if self.prosody:
            parts.append(_prosody(waveforms, frames))
        return torch.cat(parts, -1) * frame_mask(frames, total)[..., None], frames

    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """Waveforms (B, N) -> (B, T, bands), of the middle 25 ms of each frame of `min_samples`."""
        start = (self.min_samples - WINDOW) // 2
        slices = cut_frames(waveforms[:, start:], WINDOW, HOP)
        if torch.compiler.is_exporting():
            return (power_products(slices, FFT, self.filters, self.window) + 1e-8).log()
        spectrum = torch.view_as_real(torch.fft.rfft(slices * self.window, FFT))
        return (spectrum.square().sum(-1) @ self.filters + 1e-8).log()


def _prosody(waveforms: Tensor, frames: Tensor) -> Tensor:
    """Waveforms (B, N) -> pitch, relative pitch, voicing, loudness, relative loudness, (B, T, 5)."""
    pitch_hz, voicing = track_pitch(waveforms)
    voiced = (voicing > 0.5).float()
    octaves = torch.log2(pitch_hz / 150.0)  # from a pitch between those of men and women
    voiced_share = masked_mean(voiced[..., None], frames).clamp(min=1e-3)
    mean = masked_mean((octaves * voiced)[..., None], frames) / voiced_share  # (B, 1)
    power = F.avg_pool1d(waveforms.square()[:, None], PITCH_WINDOW, HOP)[:, 0]  # (B, T)
    loudness = power.add(1e-8).log() / LOUDNESS_UNIT + 2.0
    level = masked_mean(loudness[..., None], frames)
    return torch.stack([octaves * voiced, (octaves - mean) * voiced, voicing, loudness, loudness - level], -1)


def track_pitch(waveforms: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate pitch by the highest peak of the normalised autocorrelation, at a quarter of the rate.

    Args:
        waveforms: samples at 16 kHz, (B, N); frames of 50 ms every 10 ms.

    Returns:
        pitch in Hz (B, T) and the correlation at its lag, 0 to 1 (B, T).
    """
    rate = SAMPLING_RATE // PITCH_DECIMATION
    shortest = int(rate / PITCH_MAX_HZ)
    longest = int(rate / PITCH_MIN_HZ) + 1
    slower = F.avg_pool1d(waveforms[:, None], PITCH_DECIMATION)[:, 0]
    size = PITCH_WINDOW // PITCH_DECIMATION
    slices = cut_frames(slower, size, HOP // PITCH_DECIMATION)  # (B, T, size)
    slices = slices - slices.mean(-1, keepdim=True)
    correlation = _autocorrelation(slices, longest)
    normalised = correlation / (_energies(slices, longest) + 1e-10).sqrt()
    lags = torch.arange(shortest, longest, device=slices.device)
    # As in Boersma 1993: multiples of the period correlate as well, so longer lags have a cost.
    cost = OCTAVE_COST * torch.log2(lags / shortest)
    best = (normalised[..., shortest:longest] - cost).argmax(-1) + shortest
    voicing = normalised.gather(-1, best[..., None])[..., 0].clamp(0.0, 1.0)
    return rate / (best + _parabola(normalised, best)), voicing


def _energies(slices: Tensor, longest: int) -> Tensor:
    """Return the energy without the last samples times that without the first: (B, T, longest + 1).

    At each lag, as many samples are left out as the lag is long.
    """
    squares = slices.square()
    size = slices.shape[-1]
    lags = longest + 1
    if torch.compiler.is_exporting():
        energies = squares @ _sides(size, lags)
        return energies[..., :lags] * energies[..., lags:]
    energy = F.pad(squares, (1, 0)).cumsum(-1)  # energy[k]: of the first k samples
    return energy[..., size - longest :].flip(-1) * (energy[..., -1:] - energy[..., :lags])


def _autocorrelation(slices: Tensor, longest: int) -> Tensor:
    """Return the autocorrelation at the lags 0 to `longest`: (B, T, K) -> (B, T, longest + 1)."""
    # Long enough that nothing wraps around, and a multiple of 32, which FFTs compute fast.
    length = -(-(slices.shape[-1] + longest + 1) // 32) * 32
    if torch.compiler.is_exporting():
        return power_products(slices, length, _inverse(length, longest + 1))
    power = torch.view_as_real(torch.fft.rfft(slices, length)).square().sum(-1)
    return torch.fft.irfft(torch.complex(power, torch.zeros_like(power)), length)[..., : longest + 1]


@constant
def _sides(size: int, lags: int) -> Tensor:
    """Return masks of the samples without the last and without the first of each lag: (size, 2 lags)."""
    sample, lag = np.arange(size)[:, None], np.arange(lags)
    return torch.from_numpy(np.concatenate([sample < size - lag, sample >= lag], 1).astype(np.float32))


@constant
def _inverse(size: int, count: int) -> Tensor:
    """Return the inverse transform of a real and even spectrum as a matrix: (size // 2 + 1, count)."""
    # All frequencies but the first and the last stand for their negative ones as well.
    weights = np.full(size // 2 + 1, 2.0)
    weights[[0, -1]] = 1.0
    angles = 2 * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(count)) / size
    return torch.from_numpy((weights[:, None] * np.cos(angles) / size).astype(np.float32))


def _parabola(curve: Tensor, peak: Tensor) -> Tensor:
    """Return the offset of the maximum from the sampled one, -0.5 to 0.5: (B, T, K), (B, T) -> (B, T)."""
    before, centre, after = (curve.gather(-1, (peak + step)[..., None])[..., 0] for step in (-1, 0, 1))
    bend = (before - 2.0 * centre + after).clamp(max=-1e-6)  # a flat top would divide by zero
    return (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
