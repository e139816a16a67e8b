"""Perturb training recordings: rooms, noises, microphones and codecs, drawn from one seed per recording.

No torch is used, because batches are made in threads beside the training.

Axis letters: N samples.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sertone.perturb import PERTURBATIONS, Material
from sertone.perturb.material import Recorded
from sertone.recipe.perturb_config import PerturbConfig, ReverbConfig
from sertone.schema import Utterance
from sertone.training.data.recordings import Recordings

FULL_SCALE = 2.0**15

Draw = Callable[[np.random.Generator], tuple[str, float]]
"""Draws the name of a perturbation and its strength."""


class TrainingSpeech:
    """The training recordings of a fold, as voices for babble. Test speakers are not among them.

    Args:
        recordings: decoded audio.
        utterances: utterances of the training set.
    """

    def __init__(self, recordings: Recordings, utterances: Sequence[Utterance]) -> None:
        self._recordings = recordings
        self._utterances = utterances

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._recordings.samples(self._utterances[index]) / np.float32(FULL_SCALE)


class Perturber:
    """Perturb recordings as `train.perturb` says.

    Args:
        config: parts to use.
        speech: utterances for babble.

    Attributes:
        material: what the perturbations draw from.

    Raises:
        SertoneError: as `Material.load`.
    """

    def __init__(self, config: PerturbConfig, speech: Recorded) -> None:
        self._parts = _list_parts(config)
        self.material = Material.load(
            speech,
            Path(config.noise.folder) if config.noise and config.noise.folder else None,
            Path(config.reverb.folder) if config.reverb and config.reverb.folder else None,
        )

    def __call__(self, samples: np.ndarray, seed: int) -> np.ndarray:
        """Return the perturbed recording; the same seed gives the same one.

        Args:
            samples: in the range of 16-bit integers, (N,).
            seed: seed of all draws.

        Returns:
            float32, (N,), in the same range.
        """
        # The second number keeps this stream apart from that of the augmentation, which has the same seed.
        rng = np.random.default_rng([seed, 1])
        perturbed = samples.astype(np.float32) / np.float32(FULL_SCALE)
        for p, draw in self._parts:
            if rng.random() < p:
                name, strength = draw(rng)
                perturbed = PERTURBATIONS[name].apply(perturbed, strength, rng, self.material)
        return perturbed * np.float32(FULL_SCALE)


def _list_parts(config: PerturbConfig) -> list[tuple[float, Draw]]:
    """Return the probability of each active part and its draw, in the order in which sound passes them."""
    parts: list[tuple[float, Draw]] = []
    if config.reverb:
        parts.append((config.reverb.p, _draw_room(config.reverb)))
    if config.noise:
        parts.append((config.noise.p, partial(_draw_between, config.noise.kinds, config.noise.snr_db)))
    for part in (config.microphone, config.codec):
        if part:
            parts.append((part.p, partial(_draw_from_table, part.kinds)))
    return parts


def _draw_room(config: ReverbConfig) -> Draw:
    if config.folder:
        return partial(_draw_between, ["recorded_room"], (1.0, 1.0))
    return partial(_draw_between, ["reverb"], config.rt60_s)


def _draw_between(
    kinds: Sequence[str], limits: tuple[float, float], rng: np.random.Generator
) -> tuple[str, float]:
    return kinds[int(rng.integers(len(kinds)))], float(rng.uniform(*limits))


def _draw_from_table(kinds: Sequence[str], rng: np.random.Generator) -> tuple[str, float]:
    """Draw one of the strengths of the table: codecs have fixed rates and whole bits."""
    name = kinds[int(rng.integers(len(kinds)))]
    return name, float(rng.choice(PERTURBATIONS[name].strengths))
