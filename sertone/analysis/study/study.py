"""A study: one YAML file that turns a recipe into a table.

    title, recipe     what it is, and the recipe it starts from (relative to the study's file)
    set               settings changed for all of it
    rows, columns     name -> settings changed; a column is usually an encoder
    seeds             of training; a score is their mean
    scores, costs     what the table shows
    published         the paper's figures as printed, percent or .748, and the convention that it
                      followed; reference: those of other work

A setting is `model.fusion: last` as with `--set`, or a whole part such as `model: {name: baseline, ...}`.
They are applied in the order recipe, set, row, column, seed. Rows and columns change the model and its
training, never the data or the protocol: the figures of one table are comparable.
"""

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sertone import labels, models
from sertone.catalogue import find_file, find_shipped
from sertone.errors import SertoneError
from sertone.recipe import Recipe
from sertone.recipe.settings import Settings, apply_override, parse, parse_override, read_yaml
from sertone.scoring import display

SCORES_WITH_INTERVALS = display.list_score_names(["any"], labels.DIMENSIONS)
"""Scores with intervals and differences: those of emotion, and `valence.ccc` and the like of ratings."""
AUXILIARY = {"gender.accuracy": "gender", "style.accuracy": "style", "asr.cer": "CER", "asr.wer": "WER"}
"""Scores of the auxiliary tasks, without intervals."""
FIRST_STAGE = "auxiliary"
"""Stage 1 of `wan2025`, as its scores are named: `auxiliary/asr.cer` is the CER at the end of it."""
TABLE_SCORES = (
    {name: display.get_score_format(name).label for name in SCORES_WITH_INTERVALS}
    | AUXILIARY
    | {f"{FIRST_STAGE}/{name}": f"{label} after stage 1" for name, label in AUXILIARY.items()}
)
"""Scores that a table can show: `ua` of emotion, or another task's, after the last stage or the first."""

Changes = dict[str, Any]
Figures = dict[str, float]
"""Score -> what is printed: percent, or a correlation such as .748, or an error in units of the scale."""


class Published(Settings):
    """The paper's own figures."""

    source: str
    """The publication in which the figures are printed."""
    convention: Literal["pooled", "mean over folds", "not stated"] = "not stated"
    """The paper made one score of several folds in this way. `pooled` scores all test utterances together.
    `mean over folds` is the mean of the folds' scores. `not stated` means that the paper does not say."""
    rows: dict[str, dict[str, Figures]] = Field(default_factory=dict)
    """The figures as printed, by row and column. The column `mean` is the mean over the columns."""
    inferred: dict[str, dict[str, Figures]] = Field(default_factory=dict)
    """Figures that are not printed but follow from the text, in the same form."""

    def find_score(self, row: str, column: str, score: str) -> dict[str, Any] | None:
        """`printed`, and whether it was `inferred`; None where the paper has none."""
        for inferred, rows in ((False, self.rows), (True, self.inferred)):
            printed = rows.get(row, {}).get(column, {}).get(score)
            if printed is not None:
                return {"printed": printed, "inferred": inferred}
        return None


class Reference(Settings):
    """A figure of other work, to print below the table."""

    name: str
    """The authors and the system."""
    source: str = ""
    """The publication and the protocol."""
    figures: Figures
    """The figures as printed."""


class Study(Settings):
    """The whole study."""

    title: str
    """The title of the table."""
    recipe: str
    """The recipe to start from: a path relative to the study's file, or the name of a recipe that comes with
    Sertone."""
    set: Changes = Field(default_factory=dict)
    """These settings change for the whole study."""
    columns: dict[str, Changes] = Field(min_length=1)
    """The settings that each column changes. A column is usually an encoder."""
    rows: dict[str, Changes] = Field(min_length=1)
    """The settings that each row changes."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Every cell is trained once for each of these seeds, and its score is their mean."""
    scores: list[str] = Field(default=["ua", "wa"], min_length=1)
    """The table shows these scores."""
    compare_to: str | None = None
    """The other rows are compared with this row. Without it they are compared with the first row."""
    published: Published | None = None
    """The figures of the paper."""
    reference: list[Reference] = Field(default_factory=list)
    """Figures of other work, printed below the table."""
    note: str = ""
    """A note for the readers of the table."""
    costs: bool = False
    """With true the table shows parameters, speed and memory of every model. They are measured when all
    models are trained."""
    keep_checkpoints: bool = False
    """With true the models are kept. A study of large encoders has hundreds of them, and the table needs
    their answers alone."""

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        if unknown := [name for name in self.scores if name not in TABLE_SCORES]:
            raise ValueError(f"scores {', '.join(unknown)}; known are {', '.join(TABLE_SCORES)}")
        if self.compare_to not in (None, *self.rows):
            raise ValueError(f"compare_to {self.compare_to!r} is no row")
        for names in (self.rows, self.columns):
            if len({slugify(name) for name in names}) < len(names):
                raise ValueError(f"names that give the same folder: {', '.join(names)}")
        for row, columns in self._published():
            if row not in self.rows or not set(columns) <= {*self.columns, "mean"}:
                raise ValueError(
                    f"published figures of {row!r} ({', '.join(columns)}): no such row or column"
                )
        return self

    def _published(self) -> list[tuple[str, dict[str, Figures]]]:
        return [*self.published.rows.items(), *self.published.inferred.items()] if self.published else []

    @property
    def base_row(self) -> str:
        """The row that the others are compared with."""
        return self.compare_to or next(iter(self.rows))

    @property
    def main_score(self) -> str:
        """The first score of emotion or of a rating, else the first: what differences are shown of."""
        return next((name for name in self.scores if name in SCORES_WITH_INTERVALS), self.scores[0])


