"""Synthetic speech with the durations of IEMOCAP's four classes: noise, labels and texts, without files."""

import hashlib
import math
from pathlib import Path

import numpy as np

from sertone.schema import Utterance

COUNT, MEAN_S, SHORTEST_S, LONGEST_S = 5531, 4.55, 0.58, 34.14
# Standard deviation of the logarithm. With it, random batches of 4, 8, 16 and 32 compute 1.72, 2.13, 2.51 and
# 2.96 times the audio without padding.
SPREAD = 0.6
EMOTIONS = ("neutral", "happy", "angry", "sad")


def durations(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Return log-normal durations in seconds, clipped to the range of IEMOCAP."""
    rng = np.random.default_rng(seed)
    # The mean of a log-normal variable is exp(mu + sigma^2 / 2).
    logarithms = math.log(MEAN_S) - SPREAD**2 / 2 + SPREAD * rng.standard_normal(count)
    return np.clip(np.exp(logarithms), SHORTEST_S, LONGEST_S)


class Speech:
    """Utterances of noise, with the interface of `Recordings` that a trainer needs.

    Args:
        count: number of utterances.
        seed: seed of durations and labels.
        scale: factor of the durations.
    """

    speeds = (1.0,)

    def __init__(self, count: int = COUNT, seed: int = 0, scale: float = 1.0) -> None:
        rng = np.random.default_rng(seed + 1)
        self.utterances: list[Utterance] = []
        self.lengths: dict[str, int] = {}
        self.hashes: dict[str, bytes] = {}
        self._noise: dict[str, np.ndarray] = {}
        for number, seconds in enumerate(durations(count, seed) * scale):
            id_ = f"Ses{number:05d}"
            text = "".join(rng.choice(list("abcdefghijkl mnop"), max(1, int(10 * seconds))))
            labels: dict[str, str | float] = {
                "emotion": EMOTIONS[rng.integers(4)],
                "gender": "FM"[rng.integers(2)],
                "style": ("scripted", "improvised")[rng.integers(2)],
            }
            speaker = f"speaker {rng.integers(8)}"
            utterance = Utterance(id=id_, path=Path(id_), speaker=speaker, labels=labels, text=text)
            self.utterances.append(utterance)
            self.lengths[id_] = int(seconds * 16000)
            self.hashes[id_] = hashlib.sha256(id_.encode()).digest()

    @property
    def seconds(self) -> float:
        """Total duration in seconds."""
        return sum(self.lengths.values()) / 16000

    def samples(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Return int16 noise, always the same for the same utterance."""
        if utterance.id not in self._noise:
            rng = np.random.default_rng(int(utterance.id[3:]))
            noise = rng.standard_normal(self.lengths[utterance.id]) * 3000
            self._noise[utterance.id] = noise.astype(np.int16)
        return self._noise[utterance.id]
