"""A recipe: one YAML file that says everything about an experiment, checked before anything runs.

    data       which corpus, which classes
    protocol   how it is split
    model      which system; its options are those of its own `Config`
    train      how it is trained

An unknown key is an error that names the nearest known one.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, FiniteFloat, field_validator, model_validator

from sertone import licences
from sertone.catalogue import find_shipped
from sertone.labels import DIMENSIONS
from sertone.recipe.settings import Settings, apply_override, load_as, parse, parse_override
from sertone.recipe.train_config import TrainConfig

Split = Literal["official", "leave_one_session_out", "leave_one_speaker_out", "grouped_k_fold"]
"""The rules that make folds; `protocols.make_folds` carries them out."""


class AsrConfig(Settings):
    """Speech recognition with faster-whisper, the extra `asr`."""

    model: str = "small"
    """The model is a size such as `small` or `large-v3`, a converted Whisper on the hub, or a folder that
    holds one."""
    language: str | None = None
    """The language spoken, as an ISO 639-1 code. With null the corpus's data sheet says it; where that is
    silent, it is recognised too."""
    compute_type: Literal[
        "default", "auto", "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16",
        "int8_bfloat16",
    ] = "int8"  # fmt: skip
    """The arithmetic, as CTranslate2 names it. `int8` needs the least memory."""
    beam_size: int = Field(default=5, ge=1)
    """The search follows this many hypotheses at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The recogniser runs here. `auto` takes a GPU where there is one."""
    folder: str = "~/.cache/sertone/transcripts"
    """Transcripts are kept in this folder, so every recording is recognised once."""


class TextConfig(Settings):
    """Where text comes from. `text: asr` and the other single words set `source`."""

    source: Literal["corpus", "column", "asr", "none"] = "corpus"
    """`corpus` takes the corpus's own transcripts, `column` a column of a manifest. `asr` recognises the
    audio once, and `none` gives the model no text."""
    column: str | None = None
    """The column of a manifest that holds the text. Give it with `source: column` only."""
    asr: AsrConfig = AsrConfig()
    """These settings apply with `source: asr`."""
    error_rates: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0.1, 0.3])
    """A model that reads is also tested with texts of these word error rates. 0.3 replaces 30 % of the
    words."""

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
    """The name of the corpus. `sertone corpora list` shows all names."""
    root: str
    """The folder of the corpus, or the file of a manifest. It is relative to the working directory."""
    only: dict[str, list[str]] = Field(default_factory=dict)
    """Only these utterances take part: `{style: improvised}`, or `{session: [Session1, Session2]}`. A key is
    `speaker`, `session`, `split` or a label. Empty takes all."""
    licence: str | None = None
    """The licence of your copy, as the Hugging Face hub names it: `cc-by-4.0`, `other`. With null the
    corpus's data sheet says it; a manifest has none there."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of a manifest, or of the tables of an `audiofolder`, that have names of their own: name used
    here -> name in your table, as `{path: clip, emotion: feeling}`."""
    speaker_pattern: str | None = None
    """A regular expression that finds the speaker in a path of an `audiofolder`, as `_(s\\d+)_`. With null a
    table beside the audio names the speakers, or they are unknown."""

    @property
    def reader_options(self) -> dict[str, Any]:
        """Return what the reader of the corpus is told; only what is set, as most readers take nothing."""
        chosen = {"columns": self.columns, "speaker_pattern": self.speaker_pattern}
        return {name: value for name, value in chosen.items() if value}

    @field_validator("only", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        single = value if isinstance(value, dict) else {}
        return {name: [v] if isinstance(v, str) else v for name, v in single.items()} or value

    @field_validator("licence")
    @classmethod
    def _know_the_licence(cls, value: str | None) -> str | None:
        if value is not None and value not in licences.KNOWN_LICENCES:
            raise ValueError(f"no licence known here; expected one of {', '.join(licences.KNOWN_LICENCES)}")
        return value


class DataConfig(CorpusConfig):
    """Which corpus."""

    classes: str | dict[str, str] = "four"
    """The classes to learn: `four` (neutral, happy with excited, angry, sad), `all`, or a mapping from
    emotion, or from a label as the corpus writes it, to class."""
    outside_classes: Literal["left_out", "kept"] = "left_out"
    """An utterance whose emotion is in no class is `left_out`, as in the papers, or `kept` for the other
    tasks."""
    text: TextConfig = TextConfig()
    """These settings say where text comes from."""
    max_seconds: float | None = Field(default=None, gt=0)
    """The longest utterance, in seconds. With null there is no limit. Memory grows with the square of the
    length."""
    longer: Literal["cut", "left_out", "error"] = "cut"
    """Utterances longer than `max_seconds` are treated so. `cut` keeps their first seconds, without their
    transcripts, which say more than that. `left_out` leaves them out. `error` refuses to begin."""
    scales: dict[str, tuple[FiniteFloat, FiniteFloat]] = Field(default_factory=dict)
    """The lowest and the highest value of each rating's scale, as `{valence: [1, 7]}`. A manifest needs them,
    since it has no data sheet that says so."""

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
    """This rule makes the folds. No speaker is ever on two sides of a fold."""
    folds: int = Field(default=5, ge=2)
    """`grouped_k_fold` makes this many folds. The other rules follow from the corpus."""
    validation: Literal["none", "speaker"] = "none"
    """`none` keeps the last epoch. That rule is Sertone's own; the paper of wan2025 names none. `speaker`
    takes one speaker out of training, who chooses the epoch. Official splits and leave-one-speaker-out bring
    their own validation."""
    unknown_speakers: Literal["refuse", "accept"] = "refuse"
    """Utterances whose speaker the corpus does not name are treated so. `refuse` makes no folds of them.
    `accept` counts each as a speaker of its own; pages and cards then say that independence of speakers is
    not known. An official split is taken as it is, and says the same."""


class Recipe(Settings):
    """The whole experiment."""

    data: DataConfig
    """The corpus, its classes and its text."""
    protocol: ProtocolConfig = ProtocolConfig()
    """The rule that splits the corpus."""
    model: dict[str, Any]
    """The `name` of the model, and the options of that model's `Config`."""
    train: TrainConfig
    """The settings of training."""


