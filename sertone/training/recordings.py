"""Decoded audio, kept in memory, at several speeds; batches made of it.

Axis letters: B batch, N samples.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import soxr
import torch

from sertone import audio
from sertone.errors import AudioError, SertoneError
from sertone.nn.batch import Batch
from sertone.nn.vocabulary import Vocabulary
from sertone.schema import Utterance


class Recordings:
    """Reads each utterance once and keeps it as 16-bit samples.

    Args:
        cache_gb: memory for decoded audio; what does not fit is decoded again when needed.

    Attributes:
        lengths: samples by utterance id, once loaded.
    """

    def __init__(self, cache_gb: float) -> None:
        self.min_samples, self.room = audio.MIN_SAMPLES, int(cache_gb * 1e9)
        self.kept: dict[tuple[str, float], np.ndarray] = {}
        self.lengths: dict[str, int] = {}
        self._warnings: dict[str, list[str]] = defaultdict(list)

    def load(self, utterances: Sequence[Utterance], min_samples: int) -> dict[str, list[str]]:
        """Reads all, so that every unreadable file is known before anything is trained.

        Args:
            utterances: what is read already is not read again.
            min_samples: shorter utterances are padded with silence to this many samples.

        Returns:
            code -> ids of the utterances read now about which there was a warning.

        Raises:
            SertoneError: `unreadable_audio`, naming them.
        """
        self.min_samples = min_samples
        self._warnings.clear()
        errors = []
        for utterance in utterances:
            if utterance.id in self.lengths:
                continue
            try:
                self.lengths[utterance.id] = len(self.samples(utterance))
            except AudioError as error:
                errors.append(f"{error.code}: {error}")
        if errors:
            more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
            raise SertoneError(
                "unreadable_audio",
                f"{len(errors)} of {len(utterances)} recordings: {'; '.join(errors[:5])}{more}",
                way_out="`sertone corpora check` lists them all; mend them or leave them out",
            )
        return dict(self._warnings)

    def samples(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Samples of an utterance, (N,), float32.

        Args:
            utterance: which.
            speed: 0.8 is slower, longer and lower, as when a tape runs slowly.
        """
        key = (utterance.id, speed)
        if key not in self.kept:
            samples = self._read(utterance, speed)
            if self.room < samples.nbytes:
                return samples.astype(np.float32) / 32768.0
            self.kept[key] = samples
            self.room -= samples.nbytes
        return self.kept[key].astype(np.float32) / 32768.0

    def _read(self, utterance: Utterance, speed: float) -> np.ndarray:
        if speed == 1.0:
            recording = audio.read(utterance.path, start_s=utterance.start_s, end_s=utterance.end_s)
            samples = recording.samples
            for code in recording.warnings:
                self._warnings[code].append(utterance.id)
        else:
            rate = audio.SAMPLING_RATE
            samples = soxr.resample(self.samples(utterance), rate * speed, rate)
        samples = np.pad(samples, (0, max(0, self.min_samples - len(samples))))
        return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)

    def batch(
        self,
        utterances: Sequence[Utterance],
        vocabulary: Vocabulary,
        tasks: Sequence[str],
        speeds: Sequence[float] | None = None,
    ) -> Batch:
        """Pads utterances to one batch with the targets of `tasks`.

        Args:
            utterances: B of them.
            vocabulary: of the targets.
            tasks: whose targets are wanted.
            speeds: of each utterance; None for 1.
        """
        rows = [
            torch.from_numpy(self.samples(u, speed))
            for u, speed in zip(utterances, speeds or [1.0] * len(utterances), strict=True)
        ]
        return Batch(
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            torch.tensor([len(row) for row in rows]),
            {task: vocabulary.targets(task, utterances) for task in tasks},
        )
