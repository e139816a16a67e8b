"""Synthetic speech with the durations of IEMOCAP's four classes: noise, labels, texts. No files."""

import hashlib
import math
from pathlib import Path

import numpy as np

from sertone.schema import Utterance

COUNT, MEAN_S, SHORTEST_S, LONGEST_S = 5531, 4.55, 0.58, 34.14
SPREAD = 0.6  # of the logarithm: random batches of 4, 8, 16, 32 then compute 1.72, 2.13, 2.51, 2.96 times
EMOTIONS = ("neutral", "happy", "angry", "sad")


def durations(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Log-normal durations in seconds, clipped as IEMOCAP's are."""
    draw = np.random.default_rng(seed)
    logarithms = math.log(MEAN_S) - SPREAD**2 / 2 + SPREAD * draw.standard_normal(count)
    return np.clip(np.exp(logarithms), SHORTEST_S, LONGEST_S)


class Speech:
    """Utterances of noise; what a trainer asks of `Recordings`, without decoding.

    Args:
        count: utterances.
        seed: of durations and labels.
        scale: of the durations.
    """

    speeds = (1.0,)

    def __init__(self, count: int = COUNT, seed: int = 0, scale: float = 1.0) -> None:
        draw = np.random.default_rng(seed + 1)
        self.utterances, self.lengths, self.hashes = [], {}, {}
        self._made: dict[str, np.ndarray] = {}
        for number, seconds in enumerate(durations(count, seed) * scale):
            id_ = f"Ses{number:05d}"
            text = "".join(draw.choice(list("abcdefghijkl mnop"), max(1, int(10 * seconds))))
            labels: dict[str, str | float] = {
                "emotion": EMOTIONS[draw.integers(4)],
                "gender": "FM"[draw.integers(2)],
                "style": ("scripted", "improvised")[draw.integers(2)],
            }
            speaker = f"speaker {draw.integers(8)}"
            found = Utterance(id=id_, path=Path(id_), speaker=speaker, labels=labels, text=text)
            self.utterances.append(found)
            self.lengths[id_] = int(seconds * 16000)
            self.hashes[id_] = hashlib.sha256(id_.encode()).digest()

    @property
    def seconds(self) -> float:
        """Of all utterances."""
        return sum(self.lengths.values()) / 16000

    def samples(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Noise, the same for the same utterance, int16."""
        if utterance.id not in self._made:
            draw = np.random.default_rng(int(utterance.id[3:]))
            noise = draw.standard_normal(self.lengths[utterance.id]) * 3000
            self._made[utterance.id] = noise.astype(np.int16)
        return self._made[utterance.id]
