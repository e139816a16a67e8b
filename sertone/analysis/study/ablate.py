"""Ablation study: every cell of its table is a cross-validated run, resumable, with folds side by side.

study/study.yaml, recipe.yaml    a copy of the study, to run it again from here
study/results.json, table.md, table.csv, table.tex, report.html
study/costs.json                 costs of the models, where the study asks for them
study/cells/ROW/COLUMN/seed_0/    run folders
"""

import contextlib
import json
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from sertone import models
from sertone import recipe as recipes
from sertone.analysis.cost import measure_cost
from sertone.analysis.study import table, table_formats
from sertone.analysis.study.study import Study, TableCell, find_recipe, load_study, slugify
from sertone.analysis.study.table import StudyCosts
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
Runs = dict[TableCell, CrossValidationRun]


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
    """Run every unfinished cell of a study and write its table.

    Runs with the same first stage (same tasks, fusion, encoder, seed and fold) train it once.

    Args:
        path: the study's YAML file, or the name of one that comes with Sertone.
        out: folder of the study.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        seeds: replace the study's seeds.
        jobs: number of folds trained at a time, over all cells; None: one per GPU, or one per core.
        force: resume although recipes or data have changed.
        fresh: delete what is in the cells' folders.
        quiet: print no progress.

    Returns:
        the study's folder.

    Raises:
        SertoneError: see `study.load_study`, `prepare` and `scheduler.run_folds`; `run_in_use`,
            `other_experiment`.
    """
    study, recipes_by_cell = load_study(path, overrides, seeds)
    base = find_recipe(path, study)
    return run_study(
        study, recipes_by_cell, base, Path(out), jobs=jobs, force=force, fresh=fresh, quiet=quiet
    )


