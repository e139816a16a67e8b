"""Small distilled encoders of audio and text that rate arousal, valence and dominance.

de Oliveira, Raj Prabhu, Gerkmann: "Leveraging Semantic Information for Efficient Self-Supervised Emotion
Recognition with Audio-Textual Distilled Models", Interspeech 2023, arXiv 2305.19184.

    waveform -> small speech encoder -> layers -> pooling -+
                                                           fused -> three regressors
    text     -> small text encoder   -> last   -> pooling -+

Shallow layers of HuBERT matter more for arousal and deep ones for valence, says the paper. A distilled model
lacks the deep ones, and the text makes up for it. One stage; the loss is the weighted sum of one minus the
concordance of every rating.

Our reading, of the abstract alone (no table of the paper is reproduced, or known here):
    - DistilHuBERT and DistilBERT, the convolutions and the embeddings of text frozen: some 20 % of the
      trainable parameters of HuBERT-large without its convolutions (`sertone info`).
    - `layers: weighted_sum` of the speech encoder with softmax weights, equal at first; `last` is the last
      layer alone. Of the text the last layer. `separate: true` learns layer weights, pooling and fusion for
      every rating, so that the weights can be compared; the recipe shares them.
    - The recipe pools with `pooling: attentive`, mean and standard deviation weighted by attention; the
      model's default is the mean. The vectors are concatenated (`joining: concatenation`); `gate` weighs
      them. Every rating has a separate regressor: one hidden layer of 256 units, then a sigmoid over the
      scale.
    - A modality that is missing is zeros in the concatenation and has no weight in the gate. `masking`
      withholds one at random in training; off by default.
    - `text: null` uses the audio alone. `encoder: null` uses the text alone, and then predicts the same
      ratings for all utterances without text.
    - Training, as `recipes/oliveira2023.yaml` sets it: AdamW with weight decay 0.01 and dropout 0.1; rates of
      1e-05 for both encoders and 0.0001 for all else, which rise over the first 5 % of the steps and then
      fall to zero as a cosine; 10 epochs of batches of up to 160 s, padding included; no speed perturbation.
      The epoch is chosen on the validation set by the mean of the concordances.
"""

from collections.abc import Collection
from typing import Annotated, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sertone.models.contract import EmotionModel
from sertone.models.stage import Masking, RequiredLossWeights, Stage
from sertone.nn.batch import Batch
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.encoders.no_encoder import NoEncoder
from sertone.nn.fusions import FUSIONS, list_fused_layers
from sertone.nn.heads import HeadOutput, Heads
from sertone.nn.modality_fusion import MODALITY_FUSIONS
from sertone.nn.pooling import POOLINGS
from sertone.nn.rating_heads import RatingHead, Regressor
from sertone.nn.text import TextEncoder, TextEncoderConfig
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.choices import OneOf
from sertone.recipe.settings import Settings


class RatingWeights(RequiredLossWeights):
    """Weight of each loss; 0 leaves the rating out."""

    arousal: float = Field(default=1.0, ge=0)
    """The weight of the arousal loss."""
    valence: float = Field(default=1.0, ge=0)
    """The weight of the valence loss."""
    dominance: float = Field(default=1.0, ge=0)
    """The weight of the dominance loss."""


class Config(Settings):
    """This model's part of a recipe."""

    later_options: ClassVar[tuple[str, ...]] = ()
    """There is no second stage."""

    encoder: EncoderConfig | None
    """The speech encoder. With null the model uses the text alone."""
    text: TextEncoderConfig | None
    """The text encoder. With null the model uses the audio alone."""
    tasks: RatingWeights = RatingWeights()
    """The weights of the losses."""
    layers: Literal["last", "weighted_sum"] = "weighted_sum"
    """The layers of the speech encoder become one in this way."""
    pooling: Annotated[str, OneOf(POOLINGS)] = "mean"
    """The pooling over frames and over tokens. `statistics` adds the standard deviation, and `attentive`
    weighs."""
    joining: Annotated[str, OneOf(MODALITY_FUSIONS)] = "concatenation"
    """The way in which audio and text are fused."""
    separate: bool = False
    """With true every rating has separate layer weights, pooling and modality fusion. Otherwise all ratings
    share them."""
    hidden: int = Field(default=256, ge=1)
    """The width of the regressors' hidden layers."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout of the regressors."""
    masking: Masking = Masking(per="off")
    """The modality that is withheld at random in training."""
    frozen_layers: int = Field(default=0, ge=-1)
    """This many layers of the speech encoder are not trained. 0 freezes the front end only, and -1
    nothing."""
    freeze_embeddings: bool = True
    """With true the embeddings of the text encoder are not trained."""

    @model_validator(mode="after")
    def _require_a_modality(self) -> Self:
        if not self.encoder and not self.text:
            raise ValueError("neither encoder nor text; give one of them, or both")
        return self

    @property
    def main_tasks(self) -> tuple[str, ...]:
        """The tasks that the model is for."""
        return tuple(self.tasks.active_tasks())

    def build(self, vocabulary: Vocabulary) -> EmotionModel:
        """Build the model."""
        return Model(self, vocabulary)


