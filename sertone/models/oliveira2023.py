"""Small distilled encoders of audio and text that rate arousal, valence and dominance.

de Oliveira, Raj Prabhu, Gerkmann: "Leveraging Semantic Information for Efficient Self-Supervised Emotion
Recognition with Audio-Textual Distilled Models", Interspeech 2023, arXiv 2305.19184.

    waveform -> small speech encoder -> layers -> pooling -+
                                                           joined -> three regressors
    text     -> small text encoder   -> last   -> pooling -+

Shallow layers of HuBERT matter more for arousal and deep ones for valence, says the paper; a distilled model
lacks the deep ones, and what is said makes up for it. One stage; the loss is the weighted sum of one minus
the concordance of every rating.

Our reading, of the abstract alone (no table of the paper is reproduced, or known here):
    - DistilHuBERT and DistilBERT, the convolutions and the embeddings of text frozen: some 20 % of the
      trainable parameters of HuBERT-large without its convolutions (`sertone info`).
    - `layers: weighted_sum` of the speech encoder with softmax weights, equal at first; `last` is the last
      layer alone. Of the text the last layer. `separate: true` learns layer weights, pooling and joining for
      every rating, so that the weights can be compared; the recipe shares them.
    - The recipe pools with `pooling: attentive`, mean and standard deviation weighted by attention; the
      model's default is the mean. The vectors are concatenated (`joining: concatenation`); `gate` weighs
      them. Every rating has a regressor of its own: one hidden layer of 256 units, then a sigmoid over the
      scale.
    - A modality that is missing is zeros in the concatenation and has no weight in the gate. `masking`
      withholds one at random in training; off by default.
    - `text: null` hears alone, `encoder: null` reads alone, and then says the same of all who said nothing.
    - Training, as `recipes/oliveira2023.yaml` sets it: AdamW with weight decay 0.01 and dropout 0.1; rates of
      1e-05 for both encoders and 0.0001 for all else, which rise over the first 5 % of the steps and then
      fall to zero as a cosine; 10 epochs of batches of up to 160 s, padding included; no speed perturbation.
      The epoch is chosen on the validation side by the mean of the concordances.
"""

from collections.abc import Collection
from typing import ClassVar, Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sertone.models.stage import LossWeights, Masking, Stage
from sertone.nn.batch import Batch
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.encoders.silence import NoEncoder
from sertone.nn.fusions import FUSIONS
from sertone.nn.heads import HeadOutput
from sertone.nn.modality_fusion import MODALITY_FUSIONS
from sertone.nn.pooling import POOLINGS
from sertone.nn.ratings import RatingHead, Regressor
from sertone.nn.text import TextEncoder, TextEncoderConfig
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.settings import Settings

SHARED = "shared"
"""Name of what all ratings have in common."""


class RatingWeights(LossWeights):
    """Weight of each loss; 0 leaves the rating out."""

    arousal: float = Field(default=1.0, ge=0)
    """The weight of the arousal loss."""
    valence: float = Field(default=1.0, ge=0)
    """The weight of the valence loss."""
    dominance: float = Field(default=1.0, ge=0)
    """The weight of the dominance loss."""


class Config(Settings):
    """This model's part of a recipe."""

    later: ClassVar = ()
    """There is no second stage."""

    encoder: EncoderConfig | None
    """The speech encoder. With null the model reads the text alone."""
    text: TextEncoderConfig | None
    """The text encoder. With null the model hears the audio alone."""
    tasks: RatingWeights = RatingWeights()
    """The weights of the losses."""
    layers: Literal["last", "weighted_sum"] = "weighted_sum"
    """The layers of the speech encoder become one in this way."""
    pooling: Literal["mean", "statistics", "attentive"] = "mean"
    """The pooling over frames and over tokens. `statistics` adds the standard deviation, and `attentive`
    weighs."""
    joining: Literal["concatenation", "gate"] = "concatenation"
    """The way in which audio and text are joined."""
    separate: bool = False
    """With true every rating has layer weights, pooling and joining of its own. Otherwise all ratings share
    them."""
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
    def _something(self) -> Self:
        if not self.encoder and not self.text:
            raise ValueError("neither encoder nor text; give one of them, or both")
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """The tasks that the model is for."""
        return tuple(self.tasks.active_tasks())


class Model(nn.Module):
    """Encoders, pooling, joining, regressors."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.tasks = config, config.tasks.active_tasks()
        self.encoder = config.encoder.build() if config.encoder else NoEncoder()
        self.text: TextEncoder | None = config.text.build(vocabulary.tokenizer) if config.text else None
        names = list(self.tasks) if config.separate else [SHARED]
        self.fusions = nn.ModuleDict({name: self._fusion() for name in names if config.encoder})
        self.poolings = nn.ModuleDict({name: self._poolings() for name in names})
        self.joinings = nn.ModuleDict({name: self._joining(name) for name in names})
        self.regressors, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for task in self.tasks:
            width = self.joinings[self._branch(task)].outputs
            self.regressors[task] = Regressor(cast(int, width), config.hidden, config.dropout)
            self.heads[task] = RatingHead(config.hidden, vocabulary.ratings[task], dropout=config.dropout)

    def _fusion(self) -> nn.Module:
        return FUSIONS[self.config.layers](self.encoder.depth, self.encoder.width)

    def _poolings(self) -> nn.ModuleDict:
        encoders = {"audio": self.encoder, "text": self.text}
        widths = {name: encoder.width for name, encoder in encoders.items() if encoder and encoder.width}
        return nn.ModuleDict({name: POOLINGS[self.config.pooling](width) for name, width in widths.items()})

    def _joining(self, name: str) -> nn.Module:
        poolings = cast(nn.ModuleDict, self.poolings[name])
        return MODALITY_FUSIONS[self.config.joining](
            [cast(int, pooling.outputs) for pooling in poolings.values()]
        )

    def _branch(self, task: str) -> str:
        return task if self.config.separate else SHARED

    def forward(self, batch: Batch, tasks: Collection[str] = ()) -> dict[str, HeadOutput]:
        """Batch -> output of every head; which tasks are asked for makes no difference."""
        states = {"audio": batch.encode_audio(self.encoder)} if self.fusions else {}
        if self.text:
            states["text"] = batch.encode_text(self.text)
        joined = {name: self._joined(name, states) for name in self.joinings}
        hidden = {task: regressor(joined[self._branch(task)]) for task, regressor in self.regressors.items()}
        heads = {task: cast(RatingHead, head) for task, head in self.heads.items()}
        return {task: head.rate(hidden[task], batch.lengths) for task, head in heads.items()}

    def _joined(self, name: str, states: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """What a branch makes of hidden states (B, L+1, T, D) and counts (B,) by modality: (B, `outputs`)."""
        vectors, poolings = [], cast(nn.ModuleDict, self.poolings[name])
        for modality, (hidden, counts) in states.items():
            sequence = self.fusions[name](hidden) if modality == "audio" else hidden[:, -1]
            vectors.append(poolings[modality](sequence, counts))
        there = torch.stack([counts > 0 for _, counts in states.values()], 1)
        return self.joinings[name](vectors, there)

    def stages(self) -> list[Stage]:
        """One stage."""
        config, depth = self.config, self.encoder.depth
        frozen = (f"text.{self.text.embeddings}",) if self.text and config.freeze_embeddings else ()
        both = self.text is not None and config.encoder is not None
        masking = config.masking if both and config.masking.per != "off" else None
        needs = tuple(range(1, depth + 1)) if config.layers == "weighted_sum" else (depth,)
        return [Stage("ratings", self.tasks, config.frozen_layers, needs, frozen, masking)]
