"""The recipe of a distillation: one YAML file that says everything about it.

data       the corpus to train on; its labels are not used
teacher    the encoder to distil
student    how much of the teacher the student keeps
targets, cosine, held_out, max_seconds
train      how the student is trained
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from sertone.audio import MAX_SECONDS
from sertone.nn.encoders.config import EncoderConfig
from sertone.recipe import CorpusConfig
from sertone.recipe.settings import MAX_LAYERS, Settings, load_as
from sertone.recipe.train_config import TrainConfig, TrainingConfig
from sertone.recipe.train_parts import Rates


class StudentConfig(Settings):
    """The student: its depth, its frozen layers, and its prediction heads."""

    later_options: ClassVar[tuple[str, ...]] = ()
    """There is no second stage."""

    layers: int = Field(default=2, ge=1, le=MAX_LAYERS)
    """The student begins with this many of the teacher's layers, from the first on."""
    frozen_layers: int = Field(default=-1, ge=-1)
    """This many of the student's layers are not trained, from the first on. 0 freezes the front end only,
    and -1 nothing, as in the paper."""
    heads: Literal["linear", "hidden"] = "linear"
    """`linear` gives every target layer one linear layer. `hidden` puts a linear layer with GELU before it,
    as the authors' code does (`SplitLinear`)."""
    front_gradient: float = Field(default=1.0, gt=0, le=1)
    """The gradient of the front end, the convolutions, is multiplied by this. The authors' code uses 0.1."""

    @property
    def main_tasks(self) -> tuple[str, ...]:
        """A student predicts layers of its teacher, and nothing about an utterance."""
        return ()

    @model_validator(mode="after")
    def _require_trainable_layers(self) -> Self:
        if self.frozen_layers >= self.layers:
            raise ValueError(f"{self.frozen_layers} of {self.layers} layers frozen; expected fewer")
        if self.frozen_layers >= 0 and self.front_gradient < 1:
            raise ValueError("front_gradient, but the front end is frozen; expected frozen_layers: -1")
        return self


class DistillTrainConfig(TrainingConfig):
    """The training of the student."""

    epochs: int = Field(default=20, ge=1)
    """Training takes this many epochs. With `held_out` the epoch with the lowest held-out loss is kept,
    otherwise the last one."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """The learning rate of the student and its heads."""
    speeds: list[Annotated[float, Field(ge=0.5, le=2.0)]] = Field(default=[1.0], min_length=1)
    """Speed perturbation draws one of these speeds for every recording and epoch. The teacher's output is
    kept for each of them."""

    def to_train_config(self) -> TrainConfig:
        """Return the same settings in the form in which the trainer takes them."""
        rates = Rates(encoder=self.learning_rate, downstream=self.learning_rate)  # one rate for all parts
        return TrainConfig.model_validate(
            self.model_dump() | {"epochs": [self.epochs], "learning_rate": rates.model_dump()}
        )


class DistillRecipe(Settings):
    """The whole distillation."""

    data: CorpusConfig
    """The corpus. A manifest needs a column `path` and no other. Where it names speakers, whole speakers are
    held out."""
    teacher: EncoderConfig
    """The encoder to distil, written as `model.encoder` of other recipes: `{name: pretrained, source:
    facebook/hubert-base-ls960}`, or `{name: saved, source: runs/mine-all}`."""
    student: StudentConfig = StudentConfig()
    """The settings of the student."""
    targets: list[Annotated[int, Field(ge=1)]] = Field(default=[4, 8, 12], min_length=1)
    """The student predicts these layers of the teacher, each with a separate head."""
    cosine: float = Field(default=1.0, ge=0)
    """The weight of the cosine term of the loss, lambda in the paper."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """This share of the speakers is held out to measure the loss. Where no speakers are named, it is a share
    of the files."""
    max_seconds: float = Field(default=15.0, gt=0, le=MAX_SECONDS)
    """Longer recordings are cut into pieces of equal length, in seconds."""
    train: DistillTrainConfig
    """The settings of training."""

    @field_validator("targets")
    @classmethod
    def _sort_targets(cls, value: list[int]) -> list[int]:
        return sorted(set(value))  # the deepest target decides how many layers of the teacher are run


def load(path: str | Path, overrides: Iterable[str] = ()) -> DistillRecipe:
    """Read a recipe.

    Args:
        path: YAML file, or the name of a recipe that comes with Sertone.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`, `bad_override`, `other_kind`.
    """
    return load_as(DistillRecipe, path, "distillation", ", ".join(DistillRecipe.model_fields), overrides)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of these recipes, for editors."""
    return DistillRecipe.model_json_schema()
