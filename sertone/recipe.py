"""A recipe: one YAML file that says everything about an experiment, checked before anything runs.

    data       which corpus, which classes
    protocol   how it is split
    model      which system; its options are those of its own `Config`
    train      how it is trained

An unknown key is an error that names the nearest known one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, FiniteFloat, field_validator, model_validator

from sertone import licences
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.settings import Settings, load_as

Split = Literal["official", "leave_one_session_out", "leave_one_speaker_out", "grouped_k_fold"]
"""The rules that make folds; `protocols.make_folds` carries them out."""


class AsrConfig(Settings):
    """Speech recognition with faster-whisper, the extra `asr`."""

    model: str = "small"
    """A size such as `small` or `large-v3`, a converted Whisper on the hub, or a folder that holds one."""
    language: str | None = None
    """ISO 639-1 code of what is spoken. null: as the corpus's data sheet says, else recognised too."""
    compute_type: Literal[
        "default", "auto", "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16",
        "int8_bfloat16",
    ] = "int8"  # fmt: skip
    """Of the arithmetic, as CTranslate2 names it."""
    beam_size: int = Field(default=5, ge=1)
    """Hypotheses followed at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs."""
    folder: str = "~/.cache/sertone/transcripts"
    """Where what was recognised is kept."""


class TextConfig(Settings):
    """Where text comes from. `text: asr` and the other single words set `source`."""

    source: Literal["corpus", "column", "asr", "none"] = "corpus"
    """`corpus`: its own transcripts. `column`: of a manifest. `asr`: recognised from the audio, once.
    `none`: there is none."""
    column: str | None = None
    """Of a manifest, with `source: column`."""
    asr: AsrConfig = AsrConfig()
    """With `source: asr`."""
    error_rates: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0.1, 0.3])
    """Word error rates at which a model that reads is tested as well: 0.3 replaces 30 % of the words."""

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        return {"source": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _column_or_not(self) -> Self:
        if (self.source == "column") != (self.column is not None):
            raise ValueError("source: column and the name of a column go together; give both or neither")
        return self


class CorpusConfig(Settings):
    """A corpus, and where it is."""

    corpus: str
    """Its name: `sertone corpora list` shows them."""
    root: str
    """Its folder, or the manifest's file; relative to the working directory."""
    licence: str | None = None
    """Of your copy, as the Hugging Face hub names it: `cc-by-4.0`, `other`. null: as the corpus's data
    sheet says, which knows nothing of a manifest."""

    @field_validator("licence")
    @classmethod
    def _know_the_licence(cls, value: str | None) -> str | None:
        if value is not None and value not in licences.KNOWN:
            raise ValueError(f"no licence known here; expected one of {', '.join(licences.KNOWN)}")
        return value


class DataConfig(CorpusConfig):
    """Which corpus."""

    classes: str | dict[str, str] = "four"
    """`four`, `all`, or a mapping from emotion to class."""
    outside_classes: Literal["left_out", "kept"] = "left_out"
    """Utterances whose emotion is in no class: left out, the papers' way, or kept for the other tasks."""
    text: TextConfig = TextConfig()
    """Where text comes from."""
    scales: dict[str, tuple[FiniteFloat, FiniteFloat]] = Field(default_factory=dict)
    """Rating -> the lowest and the highest value that a rater could choose, as `{valence: [1, 7]}`, where
    the corpus's data sheet does not say: of a manifest."""

    @field_validator("scales")
    @classmethod
    def _sound_scales(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if name not in DIMENSIONS:
                raise ValueError(f"no rating {name!r}; expected some of {', '.join(DIMENSIONS)}")
            if low >= high:
                raise ValueError(f"{name} from {low:g} to {high:g}; expected the lower end first")
        return value


class ProtocolConfig(Settings):
    """How the corpus is split. No speaker is ever on two sides."""

    split: Split = "leave_one_session_out"
    """The rule that makes the folds."""
    folds: int = Field(default=5, ge=2)
    """How many folds `grouped_k_fold` makes."""
    validation: Literal["none", "speaker"] = "none"
    """`none`: the last epoch is taken, the papers' way. `speaker`: one speaker is taken out of
    training and chooses the epoch. Official splits and leave-one-speaker-out bring their own."""


class Rates(Settings):
    """Learning rates of the two parts."""

    encoder: float = Field(default=1e-4, gt=0)
    """Of the speech encoder."""
    downstream: float = Field(default=1e-3, gt=0)
    """Of fusion, heads and all else."""


class CacheConfig(Settings):
    """Where the output of the encoder's frozen prefix is kept, computed once per utterance and speed.

    `cache: off` and the other single words set `where`.
    """

    where: Literal["auto", "memory", "file", "off"] = "auto"
    """`auto`: in memory, as deep a prefix as fits. `memory`: the same, but refuse where it cannot be.
    `file`: in `folder`, where later runs and other folds find it. `off`: computed at every step."""
    limit_gb: float = Field(default=8.0, gt=0)
    """Of one cache in memory, or of all files in `folder`, the oldest of which go first."""
    precision: Literal["fp32", "bf16"] | None = None
    """Of what is kept; null: that of the training."""
    folder: str = "~/.cache/sertone/prefixes"
    """Of the files."""

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        if isinstance(values, str | bool):
            return {"where": "off" if values is False else values}  # YAML reads a bare `off` as false
        return values


class TrainingConfig(Settings):
    """How anything is trained."""

    batch_size: int | None = Field(default=None, ge=1)
    """Utterances per batch; or else"""
    batch_seconds: float | None = Field(default=None, gt=0)
    """seconds of audio per batch, padding included."""
    length_mixing: float = Field(default=0.03, ge=0)
    """How much lengths are mixed within a batch: 0.03 pads little, 1 mixes all. In a small corpus
    length goes with emotion and sentence, and batches of one length learn worse."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rates, within each stage; `cosine` falls to zero after a warm-up."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of a stage's steps in which the rates rise from zero."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    speeds: list[Annotated[float, Field(ge=0.5, le=2.0)]] = Field(default=[0.8, 1.0, 1.2], min_length=1)
    """Speed perturbation (TDSA): one of these at random for every utterance and epoch; 0.8 is 80 %."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the arithmetic."""
    kernels: Literal["own", "torch"] = "torch"
    """Of dropout and attention on a CPU: torch's, or Sertone's faster ones, whose masks are other draws."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it runs."""
    seed: int = Field(default=0, ge=0)
    """Everything random follows from it."""
    save_every: int = Field(default=5, ge=1)
    """Epochs between two saves to resume from; the end of a stage is always saved."""
    audio_cache_gb: float = Field(default=4.0, ge=0)
    """Decoded audio kept in memory, as 16-bit samples."""
    cache: CacheConfig = CacheConfig()
    """Of the frozen prefix's output."""
    max_bad_steps: int = Field(default=5, ge=1)
    """Steps in a row with a loss or gradient that is not finite before training stops."""

    @model_validator(mode="after")
    def _one_batch_rule(self) -> Self:
        if (self.batch_size is None) == (self.batch_seconds is None):
            raise ValueError("give either batch_size or batch_seconds, and null for the other")
        return self


class TrainConfig(TrainingConfig):
    """How the model is trained."""

    epochs: list[Annotated[int, Field(ge=0)]] = Field(default=[30], min_length=1)
    """Of each stage of the model."""
    learning_rate: str | Rates = Rates()
    """Two rates, or the name of one of `learning_rates`."""
    learning_rates: dict[str, Rates] = Field(default_factory=dict)
    """Named readings of the rates, to choose from."""
    targets: Literal["hard", "soft"] = "hard"
    """Of the emotion loss: the label; or `soft`, the shares of the annotators' votes by class, and the
    label where there are none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Of the emotion loss."""
    class_weights: bool = False
    """Weigh the emotion loss by inverse class frequency."""
    coverage: float | None = Field(default=None, gt=0, lt=1)
    """Share of recordings that shall get an answer; the least confident others are marked unsure. The
    validation speakers, who also choose the epoch, tell where that is. null: none is unsure."""

    @model_validator(mode="after")
    def _know_the_rates(self) -> Self:
        if isinstance(self.learning_rate, str) and self.learning_rate not in self.learning_rates:
            known = " or ".join(["{encoder: ..., downstream: ...}", *self.learning_rates])
            raise ValueError(f"learning_rate {self.learning_rate!r} is neither two rates nor named: {known}")
        return self

    @property
    def rates(self) -> Rates:
        """The learning rates chosen."""
        if isinstance(self.learning_rate, str):
            return self.learning_rates[self.learning_rate]
        return self.learning_rate


class Recipe(Settings):
    """The whole experiment."""

    data: DataConfig
    protocol: ProtocolConfig = ProtocolConfig()
    model: dict[str, Any]
    """`name`, and the options of that model's `Config`."""
    train: TrainConfig


def load(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        path: YAML file.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`.
    """
    return load_as(Recipe, path, "data, protocol, model, train", overrides)


def shipped(name: str) -> Path:
    """The path of a recipe that comes with Sertone, such as `demo`.

    Raises:
        SertoneError: `unknown_recipe`.
    """
    package = Path(__file__).parent  # installed: inside the package; a source tree: beside it
    folder = next(p for p in (package / "recipes", package.parent / "recipes") if p.is_dir())
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise SertoneError("unknown_recipe", f"recipe {name!r}", f"one of {known}")
    return path


NEUTRAL = ("cache", "audio_cache_gb", "save_every")
"""Settings of `train` on which no result depends, beyond rounding."""


def deciding(values: dict[str, Any]) -> dict[str, Any]:
    """A dumped recipe without what no result depends on."""
    train = {key: value for key, value in values["train"].items() if key not in NEUTRAL}
    return values | {"train": train}


def dump(recipe: Settings) -> str:
    """The recipe as YAML, defaults written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
