"""Audio and text, emotions and their dimensions: bridge tokens between two pretrained encoders.

Ispas, Deschamps-Berger, Devillers: "A Multi-Task, Multi-Modal Approach for Predicting Categorical and
Dimensional Emotions", ICMI 2023 companion, arXiv 2401.00536.

    waveform -> speech encoder -> self-attention -+-> bridge tokens -> mean -+
                                                  x                          mean -> classifier, regressor
    text     -> text encoder   -> self-attention -+-> bridge tokens -> mean -+

One stage. The loss is a weighted sum of cross-entropy and one minus the concordance of every rating; in some
epochs one of the modalities is withheld (Random Modality Masking, `stage.Masking`).

Our reading, where the paper is silent:
    - "The shorter is padded to the longer": with zeros, within each utterance; what a batch pads beyond that
      never counts. `pairing: stretch` repeats the states of the shorter one instead, so that a word meets the
      sound of about its time.
    - A modality that is missing or withheld has no tokens. The stream whose values it would be is left out
      of the mean of the two; in plain cross-attention, which then has nothing to ask, the other modality goes
      on as it is. No utterance is ever left without both.
    - Self-attention has a residual connection and a layer norm (`residual`); attention between modalities has
      neither, as the formula says. Where the encoders' widths differ, linear layers bring both to `width`.
    - Classifier and regressor have one hidden layer of `hidden` units with dropout; both ratings share it
      (`separate_regressors`: each has its own).
    - Convolutions and the embeddings of text are frozen and run without dropout. All Transformer layers are
      trained, at one rate.
    - The paper divides ratings by the top of their scale (`ratings_from: zero`); `scale` maps the ends of a
      scale onto 0 and 1, also of one that reaches below zero. The concordance is the same for both.
    - Adam is AdamW without weight decay; the rate is constant. The epoch is chosen on the validation
      speaker, by the mean of UA and concordances.
"""

from collections.abc import Collection
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.models.stage import LossWeights, Masking, Stage
from sertone.nn.batch import Batch
from sertone.nn.crossmodal import INTERACTIONS, ModalitySelfAttention, ModalityStates
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.heads import ClassHead, HeadOutput
from sertone.nn.masks import frame_mask
from sertone.nn.ratings import RatingHead, Regressor
from sertone.nn.text import TextEncoder, TextEncoderConfig
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.settings import Settings


class TaskWeights(LossWeights):
    """Weight of each loss; 0 leaves the task out."""

    emotion: float = Field(default=0.33, ge=0)
    """The weight of the emotion loss."""
    valence: float = Field(default=0.33, ge=0)
    """The weight of the valence loss."""
    arousal: float = Field(default=0.33, ge=0)
    """The weight of the arousal loss."""
    dominance: float = Field(default=0.0, ge=0)
    """The weight of the dominance loss."""


class Config(Settings):
    """This model's part of a recipe."""

    later: ClassVar = ()
    """There is no second stage."""

    encoder: EncoderConfig
    """The speech encoder."""
    text: TextEncoderConfig | None
    """The text encoder. With null the model hears the audio alone."""
    tasks: TaskWeights = TaskWeights()
    """The weights of the losses."""
    self_attention: bool = True
    """With true each modality has a self-attention."""
    interaction: Literal["none", "cross", "bridge"] = "bridge"
    """The attention between the modalities."""
    bridge_tokens: int = Field(default=30, ge=1)
    """The number of bridge tokens of each stream."""
    pairing: Literal["pad", "stretch"] = "pad"
    """Keys of one modality and values of the other get the same length in this way."""
    attention_heads: int = Field(default=32, ge=1)
    """The number of heads of all attention outside the encoders, a divisor of `width`."""
    width: int | None = Field(default=None, ge=1)
    """The width of both modalities behind their encoders. With null it is that of the speech encoder."""
    residual: bool = True
    """With true the self-attention has a residual connection."""
    hidden: int = Field(default=256, ge=1)
    """The width of the heads' hidden layers."""
    separate_regressors: bool = False
    """With true each rating has a hidden layer of its own."""
    ratings_from: Literal["zero", "scale"] = "scale"
    """The regressor answers 0 to 1. With `scale` these are the lowest and the highest rating. `zero` divides
    ratings by the top of their scale, as published, and needs a scale above zero."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout of heads and attention outside the encoders."""
    masking: Masking = Masking()
    """The modality that is withheld at random in training."""
    frozen_layers: int = Field(default=0, ge=-1)
    """This many layers of the speech encoder are not trained. 0 freezes the front end only, and -1
    nothing."""
    freeze_embeddings: bool = True
    """With true the embeddings of the text encoder are not trained."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The tasks that the model is for."""
        return tuple(self.tasks.active_tasks())


