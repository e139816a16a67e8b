"""The setting `train.perturb`: rooms, noises, microphones and codecs for the training recordings."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from sertone.perturb import PERTURBATIONS
from sertone.recipe.choices import OneOf
from sertone.recipe.settings import Settings


def _list_names(group: str) -> list[str]:
    return [name for name, perturbation in PERTURBATIONS.items() if perturbation.group == group]


class NoiseConfig(Settings):
    """Noise, at a signal-to-noise ratio over the active speech level (ITU-T P.56)."""

    p: float = Field(default=0.5, ge=0, le=1)
    """The share of the recordings that get it."""
    kinds: list[Annotated[str, OneOf(_list_names("noise"))]] = Field(
        default=["white_noise", "pink_noise", "babble", "music", "environment"], min_length=1
    )
    """The noises; each recording gets one of them. `babble` and `bleed` use training recordings, and
    `recorded_noise` those in `folder`."""
    snr_db: tuple[float, float] = (5.0, 30.0)
    """The lowest and the highest signal-to-noise ratio, in dB."""
    folder: str | None = None
    """A folder of noises, for `recorded_noise`."""


class ReverbConfig(Settings):
    """Reverberation."""

    p: float = Field(default=0.3, ge=0, le=1)
    """The share of the recordings that get it."""
    rt60_s: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0, le=10)]] = (0.2, 1.0)
    """The shortest and the longest reverberation time (RT60), in seconds."""
    folder: str | None = None
    """A folder of impulse responses, which then replace the random rooms."""


class MicrophoneConfig(Settings):
    """Microphones and amplifiers, each at one of its strengths in `PERTURBATIONS`."""

    p: float = Field(default=0.3, ge=0, le=1)
    """The share of the recordings that get one."""
    kinds: list[Annotated[str, OneOf(_list_names("microphone"))]] = Field(
        default=["low_pass", "high_pass", "tilt_down", "tilt_up", "microphone", "quiet", "loud"], min_length=1
    )
    """The changes; each recording gets one of them."""


class CodecConfig(Settings):
    """Voice and music coding, each at one of its strengths in `PERTURBATIONS`."""

    p: float = Field(default=0.2, ge=0, le=1)
    """The share of the recordings that are coded."""
    kinds: list[Annotated[str, OneOf(_list_names("codec"))]] = Field(
        default=["telephone", "amr_nb", "opus", "mp3"], min_length=1
    )
    """The codecs; each recording gets one of them."""


class PerturbConfig(Settings):
    """Perturbations of the training recordings, in the order in which sound passes them.

    Each part is off unless it is given: `noise: {}` has its defaults.
    """

    reverb: ReverbConfig | None = None
    """Reverberation."""
    noise: NoiseConfig | None = None
    """Noise."""
    microphone: MicrophoneConfig | None = None
    """Microphones and amplifiers."""
    codec: CodecConfig | None = None
    """Voice and music coding."""

    @property
    def is_active(self) -> bool:
        """Return whether any part is on."""
        return bool(self.reverb or self.noise or self.microphone or self.codec)

    @model_validator(mode="after")
    def _require_folder(self) -> Self:
        if self.noise and ("recorded_noise" in self.noise.kinds) != bool(self.noise.folder):
            raise ValueError("noise.folder and the kind recorded_noise belong together; give both or none")
        return self

    @model_validator(mode="after")
    def _require_lowest_first(self) -> Self:
        ranges = {
            "noise.snr_db": self.noise.snr_db if self.noise else (0, 0),
            "reverb.rt60_s": self.reverb.rt60_s if self.reverb else (0, 0),
        }
        for name, (low, high) in ranges.items():
            if low > high:
                raise ValueError(f"{name} [{low:g}, {high:g}]; expected the lower number first")
        return self
