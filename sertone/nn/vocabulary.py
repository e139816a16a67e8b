"""What goes into a model as text, and what its heads' outputs mean: classes, rating scales, an alphabet."""

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
NOBODY = "(unknown)"
"""The only class of speakers where none is known; no utterance has it as its label."""


@dataclass(frozen=True)
class Vocabulary:
    """Names behind the logits.

    Attributes:
        class_map: emotion -> class.
        classes: task -> names, in the order of the logits.
        characters: alphabet of transcripts, without the blank.
        ratings: dimension -> scale of the corpus, of those that a model rates.
        tokenizer: of the text that a model reads, as JSON; empty where it reads none.
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
        """From the utterances of a training fold: its known speakers, its letters."""
        training = list(training)
        classes = {
            "emotion": class_names(class_map),
            "gender": _found(training, "gender") or list(GENDERS),
            "style": _found(training, "style") or list(STYLES),
            "speaker": sorted({u.speaker for u in training if u.known_speaker}) or [NOBODY],
        }
        letters = {letter for u in training for letter in normalise_transcript(u.text or "")}
        return cls(class_map, classes, sorted(letters), ratings or {}, tokenizer)

    @classmethod
    def from_json(cls, values: dict[str, Any], tokenizer: str = "") -> Self:
        """What `to_json` gave, and the tokenizer."""
        ratings = {name: Scale(**scale) for name, scale in values.get("ratings", {}).items()}
        return cls(values["class_map"], values["classes"], values["characters"], ratings, tokenizer)

    def to_json(self) -> dict:
        """As a JSON object, without the tokenizer, which has a file of its own."""
        return {name: value for name, value in asdict(self).items() if name != "tokenizer"}

    def find_label(self, task: str, utterance: Utterance) -> str | float | None:
        """The class or rating of an utterance, its spoken text for a transcript, None where it is missing."""
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
        """What a head should answer.

        Args:
            task: whose.
            utterances: of the batch.
            soft: of emotion, the annotators' votes where any of them are in the classes.

        Returns:
            (B, K) shares of the classes, zeros where the label is missing or not among them; (B, S)
            characters counted from 1 and 0 after the end; or (B,) ratings, NaN where there is none.
        """
        labels: list[Any] = [self.find_label(task, u) for u in utterances]
        if task == TRANSCRIPT:
            return self._characters(labels)
        if task in self.ratings:
            return torch.tensor([math.nan if label is None else label for label in labels])
        index = {name: number for number, name in enumerate(self.classes[task])}
        target = torch.zeros(len(labels), len(index))
        for row, (label, utterance) in enumerate(zip(labels, utterances, strict=True)):
            votes = class_shares(utterance.votes, self.class_map) if soft and task == "emotion" else {}
            for name, share in (votes or {label: 1.0}).items():
                if name in index:
                    target[row, index[name]] = share
        return target

    def encode_texts(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Tokens (B, S) of what a model reads, and how many count, (B,): none where there is no text."""
        return tokens.encode(self.tokenizer, texts)

    def _characters(self, texts: list[str | None]) -> Tensor:
        index = {letter: number for number, letter in enumerate(self.characters, 1)}
        rows = [[index[letter] for letter in text or "" if letter in index] for text in texts]
        target = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.long)
        for number, row in enumerate(rows):
            target[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        return target


def _found(training: list[Utterance], task: str) -> list[str]:
    return sorted({str(u.labels[task]) for u in training if task in u.labels})
