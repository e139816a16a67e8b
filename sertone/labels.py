"""Emotion vocabularies, class maps, rating scales, and the normalisation of transcripts.

A corpus has its own raw labels, and its reader maps them to the names of EMOTIONS. A class map then says
which of those emotions a model learns, and under which class.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sertone.errors import SertoneError
from sertone.schema import Problem, ReportProblem, Utterance
from sertone.utils.json_shape import find_misfits
from sertone.utils.suggestions import did_you_mean

EMOTIONS = (
    "neutral", "calm", "happy", "excited", "angry", "frustrated", "sad", "fearful", "disgusted",
    "surprised", "bored", "contempt", "other", "no_agreement",
)  # fmt: skip
NOT_CLASSES = ("other", "no_agreement")

SYNONYMS = {
    "ang": "angry",
    "anger": "angry",
    "boredom": "bored",
    "calmness": "calm",
    "contemptuous": "contempt",
    "disgust": "disgusted",
    "exc": "excited",
    "excitement": "excited",
    "fea": "fearful",
    "fear": "fearful",
    "fru": "frustrated",
    "frustration": "frustrated",
    "hap": "happy",
    "happiness": "happy",
    "joy": "happy",
    "neu": "neutral",
    "neutrality": "neutral",
    "sadness": "sad",
    "sur": "surprised",
    "surprise": "surprised",
}
"""Other words for emotions in tables and folder names, in lower case: nouns, and the abbreviations of IEMOCAP
except `dis`, which could also mean disappointed."""

FOUR_CLASSES = {
    "neutral": "neutral",
    "happy": "happy",
    "excited": "happy",
    "angry": "angry",
    "sad": "sad",
}

CLASS_MAPS = ("four", "all")
"""`four`: neutral, happy (with excited), angry, sad. `all`: one class for every emotion."""

GENDERS = ("female", "male")
STYLES = ("improvised", "scripted")
DIMENSIONS = ("arousal", "valence", "dominance")


@dataclass(frozen=True)
class Scale:
    """A rating scale: the lowest and the highest value that raters could choose, and its unit."""

    low: float
    high: float
    unit: str = "points"


def is_scale(values: Any) -> bool:
    """Return whether a JSON value describes a rating scale."""
    shape = {"low": float, "high": float}
    if find_misfits(values, shape, "scale") or not values.keys() <= {"low", "high", "unit"}:
        return False
    return values["low"] < values["high"] and isinstance(values.get("unit", ""), str)


def scale_range(scale: Scale | None) -> float:
    """Return the difference between the ends of a scale; 1 if the scale is unknown."""
    return scale.high - scale.low if scale else 1.0


def describe_scale(scale: Scale | None) -> str:
    """Return a scale as text, such as `from 1 to 5 points`."""
    return f"from {scale.low:g} to {scale.high:g} {scale.unit}" if scale else "on no known scale"


def is_class_list(names: Any) -> bool:
    """Return whether a JSON value is a list of unique, non-empty class names."""
    return not find_misfits(names, [str], "classes") and len(set(names)) == len(names) and all(names)


def rescale(value: float, of: Scale, to: Scale) -> float:
    """Map a rating linearly to another scale, so that the ends of both scales match."""
    return to.low + (value - of.low) / (of.high - of.low) * (to.high - to.low)


def make_emotion_labels(raw: str, names: dict[str, str], path: str, report: ReportProblem) -> dict[str, str]:
    """Return the labels `emotion` and `raw_emotion` of an utterance, and report an unknown raw label.

    Args:
        raw: the corpus's word for the emotion.
        names: raw label -> name of the emotion.
        path: file or utterance concerned, for the report.
        report: receives the problem `unknown_label`.
    """
    if raw not in names:
        report(Problem("unknown_label", path, f"emotion {raw!r}; expected one of {', '.join(names)}"))
        return {"raw_emotion": raw}
    return {"emotion": names[raw], "raw_emotion": raw}


def map_raw_labels(utterances: Iterable[Utterance]) -> dict[str, str]:
    """Return raw label -> emotion, for all labels that occur in a corpus."""
    label_sets = [u.labels for u in utterances if "emotion" in u.labels]
    return {
        str(labels.get("raw_emotion", labels["emotion"])): str(labels["emotion"]) for labels in label_sets
    }


def resolve_class_map(classes: str | Mapping[str, str], raw_labels: Mapping[str, str]) -> dict[str, str]:
    """Return emotion -> class.

    Args:
        classes: a name of CLASS_MAPS, or a mapping of your own, see `resolve_raw_labels`.
        raw_labels: raw label -> emotion, from `map_raw_labels`.

    Raises:
        SertoneError: `unknown_class_map`, `ambiguous_classes`.
    """
    if isinstance(classes, Mapping):
        return resolve_raw_labels(classes, raw_labels)
    if classes == "four":
        return FOUR_CLASSES
    if classes == "all":
        present = set(raw_labels.values())
        standard = [name for name in EMOTIONS if name in present]
        custom = sorted(present - set(EMOTIONS))
        return {name: name for name in standard + custom if name not in NOT_CLASSES}
    raise SertoneError(
        "unknown_class_map",
        f"classes {classes!r}",
        f"one of {', '.join(CLASS_MAPS)}, or a mapping from emotion to class",
        did_you_mean(classes, CLASS_MAPS),
    )


def resolve_raw_labels(mapping: Mapping[str, str], raw_labels: Mapping[str, str]) -> dict[str, str]:
    """Return a mapping from labels to classes as a mapping from emotions to classes.

    A label is matched with the emotions and raw labels of the corpus exactly, then without regard to case,
    and then by SYNONYMS. A label that the corpus does not have stays in the map: another corpus may have it.

    Args:
        mapping: label -> class.
        raw_labels: raw label -> emotion.

    Raises:
        SertoneError: `ambiguous_classes`, if two labels mean the same emotion but have different classes.
    """
    resolved: dict[str, tuple[str, str]] = {}
    for label, name in mapping.items():
        emotion = _find_emotion(label, raw_labels)
        first_label, first_class = resolved.setdefault(emotion, (label, name))
        if name != first_class:
            raise SertoneError(
                "ambiguous_classes",
                f"{first_label} and {label} both mean {emotion}, but their classes are {first_class} "
                f"and {name}",
                "one class for every emotion",
            )
    return {emotion: name for emotion, (_, name) in resolved.items()}


def _find_emotion(label: str, raw_labels: Mapping[str, str]) -> str:
    exact = {**raw_labels, **{emotion: emotion for emotion in raw_labels.values()}}
    if label in exact:
        return exact[label]
    lower = {word.lower(): emotion for word, emotion in exact.items()}
    return lower.get(label.lower()) or SYNONYMS.get(label.lower(), label)


def count_unmapped(utterances: Iterable[Utterance], mapping: Mapping[str, str]) -> dict[str, int]:
    """Return emotion -> number of utterances for the emotions without a class, most frequent first."""
    emotions = Counter(str(u.labels["emotion"]) for u in utterances if "emotion" in u.labels)
    return {name: count for name, count in emotions.most_common() if name not in mapping}


def find_unused_labels(mapping: Mapping[str, str], raw_labels: Mapping[str, str]) -> list[str]:
    """Return the labels of a map that no utterance has, each with a similar spelling if there is one."""
    unused = [label for label in mapping if _find_emotion(label, raw_labels) not in raw_labels.values()]
    words = {word.lower(): word for word in (*raw_labels.values(), *raw_labels)}
    nearest = {label: difflib.get_close_matches(label.lower(), words, 1, 0.7) for label in unused}
    return [f"{label} (did you mean {words[near[0]]}?)" if near else label for label, near in nearest.items()]


def format_counts(counts: Mapping[str, int], most: int = 12) -> str:
    """Return counts as text, such as `calm 192, fearful 12`; the first `most` of many."""
    items = [f"{name} {count}" for name, count in counts.items()]
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def class_names(mapping: dict[str, str]) -> list[str]:
    """Return the classes of a map without repetition, in the order of the map."""
    return list(dict.fromkeys(mapping.values()))


def normalise_counts(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the positive counts as shares that add up to 1; empty if all counts are zero."""
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items() if count > 0}


