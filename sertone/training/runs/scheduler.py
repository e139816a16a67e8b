"""Cross-validation runs whose folds are trained side by side on one machine.

A `CrossValidationRun` is one recipe in one run folder. `crossval` has one run, a study has many. The folds of
different runs do not wait for each other.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from sertone.errors import SertoneError
from sertone.recipe.precision import find_device_type
from sertone.training.data.caches import SharedCaches
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit import distributed
from sertone.training.fit.first_stages import FirstStages
from sertone.training.fit.progress import LabelledProgress, ProgressRelay, RunProgress
from sertone.training.runs.folds import build_checked_model, prepare_data, run_fold
from sertone.utils.processes import ChildDiedError, count_cores, run_parallel
from sertone.utils.wording import format_count

MAX_LISTED = 5
"""Failed runs that an error lists at most."""


@dataclass(frozen=True)
class CrossValidationRun:
    """One recipe to cross-validate in one run folder.

    Attributes:
        experiment: the recipe, its corpus read and split.
        out: run folder.
        label: label in front of progress lines; empty where there is only one run.
        first_stages: shared with other runs, or None.
        keep_checkpoints: False removes the checkpoint of each fold once the fold is tested.
    """

    experiment: Experiment
    out: Path
    label: str = ""
    first_stages: FirstStages | None = None
    keep_checkpoints: bool = True

    @property
    def epochs(self) -> int:
        """Return the number of epochs of one fold."""
        return sum(self.experiment.recipe.train.epochs)

    @property
    def pending_folds(self) -> list[int]:
        """Return the numbers of the folds without a result."""
        numbers = range(len(self.experiment.folds))
        return [n for n in numbers if not (self.out / f"fold_{n}" / "result.json").is_file()]


class FoldRun(NamedTuple):
    """One fold of a run to train and test: the arguments of a call in a child process."""

    run: CrossValidationRun
    number: int
    caches: SharedCaches

    @property
    def name(self) -> str:
        """Return the run's label and the number of the fold, for errors."""
        return f"{self.run.label}fold {self.number}"

    def execute(self, progress: LabelledProgress) -> None:
        """Train and test the fold."""
        run_fold(
            self.run.experiment,
            self.number,
            self.run.out,
            self.caches,
            progress,
            first_stages=self.run.first_stages,
            keep_checkpoint=self.run.keep_checkpoints,
        )


def run_folds(
    runs: Sequence[CrossValidationRun],
    jobs: int,
    progress: RunProgress,
    on_finished: Callable[[CrossValidationRun], None],
) -> None:
    """Train and test the pending folds, run by run, `jobs` at a time.

    A run that fails does not stop the others; its error is raised at the end.

    Args:
        runs: runs on one machine, their folders claimed.
        jobs: folds at a time.
        progress: its total counts the epochs of all folds.
        on_finished: called with every run as soon as all its folds are done.

    Raises:
        SertoneError: as `prepare_data` and the training; `fold_died`, `cells_failed`.
    """
    # By identity, since a run holds dictionaries and cannot be hashed.
    pending = {id(run): Counter(run.pending_folds) for run in runs}
    if len(runs) > 1:  # a single run is checked when its data are prepared
        _check_plans([run for run in runs if pending[id(run)]])
    for run in runs:
        finished_folds = len(run.experiment.folds) - pending[id(run)].total()
        progress.skip(run.epochs * finished_folds)
        if not pending[id(run)]:
            on_finished(run)
    failures: dict[int, SertoneError] = {}
    # Closing ends the children where an error leaves the loop.
    with contextlib.closing(_run_pending(runs, jobs, progress, failures)) as outcomes:
        for fold, error in outcomes:
            # Processes that train each fold together must not go on to different folds.
            if error and (len(runs) == 1 or distributed.world_size() > 1):
                raise error
            if error:
                failures.setdefault(id(fold.run), error)
                progress.say(f"FAILED  {error}")
                continue
            del pending[id(fold.run)][fold.number]
            if not pending[id(fold.run)]:
                on_finished(fold.run)
    if failures:
        raise _combine_errors(list(failures.values()), len(runs))


def _check_plans(runs: Sequence[CrossValidationRun]) -> None:
    """Refuse now the plans that would fail hours later."""
    checked = set()
    for run in runs:
        recipe = run.experiment.recipe
        plan = json.dumps([recipe.model, len(recipe.train.epochs)], sort_keys=True)
        if plan not in checked:  # the runs of a study often differ in their seed only
            checked.add(plan)
            try:
                build_checked_model(run.experiment)
            except SertoneError as error:
                raise _add_place(run.label.strip(), error) from None


