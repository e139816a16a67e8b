"""Chooses among the settings of a study inside the training side of every fold.

Whoever takes the best row of a table reports the luckiest one: its score has seen the test sides. Here
the speakers of a fold are answered by settings that were chosen without them (nested cross-validation;
Cawley and Talbot 2010, JMLR 11), so the score is that of the whole procedure, the choosing included.

out/all/              the study on all speakers, as `ablate` writes it
out/inside/fold_0/    the study on the training side of fold 0
out/chosen/seed_0/    a run: of every fold the answers of what was chosen without it
out/run/              the best settings on all speakers, cross-validated
out/choice.json, choice.md; recipe.yaml, to train those settings with
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sertone import figures
from sertone import recipe as recipes
from sertone.analysis import choices
from sertone.analysis.ablate import ablate
from sertone.analysis.choices import Choice
from sertone.analysis.study import Study, load
from sertone.errors import SertoneError
from sertone.files import write_text
from sertone.protocols import Fold
from sertone.recipe import Recipe
from sertone.sharing.scores import CHOICE
from sertone.training import ranks
from sertone.training.crossval import cross_validate
from sertone.training.experiment import Experiment, prepare
from sertone.training.progress import Progress
from sertone.training.run_folder import lock


def choose(
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
    """Runs a study on all speakers and inside every fold, and scores what is chosen inside.

    Settings are a row with a column. The best ones have the best mean over the seeds of the study's main
    score, and among equals the first. A choice that was interrupted goes on where it stopped.

    Args:
        path: the study's YAML file.
        out: folder to write.
        overrides: settings such as `data.root=IEMOCAP`, changed for the whole study.
        seeds: instead of the study's.
        jobs: folds at a time; None: one per card, or one per core.
        force: go on although recipes or data have changed.
        fresh: throw away what is in the folder's runs.
        quiet: no progress lines.

    Returns:
        the folder.

    Raises:
        SertoneError: as `ablate`; `nothing_to_choose`, `no_folds_inside`.
    """
    out, overrides = Path(out), list(overrides)
    study, made = load(path, overrides, seeds)
    _require_a_choice(study)
    recipe = next(iter(made.values()))
    ranks.join(recipe.train.device)
    experiment = prepare(recipe)
    inside = [overrides + _inside(fold, experiment) for fold in experiment.folds]
    for fold, own in zip(experiment.folds, inside, strict=True):
        _check(path, own, fold)
    go_on: dict[str, Any] = {"jobs": jobs, "force": force, "fresh": fresh, "quiet": quiet}
    say = Progress(0, quiet).say
    with lock(out) if ranks.first() else contextlib.nullcontext():
        (out / CHOICE).unlink(missing_ok=True)  # until all is done again
        say("all speakers")
        everywhere = _best(ablate(path, out / "all", overrides, seeds=seeds, **go_on), study)
        best = []
        for n, (fold, own) in enumerate(zip(experiment.folds, inside, strict=True)):
            say(f"without fold {n} ({fold.name})")
            folder = out / "inside" / f"fold_{n}"
            best.append(_best(ablate(path, folder, own, seeds=seeds, **go_on), study))
        say(f"best on all speakers: {everywhere.name}")
        _cross_validate(made[everywhere.place(study.seeds[0])], out, go_on)
        if ranks.first():
            choices.write(study, out, experiment, best, everywhere)
        ranks.wait()
    return out


def _require_a_choice(study: Study) -> None:
    if len(study.rows) * len(study.columns) < 2:
        raise SertoneError(
            "nothing_to_choose",
            f"{study.title}: one row and one column",
            "two settings or more",
            "cross-validate its recipe with `sertone crossval`",
        )


def _cross_validate(recipe: Recipe, out: Path, go_on: dict[str, Any]) -> None:
    """Trains what is best on all speakers, anew where something else was before."""
    text, written = recipes.dump(recipe), out / "recipe.yaml"
    other = written.is_file() and written.read_text(encoding="utf-8") != text
    ranks.wait()  # for all to have looked
    if ranks.first():
        write_text(written, text)
    cross_validate(recipe, out / "run", **go_on | {"fresh": go_on["fresh"] or other})


def _inside(fold: Fold, experiment: Experiment) -> list[str]:
    """The settings by which a study is one of the fold's training side: its speakers, and a fold less.

    Raises:
        SertoneError: `no_folds_inside`.
    """
    protocol, folds = experiment.recipe.protocol, max(2, experiment.recipe.protocol.folds - 1)
    if protocol.split == "official":
        raise SertoneError(
            "no_folds_inside",
            "an official split, whose training side has no folds",
            "a split that makes folds",
            "use protocol.split: grouped_k_fold",
        )
    names = sorted({u.speaker for u in fold.train + fold.validation})
    return [f"data.only.speaker={json.dumps(names)}", f"protocol.folds={folds}"]


def _check(path: str | Path, overrides: list[str], fold: Fold) -> None:
    """Refuses what would fail after hours.

    Raises:
        SertoneError: `no_folds_inside`.
    """
    _, made = load(path, overrides)
    try:
        prepare(next(iter(made.values())))
    except SertoneError as error:
        found = f"without fold {fold.name}: {error.found}"
        raise SertoneError("no_folds_inside", found, error.expected, error.way_out) from None


def _best(folder: Path, study: Study) -> Choice:
    """The best settings of a finished study.

    Raises:
        SertoneError: `nothing_to_choose`.
    """
    ranks.wait()  # for its table
    found, score = json.loads((folder / "results.json").read_text(encoding="utf-8")), study.main_score
    settings = [
        Choice(row["name"], column, row["cells"][column]["scores"][score]["value"])
        for row in found["rows"]
        for column in study.columns
    ]
    if any(each.score is None for each in settings):
        found = f"{study.title}: models without {figures.named(score).label}"
        raise SertoneError("nothing_to_choose", found, "first in `scores` one that all of them have")
    sign = -1 if figures.named(score).lower_is_better else 1
    return max(settings, key=lambda each: sign * each.score)
