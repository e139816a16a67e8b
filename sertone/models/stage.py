"""One stage of a training plan: which losses count, what stays as it is, and what is withheld."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from sertone.labels import has_words
from sertone.recipe.settings import Settings
from sertone.schema import Utterance

MODALITIES = ("audio", "text")


class LossWeights(Settings):
    """Weight of each loss; 0 leaves the task out. A model's own has a field for each of its tasks."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.active_tasks():
            raise ValueError("all weights are 0; at least one task has to be learnt")
        return self

    def active_tasks(self) -> dict[str, float]:
        """The tasks that take part."""
        return {task: weight for task, weight in self.model_dump().items() if weight > 0}


class Masking(Settings):
    """Random Modality Masking (ispas2023, arXiv 2401.00536): audio or text is withheld in training."""

    per: Literal["off", "epoch", "utterance"] = "epoch"
    """`epoch` withholds one modality from all utterances of an epoch, and does not train its encoder in it,
    as in the paper. `utterance` decides for each utterance by itself."""
    probability: float = Field(default=0.8, ge=0, le=1)
    """The probability at the beginning of the stage. It falls to zero as a cosine."""
    least: float = Field(default=0.1, ge=0, le=1)
    """A probability below this counts as zero."""
    text: float = Field(default=0.6, ge=0, le=1)
    """The share of the maskings that withhold the text. The others withhold the audio."""

    def probability_after(self, done: float) -> float:
        """Of withholding something, after this share of the stage."""
        probability = self.probability * (1 + math.cos(math.pi * done)) / 2
        return probability if self.per != "off" and probability >= self.least else 0.0

    def draw(self, random: np.random.Generator, done: float, utterances: int) -> list[str]:
        """What of each utterance is withheld in an epoch: `audio`, `text` or nothing.

        Args:
            random: numbers are drawn from it also where nothing is withheld.
            done: share of the stage before the epoch.
            utterances: how many.
        """
        draws = 1 if self.per == "epoch" else utterances
        masked = random.random(draws) < self.probability_after(done)
        text = random.random(draws) < self.text
        chosen = [MODALITIES[int(t)] if m else "" for m, t in zip(masked, text, strict=True)]
        return chosen * utterances if self.per == "epoch" else chosen


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        name: for progress lines and reports.
        weights: task -> weight of its loss; the loss is the weighted sum.
        cut: where the encoder's frozen prefix ends (see `nn.encoder`).
        needs: the encoder's hidden states that the model reads; a cache keeps no others.
        frozen: names of further modules that are not trained.
        masking: what is withheld at random; None: nothing.
    """

    name: str
    weights: dict[str, float]
    cut: int
    needs: tuple[int, ...]
    frozen: tuple[str, ...] = ()
    masking: Masking | None = None

    def draw_withheld(
        self, utterances: Sequence[Utterance], draw: np.random.Generator, done: float
    ) -> list[str]:
        """Draw what of each utterance an epoch withholds: `audio`, `text` or nothing.

        Audio is never withheld from an utterance without text, so that something is left of each.

        Args:
            utterances: of the training side.
            draw: of the epoch.
            done: share of the stage before the epoch.
        """
        if self.masking is None:
            return [""] * len(utterances)
        drawn = zip(utterances, self.masking.draw(draw, done, len(utterances)), strict=True)
        return ["" if what == "audio" and not has_words(u.text) else what for u, what in drawn]
