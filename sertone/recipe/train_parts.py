"""The settings of `train` that are groups of settings."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sertone.recipe.settings import Settings


class Rates(Settings):
    """Learning rates by part of the model."""

    encoder: float = Field(default=1e-4, gt=0)
    """The learning rate of the speech encoder, and of the text encoder where the model has one."""
    downstream: float = Field(default=1e-3, gt=0)
    """The learning rate of all other parts: heads, co-attention, pooling, and the fusion unless it has its
    own rate."""
    fusion: float | None = Field(default=None, gt=0)
    """The learning rate of the fusion of the encoder's layers (ARI, weighted sum). With null it is
    `downstream`."""


class NewBobConfig(Settings):
    """Annealing of the learning rates with `schedule: newbob`, within each stage."""

    threshold: float = Field(default=0.0025, ge=0)
    """The learning rates fall where the validation score improves by less than this share of its value. A
    stage without a validation score uses the training loss."""
    factor: float = Field(default=0.9, gt=0, lt=1)
    """The learning rates are multiplied by this after an epoch that improves too little."""


class CacheConfig(Settings):
    """The cache for the output of the encoder's frozen prefix, once per utterance, speed and version.

    `cache: off` and the other single words set `where`.
    """

    where: Literal["auto", "memory", "file", "off"] = "auto"
    """`auto` caches in memory, for as deep a prefix as fits. `memory` and `file` stop with an error unless
    the whole frozen prefix can be cached. `file` caches in `folder`, for later runs and other folds too.
    `off` computes the output at every step."""
    limit_gb: float = Field(default=8.0, gt=0)
    """The largest size in GB of one cache in memory, or of all files in `folder`. The oldest files are
    deleted first."""
    precision: Literal["fp32", "bf16"] | None = None
    """The precision of the cached output. With null it is that of the training."""
    folder: str = "~/.cache/sertone/prefixes"
    """The folder of the cache files."""

    @model_validator(mode="before")
    @classmethod
    def _expand_single_word(cls, values: Any) -> Any:
        if isinstance(values, str | bool):
            # YAML reads a bare `off` as false.
            return {"where": "off" if values is False else values}
        return values


class Augmentation(Settings):
    """Random changes of the training waveforms, drawn anew in every epoch or from a few `train.versions`.

    With the speeds, `drop_frequencies: 3` and `drop_chunks: 5` are SpeechBrain's `TimeDomainSpecAugment`,
    which draws one speed and one set of bands per batch.
    """

    drop_frequencies: int = Field(default=0, ge=0, le=100)
    """The largest number of frequency bands to remove from an utterance. The number is random, from 0 to
    this."""
    band_hz: float = Field(default=760.0, gt=0, le=8000)
    """The width of a removed band, in Hz. SpeechBrain's bands are about 760 Hz wide by default."""
    drop_chunks: int = Field(default=0, ge=0, le=100)
    """The largest number of chunks of an utterance to replace by silence. The number is random, from 0 to
    this."""
    chunk_samples: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1000, 2000)
    """The shortest and the longest chunk, in samples at 16 kHz. Short utterances get shorter ones."""
    crop_seconds: float | None = Field(default=None, gt=0)
    """The length of a random crop from every longer recording, in seconds. With null the whole recording is
    used. Models that learn transcripts cannot be trained on crops."""

    @model_validator(mode="after")
    def _require_shortest_first(self) -> Self:
        if self.chunk_samples[0] > self.chunk_samples[1]:
            raise ValueError(f"chunk_samples {list(self.chunk_samples)}; expected the shortest chunk first")
        return self

    @property
    def is_active(self) -> bool:
        """Return whether waveforms are changed."""
        return bool(self.drop_frequencies or self.drop_chunks or self.crop_seconds)


class TeacherConfig(Settings):
    """A trained model whose predictions are training targets. `teacher: runs/large` sets `source`."""

    source: str
    """The teacher: a checkpoint, a run, or OWNER/NAME on the hub. If it is a cross-validated run, each of its
    folds teaches the fold with the same number."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """The share of the teacher's prediction in a target; the rest is the label. Without a label the
    prediction is the whole target."""

    @model_validator(mode="before")
    @classmethod
    def _expand_single_word(cls, values: Any) -> Any:
        # `teacher: runs/large` is short for `teacher: {source: runs/large}`.
        return {"source": values} if isinstance(values, str) else values


class LoraConfig(Settings):
    """Low-rank adaptation (arXiv 2106.09685): a product of two small matrices is added to frozen weights.

    It needs the extra `lora`. After training the products are added to the weights, so a checkpoint has the
    plain encoder.
    """

    rank: int = Field(default=8, ge=1)
    """The rank of the products: the inner width of the two matrices."""
    alpha: float = Field(default=16.0, gt=0)
    """The products are multiplied by `alpha / rank`."""
    where: list[Literal["attention", "feed_forward"]] = Field(default=["attention"], min_length=1)
    """The weights to adapt, in every trained layer: the projections of `attention`, the `feed_forward` part,
    or both."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The dropout before the first matrix."""