class Model(nn.Module):
    """Encoders, layer fusion, pooling, modality fusion, regressors.

    The utterance vector behind the modality fusion is shared by all ratings, or with `separate` there is one
    for each rating. `fusions`, `poolings` and `joinings` have an entry for each vector.
    """

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.tasks = config.tasks.active_tasks()
        self.encoder = config.encoder.build() if config.encoder else NoEncoder()
        self.text: TextEncoder | None = config.text.build(vocabulary.tokenizer) if config.text else None
        self.vector_names = {task: task if config.separate else "shared" for task in self.tasks}
        vectors = dict.fromkeys(self.vector_names.values())
        self.fusions = nn.ModuleDict({name: self._make_fusion() for name in vectors if config.encoder})
        self.poolings = nn.ModuleDict({name: self._make_poolings() for name in vectors})
        self.joinings = nn.ModuleDict({name: self._make_modality_fusion(name) for name in vectors})
        self.regressors = nn.ModuleDict()
        self.heads = Heads()
        for task in self.tasks:
            width = cast(int, self.joinings[self.vector_names[task]].outputs)
            self.regressors[task] = Regressor(width, config.hidden, config.dropout)
            self.heads[task] = RatingHead(config.hidden, vocabulary.ratings[task], dropout=config.dropout)

    def _make_fusion(self) -> nn.Module:
        return FUSIONS[self.config.layers](self.encoder.depth, self.encoder.width)

    def _make_poolings(self) -> nn.ModuleDict:
        make = POOLINGS[self.config.pooling]
        poolings = nn.ModuleDict()
        if self.config.encoder:
            poolings["audio"] = make(self.encoder.width)
        if self.text:
            poolings["text"] = make(self.text.width)
        return poolings

    def _make_modality_fusion(self, name: str) -> nn.Module:
        poolings = cast(nn.ModuleDict, self.poolings[name])
        widths = [cast(int, pooling.outputs) for pooling in poolings.values()]
        return MODALITY_FUSIONS[self.config.joining](widths)

    def forward(self, batch: Batch, tasks: Collection[str] = ()) -> dict[str, HeadOutput]:
        """Batch -> output of every head, whichever `tasks` are asked for."""
        states: dict[str, tuple[Tensor, Tensor]] = {}
        if self.config.encoder:
            states["audio"] = batch.encode_audio(self.encoder)
        if self.text:
            states["text"] = batch.encode_text(self.text)
        vectors = {name: self._fuse(name, states) for name in self.joinings}
        # First all hidden layers, then all heads: seeded dropout draws in this order.
        hidden = {task: self.regressors[task](vectors[self.vector_names[task]]) for task in self.tasks}
        return {
            task: cast(RatingHead, head).rate(hidden[task], batch.lengths)
            for task, head in self.heads.items()
        }

    def _fuse(self, name: str, states: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Fuse layers, pool over time, and fuse the modalities: (B, `outputs`).

        Args:
            name: name of the vector.
            states: modality -> hidden states (B, L+1, T, D) and counts of real ones (B,).
        """
        poolings = cast(nn.ModuleDict, self.poolings[name])
        vectors = []
        for modality, (hidden, counts) in states.items():
            sequence = self.fusions[name](hidden) if modality == "audio" else hidden[:, -1]
            vectors.append(poolings[modality](sequence, counts))
        present = torch.stack([counts > 0 for _, counts in states.values()], 1)
        return self.joinings[name](vectors, present)

    def stages(self) -> list[Stage]:
        """Return the only stage."""
        config = self.config
        needs = list_fused_layers(config.layers, self.encoder.depth)
        frozen: tuple[str, ...] = ()
        masking = None
        if self.text and config.freeze_embeddings:
            frozen = (f"text.{self.text.embeddings}",)
        if self.text and config.encoder and config.masking.per != "off":
            masking = config.masking  # with one modality, withholding it would leave nothing
        return [Stage("ratings", self.tasks, config.frozen_layers, needs, frozen, masking)]