def _combine_errors(errors: Sequence[SertoneError], total: int) -> SertoneError:
    if len(errors) == 1:
        return errors[0]
    problems = "; ".join(error.found for error in errors[:MAX_LISTED])
    if len(errors) > MAX_LISTED:
        problems += "; ..."
    return SertoneError(
        "cells_failed",
        f"{len(errors)} of {format_count(total, 'run')}: {problems}",
        way_out="the other runs are done and kept; the same command tries the failed ones again",
    )


def _run_pending(
    runs: Sequence[CrossValidationRun], jobs: int, progress: RunProgress, failures: Container[int]
) -> Generator[tuple[FoldRun, SertoneError | None], None, None]:
    """Yield every pending fold when it is done, with its error or None.

    Args:
        runs: whose folds.
        jobs: folds at a time.
        progress: where to report.
        failures: ids of the runs that have failed; no further fold of them is started.
    """
    jobs = min(jobs, sum(len(run.pending_folds) for run in runs))
    folds = _plan_folds(runs, progress, failures, jobs)
    if jobs <= 1:
        for fold in folds:
            yield fold, _run_here(fold, progress)
        return

    def relay(event: tuple) -> None:
        """Call the method of the progress that a child has named."""
        method, *arguments = event
        getattr(progress, method)(*arguments)

    with contextlib.closing(run_parallel(build_environments(jobs), _in_child, folds, relay)) as outcomes:
        for call, future in outcomes:
            fold = FoldRun(*call)
            yield fold, _convert_error(fold, future.exception())


def _run_here(fold: FoldRun, progress: RunProgress) -> SertoneError | None:
    try:
        fold.execute(LabelledProgress(progress, fold.run.label))
    except SertoneError as error:
        return _convert_error(fold, error)
    return None


def _in_child(run: CrossValidationRun, number: int, caches: SharedCaches) -> None:
    """Train and test one fold in a child process, which relays its progress to the parent."""
    FoldRun(run, number, caches).execute(LabelledProgress(ProgressRelay(), run.label))


def _convert_error(fold: FoldRun, error: BaseException | None) -> SertoneError | None:
    """Return the error of a fold with the fold's name in it; None where there is none.

    Raises:
        BaseException: an error that is a fault of the program.
    """
    if isinstance(error, ChildDiedError):
        return SertoneError(
            "fold_died",
            f"{fold.name}: {error.found}",
            "a fold that ends",
            "if memory was short, run fewer folds side by side with --jobs; finished folds are kept",
        )
    if isinstance(error, SertoneError):
        return _add_place(fold.name, error)
    if error:
        raise error
    return None


def _add_place(place: str, error: SertoneError) -> SertoneError:
    return SertoneError(error.code, f"{place}: {error.found}", error.expected, error.way_out)


def _plan_folds(
    runs: Sequence[CrossValidationRun], progress: RunProgress, failures: Container[int], jobs: int
) -> Iterator[FoldRun]:
    """Yield every pending fold, with caches that its run shares with the run before where it can.

    The caches of a run are filled only when its first fold is due.
    """
    caches, cache_key = None, ""
    for run in runs:
        if numbers := run.pending_folds:
            key = _make_cache_key(run)
            reusable = caches if key == cache_key else None
            caches = prepare_data(run.experiment, progress, reusable, jobs)
            cache_key = key
            yield from (FoldRun(run, number, caches) for number in numbers if id(run) not in failures)


def _make_cache_key(run: CrossValidationRun) -> str:
    """Return what two runs must have in common to share decoded audio and frozen prefixes."""
    recipe = run.experiment.recipe
    keys = {
        "cache",
        "audio_cache_gb",
        "speeds",
        "speed_direction",
        "augmentation",
        "perturb",
        "versions",
        "precision",
    }
    train = recipe.train.model_dump(mode="json", include=keys)
    return json.dumps([train, recipe.model["encoder"]])


def choose_jobs(requested: int | None, device: str) -> int:
    """Return the number of folds at a time.

    The default is one per GPU; without a GPU one per core. It is one where several processes train each fold.

    Raises:
        SertoneError: `jobs_and_ranks`.
    """
    if distributed.world_size() > 1:
        if requested not in (None, 1):
            raise SertoneError(
                "jobs_and_ranks",
                f"--jobs {requested} in one of {distributed.world_size()} processes",
                "either folds side by side or several processes for each fold",
                "leave --jobs out, or start without torchrun",
            )
        return 1
    if requested:
        return requested
    counts = {"cuda": torch.cuda.device_count, "mps": lambda: 1, "cpu": count_cores}
    return counts[find_device_type(device)]()


def build_environments(jobs: int) -> list[dict[str, str]]:
    """Return the environment variables of each child: its share of the cores, and one GPU, in turn."""
    # Children with as many threads as cores each would slow each other down.
    shared = {"OMP_NUM_THREADS": str(max(1, count_cores() // jobs))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(torch.cuda.device_count())]
    if not gpus:
        return [shared] * jobs
    # Each child sees one GPU only, so that `auto` and `cuda` mean that one.
    return [shared | {"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]
