"""The vocabulary of a model: its classes, rating scales, alphabet of transcripts, and tokenizer."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from sertone.labels import GENDERS, STYLES, Scale, class_names, class_shares, normalise_transcript
from sertone.nn import tokens
from sertone.schema import Utterance

TRANSCRIPT = "asr"
UNKNOWN_SPEAKER = "(unknown)"
"""The only class of speakers where no speaker is known; no utterance has it as its label."""


@dataclass(frozen=True)
class Vocabulary:
    """The meaning of the logits, and of the text input.

    Attributes:
        class_map: emotion -> class.
        classes: task -> names, in the order of the logits.
        characters: alphabet of transcripts, without the blank.
        ratings: dimension -> scale of the corpus, for the dimensions that a model rates.
        tokenizer: tokenizer of the text input, as JSON; empty where a model uses no text.
    """

    class_map: dict[str, str]
    classes: dict[str, list[str]]
    characters: list[str]
    ratings: dict[str, Scale] = field(default_factory=dict)
    tokenizer: str = ""

    @classmethod
    def from_utterances(
        cls,
        training: Iterable[Utterance],
        class_map: dict[str, str],
        ratings: dict[str, Scale] | None = None,
        tokenizer: str = "",
    ) -> Self:
        """Collect the known speakers, other classes and characters of the utterances of a training set."""
        training = list(training)
        classes = {
            "emotion": class_names(class_map),
            "gender": _collect_labels(training, "gender") or list(GENDERS),
            "style": _collect_labels(training, "style") or list(STYLES),
            "speaker": sorted({u.speaker for u in training if u.known_speaker}) or [UNKNOWN_SPEAKER],
        }
        characters = {character for u in training for character in normalise_transcript(u.text or "")}
        return cls(class_map, classes, sorted(characters), ratings or {}, tokenizer)

    @classmethod
    def from_json(cls, values: dict[str, Any], tokenizer: str = "") -> Self:
        """Load the result of `to_json`, and add the tokenizer."""
        ratings = {name: Scale(**scale) for name, scale in values.get("ratings", {}).items()}
        return cls(values["class_map"], values["classes"], values["characters"], ratings, tokenizer)

    def to_json(self) -> dict:
        """Return a JSON object, without the tokenizer, which has a separate file."""
        return {name: value for name, value in asdict(self).items() if name != "tokenizer"}

    def find_label(self, task: str, utterance: Utterance) -> str | float | None:
        """Return the label of an utterance: a class, a rating, or its spoken text for a transcript.

        Returns:
            the label, or None where it is missing.
        """
        if task == TRANSCRIPT:
            return normalise_transcript(utterance.text) if utterance.text else None
        if task == "speaker":
            return utterance.speaker if utterance.known_speaker else None
        value = utterance.labels.get(task)
        if task in self.ratings:
            return value if isinstance(value, float) else None
        if task == "emotion":
            return self.class_map.get(str(value))
        return None if value is None else str(value)

    def make_targets(self, task: str, utterances: Sequence[Utterance], *, soft: bool = False) -> Tensor:
        """Return the targets of a head.

        Args:
            task: task of the head.
            utterances: utterances of the batch.
            soft: use the annotators' votes for emotions, where any of them are in the classes.

        Returns:
            (B, K) probabilities of the classes, zeros where the label is missing or not among them; (B, S)
            characters counted from 1 and 0 after the end; or (B,) ratings, NaN where there is none.
        """
        labels: list[Any] = [self.find_label(task, u) for u in utterances]
        if task == TRANSCRIPT:
            return self._encode_characters(labels)
        if task in self.ratings:
            # Ratings have no number that could stand for a missing one, so it is NaN.
            return torch.tensor([math.nan if label is None else label for label in labels])
        index = {name: number for number, name in enumerate(self.classes[task])}
        target = torch.zeros(len(labels), len(index))
        for row, (label, utterance) in enumerate(zip(labels, utterances, strict=True)):
            votes = class_shares(utterance.votes, self.class_map) if soft and task == "emotion" else {}
            probabilities = votes or {label: 1.0}
            for name, probability in probabilities.items():
                if name in index:  # a speaker of the test set, say, is no class of training
                    target[row, index[name]] = probability
        return target

    def encode_texts(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, S) of texts and how many count, (B,): none where there is no text."""
        return tokens.encode(self.tokenizer, texts)

    def _encode_characters(self, texts: list[str | None]) -> Tensor:
        """Return the characters of transcripts, counted from 1; 0 is the blank of CTC: (B, S)."""
        index = {character: number for number, character in enumerate(self.characters, 1)}
        rows = [[index[character] for character in text or "" if character in index] for text in texts]
        target = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.long)
        for number, row in enumerate(rows):
            target[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        return target


def _collect_labels(training: list[Utterance], task: str) -> list[str]:
    return sorted({str(u.labels[task]) for u in training if task in u.labels})
