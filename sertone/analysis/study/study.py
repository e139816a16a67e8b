"""Study: one YAML file that turns a recipe into a table.

    title, recipe     title of the table; the recipe to start from (relative to the study's file)
    set               settings changed for the whole study
    rows, columns     name -> settings changed; a column is usually an encoder
    seeds             training seeds; a score is the mean over them
    scores, costs     values that the table shows
    published         the paper's scores as printed (percent, or .748), and their convention
    reference         scores of other work

A setting is `model.fusion: last` as with `--set`, or a whole part such as `model: {name: baseline, ...}`.
Settings are applied in the order recipe, set, row, column, seed. Rows and columns change the model and its
training, never the data or the protocol, so the scores of one table are comparable.
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
from sertone.recipe.settings import Settings, apply_override, load_yaml, parse, parse_override
from sertone.scoring import display

# The names of the scores do not depend on the classes, so any class will do.
SCORES_WITH_INTERVALS = display.list_score_names(["any"], labels.DIMENSIONS)
"""Scores with intervals and differences: `ua` and others of emotion, `valence.ccc` and others of ratings."""
AUXILIARY = {"gender.accuracy": "gender", "style.accuracy": "style", "asr.cer": "CER", "asr.wer": "WER"}
"""Scores of the auxiliary tasks, without intervals, and their labels."""
FIRST_STAGE = "auxiliary"
"""Prefix of scores after stage 1 of `wan2025`: `auxiliary/asr.cer` is the CER at the end of stage 1."""
TABLE_SCORES = (
    {name: display.get_score_format(name).label for name in SCORES_WITH_INTERVALS}
    | AUXILIARY
    | {f"{FIRST_STAGE}/{name}": f"{label} after stage 1" for name, label in AUXILIARY.items()}
)
"""Scores that a table can show, after the last stage or the first, and their labels."""

Changes = dict[str, Any]
PrintedScores = dict[str, float]
"""Score -> number as printed: percent, a correlation such as .748, or an error in points of the scale."""


class Published(Settings):
    """The scores that the paper prints."""

    source: str
    """The publication that prints the scores."""
    convention: Literal["pooled", "mean over folds", "not stated"] = "not stated"
    """The paper made one score of several folds in this way. `pooled` scores all test utterances together.
    `mean over folds` is the mean of the folds' scores. `not stated` means that the paper does not say."""
    rows: dict[str, dict[str, PrintedScores]] = Field(default_factory=dict)
    """The scores as printed, by row and column. The column `mean` is the mean over the columns."""
    inferred: dict[str, dict[str, PrintedScores]] = Field(default_factory=dict)
    """Scores that are not printed but follow from the text, in the same form."""

    def find_score(self, row: str, column: str, score: str) -> dict[str, Any] | None:
        """Return a `printed` score, and whether it was `inferred`. Return None where the paper has none."""
        for inferred, rows in ((False, self.rows), (True, self.inferred)):
            printed = rows.get(row, {}).get(column, {}).get(score)
            if printed is not None:
                return {"printed": printed, "inferred": inferred}
        return None


