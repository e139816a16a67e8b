"""Decode recordings and keep them as 16-bit samples, at several speeds, in a store that processes share.

This module does not import torch, so child processes that decode start in a fraction of a second.

Axis letters: N samples.
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import soxr

from sertone import audio
from sertone.audio import SAMPLING_RATE
from sertone.audio.isolated import DECODER_TIMEOUT_S, borrow_decoder, build_decoder_error
from sertone.errors import AudioError, SertoneError
from sertone.schema import Utterance
from sertone.training.data import duplicates
from sertone.training.data.array_store import ArrayStore
from sertone.utils.processes import ChildDiedError, count_cores, run_parallel
from sertone.utils.wording import format_count

PARALLEL_FROM = 256
"""The number of recordings from which several decoding processes save more time than their start takes."""

Decoded = tuple[dict[float, np.ndarray], list[str]]
"""Speed -> samples (N,), int16; codes of warnings."""


class Recordings:
    """Decoded recordings; each utterance is read once and stored as 16-bit samples.

    Unpickling shares the store with the process that created it.

    Args:
        cache_gb: memory for decoded audio; recordings that do not fit are decoded again when needed.
        speeds: the playback speeds (`TrainingConfig.playback_speeds`). 0.8 is slower, longer and lower, like
            a tape that runs slowly.

    Attributes:
        lengths: samples at speed 1 by utterance id, once loaded.
        hashes: SHA-256 of these samples by utterance id.
        sketches: loudness sketches by utterance id, see `duplicates`.
        likely_copies: pairs of ids in two sets of a fold that sound like copies, once the folds are checked.
    """

    def __init__(self, cache_gb: float, speeds: Sequence[float] = (1.0,)) -> None:
        # Speed 1 comes first: lengths, hashes and sketches need it. `fromkeys` drops repetitions in order.
        self.speeds = tuple(dict.fromkeys([1.0, *speeds]))
        self.store = ArrayStore(limit=int(cache_gb * 1e9))
        self.lengths: dict[str, int] = {}
        self.hashes: dict[str, bytes] = {}
        self.sketches: dict[str, np.ndarray] = {}
        self.likely_copies: list[duplicates.Pair] = []

    @property
    def seconds(self) -> float:
        """The duration of all recordings at all speeds."""
        return sum(self.lengths.values()) / SAMPLING_RATE * sum(1 / speed for speed in self.speeds)

    def load(self, utterances: Iterable[Utterance], children: int | None = None) -> dict[str, list[str]]:
        """Decode all utterances, so that unreadable files are reported before training starts.

        Args:
            utterances: utterances to load; those that are loaded already are skipped.
            children: processes that decode; None: one, or one per core where there are many recordings.

        Returns:
            Warning code -> ids of the utterances, among those decoded now.

        Raises:
            SertoneError: `unreadable_audio`, with the first five recordings.
        """
        new = {u.id: u for u in utterances if u.id not in self.lengths}
        if children is None:
            children = count_cores() if len(new) >= PARALLEL_FROM else 1
        warnings: dict[str, list[str]] = defaultdict(list)
        errors: dict[str, str] = {}
        for id_, result in self._decode_all(new.values(), children):
            if isinstance(result, SertoneError):
                errors[id_] = f"{result.code}: {result}"
                continue
            variants, codes = result
            self._store(id_, variants)
            for code in codes:
                warnings[code].append(id_)
        _require_readable(list(new), errors)
        return dict(warnings)

    def load_with_warnings(self, utterances: Iterable[Utterance]) -> list[str]:
        """Load as `load`, and return a line per kind of warning, with the number of recordings and examples.

        Args:
            utterances: utterances to load.

        Raises:
            SertoneError: `unreadable_audio`.
        """
        return [
            f"{format_count(len(ids), 'recording')} with a warning, {code.replace('_', ' ')}: "
            + ", ".join(ids[:3])
            + (", ..." if len(ids) > 3 else "")
            for code, ids in self.load(utterances).items()
        ]

    def samples(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Return the samples of an utterance at a speed, (N,), int16."""
        stored = self.store.get(_make_key(utterance.id, speed))
        if stored is not None:
            return stored
        variants, _ = decode(utterance, (speed,))  # the store was full
        return variants[speed]

    def _decode_all(
        self, utterances: Iterable[Utterance], children: int
    ) -> Iterable[tuple[str, Decoded | AudioError]]:
        """Yield the id of each utterance with the result of `decode`, or with its error."""
        if children == 1:
            for utterance in utterances:
                yield utterance.id, self._decode_isolated(utterance)
            return
        calls = ((utterance, self.speeds) for utterance in utterances)
        results = run_parallel([{}] * children, decode, calls, timeout_s=DECODER_TIMEOUT_S)
        with contextlib.closing(results) as finished:
            for (utterance, _), future in finished:
                error = future.exception()
                if isinstance(error, ChildDiedError):  # a decoder that crashes or hangs on a broken file
                    error = build_decoder_error(utterance.path, error)
                if error and not isinstance(error, AudioError):
                    raise error
                yield utterance.id, error or future.result()

    def _decode_isolated(self, utterance: Utterance) -> Decoded | AudioError:
        """Decode one utterance in the child process that also decodes for predictions."""
        with borrow_decoder() as child:
            try:
                return child(decode, utterance, self.speeds)
            except ChildDiedError as error:
                return build_decoder_error(utterance.path, error)
            except AudioError as error:
                return error

    def _store(self, id_: str, variants: dict[float, np.ndarray]) -> None:
        self.lengths[id_] = len(variants[1.0])
        self.hashes[id_] = hashlib.sha256(variants[1.0].tobytes()).digest()
        self.sketches[id_] = duplicates.compute_sketch(variants[1.0])
        # A full store refuses the array: `samples` then decodes the recording again.
        for speed, samples in variants.items():
            self.store.put(_make_key(id_, speed), samples)


def _require_readable(ids: Sequence[str], errors: dict[str, str]) -> None:
    """Refuse unreadable recordings, in the order of the corpus."""
    if not errors:
        return
    descriptions = [errors[id_] for id_ in ids if id_ in errors]
    more = f"; and {len(descriptions) - 5} more" if len(descriptions) > 5 else ""
    raise SertoneError(
        "unreadable_audio",
        f"{len(descriptions)} of {format_count(len(ids), 'recording')}: {'; '.join(descriptions[:5])}{more}",
        way_out="`sertone corpora check` lists them all; repair them or leave them out",
    )


def decode(utterance: Utterance, speeds: Sequence[float]) -> Decoded:
    """Read one utterance and resample it to each speed.

    Returns:
        Speed -> samples (N,), int16; the codes of the recording's warnings.

    Raises:
        AudioError: as `audio.read`.
    """
    recording = audio.read(utterance.path, start_s=utterance.start_s, end_s=utterance.end_s)
    variants = {}
    for speed in speeds:
        samples = recording.samples
        if speed != 1.0:
            # As if recorded at 16 kHz times the speed: a speed below 1 makes the recording longer.
            samples = soxr.resample(samples, SAMPLING_RATE * speed, SAMPLING_RATE)
        variants[speed] = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return variants, list(recording.warnings)


def _make_key(id_: str, speed: float) -> bytes:
    return hashlib.sha256(f"{speed} {id_}".encode()).digest()
