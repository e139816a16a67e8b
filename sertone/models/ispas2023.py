"""Audio and text, emotions and their dimensions: bridge tokens between two pretrained encoders.

Ispas, Deschamps-Berger, Devillers: "A Multi-Task, Multi-Modal Approach for Predicting Categorical and
Dimensional Emotions", ICMI 2023 companion, arXiv 2401.00536.

    waveform -> speech encoder -> self-attention -+-> bridge tokens -> mean -+
                                                  x                          mean -> classifier, regressor
    text     -> text encoder   -> self-attention -+-> bridge tokens -> mean -+

One stage. The loss is a weighted sum of cross-entropy and one minus the concordance of every rating; in some
epochs one of the modalities is withheld (Random Modality Masking, `stage.Masking`).

Our reading, where the paper is silent:
    - "The shorter is padded to the longer": with zeros, within each utterance; further padding of the batch
      never counts. `pairing: stretch` repeats the states of the shorter one instead, so that a word is paired
      with the sound of about its time.
    - A modality that is missing or withheld has no tokens. The stream whose values it would be is left out
      of the mean of the two. In plain cross-attention the other modality then stays as it is. No utterance
      ever lacks both modalities.
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

from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.models.contract import EmotionModel
from sertone.models.stage import Masking, RequiredLossWeights, Stage
from sertone.nn.attention import INTERACTIONS, ModalitySelfAttention, ModalityStates
from sertone.nn.batch import Batch
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.fusions import FUSIONS, list_fused_layers
from sertone.nn.heads import ClassHead, Head, HeadOutput, Heads
from sertone.nn.masks import frame_mask
from sertone.nn.pooling import POOLINGS
from sertone.nn.rating_heads import RatingHead, Regressor
from sertone.nn.state_norms import STATE_NORMS
from sertone.nn.text import TextEncoder, TextEncoderConfig
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.choices import OneOf
from sertone.recipe.settings import Settings


class TaskWeights(RequiredLossWeights):
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

    later_options: ClassVar[tuple[str, ...]] = ()
    """There is no second stage."""

    encoder: EncoderConfig
    """The speech encoder."""
    text: TextEncoderConfig | None
    """The text encoder. With null the model uses the audio alone."""
    tasks: TaskWeights = TaskWeights()
    """The weights of the losses."""
    fusion: Annotated[str, OneOf(FUSIONS)] = "last"
    """The way in which the layers of the speech encoder become one sequence. The paper takes the last one."""
    output_norm: Annotated[str, OneOf(STATE_NORMS)] = "none"
    """The norm of the encoder's hidden states, to zero mean and unit variance. `frame` takes every frame by
    itself, and `utterance` all real frames together, as SpeechBrain's option does."""
    self_attention: bool = True
    """With true each modality has a self-attention."""
    interaction: Annotated[str, OneOf(INTERACTIONS)] = "bridge"
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
    pooling: Annotated[str, OneOf(POOLINGS)] = "mean"
    """The pooling of both streams over time. `mean` takes the mean, as the paper does. `statistics` adds the
    standard deviation, `standardised` also brings each to one scale over the utterances, and `attentive`
    weighs the states."""
    hidden: int = Field(default=256, ge=1)
    """The width of the heads' hidden layers."""
    separate_regressors: bool = False
    """With true each rating has a separate hidden layer."""
    ratings_from: Literal["zero", "scale"] = "scale"
    """The regressor predicts 0 to 1. With `scale` these are the lowest and the highest rating. `zero` divides
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
    def main_tasks(self) -> tuple[str, ...]:
        """The tasks that the model is for."""
        return tuple(self.tasks.active_tasks())

    def build(self, vocabulary: Vocabulary) -> EmotionModel:
        """Build the model."""
        return Model(self, vocabulary)


class Model(nn.Module):
    """Two encoders, attention within and between modalities, classifier and regressor."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.tasks = config.tasks.active_tasks()
        self.encoder = config.encoder.build()
        self.text: TextEncoder | None = config.text.build(vocabulary.tokenizer) if config.text else None
        self.fusion = FUSIONS[config.fusion](self.encoder.depth, self.encoder.width)
        width = config.width or self.encoder.width
        _require_even_heads(width, config.attention_heads)
        widths = {"audio": self.encoder.width} | ({"text": self.text.width} if self.text else {})
        self.projections = nn.ModuleDict({name: _make_projection(widths[name], width) for name in widths})
        self.refinements = nn.ModuleDict()
        if config.self_attention:
            for name in widths:
                self.refinements[name] = ModalitySelfAttention(
                    width, config.attention_heads, config.dropout, residual=config.residual
                )
        # Without text there is no second modality to attend to.
        interaction = INTERACTIONS[config.interaction if self.text else "none"]
        self.interaction = interaction(
            width, config.attention_heads, config.dropout, config.bridge_tokens, config.pairing
        )
        self.pooling = POOLINGS[config.pooling](width)
        self.regressors = nn.ModuleDict()
        self.heads = Heads()
        for task in self.tasks:
            if task in DIMENSIONS and self._regressor_name(task) not in self.regressors:
                regressor = Regressor(self.pooling.outputs, config.hidden, config.dropout)
                self.regressors[self._regressor_name(task)] = regressor
            self.heads[task] = self._make_head(task, self.pooling.outputs, vocabulary)

    def _make_head(self, task: str, width: int, vocabulary: Vocabulary) -> Head:
        config = self.config
        if task not in DIMENSIONS:
            return ClassHead(width, config.hidden, vocabulary.classes[task], config.dropout, metric=task)
        return RatingHead(
            config.hidden,
            vocabulary.ratings[task],
            divide_by_top=config.ratings_from == "zero",
            dropout=config.dropout,
        )

    def _regressor_name(self, task: str) -> str:
        return task if self.config.separate_regressors else "shared"

    def forward(self, batch: Batch, tasks: Collection[str] = ()) -> dict[str, HeadOutput]:
        """Batch -> output of every head, whichever `tasks` are asked for."""
        hidden, frames = batch.encode_audio(self.encoder)
        hidden = STATE_NORMS[self.config.output_norm](hidden, frames)
        audio = self._refine("audio", self.fusion(hidden), frames)
        streams = [audio]
        if self.text:
            hidden, counts = batch.encode_text(self.text)
            streams = self.interaction(audio, self._refine("text", hidden[:, -1], counts))
        pooled = self._pool(streams)
        regressed = {name: regressor(pooled) for name, regressor in self.regressors.items()}
        outputs: dict[str, HeadOutput] = {}
        for task, head in self.heads.items():
            if isinstance(head, RatingHead):
                outputs[task] = head.rate(regressed[self._regressor_name(task)], audio.counts)
            else:
                outputs[task] = cast(ClassHead, head).classify(pooled, audio.counts)
        return outputs

    def _refine(self, modality: str, sequence: Tensor, counts: Tensor) -> ModalityStates:
        """Project a sequence to the common width, and apply the self-attention, where there is one.

        Args:
            modality: `audio` or `text`.
            sequence: fused or last layer of the encoder, (B, T, D of the encoder).
            counts: real states, (B,).
        """
        projected = self.projections[modality](sequence)
        # A linear projection has a bias, and withheld audio has states: the mask sets both to zero.
        mask = frame_mask(counts, projected.shape[1])[..., None]
        states = ModalityStates(projected * mask, counts)
        return self.refinements[modality](states) if modality in self.refinements else states

    def _pool(self, streams: Sequence[ModalityStates]) -> Tensor:
        """Pool each stream over time, and average the present ones: (B, `pooling.outputs`)."""
        present = torch.stack([stream.counts > 0 for stream in streams])[..., None]  # (streams, B, 1)
        vectors = torch.stack([self.pooling(stream.states, stream.counts) for stream in streams])
        return (vectors * present).sum(0) / present.sum(0).clamp(min=1)

    def stages(self) -> list[Stage]:
        """Return the only stage."""
        config = self.config
        frozen: tuple[str, ...] = ()
        masking = None
        if self.text and config.freeze_embeddings:
            frozen = (f"text.{self.text.embeddings}",)
        if self.text and config.masking.per != "off":
            masking = config.masking
        needs = list_fused_layers(config.fusion, self.encoder.depth)
        return [Stage("joint", self.tasks, config.frozen_layers, needs, frozen, masking)]


def _require_even_heads(width: int, attention_heads: int) -> None:
    if width % attention_heads:
        raise SertoneError(
            "bad_heads",
            f"model.attention_heads {attention_heads} at a width of {width}",
            "a divisor of the width",
            "set model.attention_heads, or model.width",
        )


def _make_projection(encoder_width: int, width: int) -> nn.Module:
    return nn.Identity() if encoder_width == width else nn.Linear(encoder_width, width)
