"""The `train` part of a recipe: the training of models, and of the students of `sertone distill`."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sertone.recipe.perturb_config import PerturbConfig
from sertone.recipe.precision import detect_bf16_hardware
from sertone.recipe.settings import MAX_SEED, Settings
from sertone.recipe.train_parts import (
    Augmentation,
    CacheConfig,
    LoraConfig,
    NewBobConfig,
    Rates,
    TeacherConfig,
)


class TrainingConfig(Settings):
    """The settings that all kinds of training share."""

    batch_size: int | None = Field(default=None, ge=1)
    """The number of utterances in a batch. Set this or `batch_seconds`."""
    batch_seconds: float | None = Field(default=None, gt=0)
    """The seconds of audio in a batch, padding included. Set this or `batch_size`."""
    accumulate: int = Field(default=1, ge=1)
    """The number of batches whose gradients are added up for one step. It is as if they were one batch, which
    would need more memory. Only the concordance of ratings, and the moments of `standardised` pooling, remain
    those of each batch."""
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
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """The learning rate of each layer of the speech encoder is that of the layer above it times this. 1 gives
    all layers the same rate. 0.9 is common, because lower layers need to change less."""
    weight_decay: float = Field(default=0.01, ge=0)
    """The weight decay of AdamW."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients with a larger norm are scaled down to this norm."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """The decay of an exponential moving average of the weights, such as 0.999. The average is validated and
    kept as the result, while training continues from the weights themselves. With null there is none."""
    speeds: list[Annotated[float, Field(ge=0.5, le=2.0)]] = Field(default=[0.8, 1.0, 1.2], min_length=1)
    """Speed perturbation (TDSA) draws one of these speeds for every utterance and epoch; 0.8 is 80 %."""
    speed_direction: Literal["slower", "shorter"] = "slower"
    """With `slower` a speed of 0.8 plays a recording at 80 % of its speed, so it gets longer. With `shorter`
    it resamples the recording to 80 % of its samples, as SpeechBrain does."""
    augmentation: Augmentation = Augmentation()
    """Further random changes of the waveforms, off by default. They need `versions` to be cached."""
    perturb: PerturbConfig = PerturbConfig()
    """Rooms, noises, microphones and codecs, off by default. They need `versions` to be cached."""
    versions: int | None = Field(default=None, ge=1)
    """The number of augmented and perturbed versions of each utterance at each speed. An epoch draws one of
    them, and a cache keeps the output for each. With null every epoch has new ones, and there is no cache."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The device to train on. `auto` uses a GPU where there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """The precision of the computation. `auto` becomes `bf16-mixed` where the device multiplies in bf16 (a
    GPU, or a processor with AVX512-BF16 or AMX) and `32-true` elsewhere. Run folders record the result.
    `16-mixed` is for older GPUs: fp16, with losses scaled so that small gradients do not become zero."""
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
    log: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(default_factory=list)
    """The loggers that also get losses, scores and learning rates of every epoch. They need the extra `log`,
    and `mlflow` and `wandb` their own packages. MLflow and Weights & Biases may send them to a server."""
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
    def changes_waveforms(self) -> bool:
        """Return whether the waveforms are augmented or perturbed."""
        return self.augmentation.is_active or self.perturb.is_active

    @property
    def playback_speeds(self) -> list[float]:
        """Return the speeds as factors of the playing speed: 0.8 makes a recording longer by 1 / 0.8."""
        return [1 / speed for speed in self.speeds] if self.speed_direction == "shorter" else self.speeds

    @model_validator(mode="after")
    def _require_changes_of_versions(self) -> Self:
        if self.versions and not self.changes_waveforms:
            raise ValueError("versions are versions of changed waveforms; set perturb or augmentation too")
        return self

    @model_validator(mode="after")
    def _require_one_batch_rule(self) -> Self:
        if (self.batch_size is None) == (self.batch_seconds is None):
            raise ValueError("give either batch_size or batch_seconds, and null for the other")
        return self


class TrainConfig(TrainingConfig):
    """The training of the model."""

    epochs: list[Annotated[int, Field(ge=0)]] = Field(default=[30], min_length=1)
    """The number of epochs of each stage of the model."""
    patience: int | None = Field(default=None, ge=1)
    """A stage ends early after this many epochs in a row without a better validation score. With null it has
    all its epochs. Stages without a validation score do not end early."""
    lora: LoraConfig | None = None
    """Low-rank adaptation of the speech encoder. With null its trained layers are trained as a whole."""
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
    consistency: float = Field(default=0.0, ge=0)
    """The weight of a loss that makes predictions for changed waveforms equal to those for unchanged ones,
    see `train.perturb` and `train.augmentation`. 0 has none. It needs a second pass without gradients."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The label smoothing of the emotion loss."""
    class_weights: bool = False
    """With true the emotion loss weights every class by its inverse frequency."""
    focal_gamma: float = Field(default=0.0, ge=0)
    """The focal loss (arXiv 1708.02002) multiplies the loss of a class of probability p by (1 - p) to this
    power, so that utterances that are already right count less. 0 is the cross-entropy."""
    sampling: Literal["each", "balanced"] = "each"
    """`each` uses every utterance once per epoch. `balanced` draws as many utterances, with replacement and
    every class equally often."""
    coverage: float | None = Field(default=None, gt=0, lt=1)
    """The share of recordings that get a sure prediction; the least confident others are marked unsure. The
    threshold is set on the validation speakers, who also choose the epoch. With null no prediction is
    unsure."""

    @model_validator(mode="after")
    def _require_changes_to_compare(self) -> Self:
        if self.consistency and not self.changes_waveforms:
            raise ValueError("consistency compares changed waveforms with unchanged ones; set perturb too")
        if self.consistency and self.augmentation.crop_seconds:
            raise ValueError("consistency cannot compare a crop with a recording; leave crop_seconds null")
        return self

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
        if self.precision == "16-mixed":
            return "in fp16 and fp32"
        hardware = detect_bf16_hardware(self.device)
        slow = "which this machine emulates: train.precision 32-true or auto is many times as fast"
        return f"in bf16 and fp32, {f'by {hardware}' if hardware else slow}"

    @property
    def rates(self) -> Rates:
        """Return the learning rates in use."""
        if isinstance(self.learning_rate, str):
            return self.learning_rates[self.learning_rate]
        return self.learning_rate
