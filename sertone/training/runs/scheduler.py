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
from sertone.scoring.display import counted
from sertone.training.fit import distributed
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit.first_stages import FirstStages
from sertone.training.runs.folds import check, gather, run_fold
from sertone.training.data.material import Material
from sertone.training.fit.progress import Labelled, Progress, Relay
from sertone.utils.processes import ChildDiedError, cores, side_by_side


@dataclass(frozen=True)
class Cell:
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
    def left(self) -> list[int]:
        """Numbers of the folds without a result."""
        numbers = range(len(self.experiment.folds))
        return [n for n in numbers if not (self.out / f"fold_{n}" / "result.json").is_file()]


def run(cells: Sequence[Cell], jobs: int, progress: Progress, finished: Callable[[Cell], None]) -> None:
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
    left = {id(cell): Counter(cell.left) for cell in cells}
    if len(cells) > 1:  # a single one is checked when its audio is gathered
        _check([cell for cell in cells if left[id(cell)]])
    for cell in cells:
        progress.skip(cell.epochs * (len(cell.experiment.folds) - left[id(cell)].total()))
        if not left[id(cell)]:
            finished(cell)
    failed: dict[int, SertoneError] = {}
    with contextlib.closing(_done(cells, jobs, progress, failed)) as done:
        for cell, number, error in done:
            if error and (len(cells) == 1 or distributed.world() > 1):
                raise error
            if error:
                failed.setdefault(id(cell), error)
                progress.say(f"FAILED  {error}")
                continue
            del left[id(cell)][number]
            if not left[id(cell)]:
                finished(cell)
    if failed:
        raise _failures(list(failed.values()), len(cells))


def _check(cells: Sequence[Cell]) -> None:
    """Refuses what would fail hours later."""
    known = set()
    for cell in cells:
        recipe = cell.experiment.recipe
        plan = json.dumps([recipe.model, len(recipe.train.epochs)], sort_keys=True)
        if plan not in known:
            known.add(plan)
            try:
                check(cell.experiment)
            except SertoneError as error:
                raise _of(cell.label.strip(), error) from None


def _failures(errors: Sequence[SertoneError], total: int) -> SertoneError:
    if len(errors) == 1:
        return errors[0]
    found = "; ".join(error.found for error in errors[:5]) + ("; ..." if len(errors) > 5 else "")
    way_out = "the others are done and kept; the same command tries these again"
    return SertoneError("cells_failed", f"{len(errors)} of {counted(total, 'run')}: {found}", way_out=way_out)


def _done(
    cells: Sequence[Cell], jobs: int, progress: Progress, failed: Container[int]
) -> Generator[tuple[Cell, int, SertoneError | None], None, None]:
    """Every fold that was left, when it is done, or its error; none of a cell that has failed."""
    jobs = min(jobs, sum(len(cell.left) for cell in cells))
    calls = _calls(cells, progress, failed, jobs)
    if jobs <= 1:
        for cell, number, material in calls:
            yield cell, number, _run_here(cell, number, material, progress)
        return

    def tell(event: tuple) -> None:
        getattr(progress, event[0])(*event[1:])

    with contextlib.closing(side_by_side(environments(jobs), _in_child, calls, tell)) as folds:
        for (cell, number, _), future in folds:
            yield cell, number, _error(cell, number, future.exception())


def _run_here(cell: Cell, number: int, material: Material, progress: Progress) -> SertoneError | None:
    try:
        reporter = Labelled(progress, cell.label)
        run_fold(cell.experiment, number, cell.out, material, reporter, **_choices(cell))
    except SertoneError as error:
        return _error(cell, number, error)
    return None


def _in_child(cell: Cell, number: int, material: Material) -> None:
    """One fold in a child process, whose caller is told of the progress."""
    reporter = Labelled(Relay(), cell.label)
    run_fold(cell.experiment, number, cell.out, material, reporter, **_choices(cell))


def _choices(cell: Cell) -> dict[str, Any]:
    return {"first_stages": cell.first_stages, "keep_checkpoint": cell.keep_checkpoints}


def _error(cell: Cell, number: int, error: BaseException | None) -> SertoneError | None:
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
    cells: Sequence[Cell], progress: Progress, failed: Container[int], jobs: int
) -> Iterator[tuple[Cell, int, Material]]:
    """Every fold that is left, with the material that its cell shares with the cell before, if it can."""
    material, shared = None, ""
    for cell in cells:
        if numbers := cell.left:
            wanted = _sharing(cell)
            kept = material if wanted == shared else None
            material = gather(cell.experiment, progress, kept, jobs)
            shared = wanted
            yield from ((cell, number, material) for number in numbers if id(cell) not in failed)


def _sharing(cell: Cell) -> str:
    """What two cells must have in common to share decoded audio and frozen prefixes."""
    recipe = cell.experiment.recipe
    kept = {"cache", "audio_cache_gb", "speeds", "speed_direction", "augmentation", "precision"}
    train = recipe.train.model_dump(mode="json", include=kept)
    return json.dumps([train, recipe.model["encoder"]])


def jobs_for(wanted: int | None, device: str) -> int:
    """Folds at a time: one per card; without a card one per core; one where several ranks train each.

    Raises:
        SertoneError: `jobs_and_ranks`.
    """
    if distributed.world() > 1:
        if wanted not in (None, 1):
            raise SertoneError(
                "jobs_and_ranks",
                f"--jobs {wanted} in one of {distributed.world()} ranks",
                "either folds side by side or several ranks for each fold",
                "leave --jobs out, or start without torchrun",
            )
        return 1
    if wanted:
        return wanted
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    return 1 if device in ("auto", "mps") and torch.backends.mps.is_available() else cores()


def environments(jobs: int) -> list[dict[str, str]]:
    """What each child sees: its share of the cores, and one card, in turn."""
    shared = {"OMP_NUM_THREADS": str(max(1, cores() // jobs))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible else [str(card) for card in range(torch.cuda.device_count())]
    if not cards:
        return [shared] * jobs
    return [shared | {"CUDA_VISIBLE_DEVICES": cards[job % len(cards)]} for job in range(jobs)]
