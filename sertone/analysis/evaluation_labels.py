"""Whether the labels of a corpus and the classes of a model that is evaluated on it fit together."""

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
from sertone.schema import Utterance
from sertone.scoring.display import format_count


def require_emotions(emotions: Mapping[str, str], found: Sequence[Utterance]) -> None:
    """Refuse `--emotions` that names a label which the corpus does not have.

    Args:
        emotions: label of the corpus -> class of the model.
        found: the utterances of the corpus.

    Raises:
        SertoneError: `unknown_emotion`.
    """
    there = {str(u.labels["emotion"]) for u in found if "emotion" in u.labels}
    if unknown := sorted(set(resolve_raw_labels(emotions, map_raw_labels(found))) - there):
        raise SertoneError(
            "unknown_emotion",
            f"--emotions names {', '.join(unknown)}, which the corpus does not have",
            f"some of {', '.join(sorted(there))}",
        )


def require_covered(found: Sequence[Utterance], mapping: Mapping[str, str], *, chosen: bool) -> None:
    """Refuse to score a minority of the labels, unless the user chose which.

    Args:
        found: the utterances of the corpus.
        mapping: emotion -> class to report; empty for a model that answers ratings alone.
        chosen: whether classes or emotions were given.

    Raises:
        SertoneError: `unmapped_labels`.
    """
    labels = {name: n for name, n in count_unmapped(found, {}).items() if name not in NOT_CLASSES}
    outside = {name: n for name, n in labels.items() if name not in mapping}
    if chosen or not mapping or 2 * sum(outside.values()) <= sum(labels.values()):
        return
    raise SertoneError(
        "unmapped_labels",
        f"{sum(outside.values())} of {format_count(sum(labels.values()), 'labelled utterance')} are in no class "
        f"of the model: {format_counts(outside)}",
        "a class for at least half of them",
        "--emotions joy=happy,rage=angry says which label is which class; "
        f"--classes {','.join(class_names(dict(mapping)))} scores the others alone",
    )
