"""The `train` part of a recipe: how anything is trained, models and the students of `sertone distill`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sertone.recipe.settings import MAX_SEED, Settings

BF16_INSTRUCTIONS = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
"""As torch names what a processor can do -> as people know it."""


def detect_bf16_hardware(device: str) -> str:
    """Return what multiplies in bf16 on a device, such as `AVX512-BF16`; empty where it is emulated.

    Emulated products take hundreds of times as long as those in fp32.

    Args:
        device: `train.device`.
    """
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return ""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # also as ATEN_CPU_CAPABILITY says
        return ""
    known = torch.cpu.get_capabilities()
    return next((name for key, name in BF16_INSTRUCTIONS.items() if known.get(key)), "")


class Rates(Settings):
    """Learning rates by part of the model."""

    encoder: float = Field(default=1e-4, gt=0)
    """The learning rate of the speech encoder, and of the text encoder where the model has one."""
    downstream: float = Field(default=1e-3, gt=0)
    """The learning rate of all else: heads, co-attention, pooling, and the fusion unless it has its own."""
    fusion: float | None = Field(default=None, gt=0)
    """The learning rate of what fuses the encoder's layers (ARI, weighted sum). With null it is
    `downstream`."""


class NewBobConfig(Settings):
    """Annealing of the learning rates with `schedule: newbob`, within each stage."""

    threshold: float = Field(default=0.0025, ge=0)
    """The validation score has to improve by this share of it, or the rates fall. A stage without such a
    score takes the training loss."""
    factor: float = Field(default=0.9, gt=0, lt=1)
    """All rates are multiplied by this after an epoch that improves by less."""


class CacheConfig(Settings):
    """Where the output of the encoder's frozen prefix is kept, computed once per utterance and speed.

    `cache: off` and the other single words set `where`.
    """

    where: Literal["auto", "memory", "file", "off"] = "auto"
    """`auto` keeps it in memory, for as deep a prefix as fits. `memory` does the same, and refuses what
    cannot be kept. `file` keeps it in `folder`, where later runs and other folds find it. `off` computes it
    at every step."""
    limit_gb: float = Field(default=8.0, gt=0)
    """The most GB that one cache in memory, or all files in `folder`, may take. The oldest files are deleted
    first."""
    precision: Literal["fp32", "bf16"] | None = None
    """The precision of what is kept. With null it is that of the training."""
    folder: str = "~/.cache/sertone/prefixes"
    """The folder of the files."""

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        if isinstance(values, str | bool):
            return {"where": "off" if values is False else values}  # YAML reads a bare `off` as false
        return values


class Augmentation(Settings):
    """What is changed in the waveforms of training, drawn anew for every utterance in every epoch.

    With the speeds, `drop_frequencies: 3` and `drop_chunks: 5` are SpeechBrain's `TimeDomainSpecAugment`,
    which draws one speed and one set of bands per batch.
    """

    drop_frequencies: int = Field(default=0, ge=0, le=100)
    """Every utterance loses a random number of frequency bands, from 0 to this."""
    band_hz: float = Field(default=760.0, gt=0, le=8000)
    """A removed band is this wide, in Hz. SpeechBrain's bands are about 760 Hz wide by default."""
    drop_chunks: int = Field(default=0, ge=0, le=100)
    """Every utterance gets a random number of silent chunks, from 0 to this."""
    chunk_samples: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1000, 2000)
    """The shortest and the longest chunk, in samples at 16 kHz. Short utterances get shorter ones."""
    crop_seconds: float | None = Field(default=None, gt=0)
    """The model hears a random piece of this length of every longer recording. With null it hears all of it.
    A model that learns transcripts refuses crops."""

    @model_validator(mode="after")
    def _shortest_first(self) -> Self:
        if self.chunk_samples[0] > self.chunk_samples[1]:
            raise ValueError(f"chunk_samples {list(self.chunk_samples)}; expected the shortest chunk first")
        return self

    @property
    def is_active(self) -> bool:
        """Whether waveforms differ from epoch to epoch."""
        return bool(self.drop_frequencies or self.drop_chunks or self.crop_seconds)


