"""Find recordings that occur under two names in two sets of a fold, which hashes of files do not show.

The same samples in another container, or with another tag, are equal after decoding; that is an error. A copy
that was encoded again, or made louder or softer, has other samples, but rises and falls at the same times; it
is reported. A sketch of each recording, the loudness of its 24 parts, finds likely pairs in a tree of all
sketches, so the work does not grow with the square of the corpus. Then the contours of the pairs are
compared, in frames of 8 ms.

Copies that were cut, or played faster or slower, are not found.

Axis letters: N samples, P parts, T frames.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.protocol.splits import Fold
from sertone.schema import Utterance


class Recordings(Protocol):
    """Loaded recordings by utterance id, as `recordings.Recordings` holds them: it imports this file."""

    lengths: dict[str, int]
    hashes: dict[str, bytes]
    sketches: dict[str, np.ndarray]

    def samples(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray: ...


Pair = tuple[str, str]
"""The ids of two utterances."""

PARTS = 24
"""The number of parts of a sketch."""
STRIDE = 4
"""The sketch uses one of this many samples, which takes a fraction of the time of their hash."""
FLAT = 0.25
"""A sketch whose logarithmic power has a smaller standard deviation has no contour to compare."""
NEAR = 0.3
"""The distance of two sketches up to which their contours are compared."""
SECOND = 2.0
"""The amount that a difference of one second in length adds to that distance."""
COPY_CORRELATION = 0.97
"""Two recordings count as copies from this correlation of their contours."""
DECIMATION = 4
"""The number of samples that are summed to one; the sums keep what is below 2 kHz."""
FRAME = 32
"""The number of such sums in a frame: 128 samples, or 8 ms."""
MAX_SHIFT = 5
"""The largest delay of a copy, in frames."""
PHASES = 4
"""The number of positions within a frame at which the frames may begin."""
CACHED = 64
"""The number of recordings that stay decoded while pairs are compared."""


def compute_sketch(samples: np.ndarray) -> np.ndarray:
    """Return the mean power of the parts of a recording: int16 (N,) -> (P,); zeros for a very short one."""
    subset = samples[::STRIDE].astype(np.float32)
    starts = np.arange(PARTS) * len(subset) // PARTS
    if len(subset) < PARTS * FRAME:
        return np.zeros(PARTS, np.float32)
    return np.add.reduceat(subset * subset, starts) * (PARTS / len(subset))


def check_copies(
    folds: Sequence[Fold], recordings: "Recordings", say: Callable[[str], None] = lambda _: None
) -> list[Pair]:
    """Refuse equal samples in two sets of a fold, and return the pairs in two sets that sound like copies.

    Args:
        folds: the splits.
        recordings: recordings with all utterances loaded.
        say: receives a line for each fold with such pairs.

    Raises:
        SertoneError: `audio_leak`.
    """
    for fold in folds:
        _require_distinct_samples(fold, recordings)
    copies = find_copies(folds, recordings)
    for fold in folds:
        if pairs := select_across_subsets(fold, copies):
            first = " and ".join(pairs[0])
            count = "two recordings" if len(pairs) == 1 else f"{len(pairs)} pairs of recordings"
            say(f"fold {fold.name}: {count} in two sets of the fold sound like copies: {first}")
    return copies


def _require_distinct_samples(fold: Fold, recordings: "Recordings") -> None:
    """Refuse equal samples in two sets of a fold; silence may equal silence."""
    ids_by_hash: dict[bytes, dict[str, str]] = defaultdict(dict)
    for subset, utterances in fold.subsets.items():
        for u in utterances:
            if recordings.sketches[u.id].any():  # the sketch of silence is zero
                ids_by_hash[recordings.hashes[u.id]].setdefault(subset, u.id)
    equal = sorted(" = ".join(sorted(ids.values())) for ids in ids_by_hash.values() if len(ids) > 1)
    if equal:
        raise SertoneError(
            "audio_leak",
            f"fold {fold.name}: two files in two sets of the fold have the same samples: "
            f"{'; '.join(equal[:5])}",
            "every recording in only one of training, validation and test set",
            "remove one of the two from the corpus",
        )


def find_copies(folds: Sequence[Fold], recordings: "Recordings") -> list[Pair]:
    """Return the pairs of utterances in two sets of a fold that sound like copies, in order."""
    utterances = {u.id: u for fold in folds for subset in fold.subsets.values() for u in subset}
    candidates = list(find_candidates(recordings, sorted(utterances)))
    # A pair counts once, however many folds separate it.
    separated = sorted({pair for fold in folds for pair in select_across_subsets(fold, candidates)})
    load_samples = lru_cache(CACHED)(lambda id_: recordings.samples(utterances[id_]))
    return [pair for pair in separated if similarity(*map(load_samples, pair)) >= COPY_CORRELATION]


def select_across_subsets(fold: Fold, pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs whose utterances are in two sets of a fold."""
    subsets = {u.id: subset for subset, utterances in fold.subsets.items() for u in utterances}
    # An utterance that takes no part in the fold has no set.
    return [pair for pair in pairs if len({subsets.get(id_, "") for id_ in pair} - {""}) > 1]


