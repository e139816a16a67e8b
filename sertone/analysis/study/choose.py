"""Choice among the settings of a study on the training set of every fold.

The best row of a table is the luckiest one: its score has used the test sets. Here every fold is predicted
with settings that were chosen without it (nested cross-validation; Cawley and Talbot 2010, JMLR 11). The
score is therefore that of the whole procedure, including the choice.

out/all/              the study on all speakers, as `ablate` writes it
out/inside/fold_0/    the study on the training set of fold 0
out/chosen/seed_0/    a run: for every fold, the predictions of the settings that were chosen without it
out/run/              the best settings on all speakers, cross-validated again: a study keeps no models
out/choice.json, choice.md; recipe.yaml, to train with the best settings
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
    """Run a study on all speakers and inside every fold, and score the settings that are chosen inside.

    Settings are a row together with a column. The best settings have the best mean over the seeds of the
    study's main score. Among equals the first is taken. An interrupted choice is resumed.

    Args:
        path: the study's YAML file, or the name of one that comes with Sertone.
        out: folder to write.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        seeds: replace the study's seeds.
        jobs: number of folds trained at a time; None: one per GPU, or one per core.
        fresh: delete what is in the folder's runs. Without it, a run with another recipe or other data is
            refused, because runs of different settings are no choice.
        quiet: print no progress.

    Returns:
        the folder.

    Raises:
        SertoneError: see `ablate`; `nothing_to_choose`, `no_folds_inside`.
    """
    out = Path(out)
    overrides = list(overrides)
    say = RunProgress(0, quiet).say
    study, recipes_by_cell = load_study(path, overrides, seeds)
    _require_choice(study, recipes_by_cell)
    base = find_recipe(path, study)
    # Data and protocol are the same in all recipes, so the first one prepares the folds for all.
    recipe = next(iter(recipes_by_cell.values()))
    distributed.init(recipe.train.device)
    experiment = prepare(recipe, say=say)
    inner_studies = [_load_inner_study(fold, experiment, path, overrides, seeds) for fold in experiment.folds]
    options: dict[str, Any] = {"jobs": jobs, "fresh": fresh, "quiet": quiet}
    with lock(out) if distributed.is_first() else contextlib.nullcontext():
        say("all speakers")
        overall = _find_best(run_study(study, recipes_by_cell, base, out / "all", **options), study)
        chosen = []
        for number, (fold, inner) in enumerate(zip(experiment.folds, inner_studies, strict=True)):
            say(f"without fold {number} ({fold.name})")
            folder = run_study(*inner, base, out / "inside" / f"fold_{number}", **options)
            chosen.append(_find_best(folder, study))
        say(f"best on all speakers: {overall.name}")
        _train_best(recipes_by_cell[overall.get_cell(study.seeds[0])], out, options)
        if distributed.is_first():
            choice_report.write_choice(study, out, experiment, chosen, overall)
        distributed.barrier()
    return out


def _require_choice(study: Study, recipes_by_cell: dict[TableCell, Recipe]) -> None:
    """Refuse a study without alternatives, or whose models have no main score in common."""
    configs = [models.configure(recipe.model) for recipe in recipes_by_cell.values()]
    tasks = {config.main_tasks for config in configs}
    score = study.main_score
    if len(study.rows) * len(study.columns) < 2:
        raise SertoneError(
            "nothing_to_choose",
            f"{study.title}: one row and one column",
            "two settings or more",
            "cross-validate its recipe with `sertone crossval`",
        )
    is_common = len(tasks) == 1 and display.parse_score_name(score)[0] in next(iter(tasks))
    if not is_common or score not in SCORES_WITH_INTERVALS:
        predicted = "; ".join(", ".join(names) for names in sorted(tasks))
        raise SertoneError(
            "nothing_to_choose",
            f"{study.title}: the best in {display.get_score_format(score).label} of models that predict "
            f"{predicted}",
            "settings that all predict the same tasks, and a score of one of these first in `scores`",
            "leave rows out, or put another score first",
        )


def _load_inner_study(
    fold: Fold,
    experiment: Experiment,
    path: str | Path,
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
) -> tuple[Study, dict[TableCell, Recipe]]:
    """Load the study on the training set of a fold, without costs and scores of papers.

    All its experiments are prepared here, so that an impossible one fails now and not after hours.

    Raises:
        SertoneError: `no_folds_inside`.
    """
    protocol = experiment.recipe.protocol
    if protocol.split == "official":
        raise SertoneError(
            "no_folds_inside",
            "an official split, whose training set has no folds",
            "a split that makes folds",
            "use protocol.split: grouped_k_fold",
        )
    # Overrides come last, so nothing in the study can bring the test speakers back.
    names = sorted({u.speaker for u in fold.train + fold.validation})
    # A training set lacks the speakers of one fold, so it is divided into one fold less.
    inner_settings = [
        f"data.only.speaker={json.dumps(names)}",
        f"protocol.folds={max(2, protocol.folds - 1)}",
    ]
    study, recipes_by_cell = load_study(path, [*overrides, *inner_settings], seeds)
    first, *remaining = recipes_by_cell.values()
    try:
        inner_experiment = prepare(first)
        for recipe in remaining:
            inner_experiment.with_recipe(recipe)
    except SertoneError as error:
        problem = f"without fold {fold.name}: {error.found}"
        way_out = error.way_out or "fewer folds, or more speakers"
        raise SertoneError("no_folds_inside", problem, error.expected, way_out) from None
    inner_study = study.model_copy(update={"costs": False, "published": None, "reference": []})
    return inner_study, recipes_by_cell


def _find_best(folder: Path, study: Study) -> ScoredSettings:
    """Return the best settings of a finished study.

    Raises:
        SertoneError: `other_experiment`.
    """
    distributed.barrier()  # the first process has to finish the table before the others read it
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    cells = {
        (row["name"], column): row["cells"][column] for row in results["rows"] for column in study.columns
    }
    forced = [" / ".join(name) for name, cell in cells.items() if cell["other_settings"]]
    if forced:
        raise SertoneError(
            "other_experiment",
            f"{folder}: {', '.join(forced)} were trained with other settings (--force)",
            "models trained with the settings that are compared",
            "start again with --fresh, or choose another --out",
        )
    score = study.main_score
    candidates = [ScoredSettings(*name, cell["scores"][score]["value"]) for name, cell in cells.items()]
    sign = -1 if display.get_score_format(score).lower_is_better else 1
    return max(candidates, key=lambda settings: sign * settings.score)


def _train_best(recipe: Recipe, out: Path, options: dict[str, Any]) -> None:
    """Cross-validate the best settings on all speakers, from scratch where the run had other settings."""
    run = out / "run"
    previous = _load_settings(run / "recipe.yaml")
    has_changed = previous not in (None, recipes.drop_neutral(recipe.model_dump(mode="json")))
    distributed.barrier()  # all processes have to read the old recipe before it is replaced
    if distributed.is_first():
        choice_report.remove_choice(out)
    cross_validate(recipe, run, **options | {"fresh": options["fresh"] or has_changed})
    if distributed.is_first():
        write_text(out / "recipe.yaml", recipes.dump(recipe))


def _load_settings(recipe: Path) -> dict[str, Any] | None:
    """Return the settings of a recipe file, or None where it is missing or damaged.

    The run itself moves a damaged file away.
    """
    try:
        values = parse_yaml(read_text(recipe, "torn"))
    except (SertoneError, ValueError):
        return None
    return recipes.drop_neutral(values) if isinstance(values, dict) and "train" in values else None
