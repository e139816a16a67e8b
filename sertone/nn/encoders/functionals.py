"""`functionals`: an encoder without layers to learn, for small corpora: statistics of the whole utterance.

What openSMILE's feature sets do (Eyben et al. 2016, doi 10.1109/TAFFC.2015.2457417), computed in the graph
from the front end's log-mel energies and prosody: means, spreads, skewness, slopes, contours, changes and
correlations over the voiced, the unvoiced and all speech frames. In training the spectrum is perturbed
before.

Axis letters: B batch, T frames, C features, D width.
"""

from typing import Any, Literal, Self, get_args

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn.encoders.augmentation import Perturbation, perturb
from sertone.nn.encoders.base import Encoder, Footprint
from sertone.nn.encoders.frontend import HOP, MEMORY, FrontEnd
from sertone.nn.encoders.functional_statistics import (
    Regions,
    contours,
    correlated_signals,
    correlations,
    cosine_transform,
    delta_statistics,
    means_of_thirds,
    moments,
    segment_statistics,
    skewness,
    slope,
)
from sertone.recipe.settings import Settings

STACK = 10
"""Frames of 10 ms that one frame of the output stands for."""
LIMIT = 5.0
"""Standard deviations at which a standardised feature is cut off."""
Further = Literal["thirds", "skewness", "changes", "slopes", "contours", "correlations", "rhythm"]
"""Statistics beside means and deviations."""


class FunctionalsEncoderConfig(Settings):
    """Statistics of the utterance."""

    name: Literal["functionals"] = "functionals"
    bands: int = Field(default=64, ge=8)
    """The number of mel bands."""
    cepstra: int = Field(default=20, ge=1)
    """The number of cepstral coefficients, at most `bands`."""
    perturbation: Perturbation = Perturbation()
    """The random changes of the spectrum in training."""
    statistics: list[Further] = Field(default=list(get_args(Further)))
    """These are added to means and standard deviations of voiced, unvoiced and all speech. `thirds` are means
    of each third of the utterance, `changes` are changes from frame to frame, `slopes` and `contours` run
    over the utterance. `correlations` are those of pitch, voicing, loudness and spectrum. `rhythm` counts
    segments of speech and of voice per second and measures their length. The order of the list has no
    effect."""

    @model_validator(mode="after")
    def _no_more_cepstra_than_bands(self) -> Self:
        if self.cepstra > self.bands:
            raise ValueError(f"{self.cepstra} cepstra of {self.bands} bands; there are no more than bands")
        return self

    @field_validator("statistics")
    @classmethod
    def _one_order(cls, value: list[Further]) -> list[Further]:
        return [name for name in get_args(Further) if name in value]

    def build(self) -> Encoder:
        """Builds it; it has one scale and one offset for each statistic to learn."""
        return FunctionalsEncoder(self)


class FunctionalsEncoder(Encoder):
    """Front end, statistics (hidden state 0), standardised (hidden state 1); the same at every frame."""

    cosines: Tensor

    def __init__(self, config: FunctionalsEncoderConfig) -> None:
        super().__init__()
        self.config, self.depth = config, 1
        self.frontend = FrontEnd(config.bands, prosody=True)
        self.min_samples = self.frontend.min_samples
        self.register_buffer("cosines", cosine_transform(config.bands, config.cepstra), persistent=False)
        empty = torch.zeros(1, 1, self.frontend.feature_count, device="cpu")
        self.width = self.statistics(empty, torch.ones(1, 1, device="cpu")).shape[1]
        self.standardisation = Standardisation(self.width)

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        return self.config.model_dump()

    def footprint(self, fused: bool) -> Footprint:
        """The front end, whose frames are then statistics of the utterance."""
        return Footprint(STACK * HOP, 0, 0, MEMORY)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features and a one for every real frame, `STACK` frames to one: (B, T, STACK C), frames (B,)."""
        features, frames = self.frontend(waveforms, lengths)
        real = torch.arange(features.shape[1], device=frames.device) < frames[:, None]
        features = torch.cat([features, real[..., None].to(features.dtype)], -1)
        features = F.pad(features, (0, 0, 0, -features.shape[1] % STACK))
        stacked = features.unflatten(1, (-1, STACK)).flatten(2)
        return stacked, torch.div(frames + STACK - 1, STACK, rounding_mode="floor")

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Statistics of each utterance, repeated at its frames: (B, T, STACK C) -> (B, T, D)."""
        every = features.float().unflatten(2, (STACK, -1)).flatten(1, 2)
        signals, real = every[..., :-1], every[..., -1]
        if self.standardisation.training:
            signals = perturb(signals, self.config.bands, self.config.perturbation) * real[..., None]
        return self.statistics(signals, real)[:, None].expand(-1, features.shape[1], -1)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def statistics(self, signals: Tensor, real: Tensor) -> Tensor:
        """All functionals: (B, T, C) of which the first are mel bands, real frames (B, T) -> (B, D)."""
        mel, prosody = signals[..., : self.config.bands], signals[..., self.config.bands :]
        cepstra = mel @ self.cosines
        both = torch.cat([cepstra, prosody], -1)
        region = Regions.detect(prosody, real)
        further = {  # a trained model knows them by their places: another order is another format
            "thirds": lambda: [means_of_thirds(prosody, region.speech)],
            "skewness": lambda: [skewness(both, region.voiced)],
            "slopes": lambda: [slope(both, region.speech, region.voiced)],
            "changes": lambda: delta_statistics(cepstra, prosody, region),
            "contours": lambda: contours(cepstra, prosody, region),
            "correlations": lambda: [correlations(correlated_signals(cepstra, prosody), region.voiced)],
            "rhythm": lambda: [segment_statistics(part, real) for part in (region.speech, region.voiced)],
        }
        found = [
            *moments(mel, region.voiced),
            *moments(both, region.voiced),
            *moments(cepstra, region.unvoiced),
            *moments(prosody, region.speech),
            *moments(prosody, real),
        ]
        for name, values in further.items():
            found += values() if name in self.config.statistics else []
        return torch.cat([*found, region.shares(real)], -1)

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        return {}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        return self.standardisation(hidden[:, 0])[:, None].expand_as(hidden)

    def parts(self) -> list[list[nn.Module]]:
        return [[self.frontend], [self.standardisation]]


class Standardisation(nn.Module):
    """Mean 0 and variance 1 over all that training has seen so far, then a learnt scale and offset.

    Not batch norm: a row is standardised by what was seen, at every step of training as later, and not by
    its neighbours. What lies more than `LIMIT` deviations out is cut off: a recording of another kind shall
    not outweigh all else. Of several ranks the first one's rows count.
    """

    seen: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        if self.training:
            self._see(values.detach().float())
        standard = (values - self.mean) / (self.variance + 1e-6).sqrt()
        return standard.clamp(-LIMIT, LIMIT) * self.scale + self.offset

    def _see(self, values: Tensor) -> None:
        """Adds the rows of a batch to mean and variance (Chan et al. 1979)."""
        share = len(values) / (self.seen + len(values))
        apart = values.mean(0) - self.mean
        spread = (1 - share) * self.variance + share * values.var(0, correction=0)
        self.variance.copy_(spread + share * (1 - share) * apart.square())
        self.mean.add_(share * apart)
        self.seen.add_(len(values))
