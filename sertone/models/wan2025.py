"""Metadata-enhanced speech emotion recognition with ARI and co-attention, trained in two stages.

Wan, Qiu, Liu, Zhang: "Metadata-Enhanced Speech Emotion Recognition: Augmented Residual Integration
and Co-Attention in Two-Stage Fine-Tuning", ICASSP 2025, arXiv 2412.20707.

    waveform -> SSL encoder -> ARI over all layers -+-> gender, speaker, style, transcript heads
                                                    |        | their hidden layers
                                                    +-> co-attention -> emotion head

Stage 1 (eq. 1): the auxiliary tasks only; the CNN is frozen, all Transformer layers are trained.
Stage 2 (eq. 2): the emotion loss is added; the CNN and the first four layers are frozen.

Our choices where the paper is silent or ambiguous:
    - W_l of ARI (eq. 3, `nn/fusions.py`) is a full matrix, zero at first; `ari_diagonal` and `ari_scalar` are
      options.
    - Every auxiliary head has one hidden layer of `hidden` units; that of the transcript head is averaged
      over time before it goes into the co-attention.
    - Co-attention (II-A5): masked scaled dot-product attention, one query per auxiliary task; its results
      are averaged over the tasks. The emotion head gets this average, the pooled ARI features and the
      auxiliary hidden layers, concatenated. `pooled_features: false` leaves the pooled ARI features out,
      which is what the paper's figure may mean.
    - The loss weights of the tasks are not published: `tasks` sets them, all 1 by default.
    - Each stage has 100 epochs. An epoch uses every utterance once, at one of the three speeds, drawn
      at random. Batches are drawn at random, too, and the weights of the last epoch are used.
    - Learning rates: "10e-4" and "10e-5" are read as 1e-4 and 1e-5 (docs/reproduce.md says why).
    - AdamW with weight decay 0.01, a constant rate, gradients clipped at norm 1. `hidden` is 256,
      dropout 0.1, the activation GELU. Emotion has weight 1 in stage 2.
    - No layer drop, no masking of features and no layer norm on the encoder's output. `model.encoder` has
      `layerdrop` and `mask_time_prob`, the model has `output_norm`.
    - With four layers frozen, so are the feature projection and the positional convolution below them.
    - TDSA is speed perturbation alone, and a speed of 80 % plays a recording slower, so it gets longer.
      SpeechBrain, the authors' toolkit, resamples to 80 % of the samples, so it gets shorter
      (16000 -> 12800), and its `TimeDomainSpecAugment` also removes up to three frequency bands and five
      chunks. `train.speed_direction: shorter` does the same, together with
      `train.augmentation: {drop_frequencies: 3, drop_chunks: 5}`.
"""

from collections.abc import Collection
from typing import Annotated, ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sertone.models.contract import EmotionModel
from sertone.models.stage import LossWeights, Stage
from sertone.nn.attention import CoAttention
from sertone.nn.batch import Batch
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.fusions import FUSIONS, list_fused_layers
from sertone.nn.heads import ClassHead, Head, HeadOutput, Heads, TranscriptHead
from sertone.nn.pooling import POOLINGS
from sertone.nn.state_norms import STATE_NORMS
from sertone.nn.vocabulary import TRANSCRIPT, Vocabulary
from sertone.recipe.choices import OneOf
from sertone.recipe.settings import Settings


class Tasks(LossWeights):
    """Weight of each auxiliary loss; 0 leaves the task out."""

    gender: float = Field(default=1.0, ge=0)
    """The weight of the gender loss."""
    speaker: float = Field(default=1.0, ge=0)
    """The weight of the speaker loss."""
    style: float = Field(default=1.0, ge=0)
    """The weight of the loss of the style, improvised or scripted."""
    asr: float = Field(default=1.0, ge=0)
    """The weight of the transcript loss (CTC over characters)."""


