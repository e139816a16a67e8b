"""Warnings of an evaluation: overlap with the training data, labels and ratings left out, texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from sertone.labels import Scale, count_unmapped, format_counts
from sertone.runtime.answering import Model
from sertone.schema import Utterance

UNKNOWN_TRAINING = "nothing is known of the model's training: it may have used these recordings or speakers"


def list_warnings(
    model: Model,
    leak: Mapping[str, Any],
    utterances: Sequence[Utterance],
    mapping: Mapping[str, str],
    scales: Mapping[str, Scale],
) -> list[str]:
    """Return warnings about training data, labels and ratings.

    Args:
        model: evaluated.
        leak: leak report of the protocol card.
        utterances: all utterances of the corpus.
        mapping: emotion of the corpus -> class to report.
        scales: ratings to score -> scale of the corpus.
    """
    warnings = list_overlap_warnings(leak)
    emotions = [u.labels["emotion"] for u in utterances if "emotion" in u.labels]
    # A model that only predicts ratings has no classes, so no emotion lies outside of them.
    outside = sum(emotion not in mapping for emotion in emotions) if mapping else 0
    if outside:
        counts = format_counts(count_unmapped(utterances, mapping))
        warnings.append(
            f"{outside} of {len(emotions)} utterances have an emotion outside the classes: {counts}"
        )
    warnings += [f"{name} of the corpus has no known scale" for name in model.scales if name not in scales]
    warnings += [
        f"{name} of the model is on no known scale: it is not converted"
        for name in scales
        if model.scales[name] is None
    ]
    return warnings


def list_overlap_warnings(leak: Mapping[str, Any]) -> list[str]:
    """Return warnings about utterances and speakers on which the model was trained.

    Args:
        leak: leak report of a protocol card.
    """
    warnings = [] if leak["known"] else [UNKNOWN_TRAINING]
    if ids := leak["recordings"]:
        warnings.append(f"the model was trained on {len(ids)} of these recordings, such as {ids[0]}")
    if speakers := leak["speakers"]:
        warnings.append(f"the model was trained on {len(speakers)} of these speakers, such as {speakers[0]}")
    if leak["unknown_speakers"]:
        warnings.append(
            "the model was trained on utterances of unknown speakers: whether these speakers are among them "
            "is not known"
        )
    return warnings


def list_text_warnings(model: Model, utterances: Sequence[Utterance], undivided: int) -> list[str]:
    """Return warnings about texts that are missing or were not used.

    Args:
        model: evaluated.
        utterances: utterances with their texts.
        undivided: number of texts that were left out, see `evaluation_models.select_long_utterances`.
    """
    if not model.uses_text:
        return []
    warnings = []
    total = len(utterances)
    missing = sum(u.text is None for u in utterances)
    if missing:
        result = "only their audio is used" if model.uses_audio else "their predictions are all the same"
        warnings.append(f"{missing} of {total} utterances have no text; {result}")
    if undivided:
        warnings.append(
            f"{undivided} of {total} utterances have a text and are longer than {model.max_seconds:g} s: "
            "they are predicted by windows, without their text"
        )
    return warnings
