"""What a model has heard in training, as hashes in its checkpoint, so that no test repeats it unnoticed.

A speaker is known by the corpus's name and the speaker's; of two manifests that call different people by
the same name the second one gives a false alarm.
"""

import hashlib
from collections.abc import Mapping, Sequence

from sertone.schema import Utterance

LETTERS = 16
"""Of a hash: 64 bits tell all recordings there are apart."""


def names(utterances: Sequence[Utterance], card: Mapping) -> dict[str, list[str]]:
    """Hashes of the recordings and speakers of a training side and its validation speakers.

    Args:
        utterances: of these sides.
        card: protocol card with `file_hashes`.
    """
    corpus = card["corpus"]["name"]
    return {
        "recordings": sorted({card["file_hashes"][u.id][:LETTERS] for u in utterances}),
        "speakers": sorted({speaker(corpus, u.speaker) for u in utterances}),
    }


def speaker(corpus: str, name: str) -> str:
    """Hash of a speaker of a corpus."""
    return hashlib.sha256(f"{corpus}/{name}".encode()).hexdigest()[:LETTERS]


def again(
    utterances: Sequence[Utterance], card: Mapping, known: Sequence[Mapping]
) -> tuple[list[str], list[str]]:
    """Which utterances and speakers of a test some model has heard.

    Args:
        utterances: of the test.
        card: its protocol card.
        known: what `names` gave for each model.

    Returns:
        ids of the utterances, and names of the speakers.
    """
    recordings = {name for each in known for name in each["recordings"]}
    speakers = {name for each in known for name in each["speakers"]}
    corpus = card["corpus"]["name"]
    ids = [u.id for u in utterances if card["file_hashes"][u.id][:LETTERS] in recordings]
    return ids, sorted({u.speaker for u in utterances if speaker(corpus, u.speaker) in speakers})
