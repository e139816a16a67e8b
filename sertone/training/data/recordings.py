"""Decoded audio, kept as 16-bit samples in a store that processes share, at several speeds.

No torch here: decoding children start in a fraction of a second.

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
from sertone.errors import AudioError, SertoneError
from sertone.runtime.timeline.isolated import DECODER_TIMEOUT_S, borrow_decoder, build_decoder_error
from sertone.schema import Utterance
from sertone.scoring.display import format_count
from sertone.training.data import duplicates
from sertone.training.data.array_store import ArrayStore
from sertone.utils.processes import ChildDiedError, count_cores, run_parallel

WORTH_CHILDREN = 256
"""Recordings from which on starting several processes to decode them pays."""


class Recordings:
    """Reads each utterance once and keeps it as 16-bit samples.

    Pickled, it shares what is kept with the process that made it.

    Args:
        cache_gb: memory for decoded audio; what does not fit is decoded again when needed.
        speeds: at which it will be asked for (`TrainingConfig.playback_speeds`); 0.8 is slower, longer and
            lower, as when a tape runs slowly.

    Attributes:
        lengths: samples at speed 1 by utterance id, once loaded.
        hashes: SHA-256 of these samples by utterance id.
        sketches: of their loudness, see `copies`, by utterance id.
        alike: pairs of ids on two sides of a fold that sound like copies, once the folds are checked.
    """

    def __init__(self, cache_gb: float, speeds: Sequence[float] = (1.0,)) -> None:
        self.speeds = tuple(dict.fromkeys([1.0, *speeds]))
        self.store = ArrayStore(limit=int(cache_gb * 1e9))
        self.lengths: dict[str, int] = {}
        self.hashes: dict[str, bytes] = {}
        self.sketches: dict[str, np.ndarray] = {}
        self.likely_copies: list[tuple[str, str]] = []

    @property
    def seconds(self) -> float:
        """Of all recordings at all speeds."""
        return sum(self.lengths.values()) / SAMPLING_RATE * sum(1 / speed for speed in self.speeds)

    def load(self, utterances: Iterable[Utterance], children: int | None = None) -> dict[str, list[str]]:
        """Reads all, so that every unreadable file is known before anything is trained.

        Args:
            utterances: what is read already is not read again.
            children: processes that decode; None: one, or one per core where there are many recordings.

        Returns:
            code -> ids of the utterances read now about which there was a warning.

        Raises:
            SertoneError: `unreadable_audio`, naming them.
        """
        new = {u.id: u for u in utterances if u.id not in self.lengths}
        if children is None:
            children = count_cores() if len(new) >= WORTH_CHILDREN else 1
        warnings: dict[str, list[str]] = defaultdict(list)
        errors: dict[str, str] = {}
        for id_, found in self._decoded(new.values(), children):
            if isinstance(found, SertoneError):
                errors[id_] = f"{found.code}: {found}"
            else:
                self._keep(id_, found[0])
                for code in found[1]:
                    warnings[code].append(id_)
        if errors:
            named = [errors[id_] for id_ in new if id_ in errors]
            more = f"; and {len(named) - 5} more" if len(named) > 5 else ""
            raise SertoneError(
                "unreadable_audio",
                f"{len(named)} of {format_count(len(new), 'recording')}: {'; '.join(named[:5])}{more}",
                way_out="`sertone corpora check` lists them all; mend them or leave them out",
            )
        return dict(warnings)

    def load_with_warnings(self, utterances: Iterable[Utterance]) -> list[str]:
        """Load as `load`, and return a line for each kind of warning: how many recordings have it, and which.

        Args:
            utterances: to load.

        Raises:
            SertoneError: `unreadable_audio`.
        """
        return [
            f"{format_count(len(ids), 'recording')} with a warning, {code.replace('_', ' ')}: "
            f"{', '.join(ids[:3])}{', ...' * (len(ids) > 3)}"
            for code, ids in self.load(utterances).items()
        ]

    def samples(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Samples of an utterance at a speed, (N,), int16."""
        kept = self.store.get(_key(utterance.id, speed))
        return kept if kept is not None else decode(utterance, (speed,))[0][speed]

    def _decoded(self, utterances: Iterable[Utterance], children: int) -> Iterable[tuple]:
        """Id and what `decode` gives, or its error, of each utterance."""
        if children == 1:
            for utterance in utterances:
                yield utterance.id, self._decoded_apart(utterance)
            return
        calls = ((utterance, self.speeds) for utterance in utterances)
        crowd = run_parallel([{}] * children, decode, calls, timeout_s=DECODER_TIMEOUT_S)
        with contextlib.closing(crowd) as answers:
            for (utterance, _), future in answers:
                error = future.exception()
                if isinstance(error, ChildDiedError):
                    error = build_decoder_error(utterance.path, error)
                if error and not isinstance(error, AudioError):
                    raise error
                yield utterance.id, error or future.result()

    def _decoded_apart(self, utterance: Utterance) -> tuple | AudioError:
        """The same of one, by the process that decodes for predictions as well."""
        with borrow_decoder() as child:
            try:
                return child(decode, utterance, self.speeds)
            except ChildDiedError as error:
                return build_decoder_error(utterance.path, error)
            except AudioError as error:
                return error

    def _keep(self, id_: str, variants: dict[float, np.ndarray]) -> None:
        self.lengths[id_] = len(variants[1.0])
        self.hashes[id_] = hashlib.sha256(variants[1.0].tobytes()).digest()
        self.sketches[id_] = duplicates.compute_sketch(variants[1.0])
        for speed, samples in variants.items():
            self.store.put(_key(id_, speed), samples)


def decode(utterance: Utterance, speeds: Sequence[float]) -> tuple[dict[float, np.ndarray], list[str]]:
    """Reads one utterance.

    Returns:
        speed -> samples (N,), int16; the codes of its warnings.

    Raises:
        AudioError: as `audio.read`.
    """
    recording = audio.read(utterance.path, start_s=utterance.start_s, end_s=utterance.end_s)
    variants = {}
    for speed in speeds:
        samples = recording.samples
        if speed != 1.0:
            samples = soxr.resample(samples, SAMPLING_RATE * speed, SAMPLING_RATE)
        variants[speed] = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return variants, list(recording.warnings)


def _key(id_: str, speed: float) -> bytes:
    return hashlib.sha256(f"{speed} {id_}".encode()).digest()
