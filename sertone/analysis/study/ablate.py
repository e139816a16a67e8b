"""Runs a study: every cell of its table is a cross-validated run, resumable, side by side.

study/study.yaml, recipe.yaml    the study again, to be run from here
study/results.json, table.md, table.csv, table.tex, report.html
study/costs.json                 where the study asks for them
study/cells/ROW/COLUMN/seed_0/    run folders
"""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from sertone import models
from sertone import recipe as recipes
from sertone.analysis.study import table, table_formats
from sertone.analysis.study.costs import Costs, costs_of
from sertone.analysis.study.study import Place, Study, load, recipe_of, slug
from sertone.errors import SertoneError
from sertone.files import write_json, write_text
from sertone.recipe import Recipe
from sertone.report import study as report
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed
from sertone.training.fit.first_stages import FirstStages
from sertone.training.fit.progress import Progress
from sertone.training.runs import scheduler
from sertone.training.runs.crossval import finish
from sertone.training.runs.run_folder import claim, lock
from sertone.training.runs.scheduler import Cell, jobs_for

STAGES = "first_stages"


def ablate(
    path: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Runs every cell of a study that is not done yet, and writes its table.

    Runs whose first stage is the same (same tasks, fusion, encoder, seed and fold) train it once.

    Args:
        path: the study's YAML file, or the name of one that comes with Sertone.
        out: folder of the study.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        seeds: instead of the study's.
        jobs: folds at a time, of whichever cells; None: one per card, or one per core.
        force: go on although recipes or data have changed.
        fresh: throw away what is in the cells' folders.
        quiet: no progress lines.

    Returns:
        the study's folder.

    Raises:
        SertoneError: as `study.load`, `prepare` and `cells.run`; `run_in_use`, `other_experiment`.
    """
    study, made = load(path, overrides, seeds)
    base = recipe_of(path, study)
    return carry_out(study, made, base, Path(out), jobs=jobs, force=force, fresh=fresh, quiet=quiet)


def carry_out(
    study: Study,
    made: dict[Place, Recipe],
    base: Path,
    out: Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """The same of a study that was read already.

    Args:
        study: what `load` has made of it.
        made: its recipes.
        base: the recipe that it starts from.
        out: folder of the study.
        jobs: as of `ablate`.
        force: as of `ablate`.
        fresh: as of `ablate`.
        quiet: as of `ablate`.
    """
    device = next(iter(made.values())).train.device
    distributed.join(device)
    planned = _cells(study, made, out, quiet)
    total = sum(cell.epochs * len(cell.experiment.folds) for cell in planned.values())
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock(out) if distributed.first() else contextlib.nullcontext())
        for cell in planned.values():
            recipe, card = recipes.dump(cell.experiment.recipe), cell.experiment.card
            own = claim(cell.out, recipe, card, force=force, fresh=fresh, say=Progress(0, quiet).say)
            stack.enter_context(own)
        progress = stack.enter_context(Progress(total, quiet))

        def finished(cell: Cell) -> None:
            finish(cell)
            _drop_first_stages(cell, planned.values())

        if fresh:
            shutil.rmtree(out / STAGES, ignore_errors=True)
        try:
            scheduler.run(list(planned.values()), jobs_for(jobs, device), progress, finished)
        except BaseException:
            with contextlib.suppress(SertoneError):  # the table so far must not hide what ended the study
                _write(study, base, planned, out)
            raise
        costs = costs_of(planned, out, progress.say) if study.costs and distributed.first() else None
        _write(study, base, planned, out, costs)
    return out


def _cells(study: Study, made: dict[Place, Recipe], out: Path, quiet: bool) -> dict[Place, Cell]:
    """A cell for each recipe; the corpus is read once."""
    base = prepare(next(iter(made.values())), say=Progress(0, quiet).say)
    shared = Counter(_first_stage(recipe) for recipe in made.values())
    planned = {}
    for place, recipe in made.items():
        several = shared[_first_stage(recipe)] > 1 and distributed.world() == 1
        planned[place] = Cell(
            base.with_recipe(recipe),
            out / place.folder,
            label=f"{place.row}, {place.column}, seed {place.seed}  ",
            first_stages=_first_stages(place, out) if several else None,
            keep_checkpoints=study.keep_checkpoints,
        )
    return planned


def _first_stages(place: Place, out: Path) -> FirstStages:
    """Of one column and seed: nothing else can share them."""
    return FirstStages(out / STAGES / slug(place.column) / f"seed_{place.seed}")


def _drop_first_stages(done: Cell, cells: Iterable[Cell]) -> None:
    """Removes trained first stages that no cell waits for any more."""
    if done.first_stages:
        folder = done.first_stages.folder
        sharing = [cell for cell in cells if cell.first_stages and cell.first_stages.folder == folder]
        if not any(cell.left for cell in sharing):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # others are still in use
                folder.parent.rmdir()
                folder.parent.parent.rmdir()


def _first_stage(recipe: Recipe) -> str:
    """Equal for recipes that have the same first stage, as far as recipes tell."""
    config: Any = models.configure(recipe.model)
    options = config.model_dump(mode="json", exclude=set(config.later))
    epochs = [len(recipe.train.epochs) > 1, recipe.train.epochs[0]]
    train = recipes.deciding(recipe.model_dump(mode="json"))["train"] | {"epochs": epochs}
    return json.dumps([recipe.model["name"], options, train], sort_keys=True)


def _write(
    study: Study, base: Path, planned: dict[Place, Cell], out: Path, costs: Costs | None = None
) -> None:
    """The table so far, in every form; the first rank does it for all."""
    if not distributed.first():
        return
    done = {place: cell.out for place, cell in planned.items() if (cell.out / "results.json").is_file()}
    card = next(iter(planned.values())).experiment.card
    write_text(out / "recipe.yaml", base.read_text(encoding="utf-8"))
    own = study.model_copy(update={"recipe": "recipe.yaml"})
    write_text(out / "study.yaml", yaml.safe_dump(own.model_dump(mode="json"), sort_keys=False))
    results = table.results(study, done, out, card, costs)
    write_json(out / "results.json", results)
    for suffix, form in table_formats.FORMS.items():
        write_text(out / f"table.{suffix}", form(results))
    report.write(out)