def load(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file, or the name of a recipe that comes with Sertone.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`, `bad_override`, `other_kind`.
    """
    return load_as(Recipe, path, "recipe", "data, protocol, model, train", overrides)


def resolve(source: str | Path | Mapping[str, Any] | Recipe, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe of a file, a mapping such as a file holds, or a recipe.

    Args:
        source: where it is, or what it says; it is not changed.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`, `bad_override`.
    """
    if isinstance(source, str | Path):
        return load(source, overrides)
    values = source.model_dump(mode="json") if isinstance(source, Recipe) else deepcopy(dict(source))
    for override in overrides:
        apply_override(values, *parse_override(override))
    return parse(Recipe, values, "the recipe")


def resolve_data(source: Mapping[str, Any] | Recipe) -> DataConfig:
    """Return the part `data` of a recipe, of a mapping such as a recipe file holds, or of that part alone.

    Raises:
        SertoneError: `bad_recipe`.
    """
    if isinstance(source, Recipe):
        return source.data
    return parse(DataConfig, source.get("data", source), "data")


def find_shipped_recipe(name: str) -> Path:
    """Return the path of a recipe that comes with Sertone, such as `demo`.

    Raises:
        SertoneError: `missing_recipe`.
    """
    return find_shipped(name, "recipe")


NEUTRAL = ("cache", "audio_cache_gb", "save_every")
"""Settings of `train` on which no result depends, beyond rounding."""


def drop_neutral(values: dict[str, Any]) -> dict[str, Any]:
    """A dumped recipe without what no result depends on."""
    train = {key: value for key, value in values["train"].items() if key not in NEUTRAL}
    return values | {"train": train}


def dump(recipe: Settings) -> str:
    """Return the recipe as YAML, defaults written out. The last line marks its end: a torn one lacks it."""
    values = recipe.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, explicit_end=True)