def find_candidates(recordings: "Recordings", names: Sequence[str]) -> Iterator[Pair]:
    """Yield the pairs of utterances with near sketches; recordings of constant loudness are left out."""
    from scipy.spatial import KDTree

    logs = _compute_logarithms(np.reshape([recordings.sketches[name] for name in names], (-1, PARTS)))
    seconds = np.asarray([recordings.lengths[name] for name in names]) / SAMPLING_RATE
    uneven = np.flatnonzero(logs.std(1) >= FLAT)
    if len(uneven) < 2:
        return
    # The length is one more coordinate, so that copies have about the same length.
    tree = KDTree(np.column_stack([_normalise(logs), SECOND * seconds])[uneven])
    for first, second in uneven[tree.query_pairs(NEAR, output_type="ndarray")]:
        yield names[int(first)], names[int(second)]


def compute_contour(samples: np.ndarray) -> np.ndarray:
    """Return the logarithms of the power of two low bands: int16 (N,) -> (2, T)."""
    length = len(samples) // (DECIMATION * FRAME) * DECIMATION * FRAME  # without the incomplete last frame
    low = samples[:length].astype(np.float32).reshape(-1, DECIMATION).sum(1)
    bands = [low, np.diff(low, prepend=low[:1])]  # the difference emphasises the upper part of the band
    return np.stack([_compute_logarithms(np.square(band).reshape(-1, FRAME).mean(1)) for band in bands])


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of the contours of two recordings, int16 (N,), at the shift that fits best."""
    fixed = compute_contour(second)
    # A copy may begin within a frame: try the start of the first recording at several phases.
    starts = range(0, DECIMATION * FRAME, DECIMATION * FRAME // PHASES)
    contours = (compute_contour(first[start:]) for start in starts)
    shifts = range(-MAX_SHIFT, MAX_SHIFT + 1)
    return max(_correlate(contour, fixed, shift) for contour in contours for shift in shifts)


def _correlate(first: np.ndarray, second: np.ndarray, shift: int) -> float:
    """Return the correlation of two contours (2, T), the first one shifted by some frames."""
    first = first[:, max(0, shift) :]
    second = second[:, max(0, -shift) :]
    frames = min(first.shape[1], second.shape[1])
    if not frames:
        return 0.0
    return float((_normalise(first[:, :frames]) * _normalise(second[:, :frames])).sum(1).mean())


def _compute_logarithms(power: np.ndarray) -> np.ndarray:
    """Return the logarithms of powers (..., T), with a floor of 20 dB below the loudest.

    Codecs differ in what is softer than that. The constant keeps the logarithm of silence finite.
    """
    return np.log(power + 0.01 * power.max(-1, keepdims=True, initial=0.0) + 1e-3)


def _normalise(values: np.ndarray) -> np.ndarray:
    """Return values (..., T) without their mean, scaled to length 1."""
    centred = values - values.mean(-1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-9)