class Config(Settings):
    """This model's part of a recipe."""

    later_options: ClassVar[tuple[str, ...]] = (
        "co_attention",
        "pooled_features",
        "pooling",
        "frozen_layers",
    )
    """Options on which only the second stage depends."""

    encoder: EncoderConfig
    """The speech encoder."""
    tasks: Tasks = Tasks()
    """The weights of the auxiliary losses."""
    fusion: Annotated[str, OneOf(FUSIONS)] = "ari_full"
    """The way in which the layers become one sequence."""
    co_attention: bool = True
    """With false the emotion head sees the pooled features alone."""
    pooled_features: bool = True
    """The emotion head sees the pooled features beside the result of the co-attention and the auxiliary
    hidden layers. With false it sees those two alone."""
    output_norm: Annotated[str, OneOf(STATE_NORMS)] = "none"
    """The norm of the encoder's hidden states, to zero mean and unit variance. `frame` takes every frame by
    itself, and `utterance` all real frames together, as SpeechBrain's option does."""
    hidden: int = Field(default=256, ge=1)
    """The width of the heads' hidden layers."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout of the heads."""
    pooling: Annotated[str, OneOf(POOLINGS)] = "mean"
    """`mean` takes the mean over frames, as the paper does. `statistics` adds the standard deviation,
    `standardised` also brings each to one scale over the utterances, and `attentive` weighs frames."""
    frozen_layers: int = Field(default=4, ge=0)
    """Stage 2 does not train this many encoder layers."""
    frozen_layers_in_stage_1: int = Field(default=0, ge=0)
    """Stage 1 does not train this many encoder layers. 0 freezes the front end only, as in the paper."""
    freeze_fusion_in_stage_1: bool = False
    """With true stage 1 does not train the fusion: the paper's remedy where few auxiliary tasks are used."""

    @model_validator(mode="after")
    def _require_emotion_features(self) -> Self:
        if not self.pooled_features and not (self.co_attention and self.tasks.active_tasks()):
            raise ValueError(
                "pooled_features: false leaves the emotion head nothing; expected co_attention and a task"
            )
        return self

    @property
    def main_tasks(self) -> tuple[str, ...]:
        """The tasks that the model is for."""
        return ("emotion",)

    @property
    def text(self) -> None:
        """The model uses no text."""
        return None

    def build(self, vocabulary: Vocabulary) -> EmotionModel:
        """Build the model."""
        return Model(self, vocabulary)


class Model(nn.Module):
    """Encoder, fusion, auxiliary heads, co-attention and emotion head."""

    text = None

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.tasks = config.tasks.active_tasks()
        self.encoder = config.encoder.build()
        width = self.encoder.width
        self.fusion = FUSIONS[config.fusion](self.encoder.depth, width)
        self.heads = Heads({task: self._make_auxiliary_head(task, vocabulary) for task in self.tasks})
        self.pooling = POOLINGS[config.pooling](width) if config.pooled_features else None
        emotion_inputs = self.pooling.outputs if self.pooling else 0
        self.co_attention: CoAttention | None = None
        if config.co_attention and self.tasks:
            self.co_attention = CoAttention(width, config.hidden)
            emotion_inputs += width + config.hidden * len(self.tasks)
        self.heads["emotion"] = ClassHead(
            emotion_inputs, config.hidden, vocabulary.classes["emotion"], config.dropout, metric="emotion"
        )

    def _make_auxiliary_head(self, task: str, vocabulary: Vocabulary) -> Head:
        width, hidden, dropout = self.encoder.width, self.config.hidden, self.config.dropout
        if task == TRANSCRIPT:
            return TranscriptHead(width, hidden, vocabulary.characters, dropout)
        return ClassHead(width, hidden, vocabulary.classes[task], dropout)

    def forward(self, batch: Batch, tasks: Collection[str] = ("emotion",)) -> dict[str, HeadOutput]:
        """Batch -> output of every auxiliary head, and of the emotion head where `tasks` has it."""
        hidden, frames = batch.encode(self.encoder)  # (B, L+1, T, D)
        hidden = STATE_NORMS[self.config.output_norm](hidden, frames)
        features = self.fusion(hidden)  # (B, T, D)
        outputs = {task: self.heads[task](features, frames) for task in self.tasks}
        # Stage 1 does not ask for emotions: its emotion head and co-attention get no gradient.
        if "emotion" not in tasks:
            return outputs
        pooled = self._emotion_features(features, frames, outputs)
        return outputs | {"emotion": cast(ClassHead, self.heads["emotion"]).classify(pooled, frames)}

    def _emotion_features(self, features: Tensor, frames: Tensor, outputs: dict[str, HeadOutput]) -> Tensor:
        """Return the input of the emotion head: features (B, T, D), auxiliary outputs -> (B, its inputs)."""
        vectors = [self.pooling(features, frames)] if self.pooling else []
        if self.co_attention is not None:
            auxiliary = torch.stack([output.hidden for output in outputs.values()], 1)  # (B, A, H)
            weighted, _ = self.co_attention(auxiliary, features, frames)
            vectors += [weighted.mean(1), auxiliary.flatten(1)]
        return torch.cat(vectors, -1)

    def stages(self) -> list[Stage]:
        """Return the auxiliary stage and the emotion stage; without auxiliary tasks only the second."""
        needs = list_fused_layers(self.config.fusion, self.encoder.depth)
        frozen_first = ["heads.emotion"]  # and all else that only the second stage uses
        if self.pooling is not None:
            frozen_first.append("pooling")
        if self.co_attention is not None:
            frozen_first.append("co_attention")
        if self.config.freeze_fusion_in_stage_1:
            frozen_first.append("fusion")
        cut = self.config.frozen_layers_in_stage_1
        first = Stage("auxiliary", self.tasks, cut, needs, tuple(frozen_first))
        second = Stage("emotion", self.tasks | {"emotion": 1.0}, self.config.frozen_layers, needs)
        return [first, second] if self.tasks else [second]
