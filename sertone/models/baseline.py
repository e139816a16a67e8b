"""The baseline of wan2025 (arXiv 2412.20707, Table I): SSL encoder, mean pooling, one FC layer stack.

    waveform -> encoder, last layer -> mean over time -> two FC layers -> emotion

One stage: the CNN is frozen and all Transformer layers are trained with the cross-entropy of emotion.
The sizes of the FC layers are not published; `hidden` is ours. So is `members`: the paper has one.
"""

from collections.abc import Collection
from functools import partial
from typing import ClassVar, Literal, cast

from pydantic import Field
from torch import nn

from sertone.models.stage import Stage
from sertone.nn.batch import Batch
from sertone.nn.encoders import EncoderConfig
from sertone.nn.heads import ClassHead, EnsembleHead, HeadOutput
from sertone.nn.pooling import POOLINGS
from sertone.nn.vocabulary import Vocabulary
from sertone.settings import LAYERS, Settings


class Config(Settings):
    """The baseline's part of a recipe."""

    later: ClassVar = ()
    """There is no second stage."""

    answers: ClassVar = ("emotion",)
    """The tasks that the model is for."""
    text: ClassVar = None
    """It reads none."""

    encoder: EncoderConfig
    hidden: int = Field(default=256, ge=1)
    """Width of the hidden FC layer."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout of the head."""
    members: int = Field(default=1, ge=1, le=LAYERS)
    """This many heads learn side by side over the same encoder. Their log-probabilities are averaged."""
    pooling: Literal["mean", "statistics", "attentive"] = "mean"
    """`mean` is the paper's; `statistics` adds the standard deviation; `attentive` weighs frames."""
    frozen_layers: int = Field(default=0, ge=-1)
    """This many encoder layers are not trained. 0 freezes the front end only, and -1 nothing."""


class Model(nn.Module):
    """Encoder and emotion head."""

    text = None

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.pooling = POOLINGS[config.pooling](self.encoder.width)
        self.heads = nn.ModuleDict({"emotion": self._head(vocabulary.classes["emotion"])})

    def forward(self, batch: Batch, tasks: Collection[str] = ("emotion",)) -> dict[str, HeadOutput]:
        """Batch -> output of the emotion head, the only one."""
        hidden, frames = batch.encode(self.encoder)
        pooled = self.pooling(hidden[:, -1], frames)
        return {"emotion": cast(ClassHead | EnsembleHead, self.heads["emotion"]).classify(pooled, frames)}

    def _head(self, emotions: list[str]) -> ClassHead | EnsembleHead:
        width, hidden, dropout = self.pooling.outputs, self.config.hidden, self.config.dropout
        make = partial(ClassHead, width, hidden, emotions, dropout, metric="emotion")
        return EnsembleHead(self.config.members, make) if self.config.members > 1 else make()

    def stages(self) -> list[Stage]:
        """One stage."""
        return [Stage("emotion", {"emotion": 1.0}, self.config.frozen_layers, (self.encoder.depth,))]
