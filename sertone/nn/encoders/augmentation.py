"""Random changes of log-mel spectra in training, as by other microphones, rooms and vocal tracts.

Axis letters: B batch, T frames, C features, F mel bands.
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from sertone.nn.encoders.frontend import LOUDNESS, LOUDNESS_DB, MEL_DB
from sertone.recipe.settings import Settings

WAVES = 3
"""Number of cosines over the mel bands that make up a colour."""


class SpectrumPerturbation(Settings):
    """The random changes, drawn anew for every utterance at every step; 0: none."""

    colour_db: float = Field(default=0.0, ge=0)
    """The three slowest cosines over the mel bands are added to the spectrum. This is the standard deviation
    of each, in dB."""
    warp: float = Field(default=0.0, ge=0, lt=0.5)
    """The largest relative shift of the mel axis, as between shorter and longer vocal tracts."""
    gain_db: float = Field(default=0.0, ge=0)
    """The standard deviation of the level, in dB."""


def perturb_spectra(features: Tensor, bands: int, config: SpectrumPerturbation) -> Tensor:
    """Perturb the front end's features, each utterance with separate draws.

    Args:
        features: (B, T, C), the first F of them mel bands, then prosody.
        bands: F.
        config: how much.

    Returns:
        (B, T, C); frames that are not real have changed, too.
    """
    mel = features[..., :bands]
    prosody = features[..., bands:]
    if config.warp:
        factor = 1 + config.warp * (2 * torch.rand(len(mel), 1, device=mel.device) - 1)
        mel = warp_bands(mel, factor)
    if config.colour_db:
        mel = mel + draw_colours(len(mel), bands, config.colour_db / MEL_DB, mel.device)[:, None]
    if config.gain_db:
        # The mel bands are relative to the level of the utterance, so only the loudness changes with it.
        gain = torch.randn(len(mel), 1, device=mel.device) * config.gain_db / LOUDNESS_DB
        column = torch.arange(prosody.shape[-1], device=mel.device) == LOUDNESS
        prosody = prosody + gain[:, None] * column
    return torch.cat([mel, prosody], -1)


def warp_bands(mel: Tensor, factor: Tensor) -> Tensor:
    """Move the mel axis: band i takes the value at band `factor` i, interpolated between bands.

    Args:
        mel: (B, T, F).
        factor: (B, 1).
    """
    bands = torch.arange(mel.shape[-1], device=mel.device)
    source = (bands * factor).clamp(max=mel.shape[-1] - 1)  # (B, F)
    # Linear interpolation as one product of matrices: the two nearest bands have weights that add up to 1.
    weights = (1 - (source[:, None] - bands[:, None]).abs()).clamp(min=0)  # (B, F, F): from, to
    return mel @ weights


def draw_colours(count: int, bands: int, deviation: float, device: torch.device) -> Tensor:
    """Draw smooth curves over the bands, 0 on average: (count, F)."""
    angles = (torch.arange(bands, device=device) + 0.5) * math.pi / bands
    waves = (torch.arange(1, WAVES + 1, device=device)[:, None] * angles).cos()  # (WAVES, F)
    return torch.randn(count, WAVES, device=device) * deviation @ waves
