"""`functionals`: an encoder without layers to learn, for small corpora: statistics of the whole utterance.

It follows openSMILE's feature sets (Eyben et al. 2016, doi 10.1109/TAFFC.2015.2457417), computed in the graph
from the front end's log-mel energies and prosody: means, spreads, skewness, slopes, contours, changes and
correlations over the voiced, the unvoiced and all speech frames. In training the spectrum is perturbed
before.

Axis letters: B batch, T frames, C features, D width.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn.encoders.augmentation import SpectrumPerturbation, perturb_spectra
from sertone.nn.encoders.base import Encoder, EncoderSettings, Footprint
from sertone.nn.encoders.frontend import HOP, MEMORY, FrontEnd
from sertone.nn.encoders.functional_statistics import (
    PLACES,
    STATISTICS,
    Regions,
    Signals,
    cosine_transform,
    moments,
)
from sertone.recipe.choices import OneOf

STACK = 10
"""Number of 10 ms frames that become one frame of the output."""
LIMIT = 5.0
"""Standard deviations at which a standardised feature is cut off."""


class FunctionalsEncoderConfig(EncoderSettings):
    """Statistics of the utterance."""

    is_description: ClassVar = True

    name: Literal["functionals"] = "functionals"
    bands: int = Field(default=64, ge=8)
    """The number of mel bands."""
    cepstra: int = Field(default=20, ge=1)
    """The number of cepstral coefficients, at most `bands`."""
    perturbation: SpectrumPerturbation = SpectrumPerturbation()
    """The random changes of the spectrum in training."""
    statistics: list[Annotated[str, OneOf(STATISTICS)]] = Field(default=list(STATISTICS))
    """These are added to means and standard deviations of voiced, unvoiced and all speech. `thirds` are means
    of each third of the utterance, `changes` are changes from frame to frame, `slopes` and `contours` run
    over the utterance. `correlations` are those of pitch, voicing, loudness and spectrum. `rhythm` counts
    segments of speech and of voice per second and measures their length. The order of the list has no
    effect."""

    @model_validator(mode="after")
    def _require_no_more_cepstra_than_bands(self) -> Self:
        if self.cepstra > self.bands:
            raise ValueError(f"{self.cepstra} cepstra of {self.bands} bands; there are no more than bands")
        return self

    @field_validator("statistics")
    @classmethod
    def _sort_statistics(cls, value: list[str]) -> list[str]:
        return [name for name in STATISTICS if name in value]

    def build(self) -> Encoder:
        """Build it; only one scale and one offset for each statistic are learned."""
        return FunctionalsEncoder(self)


class FunctionalsEncoder(Encoder):
    """Front end, statistics (hidden state 0), standardised (hidden state 1); the same at every frame."""

    cosines: Tensor

    def __init__(self, config: FunctionalsEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.depth = 1
        self.frontend = FrontEnd(config.bands, prosody=True)
        self.min_samples = self.frontend.min_samples
        self.register_buffer("cosines", cosine_transform(config.bands, config.cepstra), persistent=False)
        # The statistics of one empty frame tell the width; on the CPU, also where the meta device is on.
        empty = torch.zeros(1, 1, self.frontend.feature_count, device="cpu")
        self.width = self.statistics(empty, torch.ones(1, 1, device="cpu")).shape[1]
        self.standardisation = Standardisation(self.width)

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        return self.config.model_dump()

    def footprint(self, fused: bool) -> Footprint:
        """Return the memory of the front end: the layer keeps one vector for each utterance."""
        return Footprint(STACK * HOP, 0, 0, MEMORY)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features and a one for every real frame, `STACK` frames to one: (B, T, STACK C), frames (B,)."""
        features, frames = self.frontend(waveforms, lengths)
        # The mask of output frames is ten times coarser, so the features carry the mask of 10 ms frames.
        real = torch.arange(features.shape[1], device=frames.device) < frames[:, None]
        features = torch.cat([features, real[..., None].to(features.dtype)], -1)
        features = F.pad(features, (0, 0, 0, -features.shape[1] % STACK))
        stacked = features.unflatten(1, (-1, STACK)).flatten(2)
        return stacked, torch.div(frames + STACK - 1, STACK, rounding_mode="floor")

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Statistics of each utterance, repeated at its frames: (B, T, STACK C) -> (B, T, D)."""
        unstacked = features.float().unflatten(2, (STACK, -1)).flatten(1, 2)
        signals, real = unstacked[..., :-1], unstacked[..., -1]
        if self.standardisation.training:
            signals = perturb_spectra(signals, self.config.bands, self.config.perturbation) * real[..., None]
        return self.statistics(signals, real)[:, None].expand(-1, features.shape[1], -1)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def statistics(self, signals: Tensor, real: Tensor) -> Tensor:
        """Return all functionals: mel bands and prosody (B, T, C), real frames (B, T) -> (B, D)."""
        mel = signals[..., : self.config.bands]
        prosody = signals[..., self.config.bands :]
        cepstra = mel @ self.cosines
        region = Regions.detect(prosody, real)
        s = Signals(cepstra, prosody, torch.cat([cepstra, prosody], -1), real, region)
        values = [
            *moments(mel, region.voiced),
            *moments(s.all, region.voiced),
            *moments(cepstra, region.unvoiced),
            *moments(prosody, region.speech),
            *moments(prosody, real),
        ]
        for name in PLACES:
            if name in self.config.statistics:
                values += STATISTICS[name](s)
        return torch.cat([*values, region.durations(real)], -1)

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        return {}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        return self.standardisation(hidden[:, 0])[:, None].expand_as(hidden)

    def parts(self) -> list[list[nn.Module]]:
        return [[self.frontend], [self.standardisation]]


class Standardisation(nn.Module):
    """Mean 0 and variance 1 over all rows seen in training so far, then a learned scale and offset.

    Not batch norm: a row is standardised by all rows so far, at every step of training as later, and not by
    its neighbours. A value more than `LIMIT` deviations out is cut off, so that a recording of another kind
    cannot outweigh all other values. With several processes the rows of the first one count.
    """

    seen: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.offset = nn.Parameter(torch.zeros(width))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """Standardise the rows: (B, D) -> (B, D)."""
        if self.training:
            self._update(values.detach().float())
        standard = (values - self.mean) / (self.variance + 1e-6).sqrt()
        return standard.clamp(-LIMIT, LIMIT) * self.scale + self.offset

    def _update(self, values: Tensor) -> None:
        """Add the rows of a batch to mean and variance (Chan et al. 1979)."""
        share = len(values) / (self.seen + len(values))
        difference = values.mean(0) - self.mean
        within = (1 - share) * self.variance + share * values.var(0, correction=0)
        self.variance.copy_(within + share * (1 - share) * difference.square())
        self.mean.add_(share * difference)
        self.seen.add_(len(values))
