"""The program, and the parameters that several commands have."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter, validators

from sertone import __version__
from sertone.scoring import display

app = App(
    name="sertone",
    help="Speech emotion recognition with results you can trust: check corpora, train, score and use models.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main() says how to go on
)
DATA = Group("Prepare", sort_key=1)
TRAIN = Group("Train and score", sort_key=2)
USE = Group("Use a model", sort_key=3)
STUDY = Group("Study and compare", sort_key=4)
SHARE = Group("Share", sort_key=5)

corpora_app = App(name="corpora", help="List corpora, and check a copy of one.", group=DATA)
app.command(corpora_app)

recipes_app = App(name="recipes", help="List, show and copy the recipes that come with Sertone.", group=DATA)
app.command(recipes_app)

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
FileOrName = Annotated[Path, Parameter(help="A YAML file, or a name from `sertone recipes list`.")]
Overrides = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        negative="",
        help="Change a setting of the recipe, as in --set train.seed=1. May be repeated.",
    ),
]
Force = Annotated[
    Flag, Parameter(help="Continue although the recipe or the data changed since the run began.")
]
Jobs = Annotated[
    int | None,
    Parameter(
        validator=validators.Number(gte=1),
        help="Number of folds trained side by side. Default: one per GPU, or one per core.",
    ),
]
Fresh = Annotated[Flag, Parameter(help="Delete what a run wrote there, and start again.")]


def format_scores(pooled: dict) -> str:
    """Pooled scores of emotion and of ratings in one line, UA and CCC with their intervals."""
    names = [
        name
        for name in display.find_score_names(pooled)
        if display.parse_score_name(name)[1] in ("ua", "ccc")
    ]
    said = [
        _with_interval(pooled[display.parse_score_name(name)[0]], name, name == names[0]) for name in names
    ]
    if "emotion" in pooled:
        said.insert(1, f"WA {pooled['emotion']['wa']:.1%}")
    return ", ".join(said)


def _with_interval(scores: dict, name: str, first: bool) -> str:
    """The score, and the interval; what is said of the first one holds for all."""
    figure, score = display.get_score_format(name), display.parse_score_name(name)[1]
    over, span = display.find_speaker_interval(scores["intervals"]), "one speaker: no interval"
    if over:
        kind, bounds = over
        low, high = map(figure.format_value, bounds[score])
        span = (
            f"95 % interval over {display.count_interval_units(kind, bounds)} " * first + f"{low} to {high}"
        )
    return f"{figure.label} {figure.format_value(scores[score])} ({span})"
