"""The command line: parse, one library call, print. Results on stdout, progress on stderr.

Exit status: 0 all well; 1 something was found wrong or some items failed; 2 could not run.
"""

import inspect
import json
import os
import sys
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, validators

from sertone import __version__, corpora, licences
from sertone.errors import SertoneError

app = App(
    name="sertone",
    help="Speech emotion recognition: train, check and use models that one can believe.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main() says how to go on
)
corpora_app = App(name="corpora", help="What can be read, and whether a copy of it is sound.")
app.command(corpora_app)

Flag = Annotated[bool, Parameter(negative="")]
RecipePath = Annotated[Path, Parameter(help="YAML file, see recipes/.")]
Overrides = Annotated[
    list[str] | None,
    Parameter(name="--set", negative="", help="Change a setting: --set train.seed=1. May be repeated."),
]
Force = Annotated[Flag, Parameter(help="Go on although recipe or data have changed since the run began.")]
Jobs = Annotated[
    int | None,
    Parameter(
        validator=validators.Number(gte=1),
        help="Folds trained side by side; one per card, or one per core, if not given.",
    ),
]
Fresh = Annotated[Flag, Parameter(help="Throw away what a run has written there, and begin again.")]


@corpora_app.command(name="list")
def list_corpora(name: str | None = None, /) -> int:
    """List the corpora that can be read, or show the data sheet of one.

    Args:
        name: a corpus; its files, labels and traps are shown.
    """
    if name:
        print(inspect.cleandoc(corpora.sheet(name).__doc__ or ""))
        return 0
    for name in corpora.names():
        sheet = corpora.sheet(name)
        print(f"{name:10} {(sheet.__doc__ or '').splitlines()[0]}")
        print(f"{'':10} licence: {licences.in_words(asdict(sheet.LICENCE))}")
    return 0