class Reference(Settings):
    """Scores of other work, printed below the table."""

    name: str
    """The authors and the system."""
    source: str = ""
    """The publication and the protocol."""
    figures: PrintedScores
    """The scores as printed."""


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
    """The scores of the paper."""
    reference: list[Reference] = Field(default_factory=list)
    """Scores of other work, printed below the table."""
    note: str = ""
    """A note for the readers of the table."""
    costs: bool = False
    """With true the table shows parameters, speed and memory of every model. They are measured after all
    models are trained."""
    keep_checkpoints: bool = False
    """With true the models are kept. A study of large encoders has hundreds of them, and the table needs
    only their predictions."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if unknown := [name for name in self.scores if name not in TABLE_SCORES]:
            known = ", ".join(TABLE_SCORES)
            raise ValueError(f"scores: unknown {', '.join(unknown)}; expected some of {known}")
        if self.compare_to not in (None, *self.rows):
            raise ValueError(f"compare_to: {self.compare_to!r} is no row")
        for names in (self.rows, self.columns):
            if len({slugify(name) for name in names}) < len(names):
                raise ValueError(f"some of these names give the same folder: {', '.join(names)}")
        for row, columns in self._list_published_rows():
            if row not in self.rows or not set(columns) <= {*self.columns, "mean"}:
                raise ValueError(f"published scores of {row!r} ({', '.join(columns)}): no such row or column")
        return self

    def _list_published_rows(self) -> list[tuple[str, dict[str, PrintedScores]]]:
        """Return row and scores by column of all published scores, printed and inferred."""
        if not self.published:
            return []
        return [*self.published.rows.items(), *self.published.inferred.items()]

    @property
    def base_row(self) -> str:
        """Row that the others are compared with."""
        return self.compare_to or next(iter(self.rows))

    @property
    def main_score(self) -> str:
        """Score whose differences are shown: the first of emotion or of a rating, or else the first."""
        return next((name for name in self.scores if name in SCORES_WITH_INTERVALS), self.scores[0])


@dataclass(frozen=True)
class TableCell:
    """Row, column and training seed of one recipe of a study."""

    row: str
    column: str
    seed: int

    @property
    def folder(self) -> Path:
        """Folder of the run, relative to the folder of the study."""
        return Path("cells", slugify(self.row), slugify(self.column), f"seed_{self.seed}")


def slugify(name: str) -> str:
    """Return a name as a part of a path: lower case, other characters than letters and digits as `-`."""
    # `ASR + gender` and `ASR gender` need different folders, and every name needs one.
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", " and ")).strip("-") or "cell"


def find_recipe(path: str | Path, study: Study) -> Path:
    """Return the file of the recipe that a study starts from.

    The study gives its path relative to the study's file. A study that was copied without its recipe starts
    from the recipe of that name that comes with Sertone.

    Args:
        path: YAML file of the study, or the name of one that comes with Sertone.
        study: content of that file.

    Raises:
        SertoneError: `missing_study`, `missing_recipe`.
    """
    local_recipe = find_file(path, "study").parent / study.recipe
    return local_recipe if local_recipe.is_file() else find_shipped(study.recipe, "recipe")


def load_study(
    path: str | Path, overrides: Iterable[str] = (), seeds: Sequence[int] | None = None
) -> tuple[Study, dict[TableCell, Recipe]]:
    """Load a study and build its recipes.

    Args:
        path: YAML file, or the name of a study that comes with Sertone.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        seeds: replace the study's seeds.

    Returns:
        the study, and the recipe of each cell, ordered by column, then seed, then row.

    Raises:
        SertoneError: `missing_study`, `bad_study`, `missing_recipe`, `bad_recipe`, `bad_override`.
    """
    study = parse(Study, load_yaml(path, "study", "title, recipe, rows, columns"), str(path), "bad_study")
    study = _apply_overrides(study, overrides, seeds)
    base = load_yaml(find_recipe(path, study), "recipe", "data, protocol, model, train")
    _apply_changes(base, study.set)
    recipes_by_cell = {}
    for column, column_changes in study.columns.items():
        for seed in study.seeds:
            for row, row_changes in study.rows.items():
                values = copy.deepcopy(base)
                for changes in (row_changes, column_changes, {"train.seed": seed}):
                    _apply_changes(values, changes)
                recipe = _build_recipe(values, f"{path}, {row}, {column}")
                recipes_by_cell[TableCell(row, column, seed)] = recipe
    _require_one_protocol(study, recipes_by_cell)
    return study, recipes_by_cell


def _apply_overrides(study: Study, overrides: Iterable[str], seeds: Sequence[int] | None) -> Study:
    """Return the study with overridden settings in `set`, and with other seeds."""
    settings = [parse_override(override) for override in overrides]
    _refuse_changed(study, [name for name, _ in settings])
    # An override replaces its setting in `set` and comes last, so no other setting there undoes it.
    unchanged = {name: value for name, value in study.set.items() if name not in dict(settings)}
    update: dict[str, Any] = {"set": unchanged | dict(settings)}
    if seeds:
        update["seeds"] = list(seeds)
    return study.model_copy(update=update)


def _refuse_changed(study: Study, names: Sequence[str]) -> None:
    """Refuse an override that a row or column changes again: it would be lost without a message."""
    changed = {"train.seed": "the seeds"}
    for kind, parts in (("row", study.rows), ("column", study.columns)):
        for part, changes in parts.items():
            changed |= dict.fromkeys(changes, f"{kind} {part!r}")
    for name in names:
        for changed_name, place in changed.items():
            # The dot keeps `model.hidden` and `model.hidden_size` apart.
            if f"{name}.".startswith(f"{changed_name}.") or f"{changed_name}.".startswith(f"{name}."):
                raise SertoneError(
                    "bad_override",
                    f"--set {name}, but {place} of the study sets {changed_name}",
                    "a setting that is the same in the whole study",
                    "use --seeds for the seeds; for other settings edit the study's file, or a copy of it",
                )


def _build_recipe(values: dict, source: str) -> Recipe:
    """Build a recipe and check the options of its model.

    Args:
        values: values of the recipe.
        source: names file, row and column in error messages.
    """
    recipe = parse(Recipe, values, source)
    try:
        models.configure(recipe.model)
    except SertoneError as error:
        raise SertoneError(error.code, f"{source}: {error.found}", error.expected, error.way_out) from None
    return recipe


def _apply_changes(values: dict, changes: Changes) -> None:
    """Change settings of a recipe in place."""
    for name, value in changes.items():
        # Recipes must not share mutable values with each other or with the study.
        apply_override(values, name, copy.deepcopy(value))


def _require_one_protocol(study: Study, recipes_by_cell: dict[TableCell, Recipe]) -> None:
    """Refuse a study whose cells differ in data or protocol."""
    protocols = {
        recipe.model_dump_json(include={"data", "protocol"}): cell for cell, recipe in recipes_by_cell.items()
    }
    if len(protocols) > 1:
        first, second, *_ = protocols.values()
        raise SertoneError(
            "bad_study",
            f"{study.title}: {first.row}, {first.column} and {second.row}, {second.column} have other data "
            "or another protocol",
            "rows and columns that change only `model` and `train`",
            "split it into two studies",
        )
