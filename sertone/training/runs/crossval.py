"""Cross-validation: from a recipe to a run folder with scores, predictions and a checkpoint per fold.

run/recipe.yaml, protocol.json
run/results.json, predictions.csv, report.html    as `results` says
run/fold_0/                                       as `folds` says
"""

from pathlib import Path

from sertone import recipe as recipes
from sertone.recipe import Recipe
from sertone.training.runs import scheduler
from sertone.training.fit import distributed
from sertone.training.runs.scheduler import CrossValidationRun, choose_jobs
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.results import collect_results
from sertone.training.runs.run_folder import claim


def cross_validate(
    recipe: Recipe,
    out: str | Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Trains and tests every fold; goes on with a run that was interrupted.

    Args:
        recipe: the experiment.
        out: run folder.
        jobs: folds at a time, in processes of their own that share the machine's cores or cards; None:
            one per card, or one per core. The results do not depend on it.
        force: go on although recipe or protocol have changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the run folder.

    Raises:
        SertoneError: as `prepare` and `cells.run`; `run_in_use`, `other_experiment`, `jobs_and_ranks`.
    """
    distributed.init(recipe.train.device)
    say = RunProgress(0, quiet).say
    cell = CrossValidationRun(prepare(recipe, say=say), Path(out))
    jobs, total = choose_jobs(jobs, recipe.train.device), cell.epochs * len(cell.experiment.folds)
    with (
        claim(cell.out, recipes.dump(recipe), cell.experiment.card, force=force, fresh=fresh, say=say),
        RunProgress(total, quiet) as progress,
    ):
        scheduler.run_folds([cell], jobs, progress, finish_run)
    return cell.out


def finish_run(cell: CrossValidationRun) -> None:
    """Writes the results of a cell whose folds are done; the first rank does it for all."""
    distributed.barrier()  # for the last fold's result
    if distributed.is_first():
        collect_results(cell.experiment, cell.out)
    distributed.barrier()
