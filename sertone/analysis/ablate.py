"""Runs a study: every cell of its table is a cross-validated run, resumable, side by side.

study/study.yaml, results.json, table.md, table.csv, table.tex, report.html
study/cells/ROW/COLUMN/seed_0/    run folders
"""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from sertone import models
from sertone import recipe as recipes
from sertone.analysis import tables
from sertone.analysis.study import Place, Study, load
from sertone.recipe import Recipe
from sertone.report import study as report
from sertone.training import cells, ranks
from sertone.training.cells import Cell, jobs_for
from sertone.training.checkpoint import write_json, write_text
from sertone.training.crossval import finish
from sertone.training.experiment import prepare
from sertone.training.first_stages import FirstStages
from sertone.training.progress import Progress
from sertone.training.run_folder import claim, lock


def ablate(
    path: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    jobs: int | None = None,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Runs every cell of a study that is not done yet, and writes its table.

    Runs whose first stage is the same (same tasks, fusion, encoder, seed and fold) train it once.

    Args:
        path: the study's YAML file.
        out: folder of the study.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        jobs: folds at a time, of whichever cells; None: one per card, or one per core.
        force: go on although recipes or data have changed.
        fresh: throw away what is in the cells' folders.
        quiet: no progress lines.

    Returns:
        the study's folder.

    Raises:
        SertoneError: as `study.load`, `prepare` and `cells.run`; `run_in_use`, `other_experiment`.
    """
    out, (study, made) = Path(out), load(path, tuple(overrides))
    device = next(iter(made.values())).train.device
    ranks.join(device)
    planned = _cells(study, made, out)
    total = sum(cell.epochs * len(cell.experiment.folds) for cell in planned.values())
    with contextlib.ExitStack() as stack:
        stack.enter_context(_study_lock(out))
        for cell in planned.values():
            recipe, card = recipes.dump(cell.experiment.recipe), cell.experiment.card
            stack.enter_context(claim(cell.out, recipe, card, force=force, fresh=fresh))
        progress = stack.enter_context(Progress(total, quiet))
        try:
            cells.run(list(planned.values()), jobs_for(jobs, device), progress, finish)
        finally:
            if ranks.first():
                _write(study, planned, out)
        if ranks.first():
            shutil.rmtree(out / "first_stages", ignore_errors=True)
    return out


def _study_lock(out: Path) -> contextlib.AbstractContextManager:
    return lock(out) if ranks.first() else contextlib.nullcontext()


def _cells(study: Study, made: dict[Place, Recipe], out: Path) -> dict[Place, Cell]:
    """A cell for each recipe; the corpus is read once."""
    base = prepare(next(iter(made.values())))
    shared = Counter(_first_stage(recipe) for recipe in made.values())
    planned = {}
    for place, recipe in made.items():
        several = shared[_first_stage(recipe)] > 1 and ranks.world() == 1
        planned[place] = Cell(
            base.with_recipe(recipe),
            out / place.folder,
            label=f"{place.row}, {place.column}, seed {place.seed}  ",
            first_stages=FirstStages(out / "first_stages") if several else None,
            keep_checkpoints=study.keep_checkpoints,
        )
    return planned


def _first_stage(recipe: Recipe) -> str:
    """Equal for recipes that have the same first stage, as far as recipes tell."""
    config: Any = models.configure(recipe.model)
    options = config.model_dump(mode="json", exclude=set(config.later))
    epochs = [len(recipe.train.epochs) > 1, recipe.train.epochs[0]]
    train = recipes.deciding(recipe.model_dump(mode="json"))["train"] | {"epochs": epochs}
    return json.dumps([recipe.model["name"], options, train], sort_keys=True)


def _write(study: Study, planned: dict[Place, Cell], out: Path) -> None:
    """The table so far, in every form."""
    done = {place: cell.out for place, cell in planned.items() if (cell.out / "results.json").is_file()}
    card = next(iter(planned.values())).experiment.card
    write_text(out / "study.yaml", yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
    results = tables.results(study, done, out, card)
    write_json(out / "results.json", results)
    for suffix, form in tables.FORMS.items():
        write_text(out / f"table.{suffix}", form(results))
    report.write(out)
