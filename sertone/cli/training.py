"""Commands that train: one recipe, one model, a whole study, the demo."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sertone.cli.common import (
    DATA,
    STUDY,
    TRAIN,
    FileOrName,
    Force,
    Fresh,
    Jobs,
    Overrides,
    app,
    format_scores,
)
from sertone.utils.terminal import print_text


@app.command(group=TRAIN)
def crossval(
    recipe: FileOrName,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    jobs: Jobs = None,
    force: Force = False,
    fresh: Fresh = False,
) -> int:
    """Cross-validate a recipe: train and test every fold, write scores and a report.

    The same command resumes a run that was interrupted.

    Args:
        out: Run folder. Default: runs/NAME, with the name of the recipe.
    """
    from sertone import recipe as recipes
    from sertone.training.runs.crossval import cross_validate

    out = out or Path("runs") / recipe.stem
    cross_validate(recipes.load(recipe, overrides or ()), out, jobs=jobs, force=force, fresh=fresh)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    print_text(format_scores(results["pooled"]))
    print_text(f"report  {out / 'report.html'}")
    return 0


@app.command(group=TRAIN)
def train(
    recipe: FileOrName,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    force: Force = False,
    fresh: Fresh = False,
) -> int:
    """Train one model for use on the whole corpus. `crossval` gives its scores.

    Args:
        out: Run folder. Default: runs/NAME-all, with the name of the recipe.
    """
    from sertone import recipe as recipes
    from sertone.training.runs import train

    out = out or Path("runs") / f"{recipe.stem}-all"
    print_text(train.train(recipes.load(recipe, overrides or ()), out, force=force, fresh=fresh))
    return 0


@app.command(group=TRAIN)
def distill(
    recipe: FileOrName,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    force: Force = False,
    fresh: Fresh = False,
) -> int:
    """Distil a smaller encoder from another one, on audio without labels.

    The same command resumes a distillation that was interrupted.

    Args:
        out: Folder to write. Default: runs/NAME, with the name of the recipe.
    """
    from sertone.training.distill import distill_recipe
    from sertone.training.distill.distill import distill as run
    from sertone.training.distill.distill import read_result

    out = out or Path("runs") / recipe.stem
    folder = run(distill_recipe.load(recipe, overrides or ()), out, force=force, fresh=fresh)
    said = read_result(out)
    millions = {name: f"{count / 1e6:.3g} M" for name, count in said["parameters"].items()}
    if said["held_out"]["after"] is not None:
        loss = "{before:.4f} before, {after:.4f} after".format(**said["held_out"])
        print_text(f"held-out loss  {loss} epoch {said['epoch']}")
    print_text(f"parameters     {millions['teacher']} of the teacher, {millions['student']} of the student")
    print_text(f"encoder        {folder}")
    return 0


@app.command(group=STUDY)
def ablate(
    study: FileOrName,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    jobs: Jobs = None,
    force: Force = False,
    fresh: Fresh = False,
) -> int:
    """Run a study: cross-validate every cell of a table, and print the table.

    The same command resumes a study that was interrupted.

    Args:
        out: Folder to write. Default: runs/NAME, with the name of the study.
        seeds: Seeds to train with, as in --seeds 0 1 2. Default: those of the study.
    """
    from sertone.analysis.study.ablate import ablate as run
    from sertone.analysis.study.table_formats import format_markdown

    out = out or Path("runs") / study.stem
    run(study, out, overrides or (), seeds=seeds, jobs=jobs, force=force, fresh=fresh)
    print_text(format_markdown(json.loads((out / "results.json").read_text(encoding="utf-8")), links=False))
    print_text(f"report  {out / 'report.html'}")
    return 0


@app.command(group=STUDY)
def choose(
    study: FileOrName,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    jobs: Jobs = None,
    fresh: Fresh = False,
) -> int:
    """Choose the best settings of a study, and score the choice: nested cross-validation.

    Settings are chosen inside every fold, without its test speakers. The same command resumes a choice that
    was interrupted.

    Args:
        out: Folder to write. Default: runs/choice-NAME, with the name of the study.
        seeds: Seeds to train with, as in --seeds 0 1 2. Default: those of the study.
    """
    from sertone.analysis.study.choose import choose as run

    out = out or Path("runs") / f"choice-{study.stem}"
    run(study, out, overrides or (), seeds=seeds, jobs=jobs, fresh=fresh)
    print_text((out / "choice.md").read_text(encoding="utf-8"))
    print_text(f"recipe  {out / 'recipe.yaml'}")
    return 0


@app.command(group=DATA)
def demo(folder: Path = Path(), /, *, overrides: Overrides = None, fresh: Fresh = False) -> int:
    """Run everything on synthetic speech: corpus, cross-validation, report, prediction.

    Args:
        folder: Folder in which to write `corpora/demo` and `runs/demo`.
    """
    from sertone.training.runs.demo import demo as run

    made = run(folder, overrides or (), fresh=fresh)
    answer = made.prediction
    print_text(f"corpus      {made.corpus}  (synthetic speech)")
    print_text(f"scores      {format_scores(made.scores)}; chance 25 %")
    print_text(
        f"prediction  {answer.file}: {answer.label} ({answer.probabilities[answer.label]:.0%})"
        if answer.label
        else f"prediction  {answer.message}"
    )
    print_text(f"            spoken as {made.true_class}, by a speaker whom the model never heard")
    print_text(f"report      {made.run / 'report.html'}")
    print_text(f"try         {Path(sys.argv[0])} predict {made.model} {answer.file}")
    return 0
