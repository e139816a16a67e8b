"""What a model has heard in training, as hashes in its checkpoint, so that no test repeats it unnoticed.

A speaker is known by the corpus's name and the speaker's; of two manifests that call different people by
the same name the second one gives a false alarm.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sertone import audio
from sertone.errors import SertoneError
from sertone.protocol.splits import Fold
from sertone.schema import Utterance
from sertone.scoring.display import format_count
from sertone.sharing.encoder_origin import Origin
from sertone.sharing.model_folder import WEIGHTS

LETTERS = 16
"""Of a hash: 64 bits tell all recordings there are apart."""
UNKNOWN = "utterances of unknown speakers: whether it has heard these speakers is not known"
"""What follows "has heard" where a model was trained on recordings whose speakers nobody names."""


def hash_training_data(utterances: Sequence[Utterance], card: Mapping) -> dict[str, Any]:
    """Hashes of the recordings and speakers of a training side and its validation speakers.

    Where some speakers are unknown, `unknown_speakers` counts their utterances.

    Args:
        utterances: of these sides.
        card: protocol card with `file_hashes`.
    """
    corpus = card["corpus"]["name"]
    unknown = sum(not (u.speaker and u.known_speaker) for u in utterances)
    found = {
        "recordings": sorted({card["file_hashes"][u.id][:LETTERS] for u in utterances}),
        "speakers": sorted(
            {hash_speaker(corpus, u.speaker) for u in utterances if u.speaker and u.known_speaker}
        ),
    }
    return found | ({"unknown_speakers": unknown} if unknown else {})


def hash_speaker(corpus: str, name: str) -> str:
    """Hash of a speaker of a corpus."""
    return hashlib.sha256(f"{corpus}/{name}".encode()).hexdigest()[:LETTERS]


def find_overlap(
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
    named = {u.speaker for u in utterances if u.known_speaker}
    return ids, sorted(name for name in named if hash_speaker(corpus, name) in speakers)


def count_unknown_speakers(known: Sequence[Mapping]) -> int:
    """Return how many utterances of unknown speakers some models have heard, at least.

    The models may have heard the same ones, so the largest number counts. Models saved before Sertone
    counted them have none.

    Args:
        known: what `names` gave for each model.
    """
    return max((each.get("unknown_speakers", 0) for each in known), default=0)


def union(*known: Mapping[str, Any]) -> dict[str, Any]:
    """What several models have heard."""
    found: dict[str, Any] = {
        key: sorted({name for each in known for name in each[key]}) for key in ("recordings", "speakers")
    }
    unknown = count_unknown_speakers(known)
    return found | ({"unknown_speakers": unknown} if unknown else {})


def trace_lineage(
    known: Mapping[str, Any], origin: Origin | None, teachers: Sequence[Mapping] = ()
) -> dict[str, dict[str, Any]]:
    """What a model has heard with labels, and listened to without: its encoder's and its teachers' past too.

    Args:
        known: what `names` gave for the model itself.
        origin: of its encoder, where Sertone has trained that.
        teachers: what their checkpoints say.
    """
    cards = [about["card"] for about in teachers]
    before = [origin.seen_with_labels] if origin else []
    listened = [origin.seen_without_labels] if origin else []
    listened += [card["listened"] for card in cards if "listened" in card]
    found = {"heard": union(known, *before, *(card["heard"] for card in cards))}
    return found | ({"listened": union(*listened)} if listened else {})


def describe_validation_overlap(fold: Fold, card: Mapping, known: Sequence[Mapping]) -> str:
    """How many of the speakers by whom a fold's epoch and temperature are chosen some model has heard.

    Allowed, as the test is not touched, but what is chosen by them comes out too sure of itself. Empty of a
    fold without validation.

    Args:
        fold: the split.
        card: protocol card with `file_hashes`.
        known: what `names` gave for each model.
    """
    _, speakers = find_overlap(fold.validation, card, known)
    return f"{len(speakers)} of {len({u.speaker for u in fold.validation})}" if fold.validation else ""


def require_unseen_test(origin: Origin, folds: Sequence[Fold], card: Mapping) -> str:
    """Refuses an encoder that was trained, with labels, on what is to be tested.

    Args:
        origin: of the encoder.
        folds: the splits.
        card: protocol card with `file_hashes`.

    Returns:
        for the card: what of the test sides it has listened to without labels, which is allowed.

    Raises:
        SertoneError: `encoder_trained_on_test`.
    """
    for fold in folds:
        ids, speakers = find_overlap(fold.test, card, [origin.seen_with_labels])
        if ids or speakers:
            raise SertoneError(
                "encoder_trained_on_test",
                f"fold {fold.name}: the encoder in {origin.folder} was trained on {len(ids)} of its test "
                f"recordings and {len(speakers)} of its test speakers, such as {[*ids, *speakers][0]}",
                "an encoder that has heard nothing of the test side with labels",
                "take the encoder of a model that was trained on others, or another test side",
            )
    return f"trained before; {_past(origin, folds, card)}weights {_weights(origin)}"


def _weights(origin: Origin) -> str:
    return audio.file_hash(origin.folder / WEIGHTS)[:LETTERS]


def _past(origin: Origin, folds: Sequence[Fold], card: Mapping) -> str:
    """Return what an encoder has heard of the sides of folds, with labels and without."""
    tested = list({u.id: u for fold in folds for u in fold.test}.values())
    ids, speakers = find_overlap(tested, card, [origin.seen_without_labels])
    listened = "known speaker" if count_unknown_speakers([origin.seen_without_labels]) else "speaker"
    without = (
        f"labels {format_count(len(ids), 'recording')} and {format_count(len(speakers), listened)} of them"
    )
    chosen_by = [
        said for fold in folds if (said := describe_validation_overlap(fold, card, [origin.seen_with_labels]))
    ]
    chosen = f"with labels {', '.join(chosen_by)} validation speakers" if chosen_by else ""
    if count_unknown_speakers([origin.seen_with_labels]):
        said = f"has heard no recording of the test sides with labels, but {UNKNOWN}; without"
        chosen += ", as far as is known" * bool(chosen)
    else:
        said = "has heard no recording and no speaker of the test sides with labels, and without"
    return f"{said} {without}; " + (f"{chosen}; " if chosen else "")
