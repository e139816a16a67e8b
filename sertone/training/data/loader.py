"""Load batches of waveforms or cached prefixes, with text and targets, ahead of the training.

Batches follow from their items alone, so the number of threads that prepare them changes no result.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from sertone.nn.batch import Batch
from sertone.nn.vocabulary import Vocabulary
from sertone.schema import Utterance
from sertone.training.data.prefix_cache import PrefixCache
from sertone.training.data.waveforms import Waveforms
from sertone.utils.processes import count_cores

AHEAD = 4
"""The number of batches prepared in advance."""
WORKERS = 4
"""The largest number of threads that prepare batches with perturbed waveforms."""


class BatchItem(NamedTuple):
    """One utterance of a batch, and how the batch presents it.

    Attributes:
        utterance: the utterance.
        speed: speed at which it is played.
        withheld: the modality that the model does not get, `audio` or `text`; empty: none.
        seed: seed of the changes of the waveform; None: the waveform as it is.
    """

    utterance: Utterance
    speed: float = 1.0
    withheld: str = ""
    seed: int | None = None


class Loader:
    """Makes batches in threads beside the training; entries that a cache lacks are computed when needed.

    The threads use numpy, scipy and codecs only, because torch's own threads belong to the training. There is
    one thread, or several for perturbed waveforms, which take milliseconds each.

    Args:
        waveforms: waveforms of the utterances.
        vocabulary: vocabulary of the targets.
        min_samples: the minimum length of the encoder's input.
        cache: cache of the encoder's prefix.
        soft: annotators' votes as targets of emotion.
        compare: batches with changed waveforms also contain the unchanged ones (`Batch.clean`).

    Attributes:
        waited: seconds that the training has waited for batches.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        vocabulary: Vocabulary,
        min_samples: int,
        cache: PrefixCache | None = None,
        *,
        soft: bool = False,
        compare: bool = False,
    ) -> None:
        self.waveforms = waveforms
        self.vocabulary = vocabulary
        self.min_samples = min_samples
        self.cache = cache
        self.soft = soft
        self.compare = compare
        self.waited = 0.0

    def pop_waited(self) -> float:
        """Return the seconds waited since the last call."""
        waited, self.waited = self.waited, 0.0
        return waited

    def batches(self, plan: Sequence[Sequence[BatchItem]], tasks: Sequence[str]) -> Iterator[Batch]:
        """Yield batches on the CPU, in the order of the plan.

        Args:
            plan: the items of each batch.
            tasks: whose targets the batches contain.
        """
        perturbs = self.waveforms.are_perturbed and self.cache is None
        with ThreadPoolExecutor(min(WORKERS, count_cores()) if perturbs else 1) as threads:
            pending = deque(threads.submit(self._make_inputs, items) for items in plan[:AHEAD])
            for number, items in enumerate(plan):
                # Only a few batches exist at a time, so memory does not grow with the epoch.
                if number + AHEAD < len(plan):
                    pending.append(threads.submit(self._make_inputs, plan[number + AHEAD]))
                started = time.monotonic()
                inputs = pending.popleft().result()
                self.waited += time.monotonic() - started
                utterances = [item.utterance for item in items]
                targets = {t: self.vocabulary.make_targets(t, utterances, soft=self.soft) for t in tasks}
                text = self._make_text(items) if self.vocabulary.tokenizer else {}
                # An input is None where the thread found no entry: computing runs torch, so it happens here.
                batch, *unchanged = (
                    replace(batch or self._compute_input(version), **text) for version, batch in inputs
                )
                yield replace(batch, targets=targets, clean=unchanged[0] if unchanged else None)

    def _make_inputs(self, items: Sequence[BatchItem]) -> list[tuple[Sequence[BatchItem], Batch | None]]:
        """Return the input of a batch, and that of its unchanged waveforms if training compares both."""
        versions = [items]
        # Where audio is withheld, there is nothing to compare.
        if self.compare and all(item.seed is not None and item.withheld != "audio" for item in items):
            versions.append([item._replace(seed=None) for item in items])
        return [(version, self._make_input(version)) for version in versions]

    def _make_input(self, items: Sequence[BatchItem]) -> Batch | None:
        """Return a batch without targets and text; None where the cache lacks one of the items."""
        if all(item.withheld == "audio" for item in items):  # the model needs no samples, only lengths
            return Batch(None, self._count_samples(items))
        if self.cache is None:
            waveforms = [
                self.waveforms.load(item.utterance, item.speed, self.min_samples, item.seed) for item in items
            ]
            padded = np.zeros((len(items), max(map(len, waveforms))), np.float32)
            for target, samples in zip(padded, waveforms, strict=True):
                target[: len(samples)] = samples
            return Batch(torch.from_numpy(padded), torch.tensor([len(samples) for samples in waveforms]))
        entries = [self.cache.get(item.utterance, item.speed, item.seed) for item in items]
        complete = [entry for entry in entries if entry is not None]
        return self._make_from_cache(items, complete) if len(complete) == len(items) else None

    def _compute_input(self, items: Sequence[BatchItem]) -> Batch:
        """Return a batch from the cache, and compute the entries that it lacks.

        This runs in the thread of the training, because it runs the encoder.
        """
        assert self.cache is not None
        entries = []
        for item in items:
            key = item.utterance, item.speed, item.seed
            entry = self.cache.get(*key)
            entries.append(self.cache.compute(*key) if entry is None else entry)
        return self._make_from_cache(items, entries)

    def _make_from_cache(self, items: Sequence[BatchItem], entries: Sequence[np.ndarray]) -> Batch:
        assert self.cache is not None
        return Batch(None, self._count_samples(items), prefix=self.cache.collate(entries))

    def _count_samples(self, items: Sequence[BatchItem]) -> torch.Tensor:
        lengths = self.waveforms.recordings.lengths
        return torch.tensor([round(lengths[item.utterance.id] / item.speed) for item in items])

    def _make_text(self, items: Sequence[BatchItem]) -> dict[str, Any]:
        """Return the text of a batch, and the mask of the audio where some items withhold it."""
        texts = [None if item.withheld == "text" else item.utterance.text for item in items]
        tokens, counts = self.vocabulary.encode_texts(texts)
        fields: dict[str, Any] = {"tokens": tokens, "counts": counts} if counts.any() else {}
        if any(item.withheld == "audio" for item in items):  # no mask means that all audio counts
            fields["audio_mask"] = torch.tensor([item.withheld != "audio" for item in items])
        return fields
