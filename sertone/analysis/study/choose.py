"""Chooses among the settings of a study inside the training side of every fold.

Whoever takes the best row of a table reports the luckiest one: its score has seen the test sides. Here
the speakers of a fold are answered by settings that were chosen without them (nested cross-validation;
Cawley and Talbot 2010, JMLR 11), so the score is that of the whole procedure, the choosing included.

out/all/              the study on all speakers, as `ablate` writes it
out/inside/fold_0/    the study on the training side of fold 0
out/chosen/seed_0/    a run: of every fold the answers of what was chosen without it
out/run/              the best settings on all speakers, cross-validated once more: a study keeps no models
out/choice.json, choice.md; recipe.yaml, to train those settings with
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sertone import models
from sertone import recipe as recipes
from sertone.analysis.study import choice_report
from sertone.analysis.study.ablate import run_study
from sertone.analysis.study.choice_report import ScoredSettings
from sertone.analysis.study.study import SCORES_WITH_INTERVALS, Study, TableCell, find_recipe, load_study
from sertone.errors import SertoneError
from sertone.files import parse_yaml, read_text, write_text
from sertone.protocol.splits import Fold
from sertone.recipe import Recipe
from sertone.scoring import display
from sertone.training.experiment.experiment import Experiment, prepare
from sertone.training.fit import distributed
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.run_folder import lock


def choose(
    path: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Runs a study on all speakers and inside every fold, and scores what is chosen inside.

    Settings are a row with a column. The best ones have the best mean over the seeds of the study's main
    score, and among equals the first. A choice that was interrupted goes on where it stopped.

    Args:
        path: the study's YAML file, or the name of one that comes with Sertone.
        out: folder to write.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        seeds: instead of the study's.
        jobs: folds at a time; None: one per card, or one per core.
        fresh: throw away what is in the folder's runs. Nothing goes on with other recipes or data than it was
            begun with: the choice would not be one.
        quiet: no progress lines.

    Returns:
        the folder.

    Raises:
        SertoneError: as `ablate`; `nothing_to_choose`, `no_folds_inside`.
    """
    out, overrides = Path(out), list(overrides)
    study, made = load_study(path, overrides, seeds)
    _require_a_choice(study, made)
    first, base, say = next(iter(made.values())), find_recipe(path, study), RunProgress(0, quiet).say
    distributed.init(first.train.device)
    experiment = prepare(first, say=say)
    inside = [_inside(fold, experiment, path, overrides, seeds) for fold in experiment.folds]
    go_on: dict[str, Any] = {"jobs": jobs, "fresh": fresh, "quiet": quiet}
    with lock(out) if distributed.is_first() else contextlib.nullcontext():
        say("all speakers")
        overall = _best(run_study(study, made, base, out / "all", **go_on), study)
        chosen = []
        for n, (fold, (own, recipes_inside)) in enumerate(zip(experiment.folds, inside, strict=True)):
            say(f"without fold {n} ({fold.name})")
            folder = out / "inside" / f"fold_{n}"
            chosen.append(_best(run_study(own, recipes_inside, base, folder, **go_on), study))
        say(f"best on all speakers: {overall.name}")
        _finish(study, made, out, experiment, chosen, overall, go_on)
    return out


def _require_a_choice(study: Study, made: dict[TableCell, Recipe]) -> None:
    configs = [models.configure(recipe.model) for recipe in made.values()]
    answers, score = {config.predicted_tasks for config in configs}, study.main_score
    if len(study.rows) * len(study.columns) < 2:
        raise SertoneError(
            "nothing_to_choose",
            f"{study.title}: one row and one column",
            "two settings or more",
            "cross-validate its recipe with `sertone crossval`",
        )
    if (
        len(answers) > 1
        or score not in SCORES_WITH_INTERVALS
        or display.parse_score_name(score)[0] not in next(iter(answers))
    ):
        found = "; ".join(", ".join(own) for own in sorted(answers))
        raise SertoneError(
            "nothing_to_choose",
            f"{study.title}: the best in {display.get_score_format(score).label} of models that answer {found}",
            "settings that all answer the same tasks, and a score of one of these first in `scores`",
            "leave rows out, or put another score first",
        )


def _inside(
    fold: Fold,
    experiment: Experiment,
    path: str | Path,
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
) -> tuple[Study, dict[TableCell, Recipe]]:
    """The study of the fold's training side, and its recipes; costs and papers' figures are not of it.

    Raises:
        SertoneError: `no_folds_inside`, for what would fail after hours.
    """
    protocol = experiment.recipe.protocol
    if protocol.split == "official":
        raise SertoneError(
            "no_folds_inside",
            "an official split, whose training side has no folds",
            "a split that makes folds",
            "use protocol.split: grouped_k_fold",
        )
    names = sorted({u.speaker for u in fold.train + fold.validation})
    own = [f"data.only.speaker={json.dumps(names)}", f"protocol.folds={max(2, protocol.folds - 1)}"]
    study, made = load_study(path, [*overrides, *own], seeds)
    first, *others = made.values()
    try:
        inner = prepare(first)
        for recipe in others:
            inner.with_recipe(recipe)
    except SertoneError as error:
        found = f"without fold {fold.name}: {error.found}"
        way_out = error.way_out or "fewer folds, or more speakers"
        raise SertoneError("no_folds_inside", found, error.expected, way_out) from None
    return study.model_copy(update={"costs": False, "published": None, "reference": []}), made


def _best(folder: Path, study: Study) -> ScoredSettings:
    """The best settings of a finished study.

    Raises:
        SertoneError: `other_experiment`.
    """
    distributed.barrier()  # for its table
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    cells = {(row["name"], column): row["cells"][column] for row in found["rows"] for column in study.columns}
    if forced := [" / ".join(name) for name, cell in cells.items() if cell["other_settings"]]:
        raise SertoneError(
            "other_experiment",
            f"{folder}: {', '.join(forced)} were trained with other settings (--force)",
            "trainings of the settings that are compared",
            "start again with --fresh, or choose another --out",
        )
    score = study.main_score
    choices = [ScoredSettings(*name, cell["scores"][score]["value"]) for name, cell in cells.items()]
    sign = -1 if display.get_score_format(score).lower_is_better else 1
    return max(choices, key=lambda choice: sign * choice.score)


def _finish(
    study: Study,
    made: dict[TableCell, Recipe],
    out: Path,
    experiment: Experiment,
    chosen: list[ScoredSettings],
    overall: ScoredSettings,
    go_on: dict[str, Any],
) -> None:
    """Trains what is best on all speakers, anew where something else was before, and writes all down."""
    recipe, run = made[overall.get_cell(study.seeds[0])], out / "run"
    other = _deciding(run / "recipe.yaml") not in (None, recipes.drop_neutral(recipe.model_dump(mode="json")))
    distributed.barrier()  # for all to have looked
    if distributed.is_first():
        choice_report.remove_choice(out)
    cross_validate(recipe, run, **go_on | {"fresh": go_on["fresh"] or other})
    if distributed.is_first():
        write_text(out / "recipe.yaml", recipes.dump(recipe))
        choice_report.write_choice(study, out, experiment, chosen, overall)
    distributed.barrier()


def _deciding(recipe: Path) -> dict[str, Any] | None:
    """Return the settings of a recipe that is there and whole; a torn one is put aside by the run."""
    try:
        values = parse_yaml(read_text(recipe, "torn"))
    except (SertoneError, ValueError):
        return None
    return recipes.drop_neutral(values) if isinstance(values, dict) and "train" in values else None
