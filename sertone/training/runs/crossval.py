"""Cross-validation: from a recipe to a run folder with scores, predictions and a checkpoint per fold.

run/recipe.yaml, protocol.json
run/results.json, predictions.csv, report.html    see `results`
run/fold_0/                                       see `folds`
"""

from pathlib import Path

from sertone import recipe as recipes
from sertone.recipe import Recipe
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed
from sertone.training.fit.progress import RunProgress
from sertone.training.runs import scheduler
from sertone.training.runs.results import collect_results
from sertone.training.runs.run_folder import claim
from sertone.training.runs.scheduler import CrossValidationRun, choose_jobs


def cross_validate(
    recipe: Recipe,
    out: str | Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Train and test every fold; an interrupted run is resumed.

    Args:
        recipe: the experiment.
        out: run folder.
        jobs: folds at a time, in separate processes that share the machine's cores or GPUs; None: one per
            GPU, or one per core. The results do not depend on it.
        force: go on although recipe or protocol have changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the run folder.

    Raises:
        SertoneError: as `prepare` and `scheduler.run_folds`; `run_in_use`, `other_experiment`,
            `jobs_and_ranks`.
    """
    distributed.init(recipe.train.device)
    say = RunProgress(0, quiet).say
    run = CrossValidationRun(prepare(recipe, say=say), Path(out))
    jobs = choose_jobs(jobs, recipe.train.device)
    epochs = run.epochs * len(run.experiment.folds)
    with (
        claim(run.out, recipes.dump(recipe), run.experiment.card, force=force, fresh=fresh, say=say),
        RunProgress(epochs, quiet) as progress,
    ):
        scheduler.run_folds([run], jobs, progress, finish_run)
    return run.out


def finish_run(run: CrossValidationRun) -> None:
    """Write the results of a run whose folds are done; the first process does it for all."""
    distributed.barrier()  # until the last fold's result is written
    if distributed.is_first():
        collect_results(run.experiment, run.out)
    distributed.barrier()
