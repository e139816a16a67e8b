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

import yaml

from sertone import models
from sertone import recipe as recipes
from sertone.analysis.study import table, table_formats
from sertone.analysis.study.costs import StudyCosts, measure_costs
from sertone.analysis.study.study import Study, TableCell, find_recipe, load_study, slugify
from sertone.errors import SertoneError
from sertone.files import write_json, write_text
from sertone.recipe import Recipe
from sertone.report import study as report
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed
from sertone.training.fit.first_stages import FirstStages
from sertone.training.fit.progress import RunProgress
from sertone.training.runs import scheduler
from sertone.training.runs.crossval import finish_run
from sertone.training.runs.run_folder import claim, lock
from sertone.training.runs.scheduler import CrossValidationRun, choose_jobs

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
        SertoneError: as `study.load_study`, `prepare` and `cells.run`; `run_in_use`, `other_experiment`.
    """
    study, made = load_study(path, overrides, seeds)
    base = find_recipe(path, study)
    return run_study(study, made, base, Path(out), jobs=jobs, force=force, fresh=fresh, quiet=quiet)


def run_study(
    study: Study,
    made: dict[TableCell, Recipe],
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
    distributed.init(device)
    planned = _cells(study, made, out, quiet)
    total = sum(cell.epochs * len(cell.experiment.folds) for cell in planned.values())
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock(out) if distributed.is_first() else contextlib.nullcontext())
        for cell in planned.values():
            recipe, card = recipes.dump(cell.experiment.recipe), cell.experiment.card
            own = claim(cell.out, recipe, card, force=force, fresh=fresh, say=RunProgress(0, quiet).say)
            stack.enter_context(own)
        progress = stack.enter_context(RunProgress(total, quiet))

        def finished(cell: CrossValidationRun) -> None:
            finish_run(cell)
            _drop_first_stages(cell, planned.values())

        if fresh:
            shutil.rmtree(out / STAGES, ignore_errors=True)
        try:
            scheduler.run_folds(list(planned.values()), choose_jobs(jobs, device), progress, finished)
        except BaseException:
            with contextlib.suppress(SertoneError):  # the table so far must not hide what ended the study
                _write(study, base, planned, out)
            raise
        costs = measure_costs(planned, out, progress.say) if study.costs and distributed.is_first() else None
        _write(study, base, planned, out, costs)
    return out


def _cells(
    study: Study, made: dict[TableCell, Recipe], out: Path, quiet: bool
) -> dict[TableCell, CrossValidationRun]:
    """A cell for each recipe; the corpus is read once."""
    base = prepare(next(iter(made.values())), say=RunProgress(0, quiet).say)
    shared = Counter(_first_stage(recipe) for recipe in made.values())
    planned = {}
    for place, recipe in made.items():
        several = shared[_first_stage(recipe)] > 1 and distributed.world_size() == 1
        planned[place] = CrossValidationRun(
            base.with_recipe(recipe),
            out / place.folder,
            label=f"{place.row}, {place.column}, seed {place.seed}  ",
            first_stages=_first_stages(place, out) if several else None,
            keep_checkpoints=study.keep_checkpoints,
        )
    return planned


def _first_stages(place: TableCell, out: Path) -> FirstStages:
    """Of one column and seed: nothing else can share them."""
    return FirstStages(out / STAGES / slugify(place.column) / f"seed_{place.seed}")


def _drop_first_stages(done: CrossValidationRun, cells: Iterable[CrossValidationRun]) -> None:
    """Removes trained first stages that no cell waits for any more."""
    if done.first_stages:
        folder = done.first_stages.folder
        sharing = [cell for cell in cells if cell.first_stages and cell.first_stages.folder == folder]
        if not any(cell.pending_folds for cell in sharing):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # others are still in use
                folder.parent.rmdir()
                folder.parent.parent.rmdir()


def _first_stage(recipe: Recipe) -> str:
    """Equal for recipes that have the same first stage, as far as recipes tell."""
    config = models.configure(recipe.model)
    options = config.model_dump(mode="json", exclude=set(config.later_options))
    epochs = [len(recipe.train.epochs) > 1, recipe.train.epochs[0]]
    train = recipes.drop_neutral(recipe.model_dump(mode="json"))["train"] | {"epochs": epochs}
    return json.dumps([recipe.model["name"], options, train], sort_keys=True)


def _write(
    study: Study,
    base: Path,
    planned: dict[TableCell, CrossValidationRun],
    out: Path,
    costs: StudyCosts | None = None,
) -> None:
    """The table so far, in every form; the first rank does it for all."""
    if not distributed.is_first():
        return
    done = {place: cell.out for place, cell in planned.items() if (cell.out / "results.json").is_file()}
    card = next(iter(planned.values())).experiment.card
    write_text(out / "recipe.yaml", base.read_text(encoding="utf-8"))
    own = study.model_copy(update={"recipe": "recipe.yaml"})
    write_text(out / "study.yaml", yaml.safe_dump(own.model_dump(mode="json"), sort_keys=False))
    results = table.build_results(study, done, out, card, costs)
    write_json(out / "results.json", results)
    for suffix, form in table_formats.FORMS.items():
        write_text(out / f"table.{suffix}", form(results))
    report.write(out)