class Model(nn.Module):
    """Two encoders, attention within and between modalities, classifier and regressor."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.tasks = config, config.tasks.active_tasks()
        self.encoder = config.encoder.build()
        self.text: TextEncoder | None = config.text.build(vocabulary.tokenizer) if config.text else None
        width = config.width or self.encoder.width
        _require_even_heads(width, config.attention_heads)
        shared = (width, config.attention_heads, config.dropout)
        encoders = {"audio": self.encoder} | ({"text": self.text} if self.text else {})
        self.projections = nn.ModuleDict({name: _projection(e.width, width) for name, e in encoders.items()})
        self.refinements = nn.ModuleDict(
            {
                name: ModalitySelfAttention(*shared, residual=config.residual)
                for name in encoders
                if config.self_attention
            }
        )
        interaction = config.interaction if self.text else "none"
        self.interaction = INTERACTIONS[interaction](*shared, config.bridge_tokens, config.pairing)
        self.regressors, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for task in self.tasks:
            self._add_head(task, width, vocabulary)

    def _add_head(self, task: str, width: int, vocabulary: Vocabulary) -> None:
        config = self.config
        if task not in DIMENSIONS:
            classes = vocabulary.classes[task]
            self.heads[task] = ClassHead(width, config.hidden, classes, config.dropout, metric=task)
            return
        if self._regressor(task) not in self.regressors:
            self.regressors[self._regressor(task)] = Regressor(width, config.hidden, config.dropout)
        self.heads[task] = RatingHead(
            config.hidden,
            vocabulary.ratings[task],
            divide_by_top=config.ratings_from == "zero",
            dropout=config.dropout,
        )

    def _regressor(self, task: str) -> str:
        return task if self.config.separate_regressors else "shared"

    def forward(self, batch: Batch, tasks: Collection[str] = ()) -> dict[str, HeadOutput]:
        """Batch -> output of every head; which tasks are asked for makes no difference."""
        streams = (audio := self._refined("audio", *batch.encode_audio(self.encoder)),)
        if self.text:
            streams = self.interaction(audio, self._refined("text", *batch.encode_text(self.text)))
        pooled = _mean_of_streams(streams)  # (B, D)
        hidden = {name: regressor(pooled) for name, regressor in self.regressors.items()}
        return {
            task: cast(ClassHead, head).classify(pooled, audio.counts)
            if task not in DIMENSIONS
            else cast(RatingHead, head).rate(hidden[self._regressor(task)], audio.counts)
            for task, head in self.heads.items()
        }

    def _refined(self, name: str, hidden: Tensor, counts: Tensor) -> ModalityStates:
        """The last layer at the common width, zero beyond what is real, after self-attention."""
        states = self.projections[name](hidden[:, -1])
        own = ModalityStates(states * frame_mask(counts, states.shape[1])[..., None], counts)
        return self.refinements[name](own) if name in self.refinements else own

    def stages(self) -> list[Stage]:
        """One stage."""
        config, frozen, masking = self.config, (), None
        if self.text:
            frozen = (f"text.{self.text.embeddings}",) if config.freeze_embeddings else ()
            masking = config.masking if config.masking.per != "off" else None
        needs = (self.encoder.depth,)
        return [Stage("joint", self.tasks, config.frozen_layers, needs, frozen, masking)]


def _require_even_heads(width: int, attention_heads: int) -> None:
    if width % attention_heads:
        raise SertoneError(
            "bad_heads",
            f"model.attention_heads {attention_heads} at a width of {width}",
            "a divisor of the width",
            "set model.attention_heads, or model.width",
        )


def _projection(own: int, width: int) -> nn.Module:
    return nn.Identity() if own == width else nn.Linear(own, width)


def _mean_of_streams(streams: Collection[ModalityStates]) -> Tensor:
    """Mean over the streams that are there of their means: (B, D)."""
    there = torch.stack([stream.counts > 0 for stream in streams])[..., None]  # (streams, B, 1)
    means = torch.stack([stream.mean() for stream in streams])  # (streams, B, D)
    return (means * there).sum(0) / there.sum(0).clamp(min=1)
