"""Vocabularies of emotion, class maps, rating scales, and the letters of transcripts.

A corpus names its emotions in its own raw words and maps them to the names of EMOTIONS; a class map
then says which of those names a model learns, and under which class.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sertone.errors import SertoneError
from sertone.files import parse_yaml, read_text
from sertone.schema import Problem, Report
from sertone.shape import misfits
from sertone.suggestions import did_you_mean

EMOTIONS = (
    "neutral", "calm", "happy", "excited", "angry", "frustrated", "sad", "fearful", "disgusted",
    "surprised", "bored", "contempt", "other", "no_agreement",
)  # fmt: skip
NOT_CLASSES = ("other", "no_agreement")

SYNONYMS = {
    "anger": "angry",
    "boredom": "bored",
    "disgust": "disgusted",
    "excitement": "excited",
    "fear": "fearful",
    "frustration": "frustrated",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprise": "surprised",
}

FOUR = {
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
    if misfits(values, shape, "scale") or not values.keys() <= {"low", "high", "unit"}:
        return False
    return values["low"] < values["high"] and isinstance(values.get("unit", ""), str)


def are_classes(names: Any) -> bool:
    """Return whether a value of JSON is a list of class names, none of them there twice."""
    return not misfits(names, [str], "classes") and len(set(names)) == len(names) and all(names)


def rescaled(value: float, of: Scale, to: Scale) -> float:
    """A rating on another scale: the ends of one are the ends of the other."""
    return to.low + (value - of.low) / (of.high - of.low) * (to.high - to.low)


def emotion_labels(raw: str, names: dict[str, str], path: str, report: Report) -> dict[str, str]:
    """The labels `emotion` and `raw_emotion` of an utterance; a raw label not in `names` is reported."""
    if raw not in names:
        report(Problem("unknown_label", path, f"emotion {raw!r}; expected one of {', '.join(names)}"))
        return {"raw_emotion": raw}
    return {"emotion": names[raw], "raw_emotion": raw}


def class_map(classes: str | dict[str, str], found: set[str]) -> dict[str, str]:
    """Emotion -> class.

    Args:
        classes: a name of CLASS_MAPS, or a mapping of one's own.
        found: the emotions that occur in the corpus.

    Raises:
        SertoneError: `unknown_class_map`.
    """
    if isinstance(classes, dict):
        return classes
    if classes == "four":
        return FOUR
    if classes == "all":
        known = [name for name in EMOTIONS if name in found]
        own = sorted(found - set(EMOTIONS))
        return {name: name for name in known + own if name not in NOT_CLASSES}
    raise SertoneError(
        "unknown_class_map",
        f"classes {classes!r}",
        f"one of {', '.join(CLASS_MAPS)}, or a mapping from emotion to class",
        did_you_mean(classes, CLASS_MAPS),
    )


def class_names(mapping: dict[str, str]) -> list[str]:
    """The classes of a map, each once, in the map's order."""
    return list(dict.fromkeys(mapping.values()))


def shares(counts: Mapping[str, float]) -> dict[str, float]:
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
    return shares(counts)


def spoken_text(text: str) -> str:
    """A transcript as it is spoken: lower-case letters, digits, apostrophes and single spaces.

    Tags such as [LAUGHTER] and all punctuation go.
    """
    text = re.sub(r"\[[^\]]*\]", " ", text).replace("’", "'").lower()
    return " ".join(re.sub(r"[^\w']|_", " ", text).split())


def has_words(text: str | None) -> bool:
    """Whether there is a text, and a spoken word in it."""
    return bool(text and spoken_text(text))


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
