"""An SSL encoder, mean pooling and fully connected layers, trained with the emotion loss alone.

    waveform -> encoder, last layer -> mean over time -> FC -> emotion

The baseline of wan2025 (arXiv 2412.20707, Tables I and II) has one fully connected layer: `hidden: null`, as
`studies/wan2025_table1.yaml` and `wan2025_table2.yaml` set it.

Where it differs from the paper, or the paper is silent (our reading):
    - A number for `hidden`, the default, puts a hidden layer with GELU before the last one.
    - One stage: the CNN is frozen, all Transformer layers are trained, at the rates of the full system.
    - Dropout of 0.1 before every FC layer.
    - `members`, `fusion`, `output_norm` and the other poolings are ours; the paper has none of them.
"""

from collections.abc import Collection
from functools import partial
from typing import Annotated, ClassVar, cast

from pydantic import Field
from torch import nn

from sertone.models.contract import EmotionModel
from sertone.models.stage import Stage
from sertone.nn.batch import Batch
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.fusions import FUSIONS, list_fused_layers
from sertone.nn.heads import ClassHead, EnsembleHead, HeadOutput, Heads
from sertone.nn.pooling import POOLINGS
from sertone.nn.state_norms import STATE_NORMS
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.choices import OneOf
from sertone.recipe.settings import MAX_LAYERS, Settings


class Config(Settings):
    """The baseline's part of a recipe."""

    later_options: ClassVar[tuple[str, ...]] = ()
    """There is no second stage."""

    encoder: EncoderConfig
    hidden: Annotated[int, Field(ge=1)] | None = 256
    """The hidden FC layer has this width. With null there is none: a single FC layer, as in the paper."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout of the head."""
    members: int = Field(default=1, ge=1, le=MAX_LAYERS)
    """This many heads learn side by side over the same encoder. Their log-probabilities are averaged."""
    pooling: Annotated[str, OneOf(POOLINGS)] = "mean"
    """`mean` takes the mean over frames, as the paper does. `statistics` adds the standard deviation,
    `standardised` also brings each to one scale over the utterances, and `attentive` weighs frames."""
    fusion: Annotated[str, OneOf(FUSIONS)] = "last"
    """The way in which the layers become one sequence. The paper takes the last one."""
    output_norm: Annotated[str, OneOf(STATE_NORMS)] = "none"
    """The norm of the encoder's hidden states, to zero mean and unit variance. `frame` takes every frame by
    itself, and `utterance` all real frames together, as SpeechBrain's option does."""
    frozen_layers: int = Field(default=0, ge=-1)
    """This many encoder layers are not trained. 0 freezes the front end only, and -1 nothing."""

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
    """Encoder and emotion head."""

    text = None

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.fusion = FUSIONS[config.fusion](self.encoder.depth, self.encoder.width)
        self.pooling = POOLINGS[config.pooling](self.encoder.width)
        self.heads = Heads({"emotion": self._make_head(vocabulary.classes["emotion"])})

    def _make_head(self, emotions: list[str]) -> ClassHead | EnsembleHead:
        width = self.pooling.outputs
        make_member = partial(
            ClassHead, width, self.config.hidden, emotions, self.config.dropout, metric="emotion"
        )
        return EnsembleHead(self.config.members, make_member) if self.config.members > 1 else make_member()

    def forward(self, batch: Batch, tasks: Collection[str] = ("emotion",)) -> dict[str, HeadOutput]:
        """Batch -> output of the emotion head, the only one."""
        hidden, frames = batch.encode(self.encoder)
        hidden = STATE_NORMS[self.config.output_norm](hidden, frames)
        pooled = self.pooling(self.fusion(hidden), frames)
        return {"emotion": cast(ClassHead | EnsembleHead, self.heads["emotion"]).classify(pooled, frames)}

    def stages(self) -> list[Stage]:
        """Return the only stage."""
        needs = list_fused_layers(self.config.fusion, self.encoder.depth)
        return [Stage("emotion", {"emotion": 1.0}, self.config.frozen_layers, needs)]
