"""Waveforms as a recipe wants them: perturbed and augmented, from one seed per utterance.

With `train.versions` an utterance has a few seeds, which depend on its id alone, so folds and runs share what
a cache keeps for them. Otherwise every epoch draws new seeds.

Axis letters: N samples.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

import sertone.perturb
from sertone.perturb import Material
from sertone.recipe.train_config import TrainingConfig
from sertone.schema import Utterance
from sertone.training.data import augmentation, perturber
from sertone.training.data.perturber import Perturber, TrainingSpeech
from sertone.training.data.recordings import Recordings

VOICES = {"babble", "bleed"}
"""Perturbations that use other training recordings, so that every fold has its own."""


class Waveforms:
    """The waveforms of a fold: recordings, perturbed and augmented where an item has a seed.

    Args:
        recordings: decoded audio.
        config: the settings `augmentation` and `perturb`; None changes nothing.
        utterances: utterances of the training set.

    Attributes:
        are_perturbed: True where waveforms with a seed are perturbed.
        is_fold_specific: True where the changes depend on the training set.

    Raises:
        SertoneError: as `Perturber`.
    """

    def __init__(
        self,
        recordings: Recordings,
        config: TrainingConfig | None = None,
        utterances: Sequence[Utterance] = (),
    ) -> None:
        self.recordings = recordings
        self._config = config or TrainingConfig(batch_size=1)
        perturb = self._config.perturb
        self.are_perturbed = perturb.is_active
        self._perturber = Perturber(perturb, TrainingSpeech(recordings, utterances))
        self.is_fold_specific = bool(perturb.noise and VOICES & set(perturb.noise.kinds))
        ids = [recordings.hashes[u.id].hex() for u in utterances] if self.is_fold_specific else []
        changes = self._config.changes_waveforms
        self._changes_name = _hash_changes(self._config, ids, self._perturber.material) if changes else ""

    def load(
        self, utterance: Utterance, speed: float, min_samples: int, seed: int | None = None
    ) -> np.ndarray:
        """Return samples (N,), float32, padded with silence to the minimum length of the encoder.

        Args:
            utterance: utterance to load.
            speed: speed at which it is played.
            min_samples: the minimum length of the encoder.
            seed: seed of the changes; None: the recording as it is.
        """
        samples = self.recordings.samples(utterance, speed)
        if seed is not None:
            samples = self._change(samples, seed)
        padded = np.zeros(max(len(samples), min_samples), np.float32)
        # From the range of 16-bit integers to [-1, 1).
        np.multiply(samples, np.float32(1 / 32768), out=padded[: len(samples)])
        return padded

    def make_key(self, utterance: Utterance, speed: float, seed: int | None) -> str:
        """Return a text that two waveforms share only if they are equal; arguments as for `load`."""
        # The hash of the samples, not the id: the same recording in another corpus is the same entry.
        key = f"{self.recordings.hashes[utterance.id].hex()} {speed}"
        return key if seed is None else f"{key} {self._changes_name} {seed}"

    def _change(self, samples: np.ndarray, seed: int) -> np.ndarray:
        """Perturb and augment samples in the range of 16-bit integers, (N,), to as many or fewer."""
        if self._config.perturb.is_active:
            samples = self._perturber(samples, seed)
        if self._config.augmentation.is_active:
            samples = augmentation.augment(samples, seed, self._config.augmentation)
        return samples


def draw_seeds(
    config: TrainingConfig, utterances: Sequence[Utterance], rng: np.random.Generator
) -> list[int | None]:
    """Draw the seed of each utterance's changes for one epoch; None where the waveforms stay as they are."""
    # Without changes nothing is drawn, so runs without them keep their random numbers.
    if not config.changes_waveforms:
        return [None] * len(utterances)
    if config.versions is None:
        return rng.integers(2**62, size=len(utterances)).tolist()
    numbers = rng.integers(config.versions, size=len(utterances)).tolist()
    return [make_version_seed(u, number) for u, number in zip(utterances, numbers, strict=True)]


def make_version_seed(utterance: Utterance, number: int) -> int:
    """Return the seed of one of the versions of an utterance."""
    return int.from_bytes(hashlib.sha256(f"{utterance.id} {number}".encode()).digest()[:7])


def _hash_changes(config: TrainingConfig, ids: Sequence[str], material: Material) -> str:
    """Return a hash of everything except recording and seed that the changed waveforms depend on."""
    settings = config.model_dump(mode="json", include={"augmentation", "perturb"})
    # Other versions may round differently.
    versions = [version(package) for package in ("numpy", "scipy", "soxr", "av", "python-stretch")]
    digest = hashlib.sha256(json.dumps([settings, ids, versions], sort_keys=True).encode())
    for recordings in (material.noises, material.impulse_responses):
        for number in range(len(recordings)):
            digest.update(recordings[number].tobytes())
    code = (Path(augmentation.__file__), Path(perturber.__file__))
    for path in sorted([*Path(sertone.perturb.__path__[0]).glob("*.py"), *code]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
