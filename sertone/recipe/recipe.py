"""A recipe: one YAML file that describes a whole experiment, checked before anything runs.

    data       the corpus and the classes
    protocol   the rule that splits the corpus
    model      the system, with the options of its `Config`
    train      the training

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
"""The rules that make folds; `protocol.splits.make_folds` applies them."""


class AsrConfig(Settings):
    """Speech recognition with faster-whisper; it needs the extra `asr`."""

    model: str = "small"
    """The recognition model: a size such as `small` or `large-v3`, a converted Whisper model on the hub, or
    the folder of one."""
    language: str | None = None
    """The language spoken, as an ISO 639-1 code. With null it is taken from the corpus's data sheet, or
    detected where the data sheet does not state it."""
    compute_type: Literal[
        "default", "auto", "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16",
        "int8_bfloat16",
    ] = "int8"  # fmt: skip
    """The precision of the computation, as CTranslate2 names it. `int8` needs the least memory."""
    beam_size: int = Field(default=5, ge=1)
    """The beam search keeps this many hypotheses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device for the recognition. `auto` uses a GPU where there is one."""
    folder: str = "~/.cache/sertone/transcripts"
    """The folder that caches the transcripts, so that every recording is recognised only once."""


class TextConfig(Settings):
    """The source of the text. `text: asr` and the other single words set `source`."""

    source: Literal["corpus", "column", "asr", "none"] = "corpus"
    """`corpus` uses the corpus's own transcripts, and `column` uses a column of a manifest. `asr` transcribes
    the audio once. `none` gives the model no text."""
    column: str | None = None
    """The column of a manifest that holds the text. Give it with `source: column` only."""
    asr: AsrConfig = AsrConfig()
    """The settings of speech recognition, for `source: asr`."""
    error_rates: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0.1, 0.3])
    """A model that uses text is also tested with texts of these word error rates. 0.3 replaces 30 % of the
    words."""

    @model_validator(mode="before")
    @classmethod
    def _expand_single_word(cls, values: Any) -> Any:
        # `text: asr` is short for `text: {source: asr}`.
        return {"source": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _require_column(self) -> Self:
        if (self.source == "column") != (self.column is not None):
            raise ValueError("source: column and the name of a column go together; give both or neither")
        return self


class CorpusConfig(Settings):
    """A corpus and its location."""

    corpus: str
    """The name of the corpus. `sertone corpora list` shows all names."""
    root: str
    """The folder of the corpus, or the file of a manifest. The path is relative to the working directory."""
    only: dict[str, list[str]] = Field(default_factory=dict)
    """Only these utterances are used: `{style: improvised}`, or `{session: [Session1, Session2]}`. A key is
    `speaker`, `session`, `split` or a label. If it is empty, all utterances are used."""
    licence: str | None = None
    """The licence of your copy, as the Hugging Face hub names it: `cc-by-4.0`, `other`. With null it is taken
    from the corpus's data sheet. The data sheet of a manifest states none."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns of a manifest, or of the tables of an `audiofolder`, that have other names in your table:
    expected name -> name in your table, as `{path: clip, emotion: feeling}`."""
    speaker_pattern: str | None = None
    """A regular expression that finds the speaker in a path of an `audiofolder`, as `_(s\\d+)_`. With null a
    table beside the audio names the speakers. Without such a table they are unknown."""

    @property
    def reader_options(self) -> dict[str, Any]:
        """Return the keyword arguments for the reader of the corpus.

        Only options that are set are passed on, since most readers take none.
        """
        options = {"columns": self.columns, "speaker_pattern": self.speaker_pattern}
        return {name: value for name, value in options.items() if value}

    @field_validator("only", mode="before")
    @classmethod
    def _wrap_single_values(cls, value: Any) -> Any:
        """Turn `{style: improvised}` into `{style: [improvised]}`."""
        if not isinstance(value, dict):
            return value  # pydantic refuses it
        return {name: [v] if isinstance(v, str) else v for name, v in value.items()}

    @field_validator("licence")
    @classmethod
    def _require_known_licence(cls, value: str | None) -> str | None:
        if value is not None and value not in licences.KNOWN_LICENCES:
            raise ValueError(f"unknown licence; expected one of {', '.join(licences.KNOWN_LICENCES)}")
        return value


class DataConfig(CorpusConfig):
    """The corpus, its classes, its text and the length of its utterances."""

    classes: str | dict[str, str] = "four"
    """The classes to learn: `four` (neutral, happy with excited, angry, sad), `all`, or a mapping from
    emotion, or from a label as the corpus writes it, to class."""
    outside_classes: Literal["left_out", "kept"] = "left_out"
    """An utterance whose emotion is in no class is `left_out`, as in the papers, or `kept` for the other
    tasks."""
    text: TextConfig = TextConfig()
    """The source of the text."""
    max_seconds: float | None = Field(default=None, gt=0)
    """The longest utterance, in seconds. With null there is no limit. The memory that a model needs grows
    with the square of the length."""
    longer: Literal["cut", "left_out", "error"] = "cut"
    """The treatment of utterances longer than `max_seconds`. `cut` keeps their first seconds and drops their
    transcripts, which cover more than that. `left_out` leaves them out. `error` stops before the training."""
    scales: dict[str, tuple[FiniteFloat, FiniteFloat]] = Field(default_factory=dict)
    """The lowest and the highest value of each rating's scale, as `{valence: [1, 7]}`. A manifest needs them,
    since its data sheet does not state any."""

    @field_validator("scales")
    @classmethod
    def _require_valid_scales(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if name not in DIMENSIONS:
                raise ValueError(f"no rating {name!r}; expected some of {', '.join(DIMENSIONS)}")
            if low >= high:
                raise ValueError(f"{name} from {low:g} to {high:g}; expected the lower end first")
        return value


class ProtocolConfig(Settings):
    """The split of the corpus. No speaker is in two sets of a fold."""

    split: Split = "leave_one_session_out"
    """The rule that makes the folds. No speaker is in two sets of a fold."""
    folds: int = Field(default=5, ge=2)
    """The number of folds of `grouped_k_fold`. With the other rules it follows from the corpus."""
    validation: Literal["none", "speaker"] = "none"
    """`none` keeps the last epoch. This rule is Sertone's choice; the paper of wan2025 states none. `speaker`
    holds one speaker out of training and keeps the epoch with the best score on that speaker. Official splits
    and leave-one-speaker-out have their own validation set."""
    unknown_speakers: Literal["refuse", "accept"] = "refuse"
    """The treatment of utterances whose speaker the corpus does not name. `refuse` stops with an error.
    `accept` counts each as a separate speaker; reports and cards then state that speaker independence is not
    known. An official split is used as it is, with the same statement."""


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
    """Return the recipe of a file, of the mapping that such a file holds, or a recipe itself.

    Args:
        source: the path, the mapping or the recipe; it is not changed.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`, `bad_override`.
    """
    if isinstance(source, str | Path):
        return load(source, overrides)
    # A copy, since overrides change the mapping in place.
    values = source.model_dump(mode="json") if isinstance(source, Recipe) else deepcopy(dict(source))
    for override in overrides:
        apply_override(values, *parse_override(override))
    return parse(Recipe, values, "the recipe")


def resolve_data(source: str | Mapping[str, Any] | Recipe, **options: Any) -> DataConfig:
    """Return the settings of a corpus.

    Args:
        source: the name of the corpus; or a recipe, the mapping that a recipe file holds, or its part `data`.
        **options: settings beside a name, `root` among them; `reader` is a mapping of the reader's options.
            None: not set.

    Raises:
        SertoneError: `bad_recipe`.
        TypeError: a name without `root`, or options beside a recipe.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(source, str):
        if "root" not in given:
            raise TypeError(f"{source} needs root, the folder of the corpus or the table")
        settings = {"corpus": source} | given | {"root": str(given["root"])} | dict(given.get("reader", {}))
        settings.pop("reader", None)
        return parse(DataConfig, settings, "data")
    if given:
        raise TypeError(f"it takes {', '.join(given)} from the recipe: change it there")
    if isinstance(source, Recipe):
        return source.data
    return parse(DataConfig, source.get("data", source), "data")


def find_shipped_recipe(name: str) -> Path:
    """Return the path of a recipe that comes with Sertone, such as `demo`.

    Raises:
        SertoneError: `missing_recipe`.
    """
    return find_shipped(name, "recipe")


NEUTRAL = ("cache", "audio_cache_gb", "save_every", "log")
"""Settings of `train` that do not change any result, apart from rounding."""


def drop_neutral(values: dict[str, Any]) -> dict[str, Any]:
    """Return a dumped recipe without the settings on which no result depends."""
    train = {key: value for key, value in values["train"].items() if key not in NEUTRAL}
    return values | {"train": train}


def dump(recipe: Settings) -> str:
    """Return the recipe as YAML, with all defaults. The last line marks the end: a damaged file lacks it."""
    values = recipe.model_dump(mode="json")
    # `explicit_end` writes the line `...`; a run takes a recipe without it for damaged.
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, explicit_end=True)
