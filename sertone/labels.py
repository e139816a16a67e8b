"""Vocabularies of emotion, class maps, rating scales, and the letters of transcripts.

A corpus names its emotions in its own raw words and maps them to the names of EMOTIONS; a class map
then says which of those names a model learns, and under which class.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sertone.errors import SertoneError
from sertone.files import parse_yaml, read_text
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
"""Other words for the emotions of a table or a folder, in lower case: nouns, and the letters of IEMOCAP
except `dis`, which may be disappointed."""

FOUR_CLASSES = {
    "neutral": "neutral",
    "happy": "happy",
    "excited": "happy",
    "angry": "angry",
    "sad": "sad",
}

CLASS_MAPS = ("four", "all")
"""`four`: neutral, happy (with excited), angry, sad. `all`: every emotion its own class."""

GENDERS = ("female", "male")
STYLES = ("improvised", "scripted")
DIMENSIONS = ("arousal", "valence", "dominance")


@dataclass(frozen=True)
class Scale:
    """A rating scale: the lowest and the highest value a rater could choose, and its unit."""

    low: float
    high: float
    unit: str = "points"


def is_scale(values: Any) -> bool:
    """Return whether an object of JSON is a rating scale."""
    shape = {"low": float, "high": float}
    if find_misfits(values, shape, "scale") or not values.keys() <= {"low", "high", "unit"}:
        return False
    return values["low"] < values["high"] and isinstance(values.get("unit", ""), str)


def scale_range(scale: Scale | None) -> float:
    """Return how far the ends of a scale are apart; 1 where no scale is known."""
    return scale.high - scale.low if scale else 1.0


def describe_scale(scale: Scale | None) -> str:
    """Return a scale as `from 1 to 5 points`."""
    return f"from {scale.low:g} to {scale.high:g} {scale.unit}" if scale else "on no known scale"


def is_class_list(names: Any) -> bool:
    """Return whether a value of JSON is a list of class names, none of them there twice."""
    return not find_misfits(names, [str], "classes") and len(set(names)) == len(names) and all(names)


def rescale(value: float, of: Scale, to: Scale) -> float:
    """A rating on another scale: the ends of one are the ends of the other."""
    return to.low + (value - of.low) / (of.high - of.low) * (to.high - to.low)


def make_emotion_labels(raw: str, names: dict[str, str], path: str, report: ReportProblem) -> dict[str, str]:
    """The labels `emotion` and `raw_emotion` of an utterance; a raw label not in `names` is reported."""
    if raw not in names:
        report(Problem("unknown_label", path, f"emotion {raw!r}; expected one of {', '.join(names)}"))
        return {"raw_emotion": raw}
    return {"emotion": names[raw], "raw_emotion": raw}


def map_raw_labels(utterances: Iterable[Utterance]) -> dict[str, str]:
    """Return label, as the corpus writes it -> emotion, as its reader names it."""
    named = [u.labels for u in utterances if "emotion" in u.labels]
    return {str(labels.get("raw_emotion", labels["emotion"])): str(labels["emotion"]) for labels in named}


def resolve_class_map(classes: str | Mapping[str, str], written: Mapping[str, str]) -> dict[str, str]:
    """Emotion -> class.

    Args:
        classes: a name of CLASS_MAPS, or a mapping of one's own, see `as_read`.
        written: what `written_labels` says of the corpus.

    Raises:
        SertoneError: `unknown_class_map`, `ambiguous_classes`.
    """
    if isinstance(classes, Mapping):
        return resolve_raw_labels(classes, written)
    if classes == "four":
        return FOUR_CLASSES
    if classes == "all":
        found = set(written.values())
        known = [name for name in EMOTIONS if name in found]
        own = sorted(found - set(EMOTIONS))
        return {name: name for name in known + own if name not in NOT_CLASSES}
    raise SertoneError(
        "unknown_class_map",
        f"classes {classes!r}",
        f"one of {', '.join(CLASS_MAPS)}, or a mapping from emotion to class",
        did_you_mean(classes, CLASS_MAPS),
    )


def resolve_raw_labels(mapping: Mapping[str, str], written: Mapping[str, str]) -> dict[str, str]:
    """Return a map of labels as a map of the emotions that the reader makes of them.

    A label is an emotion's name or a word of the corpus, exactly; or else in another case; or else one of
    SYNONYMS. One that the corpus does not have stays in the map: another corpus may have it.

    Args:
        mapping: label -> class.
        written: label, as the corpus writes it -> emotion.

    Raises:
        SertoneError: `ambiguous_classes`, where two labels are one emotion and their classes differ.
    """
    read: dict[str, tuple[str, str]] = {}
    for label, name in mapping.items():
        emotion = _emotion_of(label, written)
        other, class_of_other = read.setdefault(emotion, (label, name))
        if name != class_of_other:
            raise SertoneError(
                "ambiguous_classes",
                f"{other} and {label} are both read as {emotion}, and their classes are {class_of_other} "
                f"and {name}",
                "one class for every emotion",
            )
    return {emotion: name for emotion, (_, name) in read.items()}


def _emotion_of(label: str, written: Mapping[str, str]) -> str:
    exact = {**written, **{emotion: emotion for emotion in written.values()}}
    if label in exact:
        return exact[label]
    lower = {word.lower(): emotion for word, emotion in exact.items()}
    return lower.get(label.lower()) or SYNONYMS.get(label.lower(), label)


def count_unmapped(utterances: Iterable[Utterance], mapping: Mapping[str, str]) -> dict[str, int]:
    """Return emotion -> utterances, of the emotions in no class, the most frequent first."""
    emotions = Counter(str(u.labels["emotion"]) for u in utterances if "emotion" in u.labels)
    return {name: count for name, count in emotions.most_common() if name not in mapping}


def find_unused_labels(mapping: Mapping[str, str], written: Mapping[str, str]) -> list[str]:
    """Return labels of a map that no utterance has, each with a near spelling where there is one."""
    absent = [label for label in mapping if _emotion_of(label, written) not in written.values()]
    words = {word.lower(): word for word in (*written.values(), *written)}
    nearest = {label: difflib.get_close_matches(label.lower(), words, 1, 0.7) for label in absent}
    return [f"{label} (did you mean {words[near[0]]}?)" if near else label for label, near in nearest.items()]


def format_counts(counts: Mapping[str, int], most: int = 12) -> str:
    """Return `calm 192, fearful 12`, the first ones of many."""
    words = [f"{name} {count}" for name, count in counts.items()]
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")


def class_names(mapping: dict[str, str]) -> list[str]:
    """The classes of a map, each once, in the map's order."""
    return list(dict.fromkeys(mapping.values()))


