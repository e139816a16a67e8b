"""The `train` part of a recipe: the training of models, and of the students of `sertone distill`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sertone.recipe.settings import MAX_SEED, Settings

BF16_INSTRUCTIONS = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
"""Capability of a processor, as torch names it -> its common name."""


def detect_bf16_hardware(device: str) -> str:
    """Return the hardware that multiplies in bf16, such as `AVX512-BF16`; empty where bf16 is emulated.

    Emulated products take hundreds of times as long as those in fp32.

    Args:
        device: `train.device`.
    """
    import torch  # here, since a recipe can be read without torch unless it asks for `auto`

    # Older GPUs only emulate bf16.
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    # Mixed precision in bf16 is not used on Apple's GPUs.
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return ""
    # The environment variable ATEN_CPU_CAPABILITY can lower this capability.
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return ""
    capabilities = torch.cpu.get_capabilities()
    return next((name for key, name in BF16_INSTRUCTIONS.items() if capabilities.get(key)), "")


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
    """The cache for the output of the encoder's frozen prefix, computed once per utterance and speed.

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
    """Random changes of the training waveforms, drawn anew for every utterance in every epoch.

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
        """Return whether waveforms differ from epoch to epoch."""
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


class TrainingConfig(Settings):
    """The settings that all kinds of training share."""

    batch_size: int | None = Field(default=None, ge=1)
    """The number of utterances in a batch. Set this or `batch_seconds`."""
    batch_seconds: float | None = Field(default=None, gt=0)
    """The seconds of audio in a batch, padding included. Set this or `batch_size`."""
    length_mixing: Annotated[float, Field(ge=0)] | Literal["random"] = 0.03
    """The degree to which batches mix utterances of different lengths: 0.03 pads little, and 1 mixes nearly
    all lengths. `random` ignores the lengths, as the papers do. In a small corpus length is related to
    emotion and sentence, and models learn worse from batches of one length."""
    batch_gb: float = Field(default=8.0, gt=0)
    """The largest estimated memory of one batch, in GB. A batch that needs more is made smaller. A single
    utterance that needs more is a separate batch."""
    schedule: Literal["constant", "linear", "cosine", "newbob"] = "constant"
    """The schedule of the learning rates within each stage, after the warm-up. With `linear` and `cosine`
    they fall to zero. With `newbob` they fall after every epoch that improves too little."""
    newbob: NewBobConfig = NewBobConfig()
    """The settings of `schedule: newbob`."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """The learning rates rise from zero over this share of a stage's steps."""
    weight_decay: float = Field(default=0.01, ge=0)
    """The weight decay of AdamW."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients with a larger norm are scaled down to this norm."""
    speeds: list[Annotated[float, Field(ge=0.5, le=2.0)]] = Field(default=[0.8, 1.0, 1.2], min_length=1)
    """Speed perturbation (TDSA) draws one of these speeds for every utterance and epoch; 0.8 is 80 %."""
    speed_direction: Literal["slower", "shorter"] = "slower"
    """With `slower` a speed of 0.8 plays a recording at 80 % of its speed, so it gets longer. With `shorter`
    it resamples the recording to 80 % of its samples, as SpeechBrain does."""
    augmentation: Augmentation = Augmentation()
    """Further random changes of the waveforms, off by default. With any of them nothing is cached."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The device to train on. `auto` uses a GPU where there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """The precision of the computation. `auto` becomes `bf16-mixed` where the device multiplies in bf16 (a
    GPU, or a processor with AVX512-BF16 or AMX) and `32-true` elsewhere. Run folders record the result."""
    kernels: Literal["own", "torch"] = "torch"
    """The implementation of dropout and attention on a CPU. `own` is Sertone's code; it is faster than
    torch's, and draws other dropout masks."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """The seed of all random numbers."""
    save_every: int = Field(default=5, ge=1)
    """The number of epochs between two saves from which training can be resumed. The end of a stage is always
    saved."""
    audio_cache_gb: float = Field(default=4.0, ge=0)
    """The largest amount of decoded audio to keep in memory, in GB of 16-bit samples."""
    cache: CacheConfig = CacheConfig()
    """The cache for the output of the frozen prefix."""
    max_bad_steps: int = Field(default=5, ge=1)
    """Training stops after this many steps in a row whose loss or gradient is not finite."""

    @field_validator("precision")
    @classmethod
    def _settle_precision(cls, value: str, info: ValidationInfo) -> str:
        """Replace `auto` once, here, so that caches, saves and resumed runs agree on the precision."""
        if value == "auto":
            return "bf16-mixed" if detect_bf16_hardware(info.data.get("device", "auto")) else "32-true"
        return value

    @property
    def playback_speeds(self) -> list[float]:
        """Return the speeds as factors of the playing speed: 0.8 makes a recording longer by 1 / 0.8."""
        return [1 / speed for speed in self.speeds] if self.speed_direction == "shorter" else self.speeds

    @model_validator(mode="after")
    def _require_one_batch_rule(self) -> Self:
        if (self.batch_size is None) == (self.batch_seconds is None):
            raise ValueError("give either batch_size or batch_seconds, and null for the other")
        return self


class TrainConfig(TrainingConfig):
    """The training of the model."""

    epochs: list[Annotated[int, Field(ge=0)]] = Field(default=[30], min_length=1)
    """The number of epochs of each stage of the model."""
    learning_rate: str | Rates = Rates()
    """The learning rates, or the name of an entry of `learning_rates`."""
    learning_rates: dict[str, Rates] = Field(default_factory=dict)
    """Named sets of learning rates, for papers that can be read in several ways. `learning_rate` chooses
    one."""
    fusion_warmup: float | None = Field(default=None, ge=0, lt=1)
    """The learning rate of the fusion (ARI, weighted sum) rises from zero over this share of a stage's steps.
    With null it is `warmup`, as for all rates."""
    targets: Literal["hard", "soft"] = "hard"
    """The targets of the emotion loss. `hard` uses the label. `soft` uses the share of the annotators' votes
    for each class, and the label where there are no votes."""
    teacher: TeacherConfig | None = None
    """A trained model whose calibrated predictions are mixed into the targets. With null there is none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The label smoothing of the emotion loss."""
    class_weights: bool = False
    """With true the emotion loss weights every class by its inverse frequency."""
    coverage: float | None = Field(default=None, gt=0, lt=1)
    """The share of recordings that get a sure prediction; the least confident others are marked unsure. The
    threshold is set on the validation speakers, who also choose the epoch. With null no prediction is
    unsure."""

    @model_validator(mode="after")
    def _require_known_rates(self) -> Self:
        if isinstance(self.learning_rate, str) and self.learning_rate not in self.learning_rates:
            choices = " or ".join(["{encoder: ..., downstream: ...}", *self.learning_rates])
            raise ValueError(
                f"learning_rate {self.learning_rate!r} is neither two rates nor named: {choices}"
            )
        return self

    @property
    def arithmetic(self) -> str:
        """Return a phrase for the precision that also says whether this machine is slow with it."""
        if self.precision == "32-true":
            return "in fp32"
        hardware = detect_bf16_hardware(self.device)
        slow = "which this machine emulates: train.precision 32-true or auto is many times as fast"
        return f"in bf16 and fp32, {f'by {hardware}' if hardware else slow}"

    @property
    def rates(self) -> Rates:
        """Return the learning rates in use."""
        if isinstance(self.learning_rate, str):
            return self.learning_rates[self.learning_rate]
        return self.learning_rate
