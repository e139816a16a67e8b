"""One stage of a training plan: its losses, what it freezes, and which modality it withholds."""

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
    """Weight of each loss; 0 leaves the task out. A subclass has a field for each task of its model."""

    def active_tasks(self) -> dict[str, float]:
        """Return the weights of the tasks that take part."""
        return {task: weight for task, weight in self.model_dump().items() if weight > 0}


class RequiredLossWeights(LossWeights):
    """Weights of a model that has no other loss, so at least one task takes part."""

    @model_validator(mode="after")
    def _require_a_task(self) -> Self:
        if not self.active_tasks():
            raise ValueError("all weights are 0; at least one task has to be learned")
        return self


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

    def probability_after(self, progress: float) -> float:
        """Return the probability of withholding a modality, after this share of the stage."""
        probability = self.probability * (1 + math.cos(math.pi * progress)) / 2
        return probability if self.per != "off" and probability >= self.least else 0.0

    def draw(self, random: np.random.Generator, progress: float, utterances: int) -> list[str]:
        """Draw the modality that an epoch withholds from each utterance: `audio`, `text` or an empty name.

        Args:
            random: numbers are drawn from it also where nothing is withheld.
            progress: share of the stage before the epoch.
            utterances: number of utterances.
        """
        draws = 1 if self.per == "epoch" else utterances
        # Both lines always draw as many numbers, so that later draws do not depend on the probability.
        is_masked = random.random(draws) < self.probability_after(progress)
        masks_text = random.random(draws) < self.text
        modalities = [
            MODALITIES[int(text)] if masked else ""
            for masked, text in zip(is_masked, masks_text, strict=True)
        ]
        return modalities * utterances if self.per == "epoch" else modalities


@dataclass(frozen=True)
class Stage:
    """A stage of training.

    Attributes:
        name: for progress lines and reports.
        weights: task -> weight of its loss; the loss is the weighted sum.
        cut: where the encoder's frozen prefix ends (see `nn.encoders.base`).
        needs: the encoder's hidden states that the model uses; a cache keeps no others.
        frozen: names of further modules that are not trained.
        masking: the modality that is withheld at random; None: none.
    """

    name: str
    weights: dict[str, float]
    cut: int
    needs: tuple[int, ...]
    frozen: tuple[str, ...] = ()
    masking: Masking | None = None

    def draw_withheld(
        self, utterances: Sequence[Utterance], random: np.random.Generator, progress: float
    ) -> list[str]:
        """Draw the modality that an epoch withholds from each utterance: `audio`, `text` or an empty name.

        Audio is never withheld from an utterance without text, so that each keeps a modality.

        Args:
            utterances: utterances of the training set.
            random: generator of the epoch's random numbers.
            progress: share of the stage before the epoch.
        """
        if self.masking is None:
            return [""] * len(utterances)
        modalities = self.masking.draw(random, progress, len(utterances))
        return [
            "" if modality == "audio" and not has_words(utterance.text) else modality
            for utterance, modality in zip(utterances, modalities, strict=True)
        ]