def run_study(
    study: Study,
    recipes_by_cell: dict[TableCell, Recipe],
    base: Path,
    out: Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Run a study that is loaded already.

    Args:
        study: first result of `load_study`.
        recipes_by_cell: second result of `load_study`.
        base: file of the recipe that the study starts from.
        out: folder of the study.
        jobs: see `ablate`.
        force: see `ablate`.
        fresh: see `ablate`.
        quiet: see `ablate`.
    """
    device = next(iter(recipes_by_cell.values())).train.device
    distributed.init(device)
    runs = _plan_runs(study, recipes_by_cell, out, quiet)
    total = sum(run.epochs * len(run.experiment.folds) for run in runs.values())
    with (
        _claim_folders(runs, out, force=force, fresh=fresh, quiet=quiet),
        RunProgress(total, quiet) as progress,
    ):

        def finish_cell(run: CrossValidationRun) -> None:
            finish_run(run)
            _delete_unused_first_stages(run, runs.values())

        if fresh:
            shutil.rmtree(out / STAGES, ignore_errors=True)
        try:
            scheduler.run_folds(list(runs.values()), choose_jobs(jobs, device), progress, finish_cell)
        except BaseException:
            with contextlib.suppress(SertoneError):  # an error in the unfinished table must not hide this one
                _write_table(study, base, runs, out)
            raise
        costs = measure_costs(runs, out, progress.say) if study.costs and distributed.is_first() else None
        _write_table(study, base, runs, out, costs)
    return out


@contextlib.contextmanager
def _claim_folders(runs: Runs, out: Path, *, force: bool, fresh: bool, quiet: bool) -> Iterator[None]:
    """Hold the folders of the study and of all its cells, so that no other process writes there."""
    with contextlib.ExitStack() as stack:
        # One process of a distributed run takes the lock for all of them.
        stack.enter_context(lock(out) if distributed.is_first() else contextlib.nullcontext())
        say = RunProgress(0, quiet).say
        for run in runs.values():
            recipe = recipes.dump(run.experiment.recipe)
            claimed = claim(run.out, recipe, run.experiment.card, force=force, fresh=fresh, say=say)
            stack.enter_context(claimed)
        yield


def _plan_runs(study: Study, recipes_by_cell: dict[TableCell, Recipe], out: Path, quiet: bool) -> Runs:
    """Return a run for each recipe. The corpus is read once."""
    base = prepare(next(iter(recipes_by_cell.values())), say=RunProgress(0, quiet).say)
    # A first stage that only one run has is not stored.
    uses = Counter(_identify_first_stage(recipe) for recipe in recipes_by_cell.values())
    runs = {}
    for cell, recipe in recipes_by_cell.items():
        is_shared = uses[_identify_first_stage(recipe)] > 1 and distributed.world_size() == 1
        runs[cell] = CrossValidationRun(
            base.with_recipe(recipe),
            out / cell.folder,
            label=f"{cell.row}, {cell.column}, seed {cell.seed}  ",
            first_stages=_get_first_stages(cell, out) if is_shared else None,
            keep_checkpoints=study.keep_checkpoints,
        )
    return runs


def _get_first_stages(cell: TableCell, out: Path) -> FirstStages:
    """Return the store of first stages of one column and seed. Cells of others cannot share them."""
    return FirstStages(out / STAGES / slugify(cell.column) / f"seed_{cell.seed}")


def _delete_unused_first_stages(finished: CrossValidationRun, runs: Iterable[CrossValidationRun]) -> None:
    """Delete trained first stages that no unfinished run needs any more."""
    if not finished.first_stages:
        return
    folder = finished.first_stages.folder
    sharing = [run for run in runs if run.first_stages and run.first_stages.folder == folder]
    if any(run.pending_folds for run in sharing):
        return
    shutil.rmtree(folder, ignore_errors=True)
    # The folders above are deleted with their last content.
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
        folder.parent.parent.rmdir()


def _identify_first_stage(recipe: Recipe) -> str:
    """Return a text that is equal for recipes with the same first stage, as far as recipes decide it."""
    config = models.configure(recipe.model)
    options = config.model_dump(mode="json", exclude=set(config.later_options))
    # The number of epochs of later stages makes no difference, but whether there is a later stage does.
    epochs = [len(recipe.train.epochs) > 1, recipe.train.epochs[0]]
    train = recipes.drop_neutral(recipe.model_dump(mode="json"))["train"] | {"epochs": epochs}
    return json.dumps([recipe.model["name"], options, train], sort_keys=True)


def _write_table(study: Study, base: Path, runs: Runs, out: Path, costs: StudyCosts | None = None) -> None:
    """Write the table so far in every format. The first process does it for all."""
    if not distributed.is_first():
        return
    finished = {cell: run.out for cell, run in runs.items() if (run.out / "results.json").is_file()}
    card = next(iter(runs.values())).experiment.card
    write_text(out / "recipe.yaml", base.read_text(encoding="utf-8"))
    study_copy = study.model_copy(update={"recipe": "recipe.yaml"})
    write_text(out / "study.yaml", yaml.safe_dump(study_copy.model_dump(mode="json"), sort_keys=False))
    results = table.build_results(study, finished, out, card, costs)
    write_json(out / "results.json", results)
    for suffix, format_table in table_formats.TABLE_FORMATS.items():
        write_text(out / f"table.{suffix}", format_table(results))
    report.write(out)


def measure_costs(
    runs: Mapping[TableCell, CrossValidationRun], out: Path, say: Callable[[str], None]
) -> StudyCosts:
    """Measure the cost of every row and column, one model at a time. Seeds share it.

    Args:
        runs: all runs of the study, finished, so that no training disturbs the measurement.
        out: folder of the study. Its `costs.json` keeps measurements while model, machine and torch are the
            same.
        say: receives progress lines.

    Raises:
        SertoneError: see `models.build`.
    """
    path = out / "costs.json"
    saved = _load_costs(path)
    measured: list[dict[str, Any]] = []
    for (row, column), run in {(cell.row, cell.column): run for cell, run in runs.items()}.items():
        recipe = run.experiment.recipe
        lora = recipe.train.lora
        key = {"row": row, "column": column, "model": recipe.model, "lora": lora and lora.model_dump()}
        key |= {"torch": torch.__version__, "machine": platform.node()}
        entry = next((entry for entry in saved if key.items() <= entry.items()), None)
        if entry is None:
            say(f"{row}, {column}: measuring speed and memory")
            entry = key | {"cost": measure_cost(recipe.model, run.experiment.build_vocabulary(0), lora)}
        measured.append(entry)
        write_json(path, measured)  # after each model, so that an interrupted study keeps them
    return {(entry["row"], entry["column"]): entry["cost"] for entry in measured}


def _load_costs(path: Path) -> list[dict[str, Any]]:
    """Return earlier measurements. Return none where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