class TeacherConfig(Settings):
    """A trained model whose answers are learnt. `teacher: runs/large` sets `source`."""

    source: str
    """A checkpoint, a run, or OWNER/NAME on the hub. Of a cross-validated run each fold teaches its own
    fold."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """The share of the teacher's answer in a target; the rest is the label. Without a label it is all of the
    target."""

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        return {"source": values} if isinstance(values, str) else values


class TrainingConfig(Settings):
    """How anything is trained."""

    batch_size: int | None = Field(default=None, ge=1)
    """The number of utterances in a batch. Give this or `batch_seconds`."""
    batch_seconds: float | None = Field(default=None, gt=0)
    """The seconds of audio in a batch, padding included. Give this or `batch_size`."""
    length_mixing: Annotated[float, Field(ge=0)] | Literal["random"] = 0.03
    """Batches mix lengths by this much: 0.03 pads little, 1 mixes nearly all. `random` ignores the
    lengths, as the papers do. In a small corpus length goes with emotion and sentence, and models learn worse
    from batches of one length."""
    batch_gb: float = Field(default=8.0, gt=0)
    """The largest estimated memory of one batch, in GB. A batch that would take more is made smaller. A
    single utterance that takes more is a batch of its own."""
    schedule: Literal["constant", "cosine", "newbob"] = "constant"
    """The learning rates change so within each stage, after the warm-up. With `cosine` they fall to zero.
    With `newbob` they fall after every epoch that improves too little."""
    newbob: NewBobConfig = NewBobConfig()
    """These settings belong to `schedule: newbob`."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """The rates rise from zero over this share of a stage's steps."""
    weight_decay: float = Field(default=0.01, ge=0)
    """The weight decay of AdamW."""
    clip_norm: float = Field(default=1.0, gt=0)
    """A gradient with a larger norm is scaled down to this norm."""
    speeds: list[Annotated[float, Field(ge=0.5, le=2.0)]] = Field(default=[0.8, 1.0, 1.2], min_length=1)
    """Speed perturbation (TDSA) draws one of these for every utterance and epoch; 0.8 is 80 %."""
    speed_direction: Literal["slower", "shorter"] = "slower"
    """With `slower` a speed of 0.8 plays a recording at 80 % of its speed, so it gets longer. With `shorter`
    it resamples the recording to 80 % of its samples, as SpeechBrain does."""
    augmentation: Augmentation = Augmentation()
    """These further changes of the waveforms are off by default. With any of them nothing is cached."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The device to train on. `auto` takes a GPU where there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """The precision of the arithmetic. `auto` becomes `bf16-mixed` where the device multiplies in bf16 (a
    GPU, or a processor with AVX512-BF16 or AMX) and `32-true` elsewhere. Run folders keep what it became."""
    kernels: Literal["own", "torch"] = "torch"
    """The code of dropout and attention on a CPU: torch's, or Sertone's own. The own kernels are faster and
    draw other dropout masks."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """All random numbers follow from this seed."""
    save_every: int = Field(default=5, ge=1)
    """The number of epochs between two saves to resume from. The end of a stage is always saved."""
    audio_cache_gb: float = Field(default=4.0, ge=0)
    """The most GB of decoded audio to keep in memory, as 16-bit samples."""
    cache: CacheConfig = CacheConfig()
    """The cache of the frozen prefix's output."""
    max_bad_steps: int = Field(default=5, ge=1)
    """Training stops after this many steps in a row whose loss or gradient is not finite."""

    @field_validator("precision")
    @classmethod
    def _settle_precision(cls, value: str, info: ValidationInfo) -> str:
        """Choose here, once: caches, saves and resumed runs then agree on what was computed."""
        if value == "auto":
            return "bf16-mixed" if detect_bf16_hardware(info.data.get("device", "auto")) else "32-true"
        return value

    @property
    def playback_speeds(self) -> list[float]:
        """The speeds as factors of how fast a recording plays: 0.8 makes it longer by 1 / 0.8."""
        return [1 / speed for speed in self.speeds] if self.speed_direction == "shorter" else self.speeds

    @model_validator(mode="after")
    def _one_batch_rule(self) -> Self:
        if (self.batch_size is None) == (self.batch_seconds is None):
            raise ValueError("give either batch_size or batch_seconds, and null for the other")
        return self


class TrainConfig(TrainingConfig):
    """How the model is trained."""

    epochs: list[Annotated[int, Field(ge=0)]] = Field(default=[30], min_length=1)
    """The number of epochs of each stage of the model."""
    learning_rate: str | Rates = Rates()
    """The rates, or the name of one of `learning_rates`."""
    learning_rates: dict[str, Rates] = Field(default_factory=dict)
    """Several readings of the rates have names here. `learning_rate` chooses one."""
    fusion_warmup: float | None = Field(default=None, ge=0, lt=1)
    """The rate of the layers' fusion (ARI, weighted sum) rises from zero over this share of a stage's steps.
    With null it is `warmup`, as for all rates."""
    targets: Literal["hard", "soft"] = "hard"
    """The targets of the emotion loss. `hard` takes the label. `soft` takes the shares of the annotators'
    votes by class, and the label where there are no votes."""
    teacher: TeacherConfig | None = None
    """A trained model whose calibrated answers are mixed into the targets. With null there is none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The label smoothing of the emotion loss."""
    class_weights: bool = False
    """With true the emotion loss weighs every class by its inverse frequency."""
    coverage: float | None = Field(default=None, gt=0, lt=1)
    """The share of recordings that shall get a sure answer; the least confident others are marked unsure. The
    validation speakers, who also choose the epoch, set the threshold. With null no answer is unsure."""

    @model_validator(mode="after")
    def _know_the_rates(self) -> Self:
        if isinstance(self.learning_rate, str) and self.learning_rate not in self.learning_rates:
            known = " or ".join(["{encoder: ..., downstream: ...}", *self.learning_rates])
            raise ValueError(f"learning_rate {self.learning_rate!r} is neither two rates nor named: {known}")
        return self

    @property
    def arithmetic(self) -> str:
        """The precision in words, and why it is a good or a bad one on this machine."""
        if self.precision == "32-true":
            return "in fp32"
        hardware = detect_bf16_hardware(self.device)
        slow = "which this machine emulates: train.precision 32-true or auto is many times as fast"
        return f"in bf16 and fp32, {f'by {hardware}' if hardware else slow}"

    @property
    def rates(self) -> Rates:
        """The learning rates chosen."""
        if isinstance(self.learning_rate, str):
            return self.learning_rates[self.learning_rate]
        return self.learning_rate