def normalise_counts(counts: Mapping[str, float]) -> dict[str, float]:
    """Counts as shares that add up to 1, without those that are zero; empty where nothing was counted."""
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items() if count > 0}


def class_shares(votes: Mapping[str, float], mapping: Mapping[str, str]) -> dict[str, float]:
    """Votes by class: emotions of one class together, those of none left out; adds up to 1, or empty.

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
    """Return lower-case letters, digits, apostrophes and single spaces: no tags such as [LAUGHTER]."""
    text = re.sub(r"\[[^\]]*\]", " ", text).replace("’", "'").lower()
    return " ".join(re.sub(r"[^\w']|_", " ", text).split())


def has_words(text: str | None) -> bool:
    """Whether there is a text, and a spoken word in it."""
    return bool(text and normalise_transcript(text))


def parse_map(text: str, what: str) -> dict[str, str]:
    """A mapping from names to names: `happy=positive,excited=positive,sad`, or a YAML file that holds one.

    A name by itself stands for itself; a name that is not there is left out.

    Args:
        text: the pairs, or the file's name.
        what: is mapped, for errors.

    Raises:
        SertoneError: `bad_map`.
    """
    if text.endswith((".yaml", ".yml")):
        mapping = _map_of_file(Path(text))
    else:
        pairs = [part.partition("=") for part in text.split(",")]
        mapping = {old.strip(): (new or old).strip() for old, _, new in pairs}
        if len(mapping) < len(pairs):
            raise SertoneError("bad_map", f"{what} {text!r}", "every name once")
    if not isinstance(mapping, dict) or not all(
        isinstance(name, str) and name for pair in mapping.items() for name in pair
    ):
        raise SertoneError(
            "bad_map", f"{what} {text!r}", "OLD=NEW,OLD=NEW or a YAML file with a mapping of names"
        )
    return mapping


def _map_of_file(path: Path) -> Any:
    try:
        return parse_yaml(read_text(path, "bad_map"))
    except ValueError as error:
        raise SertoneError("bad_map", f"{path}: {error}", "a YAML file with a mapping of names") from None


def remap(probabilities: np.ndarray, classes: Sequence[str], mapping: Mapping[str, str]) -> np.ndarray:
    """Probabilities of other classes: what is merged is added, what is left out is divided among the rest.

    Args:
        probabilities: (N, K), in the order of `classes`.
        classes: of the model.
        mapping: class of the model -> class wanted; classes that are not there are left out.

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
    chosen = np.zeros((len(classes), len(wanted)))
    for old, new in mapping.items():
        chosen[classes.index(old), wanted.index(new)] = 1.0
    kept = np.asarray(probabilities, float) @ chosen
    return kept / np.maximum(kept.sum(-1, keepdims=True), np.finfo(float).tiny)
