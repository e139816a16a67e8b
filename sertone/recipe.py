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
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.settings import Settings, change, load_as, parse, parse_override
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
    columns: dict[str, str] = Field(default_factory=dict)
    """Of a manifest or the tables of an `audiofolder`: name used here -> column of your table, as
    `{path: clip, emotion: feeling}`, where the table gives it no name that is recognised."""
    speaker_pattern: str | None = None
    """Of an `audiofolder`: a regular expression that finds the speaker in a path, as `_(s\\d+)_`. null: a
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
        if value is not None and value not in licences.KNOWN:
            raise ValueError(f"no licence known here; expected one of {', '.join(licences.KNOWN)}")
        return value


class DataConfig(CorpusConfig):
    """Which corpus."""

    classes: str | dict[str, str] = "four"
    """`four`, `all`, or a mapping from emotion, or label as the corpus writes it, to class."""
    outside_classes: Literal["left_out", "kept"] = "left_out"
    """Utterances whose emotion is in no class: left out, the papers' way, or kept for the other tasks."""
    text: TextConfig = TextConfig()
    """Where text comes from."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Longest utterance, in seconds; null: no limit. Memory grows with the square of the length."""
    longer: Literal["cut", "left_out", "error"] = "cut"
    """What happens to utterances longer than `max_seconds`. `cut`: their first seconds take part, without
    their transcripts, which say more than that. `left_out`: they take no part. `error`: no run begins."""
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
    """`none`: the last epoch is taken, by our own rule, for the paper of wan2025 names none. `speaker`: one
    speaker is taken out of training and chooses the epoch. Official splits and leave-one-speaker-out bring
    their own."""
    unknown_speakers: Literal["refuse", "accept"] = "refuse"
    """What to do with utterances whose speaker the corpus does not name. `refuse`: no folds are made of
    them. `accept`: each counts as a speaker of its own, and pages and cards say that independence of speakers
    is not known. An official split is taken as it is, and says the same."""


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


def of(source: str | Path | Mapping[str, Any] | Recipe, overrides: Iterable[str] = ()) -> Recipe:
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
        change(values, *parse_override(override))
    return parse(Recipe, values, "the recipe")


def data_of(source: Mapping[str, Any] | Recipe) -> DataConfig:
    """Return the part `data` of a recipe, of a mapping such as a recipe file holds, or of that part alone.

    Raises:
        SertoneError: `bad_recipe`.
    """
    if isinstance(source, Recipe):
        return source.data
    return parse(DataConfig, source.get("data", source), "data")


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