def class_shares(votes: Mapping[str, float], mapping: Mapping[str, str]) -> dict[str, float]:
    """Return class -> share of the votes, without votes for emotions in no class.

    The shares add up to 1; without a vote for any class the result is empty.

    Args:
        votes: emotion -> share of the annotators.
        mapping: emotion -> class.
    """
    counts: dict[str, float] = defaultdict(float)
    for emotion, share in votes.items():
        if emotion in mapping:
            counts[mapping[emotion]] += share
    return normalise_counts(counts)


def normalise_transcript(text: str) -> str:
    """Return a transcript as lower-case words with single spaces, without punctuation and tags.

    Letters, digits and apostrophes stay; tags in brackets such as [LAUGHTER] are removed.
    """
    text = re.sub(r"\[[^\]]*\]", " ", text).replace("’", "'").lower()
    return " ".join(re.sub(r"[^\w']|_", " ", text).split())


def has_words(text: str | None) -> bool:
    """Return whether a text contains at least one spoken word."""
    return bool(text and normalise_transcript(text))


def remap(probabilities: np.ndarray, classes: Sequence[str], mapping: Mapping[str, str]) -> np.ndarray:
    """Convert probabilities to other classes.

    Probabilities of merged classes are added. The probability of dropped classes is divided among the others
    in proportion, so that rows still add up to 1.

    Args:
        probabilities: (N, K), in the order of `classes`.
        classes: classes of the model.
        mapping: class of the model -> wanted class; classes that do not occur are dropped.

    Returns:
        (N, J), in the order of `class_names(mapping)`; rows add up to 1.

    Raises:
        SertoneError: `unknown_class`.
    """
    if unknown := [name for name in mapping if name not in classes]:
        raise SertoneError(
            "unknown_class",
            f"{', '.join(unknown)}, which the model does not know",
            f"some of {', '.join(classes)}",
            did_you_mean(unknown[0], classes),
        )
    wanted = class_names(dict(mapping))
    assignment = np.zeros((len(classes), len(wanted)))
    for old, new in mapping.items():
        assignment[classes.index(old), wanted.index(new)] = 1.0
    merged = np.asarray(probabilities, float) @ assignment
    # `tiny` guards against 0 / 0 where the model gives all probability to dropped classes.
    return merged / np.maximum(merged.sum(-1, keepdims=True), np.finfo(float).tiny)