@dataclass(frozen=True)
class TableCell:
    """Where a recipe stands in the table, and its folder below the study's."""

    row: str
    column: str
    seed: int

    @property
    def folder(self) -> Path:
        """Of its run, relative to the study's."""
        return Path("cells", slugify(self.row), slugify(self.column), f"seed_{self.seed}")


def slugify(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", " and ")).strip("-") or "cell"


def find_recipe(path: str | Path, study: Study) -> Path:
    """Return the file of the recipe that a study starts from.

    It lies where the study says, relative to the study's file. A study that was copied without its recipe
    starts from the recipe of that name that comes with Sertone.

    Args:
        path: YAML file of the study, or the name of one that comes with Sertone.
        study: what it holds.

    Raises:
        SertoneError: `missing_study`, `missing_recipe`.
    """
    beside = find_file(path, "study").parent / study.recipe
    return beside if beside.is_file() else find_shipped(study.recipe, "recipe")


def load_study(
    path: str | Path, overrides: Iterable[str] = (), seeds: Sequence[int] | None = None
) -> tuple[Study, dict[TableCell, Recipe]]:
    """Reads a study and makes its recipes.

    Args:
        path: YAML file, or the name of a study that comes with Sertone.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        seeds: instead of the study's.

    Returns:
        the study, and the recipe of each place, columns first, then seeds, then rows.

    Raises:
        SertoneError: `missing_study`, `bad_study`, `missing_recipe`, `bad_recipe`, `bad_override`.
    """
    values = read_yaml(path, "study", "title, recipe, rows, columns")
    study = parse(Study, values, str(path), "bad_study")
    own = [parse_override(override) for override in overrides]
    _refuse_changed(study, [name for name, _ in own])
    kept = {name: value for name, value in study.set.items() if name not in dict(own)}
    changes: dict[str, Any] = {"set": kept | dict(own)} | ({"seeds": list(seeds)} if seeds else {})
    study = study.model_copy(update=changes)
    base = read_yaml(find_recipe(path, study), "recipe", "data, protocol, model, train")
    _apply(base, study.set)
    made = {}
    for column, of_column in study.columns.items():
        for seed in study.seeds:
            for row, of_row in study.rows.items():
                own = copy.deepcopy(base)
                for changes in (of_row, of_column, {"train.seed": seed}):
                    _apply(own, changes)
                made[TableCell(row, column, seed)] = _checked(own, f"{path}, {row}, {column}")
    _require_one_protocol(study, made)
    return study, made


def _refuse_changed(study: Study, names: Sequence[str]) -> None:
    """An override that a row or column changes again would be lost without a word."""
    changed = {"train.seed": "the seeds"}
    for kind, parts in (("row", study.rows), ("column", study.columns)):
        changed |= {name: f"{kind} {part!r}" for part, own in parts.items() for name in own}
    for name in names:
        for other, where in changed.items():
            if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                raise SertoneError(
                    "bad_override",
                    f"--set {name}, which {where} of the study sets by {other}",
                    "a setting that is the same in the whole study",
                    "--seeds changes the seeds; for the rest change the study's file, or a copy beside it",
                )


def _checked(values: dict, where: str) -> Recipe:
    recipe = parse(Recipe, values, where)
    try:
        models.configure(recipe.model)
    except SertoneError as error:
        raise SertoneError(error.code, f"{where}: {error.found}", error.expected, error.way_out) from None
    return recipe


def _apply(values: dict, changes: Changes) -> None:
    for name, value in changes.items():
        apply_override(values, name, copy.deepcopy(value))


def _require_one_protocol(study: Study, made: dict[TableCell, Recipe]) -> None:
    protocols = {
        recipe.model_dump_json(include={"data", "protocol"}): place for place, recipe in made.items()
    }
    if len(protocols) > 1:
        first, second, *_ = protocols.values()
        raise SertoneError(
            "bad_study",
            f"{study.title}: {first.row}, {first.column} and {second.row}, {second.column} have other data "
            "or another protocol",
            "rows and columns that change `model` and `train` alone",
            "make it two studies",
        )
