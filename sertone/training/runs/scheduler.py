"""Runs to cross-validate, all their folds side by side on one machine.

A cell is one recipe in one run folder. `crossval` has one, a study many; the folds of different cells do
not wait for each other.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sertone.errors import SertoneError
from sertone.scoring.display import format_count
from sertone.training.fit import distributed
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit.first_stages import FirstStages
from sertone.training.runs.folds import build_checked_model, prepare_data, run_fold
from sertone.training.data.material import SharedCaches
from sertone.training.fit.progress import LabelledProgress, RunProgress, ProgressRelay
from sertone.utils.processes import ChildDiedError, count_cores, run_parallel


@dataclass(frozen=True)
class CrossValidationRun:
    """One recipe to cross-validate.

    Attributes:
        experiment: the recipe, its corpus read and split.
        out: run folder.
        label: in front of progress lines; empty where there is only one cell.
        first_stages: shared with other cells, or None.
        keep_checkpoints: or else they go when their fold is tested.
    """

    experiment: Experiment
    out: Path
    label: str = ""
    first_stages: FirstStages | None = None
    keep_checkpoints: bool = True

    @property
    def epochs(self) -> int:
        """Of one fold."""
        return sum(self.experiment.recipe.train.epochs)

    @property
    def pending_folds(self) -> list[int]:
        """Numbers of the folds without a result."""
        numbers = range(len(self.experiment.folds))
        return [n for n in numbers if not (self.out / f"fold_{n}" / "result.json").is_file()]


def run_folds(runs: Sequence[CrossValidationRun], jobs: int, progress: RunProgress, on_finished: Callable[[CrossValidationRun], None]) -> None:
    """Runs the folds that are left, cell by cell, `jobs` at a time.

    A cell that fails does not keep the others from being done; its error comes at the end.

    Args:
        cells: on one machine, their folders claimed.
        jobs: folds at a time.
        progress: whose total counts the epochs of all folds.
        finished: called with every cell whose folds are all done, when they are.

    Raises:
        SertoneError: as `gather` and the training; `fold_died`, `cells_failed`.
    """
    left = {id(cell): Counter(cell.pending_folds) for cell in runs}
    if len(runs) > 1:  # a single one is checked when its audio is gathered
        _check([cell for cell in runs if left[id(cell)]])
    for cell in runs:
        progress.skip(cell.epochs * (len(cell.experiment.folds) - left[id(cell)].total()))
        if not left[id(cell)]:
            on_finished(cell)
    failed: dict[int, SertoneError] = {}
    with contextlib.closing(_done(runs, jobs, progress, failed)) as done:
        for cell, number, error in done:
            if error and (len(runs) == 1 or distributed.world_size() > 1):
                raise error
            if error:
                failed.setdefault(id(cell), error)
                progress.say(f"FAILED  {error}")
                continue
            del left[id(cell)][number]
            if not left[id(cell)]:
                on_finished(cell)
    if failed:
        raise _failures(list(failed.values()), len(runs))


def _check(cells: Sequence[CrossValidationRun]) -> None:
    """Refuses what would fail hours later."""
    known = set()
    for cell in cells:
        recipe = cell.experiment.recipe
        plan = json.dumps([recipe.model, len(recipe.train.epochs)], sort_keys=True)
        if plan not in known:
            known.add(plan)
            try:
                build_checked_model(cell.experiment)
            except SertoneError as error:
                raise _of(cell.label.strip(), error) from None


def _failures(errors: Sequence[SertoneError], total: int) -> SertoneError:
    if len(errors) == 1:
        return errors[0]
    found = "; ".join(error.found for error in errors[:5]) + ("; ..." if len(errors) > 5 else "")
    way_out = "the others are done and kept; the same command tries these again"
    return SertoneError("cells_failed", f"{len(errors)} of {format_count(total, 'run')}: {found}", way_out=way_out)


def _done(
    cells: Sequence[CrossValidationRun], jobs: int, progress: RunProgress, failed: Container[int]
) -> Generator[tuple[CrossValidationRun, int, SertoneError | None], None, None]:
    """Every fold that was left, when it is done, or its error; none of a cell that has failed."""
    jobs = min(jobs, sum(len(cell.pending_folds) for cell in cells))
    calls = _calls(cells, progress, failed, jobs)
    if jobs <= 1:
        for cell, number, material in calls:
            yield cell, number, _run_here(cell, number, material, progress)
        return

    def tell(event: tuple) -> None:
        getattr(progress, event[0])(*event[1:])

    with contextlib.closing(run_parallel(build_environments(jobs), _in_child, calls, tell)) as folds:
        for (cell, number, _), future in folds:
            yield cell, number, _error(cell, number, future.exception())


def _run_here(cell: CrossValidationRun, number: int, material: SharedCaches, progress: RunProgress) -> SertoneError | None:
    try:
        reporter = LabelledProgress(progress, cell.label)
        run_fold(cell.experiment, number, cell.out, material, reporter, **_choices(cell))
    except SertoneError as error:
        return _error(cell, number, error)
    return None


def _in_child(cell: CrossValidationRun, number: int, material: SharedCaches) -> None:
    """One fold in a child process, whose caller is told of the progress."""
    reporter = LabelledProgress(ProgressRelay(), cell.label)
    run_fold(cell.experiment, number, cell.out, material, reporter, **_choices(cell))


def _choices(cell: CrossValidationRun) -> dict[str, Any]:
    return {"first_stages": cell.first_stages, "keep_checkpoint": cell.keep_checkpoints}


def _error(cell: CrossValidationRun, number: int, error: BaseException | None) -> SertoneError | None:
    """Says which fold an error is of.

    Raises:
        BaseException: one that is a fault of ours.
    """
    where = f"{cell.label}fold {number}"
    if isinstance(error, ChildDiedError):
        return SertoneError(
            "fold_died",
            f"{where}: {error.found}",
            "a fold that ends",
            "was memory short? run fewer side by side with --jobs; what is done is kept",
        )
    if isinstance(error, SertoneError):
        return _of(where, error)
    if error:
        raise error
    return None


def _of(where: str, error: SertoneError) -> SertoneError:
    return SertoneError(error.code, f"{where}: {error.found}", error.expected, error.way_out)


def _calls(
    cells: Sequence[CrossValidationRun], progress: RunProgress, failed: Container[int], jobs: int
) -> Iterator[tuple[CrossValidationRun, int, SharedCaches]]:
    """Every fold that is left, with the material that its cell shares with the cell before, if it can."""
    material, shared = None, ""
    for cell in cells:
        if numbers := cell.pending_folds:
            wanted = _sharing(cell)
            kept = material if wanted == shared else None
            material = prepare_data(cell.experiment, progress, kept, jobs)
            shared = wanted
            yield from ((cell, number, material) for number in numbers if id(cell) not in failed)


def _sharing(cell: CrossValidationRun) -> str:
    """What two cells must have in common to share decoded audio and frozen prefixes."""
    recipe = cell.experiment.recipe
    kept = {"cache", "audio_cache_gb", "speeds", "speed_direction", "augmentation", "precision"}
    train = recipe.train.model_dump(mode="json", include=kept)
    return json.dumps([train, recipe.model["encoder"]])


def choose_jobs(wanted: int | None, device: str) -> int:
    """Folds at a time: one per card; without a card one per core; one where several ranks train each.

    Raises:
        SertoneError: `jobs_and_ranks`.
    """
    if distributed.world_size() > 1:
        if wanted not in (None, 1):
            raise SertoneError(
                "jobs_and_ranks",
                f"--jobs {wanted} in one of {distributed.world_size()} ranks",
                "either folds side by side or several ranks for each fold",
                "leave --jobs out, or start without torchrun",
            )
        return 1
    if wanted:
        return wanted
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    return 1 if device in ("auto", "mps") and torch.backends.mps.is_available() else count_cores()


def build_environments(jobs: int) -> list[dict[str, str]]:
    """What each child sees: its share of the cores, and one card, in turn."""
    shared = {"OMP_NUM_THREADS": str(max(1, count_cores() // jobs))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible else [str(card) for card in range(torch.cuda.device_count())]
    if not cards:
        return [shared] * jobs
    return [shared | {"CUDA_VISIBLE_DEVICES": cards[job % len(cards)]} for job in range(jobs)]