@corpora_app.command
def check(
    name: str,
    root: Path,
    /,
    *,
    classes: str = "all",
    json_: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Count a corpus and list every problem of it.

    Args:
        name: the corpus, see `sertone corpora list`.
        root: its folder, or the manifest's file.
        classes: `four` (neutral, happy with excited, angry, sad) or `all`.
        json_: print one JSON object instead of tables.
    """
    from sertone.corpora._check import check as examine

    report = examine(name, root, classes)
    if json_:
        print(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        print(report.to_text())
    return 0 if report.sound else 1


@corpora_app.command
def fake(name: str, root: Path, /, *, full: Flag = False) -> int:
    """Write a synthetic miniature of a corpus's file tree.

    Args:
        name: the corpus.
        root: where to write it; made if need be.
        full: as many utterances as the real corpus.
    """
    corpora.fake(name, root, full)
    print(root)
    return 0


@corpora_app.command
def export(name: str, root: Path, out: Path, /) -> int:
    """Write a corpus as a manifest (CSV) that `manifest` reads.

    Args:
        name: the corpus.
        root: its folder.
        out: the CSV file.
    """
    from sertone.corpora._export import export as write

    print(f"{write(name, root, out)} utterances in {out}")
    return 0


@app.command
def crossval(
    recipe: RecipePath,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    jobs: Jobs = None,
    force: Force = False,
    fresh: Fresh = False,
) -> int:
    """Cross-validate a recipe: train and test every fold, write scores and a report.

    A run that was interrupted goes on where it stopped.

    Args:
        out: Run folder; runs/NAME of the recipe if not given.
    """
    from sertone import recipe as recipes
    from sertone.training.crossval import cross_validate

    out = out or Path("runs") / recipe.stem
    cross_validate(recipes.load(recipe, overrides or ()), out, jobs=jobs, force=force, fresh=fresh)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    print(_score_line(results["pooled"]["emotion"]))
    print(f"report  {out / 'report.html'}")
    return 0


@app.command
def train(
    recipe: RecipePath,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    force: Force = False,
    fresh: Fresh = False,
) -> int:
    """Train one model on the whole corpus of a recipe, for use. Scores come from `crossval`.

    Args:
        out: Run folder; runs/NAME-all if not given.
    """
    from sertone import recipe as recipes
    from sertone.training import single

    out = out or Path("runs") / f"{recipe.stem}-all"
    print(single.train(recipes.load(recipe, overrides or ()), out, force=force, fresh=fresh))
    return 0


@app.command
def predict(model: Path, /, *files: Path, strict: Flag = False) -> int:
    """Predict recordings: one JSON object per line and file, in the order given.

    Args:
        model: a checkpoint folder, a run, or OWNER/NAME on the Hugging Face hub. A run answers with the
            mean of its folds' models, most of which were trained on a recording that belongs to the corpus.
        files: recordings of any rate and number of channels.
        strict: refuse what would be answered with a warning, such as a truncated file.
    """
    from sertone import load

    if not files:
        raise SertoneError("no_files", "no recordings given", "sertone predict MODEL FILE...")
    failed = False
    for prediction in load(model).predict_files(files, strict=strict):
        print(json.dumps(prediction.to_json(), ensure_ascii=False), flush=True)
        failed |= prediction.status == "error"
    return int(failed)


@app.command
def push(
    model: Path,
    repository: str,
    /,
    *,
    private: Flag = False,
    scores: Path | None = None,
    message: str = "A model of Sertone",
) -> int:
    """Publish a model with its model card on the Hugging Face hub.

    Args:
        model: a checkpoint folder, a fold, or what `sertone train` wrote.
        repository: OWNER/NAME; made if need be.
        private: only for those whom the owner lets in.
        scores: run of a cross-validation of the same recipe, for the card to state its scores.
        message: of the commit.
    """
    from sertone.sharing.push import push as upload

    print(upload(model, repository, private=private, scores=scores, message=message))
    return 0


@app.command
def demo(folder: Path = Path(), /, *, overrides: Overrides = None, fresh: Fresh = False) -> int:
    """Show the whole story on synthetic speech: corpus, cross-validation, report, prediction.

    Args:
        folder: where `corpora/demo` and `runs/demo` are written.
    """
    from sertone.training.demo import demo as run

    made = run(folder, overrides or (), fresh=fresh)
    answer = made.prediction
    print(f"corpus      {made.corpus}  (synthetic speech)")
    print(f"scores      {_score_line(made.scores)}; chance 25 %")
    print(
        f"prediction  {answer.file}: {answer.label} ({answer.probabilities[answer.label]:.0%})"
        if answer.label
        else f"prediction  {answer.message}"
    )
    print(f"            spoken as {made.spoken}, by a speaker whom the model never heard")
    print(f"report      {made.run / 'report.html'}")
    print(f"try         {Path(sys.argv[0])} predict {made.model} {answer.file}")
    return 0


def _score_line(scores: dict) -> str:
    low, high = scores["ci95"]["ua"]
    return (
        f"UA {scores['ua']:.1%} (95 % interval over speakers {low:.1%} to {high:.1%}), WA {scores['wa']:.1%}"
    )


def main() -> None:
    """Runs the command line and exits with its status. Of several ranks (torchrun) the first one prints."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    warnings.showwarning = lambda message, *_, **__: print(f"warning  {message}", file=sys.stderr)
    try:
        status = app(exit_on_error=False)
    except CycloptsError:
        status = 2
    except SertoneError as error:
        print(f"error [{error.code}] {error}", file=sys.stderr)
        status = 2
    except ModuleNotFoundError as error:
        print(
            f"error [missing_extra] {error.name} is not installed; this command needs "
            'pip install "sertone[train]"',
            file=sys.stderr,
        )
        status = 2
    except OSError as error:
        print(f"error [os] {error}", file=sys.stderr)
        status = 2
    except Exception:  # a fault of ours: shown whole, but told apart from "some items failed"
        traceback.print_exc()
        status = 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last save", file=sys.stderr)
        status = 2
    sys.exit(status)
