"""The command-line program, and the parameters that several commands share."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter, validators

from sertone.scoring import display
from sertone.version import __version__

app = App(
    name="sertone",
    help="Speech emotion recognition with results you can trust: check corpora, train, score and use models.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main() prints how to resume
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
    """Return the pooled scores of emotion and ratings in one line, UA and CCC with their intervals."""
    names = [
        name
        for name in display.find_score_names(pooled)
        if display.parse_score_name(name)[1] in ("ua", "ccc")
    ]
    parts = []
    for name in names:
        task, _ = display.parse_score_name(name)
        parts.append(_format_score(pooled[task], name, is_first=name == names[0]))
    if "emotion" in pooled:
        parts.insert(1, f"WA {pooled['emotion']['wa']:.1%}")
    return ", ".join(parts)


def _format_score(scores: dict, name: str, *, is_first: bool) -> str:
    """Return a score and its interval; only the first one names the kind of interval, which all share."""
    score_format = display.get_score_format(name)
    _, score = display.parse_score_name(name)
    interval = display.find_speaker_interval(scores["intervals"])
    if interval:
        kind, bounds = interval
        low, high = map(score_format.format_value, bounds[score])
        units = f"95 % interval over {display.count_interval_units(kind, bounds)} " if is_first else ""
        description = f"{units}{low} to {high}"
    else:
        description = "one speaker: no interval"
    return f"{score_format.label} {score_format.format_value(scores[score])} ({description})"
