"""The table of perturbations: what each does, and its strengths from mild to strong.

Axis letters: N samples, M samples after the change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sertone.errors import SertoneError
from sertone.perturb import codec, microphone, noise, room, timing, voice
from sertone.perturb.material import Material
from sertone.perturb.speech_level import mix
from sertone.utils.suggestions import did_you_mean

Apply = Callable[[np.ndarray, float, np.random.Generator, Material], np.ndarray]


@dataclass(frozen=True)
class Perturbation:
    """A change of a recording, with one number for its strength.

    Attributes:
        group: `voice`, `timing`, `room`, `noise`, `microphone` or `codec`.
        label: short description.
        unit: unit of the strength.
        strengths: strengths that an audit measures, from mild to strong.
        apply: samples (N,), strength, random generator, material -> float32, (M,).
        material: field of `Material` that it draws from; empty for none.
    """

    group: str
    label: str
    unit: str
    strengths: tuple[float, ...]
    apply: Apply
    material: str = ""


def _add(make_noise: noise.NoiseMaker) -> Apply:
    """Return the perturbation that adds a noise at a signal-to-noise ratio."""
    return partial(_add_noise, make_noise)


def _add_noise(
    make_noise: noise.NoiseMaker,
    samples: np.ndarray,
    snr_db: float,
    rng: np.random.Generator,
    material: Material,
) -> np.ndarray:
    return mix(samples, make_noise(len(samples), rng, material), snr_db)


SNR = (30.0, 20.0, 15.0, 10.0, 5.0, 0.0)
PERCENT = (1.0, 5.0, 10.0, 20.0, 40.0)

PERTURBATIONS: dict[str, Perturbation] = {
    "reverb": Perturbation("room", "reverberation", "s RT60", (0.2, 0.4, 0.6, 1.0, 1.5), room.reverberate),
    "recorded_room": Perturbation(
        "room", "recorded room", "share", (0.25, 0.5, 1.0), room.apply_recorded_room, "impulse_responses"
    ),
    "white_noise": Perturbation("noise", "white noise", "dB SNR", SNR, _add(noise.white)),
    "pink_noise": Perturbation("noise", "pink noise", "dB SNR", SNR, _add(noise.pink)),
    "brown_noise": Perturbation("noise", "brown noise", "dB SNR", SNR, _add(noise.brown)),
    "hum": Perturbation("noise", "mains hum", "dB SNR", SNR, _add(noise.hum)),
    "music": Perturbation("noise", "synthetic music", "dB SNR", SNR, _add(noise.music)),
    "environment": Perturbation("noise", "synthetic street", "dB SNR", SNR, _add(noise.environment)),
    "babble": Perturbation("noise", "babble of six voices", "dB SNR", SNR, _add(noise.babble), "speech"),
    "bleed": Perturbation("noise", "another voice", "dB SNR", SNR, _add(noise.voice), "speech"),
    "recorded_noise": Perturbation(
        "noise", "recorded noise", "dB SNR", SNR, _add(noise.user_noise), "noises"
    ),
    "low_pass": Perturbation(
        "microphone", "low-pass", "Hz", (7000.0, 5000.0, 4000.0, 2500.0, 1500.0), microphone.low_pass
    ),
    "high_pass": Perturbation(
        "microphone", "high-pass", "Hz", (50.0, 100.0, 200.0, 400.0, 800.0), microphone.high_pass
    ),
    "tilt_down": Perturbation("microphone", "duller", "dB/octave", (-1.0, -3.0, -6.0), microphone.tilt),
    "tilt_up": Perturbation("microphone", "brighter", "dB/octave", (1.0, 3.0, 6.0), microphone.tilt),
    "microphone": Perturbation(
        "microphone", "random response", "dB", (1.0, 3.0, 6.0, 10.0), microphone.colour
    ),
    "clipping": Perturbation("microphone", "clipping", "% of samples", PERCENT, microphone.clip),
    "quiet": Perturbation("microphone", "quiet", "dBFS", (-30.0, -40.0, -50.0, -60.0), microphone.set_level),
    "loud": Perturbation("microphone", "loud", "dBFS", (-15.0, -10.0, -5.0, 0.0), microphone.set_level),
    "telephone": Perturbation("codec", "telephone, G.711", "bits", (8.0, 6.0), codec.telephone),
    "mu_law": Perturbation("codec", "mu-law", "bits", (8.0, 6.0, 4.0), codec.mu_law),
    "amr_nb": Perturbation("codec", "AMR-NB", "kbit/s", (12.2, 7.95, 4.75), codec.AMR_NB),
    "opus": Perturbation("codec", "Opus", "kbit/s", (24.0, 12.0, 6.0), codec.OPUS),
    "mp3": Perturbation("codec", "MP3", "kbit/s", (64.0, 32.0, 16.0, 8.0), codec.MP3),
    "packet_loss": Perturbation("codec", "packet loss", "% of packets", PERCENT, timing.lose_packets),
    "cut": Perturbation("timing", "cut ends", "% of the time", PERCENT, timing.cut_ends),
    "faster": Perturbation("timing", "faster", "%", (2.0, 5.0, 10.0, 20.0), timing.change_speed),
    "slower": Perturbation("timing", "slower", "%", (-2.0, -5.0, -10.0, -20.0), timing.change_speed),
    "pitch_up": Perturbation(
        "timing", "higher pitch", "semitones", (0.5, 1.0, 2.0, 4.0, 8.0), timing.shift_pitch
    ),
    "pitch_down": Perturbation(
        "timing", "lower pitch", "semitones", (-0.5, -1.0, -2.0, -4.0), timing.shift_pitch
    ),
    "whisper": Perturbation("voice", "whispering", "% breath", (25.0, 50.0, 100.0), voice.whisper),
}
"""Name -> perturbation."""

NO_MATERIAL = Material()


def perturb(
    samples: np.ndarray, name: str, strength: float, seed: int, material: Material = NO_MATERIAL
) -> np.ndarray:
    """Change a recording.

    The same arguments give the same samples.

    Args:
        samples: 16 kHz mono, (N,); not changed.
        name: a key of `PERTURBATIONS`.
        strength: in the unit of the perturbation.
        seed: seed of all random numbers.
        material: recordings to draw from.

    Returns:
        float32, (M,). M is N, except for changes of speed and for cuts.

    Raises:
        SertoneError: `unknown_perturbation`, `no_material`.
    """
    if name not in PERTURBATIONS:
        raise SertoneError(
            "unknown_perturbation",
            f"the perturbation {name!r}",
            f"one of {', '.join(PERTURBATIONS)}",
            did_you_mean(name, PERTURBATIONS) or "name one of them",
        )
    rng = np.random.default_rng(seed)
    return PERTURBATIONS[name].apply(samples, strength, rng, material)
