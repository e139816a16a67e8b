"""Checks that the labels of a corpus fit the classes of a model that is evaluated on it."""

from collections.abc import Mapping, Sequence

from sertone.errors import SertoneError
from sertone.labels import (
    NOT_CLASSES,
    class_names,
    count_unmapped,
    format_counts,
    map_raw_labels,
    resolve_raw_labels,
)
from sertone.runtime.answering import Model
from sertone.schema import Utterance
from sertone.utils.wording import format_count


def require_emotions(emotions: Mapping[str, str], utterances: Sequence[Utterance]) -> None:
    """Refuse `--emotions` with a label that the corpus does not have.

    Args:
        emotions: label of the corpus -> class of the model.
        utterances: all utterances of the corpus.

    Raises:
        SertoneError: `unknown_emotion`.
    """
    present = {str(u.labels["emotion"]) for u in utterances if "emotion" in u.labels}
    if unknown := sorted(set(resolve_raw_labels(emotions, map_raw_labels(utterances))) - present):
        raise SertoneError(
            "unknown_emotion",
            f"--emotions names {', '.join(unknown)}, which the corpus does not have",
            f"some of {', '.join(sorted(present))}",
        )


def require_covered(utterances: Sequence[Utterance], mapping: Mapping[str, str], *, chosen: bool) -> None:
    """Refuse to score a minority of the labels, unless the user chose it.

    Args:
        utterances: all utterances of the corpus.
        mapping: emotion -> class to report; empty for a model that only predicts ratings.
        chosen: true where the user gave classes or emotions.

    Raises:
        SertoneError: `unmapped_labels`.
    """
    # `other` and `no_agreement` name no emotion, so no class has to cover them.
    labels = {name: n for name, n in count_unmapped(utterances, {}).items() if name not in NOT_CLASSES}
    outside = {name: n for name, n in labels.items() if name not in mapping}
    if chosen or not mapping or 2 * sum(outside.values()) <= sum(labels.values()):
        return
    total = format_count(sum(labels.values()), "labelled utterance")
    raise SertoneError(
        "unmapped_labels",
        f"{sum(outside.values())} of {total} are in no class of the model: {format_counts(outside)}",
        "a class for at least half of them",
        "--emotions joy=happy,rage=angry says which label is which class; "
        f"--classes {','.join(class_names(dict(mapping)))} scores only the others",
    )


def require_labelled(
    model: Model, test: Sequence[Utterance], utterances: Sequence[Utterance], mapping: Mapping[str, str]
) -> None:
    """Refuse a corpus without any label that the model predicts.

    Args:
        model: evaluated.
        test: utterances with such a label.
        utterances: all utterances of the corpus.
        mapping: emotion -> class to report.

    Raises:
        SertoneError: `no_targets`.
    """
    if test:
        return
    if not model.classes:
        raise SertoneError(
            "no_targets",
            f"the model rates {', '.join(model.scales)}; the corpus has no such rating on a known scale",
            "at least one of these ratings",
            "--scales gives the lowest and highest value of a manifest's scales: valence=1:7",
        )
    emotions = sorted({str(u.labels["emotion"]) for u in utterances if "emotion" in u.labels})
    raise SertoneError(
        "no_targets",
        f"the corpus's emotions are {', '.join(emotions) or 'not given'}; the model knows "
        f"{', '.join(mapping)}",
        "at least one common emotion",
        "--emotions says which emotion of the corpus is which class of the model: joy=happy,rage=angry",
    )
