"""The same recording under two names, on two sides of a fold: what the bytes of files do not show.

The same samples in another container, or with another tag, are equal once they are decoded: an error. A copy
that was encoded again, or made louder or softer, has other samples, but rises and falls at the same times: it
is reported. Likely pairs are found by a sketch, the loudness of 24 parts of a recording, in a tree of all
sketches, so that the work does not grow with the square of the corpus. Then their contours are compared, in
frames of 8 ms.

Not found are copies that were cut, or played faster or slower.

Axis letters: N samples, P parts, T frames.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.protocol.splits import Fold

if TYPE_CHECKING:
    from sertone.training.data.recordings import Recordings

PARTS, EVERY = 24, 4
"""Of a sketch; of so many samples one is looked at: a fraction of the cost of their hash."""
FLAT = 0.25
"""Spread of a sketch's logarithms of power below which a recording has no contour to compare."""
NEAR = 0.3
"""Distance of sketches up to which contours are compared."""
SECOND = 2.0
"""What a second between two lengths adds to that distance."""
COPY_CORRELATION = 0.97
"""Correlation of two contours from which on two recordings are taken for copies."""
FOLDED, FRAME = 4, 32
"""Samples that are added up, which leaves what is below 2 kHz; such sums in a frame."""
SHIFT, PHASES = 5, 4
"""Frames by which a copy may be late; steps in a frame that are tried."""
KEPT = 64
"""Recordings that are kept decoded while pairs are compared."""


def compute_sketch(samples: np.ndarray) -> np.ndarray:
    """Return the mean power of the parts of a recording: int16 (N,) -> (P,); zeros of a very short one."""
    looked_at = samples[::EVERY].astype(np.float32)
    starts = np.arange(PARTS) * len(looked_at) // PARTS
    if len(looked_at) < PARTS * FRAME:
        return np.zeros(PARTS, np.float32)
    return np.add.reduceat(looked_at * looked_at, starts) * (PARTS / len(looked_at))


def check_copies(
    folds: Sequence[Fold], recordings: "Recordings", say: Callable[[str], None] = lambda _: None
) -> list[tuple[str, str]]:
    """Refuse equal samples on two sides of a fold, and return the pairs that sound like copies on two sides.

    Args:
        folds: the splits.
        recordings: that have read their utterances.
        say: told of the pairs.

    Raises:
        SertoneError: `audio_leak`.
    """
    for fold in folds:
        _require_none(fold, recordings)
    pairs = find_copies(folds, recordings)
    for fold in folds:
        if found := select_across_subsets(fold, pairs):
            first = " and ".join(found[0])
            many = f"{len(found)} pairs of recordings on two sides sound like copies" if found[1:] else ""
            say(f"fold {fold.name}: {many or 'two recordings on two sides sound like copies'}: {first}")
    return pairs


def _require_none(fold: Fold, recordings: "Recordings") -> None:
    """Silence may be equal to silence."""
    places: dict[bytes, dict[str, str]] = defaultdict(dict)
    for side, utterances in fold.subsets.items():
        for u in utterances:
            if recordings.sketches[u.id].any():
                places[recordings.hashes[u.id]].setdefault(side, u.id)
    if found := sorted(" = ".join(sorted(ids.values())) for ids in places.values() if len(ids) > 1):
        raise SertoneError(
            "audio_leak",
            f"fold {fold.name}: the same samples in two files on two sides: {'; '.join(found[:5])}",
            "every recording on one side",
            "take one of them out of the corpus",
        )


def find_copies(folds: Sequence[Fold], recordings: "Recordings") -> list[tuple[str, str]]:
    """Return the pairs of utterances on two sides of a fold that sound like copies, in order."""
    known = {u.id: u for fold in folds for side in fold.subsets.values() for u in side}
    near = list(find_candidates(recordings, sorted(known)))
    apart = sorted({pair for fold in folds for pair in select_across_subsets(fold, near)})
    samples = lru_cache(KEPT)(lambda id_: recordings.samples(known[id_]))
    return [pair for pair in apart if similarity(*map(samples, pair)) >= COPY_CORRELATION]


def select_across_subsets(fold: Fold, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs that stand on two sides of a fold."""
    sides = {u.id: side for side, utterances in fold.subsets.items() for u in utterances}
    return [pair for pair in pairs if len({sides.get(id_, "") for id_ in pair} - {""}) > 1]


def find_candidates(recordings: "Recordings", names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of utterances with near sketches; not those that are equally loud throughout."""
    from scipy.spatial import KDTree

    logs = _logarithms(np.reshape([recordings.sketches[name] for name in names], (-1, PARTS)))
    seconds = np.asarray([recordings.lengths[name] for name in names]) / SAMPLING_RATE
    uneven = np.flatnonzero(logs.std(1) >= FLAT)
    if len(uneven) < 2:
        return
    tree = KDTree(np.column_stack([_unit(logs), SECOND * seconds])[uneven])
    for one, other in uneven[tree.query_pairs(NEAR, output_type="ndarray")]:
        yield names[int(one)], names[int(other)]


def compute_contour(samples: np.ndarray) -> np.ndarray:
    """Return the logarithms of the power of two low bands: int16 (N,) -> (2, T)."""
    whole = len(samples) // (FOLDED * FRAME) * FOLDED * FRAME
    folded = samples[:whole].astype(np.float32).reshape(-1, FOLDED).sum(1)
    bands = [folded, np.diff(folded, prepend=folded[:1])]
    return np.stack([_logarithms(np.square(band).reshape(-1, FRAME).mean(1)) for band in bands])


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the contours of two recordings, int16 (N,), shifted so that they fit best."""
    still = compute_contour(other)
    moved = (compute_contour(one[start:]) for start in range(0, FOLDED * FRAME, FOLDED * FRAME // PHASES))
    return max(_correlation(each, still, shift) for each in moved for shift in range(-SHIFT, SHIFT + 1))


def _correlation(one: np.ndarray, other: np.ndarray, shift: int) -> float:
    """Of contours (2, T), the first one moved by some frames."""
    one, other = one[:, max(0, shift) :], other[:, max(0, -shift) :]
    frames = min(one.shape[1], other.shape[1])
    return float((_unit(one[:, :frames]) * _unit(other[:, :frames])).sum(1).mean()) if frames else 0.0


def _logarithms(power: np.ndarray) -> np.ndarray:
    """Of powers (..., T), where what is 20 dB below the loudest hardly counts: there codecs differ."""
    return np.log(power + 0.01 * power.max(-1, keepdims=True, initial=0.0) + 1e-3)


def _unit(values: np.ndarray) -> np.ndarray:
    """Values (..., T) around their mean, of length 1."""
    around = values - values.mean(-1, keepdims=True)
    return around / np.maximum(np.linalg.norm(around, axis=-1, keepdims=True), 1e-9)
