"""The program, and the parameters that several commands have."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from sertone import __version__, figures

app = App(
    name="sertone",
    help="Speech emotion recognition: train, check and use models that one can believe.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main() says how to go on
)
corpora_app = App(name="corpora", help="What can be read, and whether a copy of it is sound.")
app.command(corpora_app)

recipes_app = App(name="recipes", help="List, show and copy the recipes and studies that come with Sertone.")
app.command(recipes_app)

Flag = Annotated[bool, Parameter(negative="")]
RecipePath = Annotated[Path, Parameter(help="YAML file, or the name of a recipe of `sertone recipes list`.")]
StudyPath = Annotated[Path, Parameter(help="YAML file, or the name of a study of `sertone recipes list`.")]
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


def score_line(pooled: dict) -> str:
    """Pooled scores of emotion and of ratings in one line, UA and CCC with their intervals."""
    names = [name for name in figures.found(pooled) if figures.parts(name)[1] in ("ua", "ccc")]
    said = [_with_interval(pooled[figures.parts(name)[0]], name, name == names[0]) for name in names]
    if "emotion" in pooled:
        said.insert(1, f"WA {pooled['emotion']['wa']:.1%}")
    return ", ".join(said)


def _with_interval(scores: dict, name: str, first: bool) -> str:
    """The score, and the interval; what is said of the first one holds for all."""
    figure, score = figures.named(name), figures.parts(name)[1]
    over, span = scores["intervals"].get("speakers"), "one speaker: no interval"
    if over:
        low, high = map(figure.text, over[score])
        span = f"95 % interval over {figures.counted(over['units'], 'speaker')} " * first + f"{low} to {high}"
    return f"{figure.label} {figure.text(scores[score])} ({span})"
