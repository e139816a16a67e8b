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
from sertone.catalogue import named
from sertone.labels import DIMENSIONS
from sertone.settings import Settings, load_as
from sertone.train_config import TrainConfig

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
    only: dict[str, list[str]] = Field(default_factory=dict)
    """Utterances that take part, by what the corpus says of them: `{style: improvised}`, or
    `{session: [Session1, Session2]}`. Names are `speaker`, `session`, `split` or a label. Empty: all."""
    licence: str | None = None
    """Of your copy, as the Hugging Face hub names it: `cc-by-4.0`, `other`. null: as the corpus's data
    sheet says, which knows nothing of a manifest."""

    @field_validator("only", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        single = value if isinstance(value, dict) else {}
        return {name: [v] if isinstance(v, str) else v for name, v in single.items()} or value

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


class Recipe(Settings):
    """The whole experiment."""

    data: DataConfig
    protocol: ProtocolConfig = ProtocolConfig()
    model: dict[str, Any]
    """`name`, and the options of that model's `Config`."""
    train: TrainConfig


def load(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file, or the name of a recipe that comes with Sertone.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`, `bad_override`, `other_kind`.
    """
    return load_as(Recipe, path, "recipe", "data, protocol, model, train", overrides)


def shipped(name: str) -> Path:
    """Return the path of a recipe that comes with Sertone, such as `demo`.

    Raises:
        SertoneError: `missing_recipe`.
    """
    return named(name, "recipe")


NEUTRAL = ("cache", "audio_cache_gb", "save_every")
"""Settings of `train` on which no result depends, beyond rounding."""


def deciding(values: dict[str, Any]) -> dict[str, Any]:
    """A dumped recipe without what no result depends on."""
    train = {key: value for key, value in values["train"].items() if key not in NEUTRAL}
    return values | {"train": train}


def dump(recipe: Settings) -> str:
    """The recipe as YAML, defaults written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
