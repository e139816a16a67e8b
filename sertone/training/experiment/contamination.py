"""Record what a model was trained on, as hashes in its checkpoint, so that no test set repeats it unnoticed.

The record of a model is a dictionary of two lists of hashes, `recordings` and `speakers`, and perhaps the
number of utterances of `unknown_speakers`. A checkpoint may have two records: `heard` is the data seen in
training with labels, `listened` the data seen without.

A speaker is identified by the names of the corpus and of the speaker. Two manifests that give different
people the same name therefore cause a false alarm.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sertone import audio
from sertone.errors import SertoneError
from sertone.protocol.splits import Fold
from sertone.schema import Utterance
from sertone.sharing.encoder_origin import Origin
from sertone.sharing.model_folder import WEIGHTS
from sertone.utils.wording import format_count

HASH_LENGTH = 16
"""The hexadecimal digits of a hash: 64 bits distinguish all recordings that exist."""
UNKNOWN = "utterances of unknown speakers: whether it has heard these speakers is not known"
"""The end of a sentence about a model that was trained on utterances of unknown speakers.

Protocol cards contain it, so another wording would be another experiment.
"""


def hash_training_data(utterances: Sequence[Utterance], card: Mapping) -> dict[str, Any]:
    """Return the record of a training: hashes of its recordings and speakers.

    Where some speakers are unknown, `unknown_speakers` counts their utterances.

    Args:
        utterances: utterances of the training and the validation set.
        card: protocol card with `file_hashes`.
    """
    corpus = card["corpus"]["name"]
    named = [u for u in utterances if u.speaker and u.known_speaker]
    record: dict[str, Any] = {
        "recordings": sorted({card["file_hashes"][u.id][:HASH_LENGTH] for u in utterances}),
        "speakers": sorted({hash_speaker(corpus, u.speaker) for u in named}),
    }
    if len(named) < len(utterances):
        record["unknown_speakers"] = len(utterances) - len(named)
    return record


def hash_speaker(corpus: str, name: str) -> str:
    """Return the hash of a speaker of a corpus."""
    return hashlib.sha256(f"{corpus}/{name}".encode()).hexdigest()[:HASH_LENGTH]


def find_overlap(
    utterances: Sequence[Utterance], card: Mapping, records: Sequence[Mapping]
) -> tuple[list[str], list[str]]:
    """Return the utterances and speakers of a test set that some model was trained on.

    Args:
        utterances: utterances of the test set.
        card: its protocol card.
        records: records of the models, see `hash_training_data`.

    Returns:
        Ids of the utterances, and names of the speakers.
    """
    recordings = {name for record in records for name in record["recordings"]}
    speakers = {name for record in records for name in record["speakers"]}
    corpus = card["corpus"]["name"]
    # Records hold the first digits of each hash only.
    ids = [u.id for u in utterances if card["file_hashes"][u.id][:HASH_LENGTH] in recordings]
    # The name of an unknown speaker is an invented one, which matches nobody.
    names = {u.speaker for u in utterances if u.known_speaker}
    return ids, sorted(name for name in names if hash_speaker(corpus, name) in speakers)


def count_unknown_speakers(records: Sequence[Mapping]) -> int:
    """Return how many utterances of unknown speakers some models were trained on, at least.

    Several models may share these utterances, so the largest number counts. Models saved before Sertone
    counted such utterances have none.

    Args:
        records: records of the models, see `hash_training_data`.
    """
    return max((record.get("unknown_speakers", 0) for record in records), default=0)


def union(*records: Mapping[str, Any]) -> dict[str, Any]:
    """Return one record of everything that several models were trained on."""
    merged: dict[str, Any] = {
        key: sorted({name for record in records for name in record[key]})
        for key in ("recordings", "speakers")
    }
    unknown = count_unknown_speakers(records)
    if unknown:
        merged["unknown_speakers"] = unknown
    return merged


def trace_lineage(
    record: Mapping[str, Any], origin: Origin | None, teachers: Sequence[Mapping] = ()
) -> dict[str, dict[str, Any]]:
    """Return the records of a model that include those of its encoder and its teachers.

    Args:
        record: record of the model itself.
        origin: origin of its encoder, if Sertone has trained it.
        teachers: the contents of their `checkpoint.json`.

    Returns:
        `heard`, the data seen with labels, and perhaps `listened`, the data seen without labels.
    """
    cards = [about["card"] for about in teachers]
    labelled = [record, *(card["heard"] for card in cards)]
    unlabelled = [card["listened"] for card in cards if "listened" in card]
    if origin:
        labelled.append(origin.seen_with_labels)
        unlabelled.append(origin.seen_without_labels)
    lineage = {"heard": union(*labelled)}
    if unlabelled:
        lineage["listened"] = union(*unlabelled)
    return lineage


def describe_validation_overlap(fold: Fold, card: Mapping, records: Sequence[Mapping]) -> str:
    """Return how many validation speakers of a fold some model was trained on, as `1 of 2`.

    This is allowed, because it leaves the test set untouched. But epoch and temperature, which these speakers
    choose, then make the model too confident. The text is empty for a fold without validation.

    Args:
        fold: the split.
        card: protocol card with `file_hashes`.
        records: records of the models, see `hash_training_data`.
    """
    if not fold.validation:
        return ""
    _, speakers = find_overlap(fold.validation, card, records)
    return f"{len(speakers)} of {len({u.speaker for u in fold.validation})}"


def require_unseen_test(origin: Origin, folds: Sequence[Fold], card: Mapping) -> str:
    """Refuse an encoder that was trained, with labels, on data of a test set.

    Args:
        origin: origin of the encoder.
        folds: the splits.
        card: protocol card with `file_hashes`.

    Returns:
        For the card: the test data that the encoder has seen without labels, which is allowed.

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
                "an encoder that was trained without labels of the test set",
                "use the encoder of a model that was trained on other data, or another test set",
            )
    return f"trained before; {_describe_encoder_data(origin, folds, card)}weights {_hash_weights(origin)}"


def _hash_weights(origin: Origin) -> str:
    return audio.file_hash(origin.folder / WEIGHTS)[:HASH_LENGTH]


def _describe_encoder_data(origin: Origin, folds: Sequence[Fold], card: Mapping) -> str:
    """Describe the data of the folds that an encoder has seen, with labels and without.

    The fingerprint of an experiment covers this text: another wording would keep runs from being resumed.
    """
    # An utterance may be in the test set of several folds.
    test = list({u.id: u for fold in folds for u in fold.test}.values())
    ids, speakers = find_overlap(test, card, [origin.seen_without_labels])
    speaker = "known speaker" if count_unknown_speakers([origin.seen_without_labels]) else "speaker"
    recordings = format_count(len(ids), "recording")
    unlabelled = f"labels {recordings} and {format_count(len(speakers), speaker)} of them"
    overlaps = [describe_validation_overlap(fold, card, [origin.seen_with_labels]) for fold in folds]
    overlaps = [overlap for overlap in overlaps if overlap]
    validation = f"with labels {', '.join(overlaps)} validation speakers" if overlaps else ""
    if count_unknown_speakers([origin.seen_with_labels]):
        labelled = f"has heard no recording of the test sides with labels, but {UNKNOWN}; without"
        if validation:
            validation += ", as far as is known"
    else:
        labelled = "has heard no recording and no speaker of the test sides with labels, and without"
    text = f"{labelled} {unlabelled}; "
    if validation:
        text += f"{validation}; "
    return text
